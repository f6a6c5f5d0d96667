//! Checks at the start that objects can be stored.

use bytes::Bytes;
use gantry_seams::blobs::{BlobError, Blobs as _};
use object_store::path::Path as Location;
use object_store::{Error, ObjectStoreExt};

use crate::blobs::ObjectBlobs;
use crate::error::{code, is_bucket_absent, reason};

/// The name of an object that never exists.
const PROBE: &str = "gantry/probe";

/// Objects cannot be stored.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum ProbeError {
    /// The bucket does not exist.
    #[error("there is no bucket for {place}: create it, or correct `objects.url`")]
    NoBucket { place: String },
    /// The credentials are wrong or insufficient.
    #[error(
        "{place} refuses us ({reason}): check {credentials}, and that they may get, put, list and delete objects there"
    )]
    Refused {
        place: String,
        /// The server's answer.
        reason: String,
        /// Where the credentials are read from.
        credentials: &'static str,
    },
    /// The folder's disk is full.
    #[error("the disk of {place} is full: free some space there")]
    Full { place: String },
    /// The server does not answer, or provides no credentials.
    #[error(
        "{place} does not answer ({reason}): check `objects.endpoint`, `objects.ca_file`, the network, and {credentials}"
    )]
    Unreachable {
        place: String,
        /// The client's error.
        reason: String,
        /// Where the credentials are read from.
        credentials: &'static str,
    },
}

impl ProbeError {
    /// Whether waiting may help.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Unreachable { .. })
    }
}

impl ObjectBlobs {
    /// Requests an object that does not exist. In a folder it also writes and removes one, since the disk may be full.
    ///
    /// # Errors
    /// [`ProbeError`].
    pub async fn probe(&self) -> Result<(), ProbeError> {
        let Err(error) = self.store.get(&Location::from(PROBE)).await else { return Ok(()) };
        let place = self.place.clone();
        let credentials = self.cloud.map_or("its permissions", |cloud| cloud.credentials());
        let reason = reason(&error);
        if matches!(error, Error::NotFound { .. }) {
            let is_absent = is_bucket_absent(code(&error).as_deref());
            if is_absent {
                return Err(ProbeError::NoBucket { place });
            }
            return if self.cloud.is_none() { self.probe_room().await } else { Ok(()) };
        }
        if matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) {
            return Err(ProbeError::Refused { place, reason, credentials });
        }
        Err(ProbeError::Unreachable { place, reason, credentials })
    }

    async fn probe_room(&self) -> Result<(), ProbeError> {
        let place = self.place.clone();
        // A random name in no folder: if two processes start at once, one would otherwise remove the file or folder
        // that the other is writing to.
        let name = format!("probe-{:016x}", rand::random::<u64>());
        match self.put(&name, Bytes::from_static(&[b'x'; 4096])).await {
            Err(BlobError::Full { .. }) => return Err(ProbeError::Full { place }),
            Err(error) => {
                let (reason, credentials) = (error.to_string(), "its permissions");
                return Err(ProbeError::Refused { place, reason, credentials });
            }
            Ok(()) => {}
        }
        // A leftover is small.
        let _stays = self.delete(&name).await;
        Ok(())
    }
}
