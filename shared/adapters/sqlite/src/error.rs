//! Maps SQLite's errors to those of the store.

use std::fmt;

use gantry_seams::store::StoreError;
use rusqlite::{ErrorCode, ffi};

pub(crate) fn store_error(error: &rusqlite::Error) -> StoreError {
    let message = error.to_string();
    if is_full(error) { StoreError::Full { message } } else { StoreError::Unavailable { message } }
}

/// Whether there is no space: the file has its maximum size, or the disk is full, for the file itself or for the shared
/// memory file beside it.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        error.code == ErrorCode::DiskFull || error.extended_code == ffi::SQLITE_IOERR_SHMSIZE
    })
}

pub(crate) fn no_answer(reason: impl fmt::Display) -> StoreError {
    StoreError::Unavailable { message: reason.to_string() }
}
