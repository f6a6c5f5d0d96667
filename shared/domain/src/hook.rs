//! Hooks: addresses that receive the webhooks of one sender.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::InvalidText;
use crate::code_host::HostKind;
use crate::id::{HookId, RegistryName, RunPrefix};
use crate::mapping::Mapping;
use crate::sealed::Sealed;
use crate::source::RepositoryKey;
use crate::text::serde_as_text;
use crate::timestamp::Timestamp;

/// Declares the providers once, so that `ALL` cannot miss one. In braces stands what a hook of this provider must be told.
macro_rules! providers {
    ($($(#[$doc:meta])* $name:ident $({ $fact:ident: $type:ty })? = $word:literal,)*) => {
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

        /// The sender of a hook's deliveries: its provider, and what only a hook of this provider is told.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "provider")]
        pub enum Sender {
            $(
                $(#[$doc])*
                #[serde(rename = $word)]
                $name $({
                    /// What the hook was told.
                    $fact: $type,
                })?,
            )*
        }

        impl Sender {
            /// Its provider.
            #[must_use]
            pub fn provider(&self) -> Provider {
                match self {
                    $(Self::$name { .. } => Provider::$name,)*
                }
            }

            /// The sender of a provider whose hooks are told nothing; `None` for others.
            fn of_known_format(provider: Provider) -> Option<Self> {
                match provider {
                    $(Provider::$name => of_known_format!($name $($fact)?),)*
                }
            }
        }
    };
}

macro_rules! of_known_format {
    ($name:ident) => {
        Some(Self::$name)
    };
    ($name:ident $fact:ident) => {
        None
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
    /// Docker Hub.
    DockerHub = "docker-hub",
    /// Azure Container Registry.
    Acr = "acr",
    /// GitHub's container registry; a hook of `github` takes its webhooks too.
    Ghcr = "ghcr",
    /// Harbor.
    Harbor = "harbor",
    /// Quay and quay.io.
    Quay = "quay",
    /// Any other sender of JSON about pushes of sources or images.
    Generic { mapping: Mapping } = "generic",
}

/// Why a hook cannot be of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SenderError {
    /// The provider's format is unknown.
    #[error("a `{0}` hook must be told where the JSON has repository, ref and commit, or an image")]
    NoMapping(Provider),
    /// The provider's format is known.
    #[error("a `{0}` hook knows its sender's format: leave the mapping out")]
    KnownFormat(Provider),
}

impl Sender {
    /// A sender of `provider`.
    ///
    /// # Errors
    /// [`SenderError`] if there is a mapping and the provider has a format of its own, or neither.
    pub fn new(provider: Provider, mapping: Option<Mapping>) -> Result<Self, SenderError> {
        match (Self::of_known_format(provider), mapping) {
            (Some(sender), None) => Ok(sender),
            (None, Some(mapping)) => Ok(Self::Generic { mapping }),
            (Some(_), Some(_)) => Err(SenderError::KnownFormat(provider)),
            (None, None) => Err(SenderError::NoMapping(provider)),
        }
    }

    /// The mapping, if the provider has no format of its own.
    #[must_use]
    pub fn mapping(&self) -> Option<&Mapping> {
        if let Self::Generic { mapping } = self { Some(mapping) } else { None }
    }
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
                "`github`, `azure`, `gitlab`, `gitea`, `bitbucket`, `distribution`, `docker-hub`, `acr`, `ghcr`, `harbor`, `quay` or `generic`",
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
    /// Who sends.
    #[serde(flatten)]
    pub sender: Sender,
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
    /// The provider of its sender.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.sender.provider()
    }

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

    #[test]
    fn only_the_provider_without_a_format_of_its_own_has_a_mapping() {
        let mapping: Mapping = serde_json::from_str(
            r#"{"repository":"/url","ref":"/ref","commit":"/id","proof":{"scheme":"standard_webhooks"}}"#,
        )
        .unwrap();
        for provider in Provider::ALL {
            let (with, without) =
                (Sender::new(*provider, Some(mapping.clone())), Sender::new(*provider, None));
            let is_told = with.is_ok();
            assert_eq!(is_told, without.is_err(), "{provider}");
            assert_eq!(is_told, provider.as_str() == "generic");
            let sender = with.or(without).unwrap();
            assert_eq!((sender.provider(), sender.mapping().is_some()), (*provider, is_told));
            let stored = serde_json::to_string(&sender).unwrap();
            assert_eq!(serde_json::from_str::<Sender>(&stored).unwrap(), sender);
        }
    }

    #[test]
    fn hooks_of_earlier_versions_decode() {
        let stored = r#"{"id":"h1","registry":"contoso","prefix":"ca","provider":"github",
            "repositories":[],"secrets":[],"created":1767607200000}"#;
        let hook: Hook = serde_json::from_str(stored).unwrap();
        assert_eq!(hook.sender, Sender::GitHub);
    }
}
