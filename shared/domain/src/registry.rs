//! Registries that tasks belong to.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::id::{RegistryName, RunPrefix};
use crate::image::RegistryHost;
use crate::sealed::Sealed;
use crate::timestamp::Timestamp;

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
    pub credentials: Option<SealedCredentials>,
    /// How many of its runs may be admitted and not ended at once.
    pub run_limit: NonZeroU32,
    /// When it was created.
    pub created: Timestamp,
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
}
