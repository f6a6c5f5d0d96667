//! A short run of every fuzz target: its examples, unchanged and mutated.
//!
//! `make fuzz` runs longer, and searches for input that reaches new code.

use super::{TARGETS, mutate, target};

/// The same mutations in each run.
const SEED: u64 = 1;

fn play(name: &str) {
    mutate::play(target(name).unwrap(), SEED, 300);
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                play(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_run() {
            let played = [$(stringify!($name)),*];
            assert!(TARGETS.iter().map(|target| target.name).eq(played));
        }
    };
}
targets!(archive github distribution webhook record reference dockerfile ignore template task_file values terminal);
