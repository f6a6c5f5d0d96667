//! Redis fulfils the store's contract, and guarantees specific to Redis.
//!
//! The contract is tested on the server at `GANTRY_TEST_REDIS`, like `redis://127.0.0.1:6379`, which `make test`
//! starts. Tests that kill, fill or configure a server start their own, so `redis-server` must be installed.

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
