//! Credentials of tasks and quick builds for registries.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The credentials of a task for one registry, without a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Login {
    /// The user; absent if a secret has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The secret that has the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_secret: Option<String>,
    /// The secret that has the password; absent if the password was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<String>,
}

/// Credentials for one registry: one of `username` and `username_secret`, and one of `password` and `password_secret`. A secret
/// is `NAME` or `NAME@VERSION` of the registry that the task belongs to, or an address in a vault; a token of scope `write` is
/// needed to name one.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginCreate {
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The secret that has the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_secret: Option<String>,
    /// The password or token. Never returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub password: Option<String>,
    /// The secret that has the password or token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<String>,
}

impl std::fmt::Debug for LoginCreate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginCreate").field("username", &self.username).finish_non_exhaustive()
    }
}
