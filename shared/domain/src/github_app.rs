//! Which registries may use the operator's GitHub App, and for which repositories.
//!
//! In: the operator's list, a registry and a repository. Out: yes or no. Pure. Without a grant, whoever may save a task could
//! read every repository on which the App happens to be installed.

use std::fmt;
use std::str::FromStr;

use crate::InvalidText;
use crate::code_host::HostName;
use crate::id::RegistryName;
use crate::source::GitUrl;
use crate::text::text_type;

text_type!(
    /// The id of a GitHub App: its client id or its app id.
    AppId,
    "id of a GitHub App",
    "the client id or the app id in the App's settings: 1 to 64 letters, digits, `.`, `-` and `_`",
    |text| (1..=64).contains(&text.len()) && text.bytes().all(is_of_name)
);

/// A repository at GitHub, in lower case, because GitHub does not distinguish cases.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppRepository {
    owner: String,
    name: String,
}

impl AppRepository {
    /// The repository at `url`; `None` if it is on another host, or its address is not `https://HOST/OWNER/NAME` as GitHub
    /// writes it.
    #[must_use]
    pub fn at(host: &HostName, url: &GitUrl) -> Option<Self> {
        if url.host() != host.as_str() {
            return None;
        }
        let mut words = url.as_url().path().split('/').filter(|word| !word.is_empty());
        let (owner, name) = (words.next()?, words.next()?);
        let name = name.strip_suffix(".git").unwrap_or(name);
        (words.next().is_none() && is_name(owner) && is_name(name))
            .then(|| Self { owner: owner.to_lowercase(), name: name.to_lowercase() })
    }

    /// The user or organization.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The name, without its owner.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for AppRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// A registry may use the App for the repositories of an owner, or for one: `REGISTRY=OWNER/*` or `REGISTRY=OWNER/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppGrant {
    /// The registry. A later registry of the same name has the same grants.
    registry: RegistryName,
    owner: String,
    /// `None` for all repositories of the owner.
    name: Option<String>,
}

impl AppGrant {
    /// Whether this grant lets `registry` use the App for `repository`.
    #[must_use]
    pub fn permits(&self, registry: &RegistryName, repository: &AppRepository) -> bool {
        self.registry == *registry
            && self.owner == repository.owner
            && self.name.as_ref().is_none_or(|name| *name == repository.name)
    }
}

impl FromStr for AppGrant {
    type Err = InvalidAppGrant;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (registry, repositories) = text.split_once('=').ok_or(InvalidAppGrant::Form)?;
        let (owner, name) = repositories.split_once('/').ok_or(InvalidAppGrant::Form)?;
        if !is_name(owner) || !(name == "*" || is_name(name)) {
            return Err(InvalidAppGrant::Form);
        }
        let name = (name != "*").then(|| name.to_lowercase());
        Ok(Self { registry: registry.parse()?, owner: owner.to_lowercase(), name })
    }
}

/// A text is no grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAppGrant {
    /// It has another form.
    #[error(
        "a grant is `REGISTRY=OWNER/*` or `REGISTRY=OWNER/NAME`, like `contoso=octo-org/*`, with an owner and a repository at \
         GitHub"
    )]
    Form,
    /// Before the `=` is no registry.
    #[error(transparent)]
    Registry(#[from] InvalidText),
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._".contains(&byte)
}

fn is_name(text: &str) -> bool {
    (1..=100).contains(&text.len()) && !matches!(text, "." | "..") && text.bytes().all(is_of_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(url: &str) -> Option<String> {
        let host = "github.com".parse().unwrap();
        AppRepository::at(&host, &url.parse().unwrap()).map(|repository| repository.to_string())
    }

    #[test]
    fn a_repository_is_an_owner_and_a_name_on_exactly_the_app_s_host() {
        for url in [
            "https://github.com/Acme/Web.git",
            "https://GITHUB.com./acme/web/",
            "https://github.com/acme//web",
            "https://github.com/x/../acme/web",
        ] {
            assert_eq!(repository(url).as_deref(), Some("acme/web"), "{url}");
        }
        for url in [
            "https://github.com.evil.test/acme/web",
            "https://evil.test/github.com/acme/web",
            "https://github.com:8443/acme/web",
            "https://github.com/acme",
            "https://github.com/acme/web/tree",
            "https://github.com/acme/%77eb",
            "https://github.com/acme/a%2Fb",
            "https://github.com/acme/%2e%2e%2fevil",
            "https://github.com/acme/w%C3%A9b",
            "https://github.com/acme/.git",
        ] {
            assert_eq!(repository(url), None, "{url}");
        }
    }

    #[test]
    fn a_grant_covers_its_repositories_for_its_registry_and_nothing_else() {
        let permits = |grant: &str, registry: &str, url: &str| {
            let host = "github.com".parse().unwrap();
            let repository = AppRepository::at(&host, &url.parse().unwrap()).unwrap();
            let grant: AppGrant = grant.parse().unwrap();
            grant.permits(&registry.parse().unwrap(), &repository)
        };
        let web = "https://github.com/acme/web.git";
        for grant in ["team=acme/*", "team=ACME/Web"] {
            assert!(permits(grant, "team", web), "{grant}");
            assert!(!permits(grant, "other", web), "{grant}");
            assert!(!permits(grant, "team", "https://github.com/acme-b/web"), "{grant}");
        }
        assert!(permits("team=acme/*", "team", "https://github.com/acme/api"));
        assert!(!permits("team=acme/web", "team", "https://github.com/acme/web-b"));
        assert!(!permits("team=acme/web-b", "team", web));
    }

    #[test]
    fn what_is_no_grant_is_refused() {
        for text in [
            "",
            "team",
            "team=",
            "team=acme",
            "team=*",
            "team=*/*",
            "team=acme/",
            "team=acme/we*",
            "team=acme/web/x",
            "team=acme/..",
            "team=/web",
            "team=https://github.com/acme/web",
            "a b=acme/*",
        ] {
            assert!(text.parse::<AppGrant>().is_err(), "{text}");
        }
    }
}
