//! Errors as those who use the store understand them.

use std::fmt;

use gantry_seams::store::StoreError;
use rusqlite::{ErrorCode, ffi};

/// What SQLite's error means to those who use the store.
pub(crate) fn store_error(error: &rusqlite::Error) -> StoreError {
    let message = error.to_string();
    if is_full(error) { StoreError::Full { message } } else { StoreError::Unavailable { message } }
}

/// Whether there is no room: in the file, as far as it may grow, or on its disk, for it or for the memory that connections
/// share through a file beside it.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        error.code == ErrorCode::DiskFull || error.extended_code == ffi::SQLITE_IOERR_SHMSIZE
    })
}

/// There is no answer, for this reason.
pub(crate) fn no_answer(reason: impl fmt::Display) -> StoreError {
    StoreError::Unavailable { message: reason.to_string() }
}
