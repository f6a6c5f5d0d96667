//! Errors as those who use the store understand them.

use std::fmt;

use gantry_seams::store::StoreError;
use rusqlite::ErrorCode;

/// What SQLite's error means to those who use the store.
pub(crate) fn store_error(error: &rusqlite::Error) -> StoreError {
    let message = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { message },
        _ => StoreError::Unavailable { message },
    }
}

/// There is no answer, for this reason.
pub(crate) fn no_answer(reason: impl fmt::Display) -> StoreError {
    StoreError::Unavailable { message: reason.to_string() }
}
