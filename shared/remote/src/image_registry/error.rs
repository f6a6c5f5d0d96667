//! Why a look at an image failed, and what its caller can do.

use std::time::Duration;

use gantry_domain::image::{Digest, ImageReference};

/// A registry did not say what an image is. The message is for the users of the image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookError {
    /// The registry limits requests. Look again later, with fewer requests to this registry.
    #[error(
        "{} limits requests, and did not answer for {image}: set credentials for it, or wait", image.host()
    )]
    Limited {
        /// The image.
        image: ImageReference,
        /// How long the registry wants no request, if it says so. At most a day.
        after: Option<Duration>,
    },
    /// The registry rejected the credentials, or demands some. Many also answer this if there is no such repository.
    #[error(
        "{} refused access to {image}: check that it exists, and the credentials of the registry; it said: {message}", image.host()
    )]
    Unauthorized {
        /// The image.
        image: ImageReference,
        /// The registry's message.
        message: String,
    },
    /// There was no whole answer in time: the host is unknown or silent, or its certificate is not trusted.
    #[error("{} did not answer for {image}: {cause}: check its host and port, and the network", image.host())]
    Unreachable {
        /// The image.
        image: ImageReference,
        /// The system's message.
        cause: String,
    },
    /// The registry has a problem.
    #[error("{} could not answer for {image}: {status}: gantry looks again later", image.host())]
    Unavailable {
        /// The image.
        image: ImageReference,
        /// The status, like `502 Bad Gateway`.
        status: String,
        /// How long the registry wants no request, if it says so. At most a day.
        after: Option<Duration>,
    },
    /// The registry answered, but not with an image that gantry can read. The same look would fail again.
    #[error("{image} cannot be read: {problem}")]
    Unreadable {
        /// The image.
        image: ImageReference,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
    /// The operator does not permit connections to the registry. Nothing was sent.
    #[error("{image} was not looked at: {reason}")]
    Refused {
        /// The image.
        image: ImageReference,
        /// Which rule refused it, and the remedy.
        reason: String,
    },
    /// The registry redirects to another name. Credentials are only for the name that the user gave.
    #[error(
        "{image} is at another address, {to}, to which credentials are not sent: use that name instead"
    )]
    Moved {
        /// The image.
        image: ImageReference,
        /// The `host/path` of the other address.
        to: String,
    },
    /// The manifest was deleted since its digest was read. Look at the tag again.
    #[error("{digest} of {image} was deleted meanwhile: gantry looks at the tag again")]
    Gone {
        /// The image.
        image: ImageReference,
        /// The digest that is gone.
        digest: Digest,
    },
}

impl LookError {
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
