//! API tokens and their permissions.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::InvalidText;
use crate::id::{RegistryName, RunPrefix, TokenId};
use crate::text::serde_as_text;
use crate::timestamp::Timestamp;

/// An API token. Its secret is not stored, only a hash of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// The public part.
    pub id: TokenId,
    /// The purpose, for people.
    pub description: String,
    /// The SHA-256 of the secret part, in hexadecimal. The secret has 256 random bits, so no slow hash is needed.
    pub secret_sha256: String,
    /// What it may do.
    pub scope: Scope,
    /// The registries that it is limited to, with the prefixes that distinguish them from others of the same name;
    /// `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registries: Option<BTreeMap<RegistryName, RunPrefix>>,
    /// When it was made.
    pub created: Timestamp,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
}

impl Token {
    /// Whether it is valid at `now`.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|end| now < end)
    }

    /// Whether it may act with `scope` on the registry with this name and prefix.
    #[must_use]
    pub fn allows(&self, scope: Scope, registry: &RegistryName, prefix: RunPrefix) -> bool {
        let bound = self.registries.as_ref();
        self.scope >= scope
            && bound.is_none_or(|registries| registries.get(registry) == Some(&prefix))
    }

    /// Whether it may act with `scope` on objects that belong to no registry, like tokens and workers.
    #[must_use]
    pub fn allows_everywhere(&self, scope: Scope) -> bool {
        self.scope >= scope && self.registries.is_none()
    }
}

/// What a token may do. Each scope includes the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Read everything but secrets.
    Read,
    /// Start, cancel and repeat runs.
    Run,
    /// Change registries, tasks and hooks.
    Write,
    /// Create and revoke tokens; drain workers.
    Admin,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Run => "run",
            Self::Write => "write",
            Self::Admin => "admin",
        })
    }
}

impl FromStr for Scope {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "read" => Ok(Self::Read),
            "run" => Ok(Self::Run),
            "write" => Ok(Self::Write),
            "admin" => Ok(Self::Admin),
            _ => Err(InvalidText::new("scope", text, "`read`, `run`, `write` or `admin`")),
        }
    }
}

serde_as_text!(Scope);
