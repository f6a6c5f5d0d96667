//! Why a secret could not be read, and whether a retry may help.

use std::time::Duration;

use gantry_domain::id::RegistryName;
use gantry_domain::vault::{Origin, SecretAddress};
use reqwest::StatusCode;

use crate::guard::OutboundRefused;

/// A secret could not be read.
///
/// No text of a server is part of it, except codes of a fixed form: a server or proxy may repeat a token in its message.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The operator does not let the registry read it.
    #[error("tasks of registry {registry} may not read {at}: ask the operator to add `{registry}={}` or a path above it to the setting `vaults.grants`", .at.path())]
    NotGranted {
        /// The registry.
        registry: RegistryName,
        /// The secret.
        at: SecretAddress,
    },
    /// The operator granted it, but configured no such vault.
    #[error(
        "gantry has no login for {at}: ask the operator to set `hashicorp_vault.address` or `key_vault.tenant`"
    )]
    NotConfigured {
        /// The secret.
        at: SecretAddress,
    },
    /// The vault has no such secret, version or field, or does not admit it.
    #[error("{at} does not exist: {remedy}")]
    NotFound {
        /// The secret.
        at: SecretAddress,
        /// What is missing, and what to check.
        remedy: &'static str,
    },
    /// The vault does not let gantry read it.
    #[error("the vault denied gantry access to {at}{}: {remedy}", said(code))]
    Denied {
        /// The secret.
        at: SecretAddress,
        /// The vault's code, like `ForbiddenByRbac`.
        code: Option<String>,
        /// What to check.
        remedy: &'static str,
    },
    /// The vault or its identity provider rejected the configured credentials.
    #[error(
        "{by} rejected gantry's credentials for {at}: {status}{}: check the vault's credentials in the settings",
        said(code)
    )]
    LoginRejected {
        /// Who rejected them.
        by: Origin,
        /// The secret.
        at: SecretAddress,
        /// The status.
        status: StatusCode,
        /// The provider's code, like `AADSTS7000215`.
        code: Option<String>,
    },
    /// The server is sealed, overloaded or broken: 5xx, or too many requests.
    #[error("{by} could not answer for {at}: {status}: is it overloaded or sealed?")]
    Unavailable {
        /// The server.
        by: Origin,
        /// The secret.
        at: SecretAddress,
        /// The status; 503 of a HashiCorp Vault that is sealed.
        status: StatusCode,
        /// Its `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The server did not answer in time.
    #[error("{by} did not answer for {at}: check that it runs and can be reached from here")]
    Unreachable {
        /// The server.
        by: Origin,
        /// The secret.
        at: SecretAddress,
        /// The transport's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server redirects, which is not followed, because the request contains a token or a password.
    #[error("{by} redirects to {to} for {at}: configure the address that answers itself")]
    Redirected {
        /// The server.
        by: Origin,
        /// Scheme, host and port of the target.
        to: String,
        /// The secret.
        at: SecretAddress,
    },
    /// The server refused the request for another reason.
    #[error("{by} refused the request for {at}: {status}: check the address")]
    Refused {
        /// The server.
        by: Origin,
        /// The secret.
        at: SecretAddress,
        /// The status.
        status: StatusCode,
    },
    /// The answer is unusable, or the token that the request needs.
    #[error("{at} cannot be read from {by}: {problem}")]
    Nonsense {
        /// The server.
        by: Origin,
        /// The secret.
        at: SecretAddress,
        /// What is wrong, and with what.
        problem: &'static str,
    },
    /// The guard refused the host.
    #[error(transparent)]
    Outbound(#[from] OutboundRefused),
}

fn said(code: &Option<String>) -> String {
    code.as_ref().map_or_else(String::new, |code| format!(" ({code})"))
}

impl VaultError {
    /// Whether a retry may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Unreachable { .. })
    }

    /// The server's `Retry-After`.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::Unavailable { retry_after, .. } = self { *retry_after } else { None }
    }
}
