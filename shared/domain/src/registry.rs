//! Registries that tasks belong to.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::InvalidText;
use crate::id::{RegistryName, RunPrefix};
use crate::image::RegistryHost;
use crate::image_watch::Watched;
use crate::sealed::Sealed;
use crate::timestamp::Timestamp;
use crate::tracked_image::TrackedImage;

/// A registry: where images are pushed to, and what its tasks share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registry {
    /// The name in gantry.
    pub name: RegistryName,
    /// The login server.
    pub host: RegistryHost,
    /// The letters of its run ids, unique for ever: a registry created later under the same name has other ones.
    /// Objects that belong to a registry refer to it by this prefix.
    pub prefix: RunPrefix,
    /// The credentials to push with; `None` for a registry without authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<RegistryCredentials>,
    /// How many of its runs may be admitted and not ended at once.
    pub run_limit: NonZeroU32,
    /// When it was created.
    pub created: Timestamp,
}

/// Where the credentials of a registry come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryCredentials {
    /// They were given.
    Given(SealedCredentials),
    /// The credential helper that the operator names for the registry's host.
    Helper,
}

/// A user name and a sealed password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedCredentials {
    /// The user name.
    pub username: String,
    /// The password or token.
    pub password: Sealed,
}

impl Registry {
    /// The binding of the secrets of a registry, its tasks and its runs. They do not open for any other registry, not
    /// even a later one of the same name.
    #[must_use]
    pub fn seals_for(prefix: RunPrefix) -> String {
        format!("registry/{prefix}")
    }

    /// The given credentials.
    #[must_use]
    pub fn given_credentials(&self) -> Option<&SealedCredentials> {
        match &self.credentials {
            Some(RegistryCredentials::Given(given)) => Some(given),
            Some(RegistryCredentials::Helper) | None => None,
        }
    }

    /// The watch that tells the registry's tasks what a tag has: its own, if it has credentials for the tag's host, or one of
    /// the tasks that use the tag `logs_in` there.
    #[must_use]
    pub fn watch_of(&self, image: &TrackedImage, logs_in: bool) -> Watched {
        let is_own = logs_in || self.host == *image.host() && self.credentials.is_some();
        Watched { image: image.clone(), by: is_own.then_some(self.prefix) }
    }
}

/// A choice of registries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub enum RegistryChoice {
    /// None of them.
    #[default]
    Nobody,
    /// These.
    Named(Vec<RegistryName>),
    /// All of them, also those that are created later.
    Everybody,
}

impl RegistryChoice {
    /// Whether this registry is chosen.
    #[must_use]
    pub fn has(&self, registry: &RegistryName) -> bool {
        match self {
            Self::Nobody => false,
            Self::Named(names) => names.contains(registry),
            Self::Everybody => true,
        }
    }
}

impl TryFrom<Vec<String>> for RegistryChoice {
    type Error = InvalidText;

    /// Names, or `*` for all.
    fn try_from(texts: Vec<String>) -> Result<Self, Self::Error> {
        if texts.is_empty() {
            return Ok(Self::Nobody);
        }
        if texts.iter().any(|text| text == "*") {
            return Ok(Self::Everybody);
        }
        texts.iter().map(|text| text.parse()).collect::<Result<_, _>>().map(Self::Named)
    }
}

impl From<RegistryChoice> for Vec<String> {
    fn from(choice: RegistryChoice) -> Self {
        match choice {
            RegistryChoice::Nobody => Self::new(),
            RegistryChoice::Named(names) => names.iter().map(ToString::to_string).collect(),
            RegistryChoice::Everybody => vec!["*".to_owned()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_chooses_all_registries_and_nothing_none() {
        let choice = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            RegistryChoice::try_from(texts)
        };
        let contoso = "contoso".parse().unwrap();
        assert!(!choice(&[]).unwrap().has(&contoso));
        assert!(!choice(&["other"]).unwrap().has(&contoso));
        assert!(choice(&["other", "contoso"]).unwrap().has(&contoso));
        assert!(choice(&["*"]).unwrap().has(&contoso));
        assert!(choice(&["no name"]).is_err());
    }
}
