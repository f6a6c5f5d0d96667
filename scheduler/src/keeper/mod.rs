//! Packs the logs of ended attempts, and removes expired data.

use gantry_seams::blobs::SharedBlobs;
use gantry_seams::store::SharedStore;

mod logs;
mod retention;

pub use retention::Retention;

/// Enforces retention: packs logs, and removes what has expired.
pub struct Keeper {
    pub(crate) store: SharedStore,
    /// Holds logs, old bodies and uploads.
    pub(crate) blobs: SharedBlobs,
    pub(crate) retention: Retention,
}
