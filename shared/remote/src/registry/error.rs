//! Why a request to a registry failed, and whether a retry may help.

use std::time::Duration;

use gantry_domain::image::RegistryHost;
use reqwest::StatusCode;

use crate::guard::OutboundRefused;
use crate::http::says_away;

/// A request to a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry rejected the credentials, or the user lacks permission.
    #[error(
        "{host} refused access to {what}: check the credentials of the registry or of the task; it said: {message}"
    )]
    Unauthorized {
        /// The registry.
        host: RegistryHost,
        /// The image or repository.
        what: String,
        /// The registry's message.
        message: String,
    },
    /// There is no such image.
    #[error("{what} is not in {host}: check its name and tag")]
    NotFound {
        /// The registry.
        host: RegistryHost,
        /// The image or repository.
        what: String,
    },
    /// The host is not a registry.
    #[error("{host} has no registry API at `/v2/`: check the registry's host and port")]
    NoApi {
        /// The host.
        host: RegistryHost,
    },
    /// The registry is temporarily unavailable: 5xx, or too many requests.
    #[error("{host} could not answer for {what}: {status}{}", wish(*retry_after))]
    Unavailable {
        /// The registry.
        host: RegistryHost,
        /// The image or repository.
        what: String,
        /// The status.
        status: StatusCode,
        /// The `Retry-After` of the registry.
        retry_after: Option<Duration>,
    },
    /// The registry did not answer.
    #[error("{host} did not answer for {what}")]
    Unreachable {
        /// The registry.
        host: RegistryHost,
        /// The image or repository.
        what: String,
        /// The transport's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry refused the request.
    #[error("{host} refused {what}: {status}: {message}")]
    Refused {
        /// The registry.
        host: RegistryHost,
        /// The image or repository.
        what: String,
        /// The status.
        status: StatusCode,
        /// The registry's message.
        message: String,
    },
    /// The registry redirects to another address, and the client does not follow.
    #[error("{host} redirects for {what} to {to}: use that name instead")]
    Moved {
        /// The registry.
        host: RegistryHost,
        /// The image or repository.
        what: String,
        /// The `host/path` that it redirects to.
        to: String,
    },
    /// The answer is invalid.
    #[error("{host} gave no usable answer for {what}: {problem}")]
    Nonsense {
        /// The registry.
        host: RegistryHost,
        /// The image or repository.
        what: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The answer is too large.
    #[error("{host} answered for {what} with more than {} MiB", most >> 20)]
    TooLarge {
        /// The registry.
        host: RegistryHost,
        /// The image or repository.
        what: String,
        /// The limit in bytes.
        most: u64,
    },
    /// The guard refused the host.
    #[error(transparent)]
    Outbound(#[from] OutboundRefused),
}

fn wish(retry_after: Option<Duration>) -> String {
    retry_after
        .map_or_else(String::new, |wait| format!(", and wants to be left alone for {wait:?}"))
}

impl RegistryError {
    /// Whether a retry may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Unreachable { .. })
    }

    /// Whether the registry did not answer, or a gateway answered in its place.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Unavailable { status, .. } => says_away(*status),
            Self::Unauthorized { .. }
            | Self::NotFound { .. }
            | Self::NoApi { .. }
            | Self::Refused { .. }
            | Self::Moved { .. }
            | Self::Nonsense { .. }
            | Self::TooLarge { .. }
            | Self::Outbound(_) => false,
        }
    }

    /// The registry's `Retry-After`.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::Unavailable { retry_after, .. } = self { *retry_after } else { None }
    }
}
