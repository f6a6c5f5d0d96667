//! Secrets that gantry keeps for the tasks of a registry.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Secret {
    /// Its registry.
    pub registry: String,
    /// Its name there.
    #[schema(example = "npm-token")]
    pub name: String,
    /// Its versions, the newest first. Runs get the newest unless their task names another.
    pub versions: Vec<SecretVersion>,
    /// When it was created.
    pub created: String,
}

/// A version of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretVersion {
    /// Its number, from 1.
    pub number: u32,
    /// When it was set.
    pub set: String,
    /// The token that set it.
    pub by: String,
}

/// A new value of a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSet {
    /// The value, 1 to 32768 bytes. Never returned.
    #[schema(write_only)]
    pub value: String,
}

impl std::fmt::Debug for SecretSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretSet").finish_non_exhaustive()
    }
}
