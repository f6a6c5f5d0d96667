//! Packs the logs of attempts that are over, and forgets what is old.

use gantry_seams::blobs::SharedBlobs;
use gantry_seams::store::SharedStore;

mod logs;
mod retention;

pub use retention::Retention;

/// Keeps what is to be kept, and no longer than that.
pub struct Keeper {
    pub(crate) store: SharedStore,
    /// Logs, old bodies, uploads.
    pub(crate) blobs: SharedBlobs,
    pub(crate) retention: Retention,
}
