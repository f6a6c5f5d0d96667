//! Code hosts whose API gantry can use, and where it is.

use std::fmt;
use std::str::FromStr;

use url::Url;

use crate::text::serde_as_text;

/// The software of a code host, which determines its API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostKind {
    /// GitHub, GitHub Enterprise Cloud and Server.
    GitHub,
    /// Azure DevOps Services and Server.
    AzureDevOps,
    /// GitLab.
    GitLab,
    /// Gitea and Forgejo.
    Gitea,
    /// Bitbucket Cloud.
    Bitbucket,
}

impl HostKind {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::GitHub, Self::AzureDevOps, Self::GitLab, Self::Gitea, Self::Bitbucket];

    /// The word in the settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::AzureDevOps => "azure-devops",
            Self::GitLab => "gitlab",
            Self::Gitea => "gitea",
            Self::Bitbucket => "bitbucket",
        }
    }

    /// The name that its users know.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GitHub => "GitHub",
            Self::AzureDevOps => "Azure DevOps",
            Self::GitLab => "GitLab",
            Self::Gitea => "Gitea",
            Self::Bitbucket => "Bitbucket",
        }
    }
}

/// `host[:port]` as in the URLs of repositories, in lower case and without the scheme's default port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(String);

impl HostName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = InvalidCodeHost;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rule = "it is `host` or `host:port`, as in the URLs of repositories";
        parse_host(text).map(Self).ok_or_else(|| invalid(text, rule))
    }
}

/// A self-hosted code host: an entry of `code_hosts.apis`, `HOST=KIND` or `HOST=KIND@API`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeHostEntry {
    /// `host[:port]` as in the URLs of its repositories, in lower case and without the scheme's default port.
    pub host: String,
    /// Its software.
    pub kind: HostKind,
    /// The root of its API, if that is not where this software has it by default.
    pub api: Option<Url>,
}

/// An entry of `code_hosts.apis` is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{entry}` is no code host: {rule}")]
pub struct InvalidCodeHost {
    /// The entry, cut to 120 characters and without a password.
    pub entry: String,
    /// The rule that it violates.
    pub rule: &'static str,
}

impl FromStr for CodeHostEntry {
    type Err = InvalidCodeHost;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, software) = text
            .split_once('=')
            .ok_or_else(|| invalid(text, "write `HOST=KIND`, like `git.example.com=gitlab`"))?;
        let (kind, api) = match software.split_once('@') {
            Some((kind, api)) => (kind, Some(api)),
            None => (software, None),
        };
        let known = HostKind::ALL.into_iter().find(|known| known.as_str() == kind);
        let kind = known.ok_or_else(|| {
            invalid(text, "the kind is `github`, `azure-devops`, `gitlab`, `gitea` or `bitbucket`")
        })?;
        let host = parse_host(host).ok_or_else(|| {
            invalid(text, "the host is `host` or `host:port`, as in the URLs of repositories")
        })?;
        let api = api.map(|api| {
            parse_api(api).ok_or_else(|| {
                invalid(
                    text,
                    "after `@` is an `https://` or `http://` address without user, `?` and `#`",
                )
            })
        });
        Ok(Self { host, kind, api: api.transpose()? })
    }
}

impl fmt::Display for CodeHostEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.host, self.kind.as_str())?;
        self.api.as_ref().map_or(Ok(()), |api| write!(f, "@{api}"))
    }
}

serde_as_text!(CodeHostEntry);

fn invalid(text: &str, rule: &'static str) -> InvalidCodeHost {
    // What is before the last `@` of an address may be a password.
    let shown = match text.split_once("://") {
        Some((before, rest)) => match rest.rsplit_once('@') {
            Some((_, rest)) => format!("{before}://…@{rest}"),
            None => text.to_owned(),
        },
        None => text.to_owned(),
    };
    InvalidCodeHost { entry: shown.chars().take(120).collect(), rule }
}

fn parse_host(text: &str) -> Option<String> {
    let url = Url::parse(&format!("https://{text}/")).ok()?;
    let is_bare = url.path() == "/"
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    let host = url.host_str().filter(|host| is_bare && !host.is_empty())?.trim_end_matches('.');
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

fn parse_api(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_base = matches!(url.scheme(), "https" | "http")
        && url.host_str().is_some_and(|host| !host.is_empty())
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    is_base.then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_a_host_a_kind_and_maybe_an_api() {
        let entry: CodeHostEntry = "Git.Example.COM:443=gitlab".parse().unwrap();
        assert_eq!((entry.host.as_str(), entry.kind), ("git.example.com", HostKind::GitLab));
        assert_eq!(entry.api, None);
        for text in ["git.corp:8443=github@http://127.0.0.1:1234/api/v3", "ado.corp=azure-devops"] {
            assert_eq!(text.parse::<CodeHostEntry>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_malformed_entry_is_refused_with_its_rule_and_without_a_password() {
        for (text, told) in [
            ("git.corp", "write `HOST=KIND`"),
            ("git.corp=svn", "the kind is `github`"),
            ("https://git.corp=github", "the host is `host`"),
            ("git.corp/web=github", "the host is `host`"),
            ("=github", "the host is `host`"),
            ("git.corp=github@api", "after `@` is"),
            ("git.corp=github@ftp://git.corp", "after `@` is"),
            ("git.corp=github@https://me:word@git.corp/api", "after `@` is"),
        ] {
            let error = text.parse::<CodeHostEntry>().unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
            assert!(!error.contains("word"), "{error}");
        }
    }
}
