//! Wrappers around real parts that observe, count, refuse or lose calls.

pub mod providers;
pub mod store;
pub mod vaults;
