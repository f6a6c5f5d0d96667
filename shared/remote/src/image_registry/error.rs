//! Why a look at an image failed, and what its caller can do.

use std::fmt;
use std::time::Duration;

use gantry_domain::image::{Digest, ImageReference};
use reqwest::StatusCode;

use crate::http::first_cause;
use crate::registry::{Allowance, LONGEST_LIMIT, RegistryError};

/// A registry did not say what an image is. The message is for the users of the image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookError {
    /// The registry limits requests. Look again later, with fewer requests to this registry.
    #[error(
        "{} limits requests, and did not answer for {image}: set credentials for it, or wait", image.host()
    )]
    Limited {
        /// The image.
        image: Box<ImageReference>,
        /// How long the registry wants no request, if it says so. At most a day.
        after: Option<Duration>,
    },
    /// The registry rejected the credentials, or demands some. Many also answer this if there is no such repository.
    #[error(
        "{} refused access to {image}: check that it exists, and the credentials of the registry; it said: {message}", image.host()
    )]
    Unauthorized {
        /// The image.
        image: Box<ImageReference>,
        /// The registry's message.
        message: String,
    },
    /// There was no whole answer in time: the host is unknown or silent, or its certificate is not trusted.
    #[error("{} did not answer for {image}: {cause}: check its host and port, and the network", image.host())]
    Unreachable {
        /// The image.
        image: Box<ImageReference>,
        /// The system's message.
        cause: String,
    },
    /// The registry has a problem.
    #[error("{} could not answer for {image}: {status}: gantry looks again later", image.host())]
    Unavailable {
        /// The image.
        image: Box<ImageReference>,
        /// The status.
        status: StatusCode,
        /// How long the registry wants no request, if it says so. At most a day.
        after: Option<Duration>,
    },
    /// The registry answered, but not with an image that gantry can read. The same look would fail again.
    #[error("{image} cannot be read: {problem}")]
    Unreadable {
        /// The image.
        image: Box<ImageReference>,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
    /// The operator does not permit connections to the registry. Nothing was sent.
    #[error("{image} was not looked at: {reason}")]
    Refused {
        /// The image.
        image: Box<ImageReference>,
        /// Which rule refused it, and the remedy.
        reason: String,
    },
    /// The registry redirects to another name. Credentials are only for the name that the user gave.
    #[error(
        "{image} is at another address, {to}, to which credentials are not sent: use that name instead"
    )]
    Moved {
        /// The image.
        image: Box<ImageReference>,
        /// The `host/path` of the other address.
        to: String,
    },
    /// The manifest was deleted since its digest was read. Look at the tag again.
    #[error("{digest} of {image} was deleted meanwhile: gantry looks at the tag again")]
    Gone {
        /// The image.
        image: Box<ImageReference>,
        /// The digest that is gone.
        digest: Digest,
    },
}

impl LookError {
    /// The image is not one that gantry can read.
    pub(crate) fn unreadable(image: &ImageReference, problem: impl fmt::Display) -> Self {
        Self::Unreadable { image: Box::new(image.clone()), problem: problem.to_string() }
    }

    /// What the client's error means for a look. `allowance` is what the registry last said.
    pub(crate) fn of(
        image: &ImageReference,
        error: RegistryError,
        allowance: Option<Allowance>,
    ) -> Self {
        let image = Box::new(image.clone());
        match error {
            RegistryError::Unauthorized { message, .. } => Self::Unauthorized { image, message },
            RegistryError::Unreachable { source, .. } => {
                Self::Unreachable { image, cause: first_cause(source.as_ref()) }
            }
            RegistryError::Unavailable { status, retry_after, .. } => {
                let after = retry_after.map(|after| after.min(LONGEST_LIMIT));
                if status != StatusCode::TOO_MANY_REQUESTS {
                    return Self::Unavailable { image, status, after };
                }
                // Docker Hub says only when its window ends.
                let reset = allowance.filter(|allowance| allowance.remaining == 0);
                let after = after.or_else(|| reset.map(|allowance| allowance.resets_in));
                Self::Limited { image, after }
            }
            RegistryError::Outbound(refused) => {
                Self::Refused { image, reason: refused.to_string() }
            }
            RegistryError::Moved { to, .. } => Self::Moved { image, to },
            RegistryError::Refused { status, message, .. } => Self::unreadable(
                &image,
                format_args!("the registry refused the request: {status}: {message}"),
            ),
            RegistryError::Nonsense { problem, .. } => Self::unreadable(&image, problem),
            RegistryError::TooLarge { most, .. } => Self::unreadable(
                &image,
                format_args!("the registry's answer is larger than {} MiB", most >> 20),
            ),
            RegistryError::NotFound { .. } | RegistryError::NoApi { .. } => {
                Self::unreadable(&image, "the registry does not have it")
            }
        }
    }

    /// How long the registry wants no request, if it says so.
    #[must_use]
    pub fn after(&self) -> Option<Duration> {
        match self {
            Self::Limited { after, .. } | Self::Unavailable { after, .. } => *after,
            Self::Unauthorized { .. }
            | Self::Unreachable { .. }
            | Self::Unreadable { .. }
            | Self::Refused { .. }
            | Self::Moved { .. }
            | Self::Gone { .. } => None,
        }
    }
}
