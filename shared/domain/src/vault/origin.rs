//! Addresses of servers.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use url::Url;

/// Scheme, host and port of a server, like `https://vault.corp:8200`. The host is in lower case, and the default port of
/// the scheme is left out. `http` is accepted here, and used only if the operator listed the host in `outbound.allow`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(Arc<Url>);

/// A text is no address of a server. It is not quoted, because it may contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the address of a vault begins with a scheme and a host, without a user: write it like `https://vault.corp:8200`"
)]
pub struct InvalidOrigin;

impl Origin {
    /// An address at the server. `path` begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str, query: Option<&str>) -> Url {
        let mut url = Url::clone(&self.0);
        url.set_path(path);
        url.set_query(query);
        url
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_suffix('/').unwrap_or(text);
        match text.split_once("://") {
            Some(("https" | "http", host)) if is_host(host) => {
                Url::parse(text).map(|url| Self(Arc::new(url))).map_err(|_| InvalidOrigin)
            }
            Some(_) | None => Err(InvalidOrigin),
        }
    }
}

/// Whether it has only characters of a host and a port. The rest is checked by `Url`.
fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_and_a_host_are_all_that_an_origin_has() {
        for (text, shown) in [
            ("https://Vault.Corp", "https://vault.corp"),
            ("https://vault.corp:443/", "https://vault.corp"),
            ("http://127.0.0.1:8200", "http://127.0.0.1:8200"),
            ("https://[::1]:8200", "https://[::1]:8200"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "vault.corp",
            "https://",
            "https:///",
            "https://a//",
            "https://a/b",
            "https://a?b",
            "https://a#b",
            "https://ann:pw@a",
            "https://a:x",
            "https://a\\b",
            "https://a%2eb",
            "https://é",
            "ftp://a",
            "HTTPS://a",
            " https://a",
            "https://a\n",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(InvalidOrigin), "{text}");
        }
    }
}
