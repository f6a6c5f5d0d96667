//! An address that receives the webhooks of one sender.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::InvalidText;
use crate::id::{HookId, RegistryName, RunPrefix};
use crate::sealed::Sealed;
use crate::source::RepositoryKey;
use crate::text::serde_as_text;
use crate::timestamp::Timestamp;

/// Declares the providers once, so that none can be left out of the list of all.
macro_rules! providers {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Whose formats and signatures a hook speaks.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Provider {
            $($(#[$doc])* $name,)*
        }

        impl Provider {
            /// Every provider.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As it stands in the hook's path.
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
    /// Docker Distribution (`registry:2`) notifications.
    Distribution = "distribution",
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
        known.ok_or_else(|| InvalidText::new("provider", text, "`github` or `distribution`"))
    }
}

serde_as_text!(Provider);

/// A hook. It belongs to a registry and to named repositories; its events match nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hook {
    /// Unguessable.
    pub id: HookId,
    /// Whose tasks its events may start.
    pub registry: RegistryName,
    /// The registry's, which tells it from others of its name.
    pub prefix: RunPrefix,
    /// Whose format.
    pub provider: Provider,
    /// The git repositories that it speaks for; for a registry's notifications, `host/repository`.
    /// Empty: each one that the registry's tasks name.
    pub repositories: Vec<RepositoryKey>,
    /// A delivery may be signed with any of them. New senders are given the first.
    pub secrets: Vec<HookSecret>,
    /// When it was created.
    pub created: Timestamp,
}

/// One active secret of a hook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookSecret {
    /// The secret, sealed for `hook/<id>`.
    pub sealed: Sealed,
    /// When it was made.
    pub created: Timestamp,
}

impl Hook {
    /// Whether this hook may speak for `repository`.
    #[must_use]
    pub fn speaks_for(&self, repository: &RepositoryKey) -> bool {
        self.repositories.is_empty() || self.repositories.contains(repository)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_has_a_word_that_a_refusal_names() {
        let refused = "no provider".parse::<Provider>().unwrap_err();
        for provider in Provider::ALL {
            assert_eq!(provider.as_str().parse(), Ok(*provider));
            assert!(refused.rule.contains(provider.as_str()), "{provider}: {}", refused.rule);
        }
    }
}
