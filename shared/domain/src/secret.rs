//! Secrets: gantry's own, with their versions, and how a task names one.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::InvalidText;
use crate::id::{RegistryName, RunPrefix, TokenId};
use crate::sealed::Sealed;
use crate::text::{serde_as_text, text_type};
use crate::timestamp::Timestamp;
use crate::vault::{InvalidSecretAddress, SecretAddress};

/// How many versions of a secret are kept: those that runs may still name, and one to go back to.
pub const KEPT_VERSIONS: usize = 10;

text_type!(
    /// The name of a secret in its registry.
    SecretName,
    "secret's name",
    "1 to 100 letters, digits, `-`, `_` or `.`, beginning with a letter or digit",
    |text| (1..=100).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
);

text_type!(
    /// The name of a secret in a task file: `.Secrets.ID` in its templates.
    SecretId,
    "secret's id",
    "1 to 200 characters without spaces, control characters and `=`",
    |text| (1..=200).contains(&text.len())
        && !text.chars().any(|c| c == '=' || c.is_whitespace() || c.is_control())
);

/// A secret that gantry keeps for the tasks of one registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// The registry.
    pub registry: RegistryName,
    /// The registry's prefix, which distinguishes it from others of the same name.
    pub prefix: RunPrefix,
    /// Its name there.
    pub name: SecretName,
    /// Its versions, the newest first; never empty.
    pub versions: Vec<SecretVersion>,
    /// When it was created.
    pub created: Timestamp,
}

/// A version of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretVersion {
    /// Its number, from 1.
    pub number: NonZeroU32,
    /// The value.
    pub value: Sealed,
    /// The token that set it.
    pub by: TokenId,
    /// When it was set.
    pub set: Timestamp,
}

impl Secret {
    /// A version; the newest if `number` is `None`.
    #[must_use]
    pub fn version(&self, number: Option<NonZeroU32>) -> Option<&SecretVersion> {
        match number {
            None => self.versions.first(),
            Some(number) => self.versions.iter().find(|version| version.number == number),
        }
    }

    /// Adds a version, and forgets the oldest ones beyond [`KEPT_VERSIONS`].
    pub fn add(&mut self, value: Sealed, by: TokenId, set: Timestamp) {
        let last = self.versions.first().map_or(0, |newest| newest.number.get());
        let number = NonZeroU32::MIN.saturating_add(last);
        self.versions.insert(0, SecretVersion { number, value, by, set });
        self.versions.truncate(KEPT_VERSIONS);
    }

    /// What the values of the secret are sealed for.
    #[must_use]
    pub fn seals_for(prefix: RunPrefix, name: &SecretName) -> String {
        format!("secret/{prefix}/{name}")
    }
}

/// Where the value of a secret is that a task declares. As text: `NAME`, `NAME@VERSION`, or an address in a vault.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// One of gantry's own, of the task's registry.
    Own {
        /// Its name.
        name: SecretName,
        /// The version; `None` for the newest when the run becomes ready.
        version: Option<NonZeroU32>,
    },
    /// One in a vault.
    Vault(SecretAddress),
}

serde_as_text!(SecretSource);

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { name, version: None } => write!(f, "{name}"),
            Self::Own { name, version: Some(version) } => write!(f, "{name}@{version}"),
            Self::Vault(address) => write!(f, "{address}"),
        }
    }
}

/// A text does not say where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecretSource {
    /// It is no address in a vault.
    #[error(transparent)]
    Address(#[from] InvalidSecretAddress),
    /// It is no name.
    #[error(transparent)]
    Name(#[from] InvalidText),
    /// It is no version.
    #[error("the version of a secret is a number from 1, like in `NAME@2`")]
    Version,
}

impl FromStr for SecretSource {
    type Err = InvalidSecretSource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains("://") {
            return Ok(Self::Vault(text.parse()?));
        }
        let (name, version) = match text.split_once('@') {
            None => (text, None),
            Some((name, version)) => {
                let version = version.parse().map_err(|_| InvalidSecretSource::Version)?;
                (name, Some(version))
            }
        };
        Ok(Self::Own { name: name.parse()?, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_name_a_version_of_it_or_an_address() {
        for text in ["npm-token", "npm.token@2", "https://v.vault.azure.net/secrets/web"] {
            assert_eq!(text.parse::<SecretSource>().unwrap().to_string(), text);
        }
        for text in ["", "@1", "npm token", "npm@0", "npm@", "npm@x", "https://v/keys/web", "-x"] {
            assert!(text.parse::<SecretSource>().is_err(), "{text}");
        }
    }

    #[test]
    fn versions_are_counted_on_and_the_oldest_are_forgotten() {
        let name: SecretName = "npm".parse().unwrap();
        let mut secret = Secret {
            registry: "contoso".parse().unwrap(),
            prefix: RunPrefix::nth(0),
            name,
            versions: Vec::new(),
            created: Timestamp::from_millis(0),
        };
        for number in 1..=12 {
            let value = Sealed::from_text(format!("value {number}"));
            secret.add(value, "ann".parse().unwrap(), Timestamp::from_millis(number));
        }
        let numbers: Vec<u32> =
            secret.versions.iter().map(|version| version.number.get()).collect();
        assert_eq!(numbers, [12, 11, 10, 9, 8, 7, 6, 5, 4, 3]);
        let named = |number: u32| secret.version(NonZeroU32::new(number));
        assert_eq!(named(12), secret.version(None));
        assert!(named(3).is_some() && named(2).is_none());
    }
}
