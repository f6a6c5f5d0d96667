//! Gives what libFuzzer thinks of to one target of `tests/src/fuzz`: that of GANTRY_FUZZ_TARGET.

#![no_main]

use std::sync::LazyLock;

use fuzz::{Target, target};

// A module and not the crate around it, which would bring every adapter and server client along.
#[path = "../../src/fuzz/mod.rs"]
#[allow(dead_code, reason = "the suite plays the targets in another way")]
mod fuzz;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    #[allow(clippy::disallowed_methods, reason = "libFuzzer reads the arguments")]
    let name = std::env::var("GANTRY_FUZZ_TARGET").expect("GANTRY_FUZZ_TARGET names a target");
    // A panic on a thread of its own counts as well, and ends the process.
    target(&name).unwrap_or_else(|| panic!("there is no target {name}"))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
