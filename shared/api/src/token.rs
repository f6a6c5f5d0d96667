//! API tokens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An API token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// The public part.
    pub id: String,
    /// What it is for.
    pub description: String,
    /// `read`, `run`, `write` or `admin`; each includes the ones before it.
    pub scope: String,
    /// The registries that it is bound to; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registries: Option<Vec<String>>,
    /// When it was created.
    pub created: String,
    /// When it expires; never if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<String>,
    /// Whether it is currently accepted.
    pub active: bool,
}

/// A new token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenCreate {
    /// What it is for, in at most 200 characters.
    #[serde(default)]
    pub description: String,
    /// `read`, `run`, `write` or `admin`.
    pub scope: String,
    /// The registries that it is bound to; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registries: Option<Vec<String>>,
    /// Its lifetime in seconds; unlimited if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

/// A new token. Its text is not shown again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenCreated {
    /// The token.
    pub token: Token,
    /// The text that clients send as `Authorization: Bearer …`.
    pub text: String,
}

impl std::fmt::Debug for TokenCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCreated").field("token", &self.token).finish_non_exhaustive()
    }
}
