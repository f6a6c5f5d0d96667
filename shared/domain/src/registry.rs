//! A registry that tasks belong to.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::id::{RegistryName, RunPrefix};
use crate::image::RegistryHost;
use crate::sealed::Sealed;
use crate::timestamp::Timestamp;

/// A registry: where images go, and what its tasks share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registry {
    /// The name in gantry.
    pub name: RegistryName,
    /// Its login server.
    pub host: RegistryHost,
    /// The letters of its run ids. They are its own for good: a registry that is made under this name after this one was
    /// deleted has others, and what belongs to a registry says which by them.
    pub prefix: RunPrefix,
    /// The user that pushes; none for a registry without authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<SealedCredentials>,
    /// How many of its runs may be ready or leased at once.
    pub run_limit: NonZeroU32,
    /// When it was created.
    pub created: Timestamp,
}

/// A user's name and sealed password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedCredentials {
    /// The user's name.
    pub username: String,
    /// The password or token.
    pub password: Sealed,
}

impl Registry {
    /// What the secrets of a registry, its tasks and its runs are sealed for: they open for no other registry, not even
    /// for a later one of the same name.
    #[must_use]
    pub fn seals_for(prefix: RunPrefix) -> String {
        format!("registry/{prefix}")
    }
}
