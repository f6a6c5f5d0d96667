//! Hooks: addresses that receive the webhooks of one sender.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::InvalidText;
use crate::code_host::HostKind;
use crate::id::{HookId, RegistryName, RunPrefix};
use crate::sealed::Sealed;
use crate::source::RepositoryKey;
use crate::text::serde_as_text;
use crate::timestamp::Timestamp;

/// Declares the providers once, so that `ALL` cannot miss one.
macro_rules! providers {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// The provider, which determines formats and signatures.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Provider {
            $($(#[$doc])* $name,)*
        }

        impl Provider {
            /// All providers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in the hook's path.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

providers! {
    /// GitHub and GitHub Enterprise Server.
    GitHub = "github",
    /// Azure DevOps Services and Server.
    AzureDevOps = "azure",
    /// GitLab.
    GitLab = "gitlab",
    /// Gitea and Forgejo.
    Gitea = "gitea",
    /// Bitbucket Cloud.
    Bitbucket = "bitbucket",
    /// Docker Distribution (`registry:2`) notifications.
    Distribution = "distribution",
}

impl Provider {
    /// The provider whose hooks a code host of this kind sends; `None` if gantry reads none of them.
    #[must_use]
    pub fn of_code_host(kind: HostKind) -> Option<Self> {
        let word = match kind {
            HostKind::GitHub => "github",
            HostKind::AzureDevOps => "azure",
            HostKind::GitLab => "gitlab",
            HostKind::Gitea => "gitea",
            HostKind::Bitbucket => "bitbucket",
        };
        word.parse().ok()
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Provider {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.iter().copied().find(|provider| provider.as_str() == text);
        known.ok_or_else(|| {
            InvalidText::new(
                "provider",
                text,
                "`github`, `azure`, `gitlab`, `gitea`, `bitbucket` or `distribution`",
            )
        })
    }
}

serde_as_text!(Provider);

/// A hook. It belongs to a registry, and may be limited to repositories; its events match nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hook {
    /// Random and not guessable.
    pub id: HookId,
    /// The registry whose tasks its events may start.
    pub registry: RegistryName,
    /// The registry's prefix, which distinguishes it from others of the same name.
    pub prefix: RunPrefix,
    /// The provider.
    pub provider: Provider,
    /// The git repositories that it is limited to; for a registry's notifications, `host/repository`. If empty, all
    /// repositories of the registry's tasks.
    pub repositories: Vec<RepositoryKey>,
    /// The active secrets; a delivery may be signed with any of them. New senders get the first one.
    pub secrets: Vec<HookSecret>,
    /// Whether gantry made it, for a webhook that it keeps at a code host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_provisioned: bool,
    /// When it was created.
    pub created: Timestamp,
}

/// An active secret of a hook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookSecret {
    /// The secret, sealed for `hook/<id>`.
    pub sealed: Sealed,
    /// When it was made.
    pub created: Timestamp,
}

impl Hook {
    /// Whether this hook covers `repository`.
    #[must_use]
    pub fn speaks_for(&self, repository: &RepositoryKey) -> bool {
        self.repositories.is_empty() || self.repositories.contains(repository)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_is_named_in_the_parse_error() {
        let refused = "no provider".parse::<Provider>().unwrap_err();
        for provider in Provider::ALL {
            assert_eq!(provider.as_str().parse(), Ok(*provider));
            assert!(refused.rule.contains(provider.as_str()), "{provider}: {}", refused.rule);
        }
    }
}
