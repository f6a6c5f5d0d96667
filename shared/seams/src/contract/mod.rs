//! What every adapter must do, as tests that an adapter's crate runs on itself.
//!
//! Each function is one sentence of the specification and panics where it does not hold; `all` runs those of a trait.
//! They need nothing but the trait, and names that no earlier run has used: what is tested may be in use.

#![allow(missing_docs, reason = "the name of each function is the sentence")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

use std::time::Duration;

pub mod blobs;
pub mod queue;
pub mod store;

/// How long something that must happen may take on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// Something that must happen.
async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, happens)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen within {SOON:?}"))
}

/// A name that was never used before.
fn fresh(name: &str) -> String {
    format!("{name}-{:016x}", getrandom::u64().expect("random bytes"))
}
