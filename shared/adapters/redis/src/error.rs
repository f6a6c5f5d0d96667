//! Maps Redis' errors to those of the store.

use std::error::Error;
use std::io;
use std::sync::Arc;

use deadpool_redis::redis::RedisError;
use gantry_seams::store::StoreError;

pub(crate) fn store_error(error: &RedisError) -> StoreError {
    let message = error.to_string();
    let full = match error.code() {
        Some("OOM") => true,
        // The disk refuses writes. Only the text tells a full disk from a broken one.
        Some("MISCONF") => message.contains("No space left"),
        _ => false,
    };
    if full { StoreError::Full { message } } else { StoreError::Unavailable { message } }
}

/// Whether the connections must be replaced: the connection is gone or does not answer, or the server is not the
/// master.
pub(crate) fn breaks(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        || error.is_io_error()
        || matches!(error.code(), Some("READONLY" | "MASTERDOWN"))
}

/// The underlying network or TLS error, if there is one.
pub(crate) fn io_error(error: &RedisError) -> Option<&io::Error> {
    let shared = error.source()?.downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
    shared.downcast_ref()
}
