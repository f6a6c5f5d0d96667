//! Redis keeps the store's contract, and what only Redis promises beside it.
//!
//! The contract is held on the server at `GANTRY_TEST_REDIS`, like `redis://127.0.0.1:6379`, which `make test` starts.
//! What kills, fills or configures a server does that to one of its own, so `redis-server` has to be installed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test says what is wrong by panicking, and is told by the environment where its server is"
)]

mod batches;
mod checks;
mod contract;
mod faults;
mod server;
mod slow {
    mod sentinel;
}
mod tls;
