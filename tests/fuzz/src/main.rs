//! Gives what libFuzzer thinks of to one target of `gantry_tests::fuzz`: that of GANTRY_FUZZ_TARGET.

#![no_main]

use std::sync::LazyLock;

use gantry_tests::fuzz::{Target, target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    #[allow(clippy::disallowed_methods, reason = "libFuzzer reads the arguments")]
    let name = std::env::var("GANTRY_FUZZ_TARGET").expect("GANTRY_FUZZ_TARGET names a target");
    // A panic on a thread of its own counts as well, and ends the process.
    target(&name).unwrap_or_else(|| panic!("there is no target {name}"))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
