//! Whether objects can be kept where an operator says, asked at the start.

use object_store::path::Path as Location;
use object_store::{Error, ObjectStoreExt};

use crate::blobs::ObjectBlobs;
use crate::error::{code, is_bucket_absent, reason};

/// An object that nobody ever puts.
const NEVER_THERE: &str = "gantry/probe";

/// Objects cannot be kept here, now or at all.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// There is no such bucket.
    #[error("there is no bucket for {place}: create it, or correct `objects.url`")]
    NoBucket {
        /// Where.
        place: String,
    },
    /// The credentials are not right, or not enough.
    #[error(
        "{place} refuses us ({reason}): check {credentials}, and that they may get, put, list and delete objects there"
    )]
    Refused {
        /// Where.
        place: String,
        /// What it said.
        reason: String,
        /// Where the credentials are taken from.
        credentials: &'static str,
    },
    /// Nobody answers, or no credentials are given out.
    #[error(
        "{place} does not answer ({reason}): check `objects.endpoint`, `objects.ca_file`, the network, and {credentials}"
    )]
    Unreachable {
        /// Where.
        place: String,
        /// What the client said.
        reason: String,
        /// Where the credentials are taken from.
        credentials: &'static str,
    },
}

impl ProbeError {
    /// Waiting may help.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

impl ObjectBlobs {
    /// Asks for an object that is not there, and writes nothing.
    ///
    /// # Errors
    /// [`ProbeError`].
    pub async fn probe(&self) -> Result<(), ProbeError> {
        let Err(error) = self.store.get(&Location::from(NEVER_THERE)).await else { return Ok(()) };
        let place = self.place.clone();
        let credentials = self.cloud.map_or("its permissions", |cloud| cloud.credentials());
        let reason = reason(&error);
        if matches!(error, Error::NotFound { .. }) {
            let is_absent = is_bucket_absent(code(&error).as_deref());
            return if is_absent { Err(ProbeError::NoBucket { place }) } else { Ok(()) };
        }
        if matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) {
            return Err(ProbeError::Refused { place, reason, credentials });
        }
        Err(ProbeError::Unreachable { place, reason, credentials })
    }
}
