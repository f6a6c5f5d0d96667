//! Redis' errors as those who use the store understand them.

use std::error::Error;
use std::io;
use std::sync::Arc;

use deadpool_redis::redis::RedisError;
use gantry_seams::store::StoreError;

/// What an error means to those who use the store.
pub(crate) fn store_error(error: &RedisError) -> StoreError {
    let message = error.to_string();
    let full = match error.code() {
        Some("OOM") => true,
        // The disk refuses; Redis tells a full one from a broken one only in words.
        Some("MISCONF") => message.contains("No space left"),
        _ => false,
    };
    if full { StoreError::Full { message } } else { StoreError::Unavailable { message } }
}

/// Whether the connections are to be made anew: this one is gone, or does not answer, or leads to a server that is not,
/// or not any more, the one to write to.
pub(crate) fn breaks(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        || error.is_io_error()
        || matches!(error.code(), Some("READONLY" | "MASTERDOWN"))
}

/// The error of the network or of TLS below it, if there is one.
pub(crate) fn io_error(error: &RedisError) -> Option<&io::Error> {
    let shared = error.source()?.downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
    shared.downcast_ref()
}
