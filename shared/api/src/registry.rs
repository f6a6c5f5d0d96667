//! Registries, and what is uploaded to be built for them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A registry that tasks belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Registry {
    /// Its name in gantry.
    #[schema(example = "contoso")]
    pub name: String,
    /// Its login server.
    #[schema(example = "registry.contoso.com")]
    pub host: String,
    /// The letters that its run ids begin with.
    #[schema(example = "ca")]
    pub run_prefix: String,
    /// The user that pushes; absent when it is used without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// How many of its runs may be ready or running at once.
    pub run_limit: u32,
    /// When it was created.
    pub created: String,
}

/// A new registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryCreate {
    /// Its name in gantry: 2 to 50 letters, digits, `-` or `_`.
    pub name: String,
    /// Its login server: `host` or `host:port`.
    pub host: String,
    /// Who pushes; none for a registry without authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// How many of its runs may be ready or running at once; 10 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_limit: Option<u32>,
}

/// A user's name and password. Only ever goes in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The password or token.
    #[schema(write_only)]
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({}, ..)", self.username)
    }
}

/// What is to change of a registry. What is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryUpdate {
    /// Who pushes; `null` for nobody.
    #[serde(default, deserialize_with = "super::present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Credentials>)]
    pub credentials: Option<Option<Credentials>>,
    /// How many of its runs may be ready or running at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_limit: Option<u32>,
}

/// An uploaded archive that builds of its registry may name as their source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Upload {
    /// Unguessable.
    pub id: String,
    /// The registry whose runs may read it.
    pub registry: String,
    /// Its length.
    pub bytes: u64,
    /// When it came.
    pub created: String,
}
