//! Why a registry did not do it, and whether trying again may help.

use std::time::Duration;

use gantry_domain::image::RegistryHost;
use reqwest::StatusCode;

use crate::guard::OutboundRefused;
use crate::http::says_away;

/// Why a registry did not do it.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It does not know the user, or the user may not.
    #[error(
        "{host} refused access to {what}: check the credentials of the registry; it said: {message}"
    )]
    Unauthorized {
        /// The registry.
        host: RegistryHost,
        /// Image or repository.
        what: String,
        /// Its words.
        message: String,
    },
    /// There is no such image.
    #[error("{what} is not in {host}: check its name and tag")]
    NotFound {
        /// The registry.
        host: RegistryHost,
        /// Image or repository.
        what: String,
    },
    /// What answers there is no registry.
    #[error("{host} has no registry API at `/v2/`: check the registry's host and port")]
    NoApi {
        /// The host.
        host: RegistryHost,
    },
    /// It cannot now: 5xx, or too many requests.
    #[error("{host} could not answer for {what}: {status}{}", wish(*retry_after))]
    Unavailable {
        /// The registry.
        host: RegistryHost,
        /// Image or repository.
        what: String,
        /// What it answered.
        status: StatusCode,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// Nobody answered.
    #[error("{host} did not answer for {what}")]
    Unreachable {
        /// The registry.
        host: RegistryHost,
        /// Image or repository.
        what: String,
        /// What the transport said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answered that it will not.
    #[error("{host} refused {what}: {status}: {message}")]
    Refused {
        /// The registry.
        host: RegistryHost,
        /// Image or repository.
        what: String,
        /// What it answered.
        status: StatusCode,
        /// Its words.
        message: String,
    },
    /// Its answer makes no sense.
    #[error("{host} gave no usable answer for {what}: {problem}")]
    Nonsense {
        /// The registry.
        host: RegistryHost,
        /// Image or repository.
        what: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Its answer does not end where every answer of its kind does.
    #[error("{host} answered for {what} with more than {} MiB", most >> 20)]
    TooLarge {
        /// The registry.
        host: RegistryHost,
        /// Image or repository.
        what: String,
        /// The bound, in bytes.
        most: u64,
    },
    /// It may not be asked.
    #[error(transparent)]
    Outbound(#[from] OutboundRefused),
}

fn wish(retry_after: Option<Duration>) -> String {
    retry_after
        .map_or_else(String::new, |wait| format!(", and wants to be left alone for {wait:?}"))
}

impl RegistryError {
    /// Trying again may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Unreachable { .. })
    }

    /// Nobody answered, or a gateway for whoever should have.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Unavailable { status, .. } => says_away(*status),
            Self::Unauthorized { .. }
            | Self::NotFound { .. }
            | Self::NoApi { .. }
            | Self::Refused { .. }
            | Self::Nonsense { .. }
            | Self::TooLarge { .. }
            | Self::Outbound(_) => false,
        }
    }

    /// How long it wants to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::Unavailable { retry_after, .. } = self { *retry_after } else { None }
    }
}
