//! Registries, and the archives that are uploaded for their builds.

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
    /// The prefix of its run ids.
    #[schema(example = "ca")]
    pub run_prefix: String,
    /// The user that pushes; absent if the registry is used without credentials, or with those of a helper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Whether the operator's credential helper for the login server gives the credentials.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub credential_helper: bool,
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
    /// The credentials for pushing; absent for a registry without authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// Whether the operator's credential helper for the login server gives the credentials, instead of `credentials`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub credential_helper: bool,
    /// How many of its runs may be ready or running at once; 10 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_limit: Option<u32>,
}

/// A user name and password. Never returned.
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

/// An update of a registry. Absent fields are unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryUpdate {
    /// The credentials for pushing; `null` for none.
    #[serde(default, deserialize_with = "super::present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Credentials>)]
    pub credentials: Option<Option<Credentials>>,
    /// `true`: the operator's credential helper for the login server gives the credentials from now on. It ends with other
    /// `credentials`, or with `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_helper: Option<bool>,
    /// How many of its runs may be ready or running at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_limit: Option<u32>,
}

/// An uploaded archive that builds for its registry can use as their source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Upload {
    /// Unguessable.
    pub id: String,
    /// The registry whose runs may read it.
    pub registry: String,
    /// Its size.
    pub bytes: u64,
    /// When it was uploaded.
    pub created: String,
}
