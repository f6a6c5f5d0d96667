//! A moment of every fuzz target: examples as they are, and changed by a seed.
//!
//! `make fuzz` looks for longer, and for what reaches new code.

use super::{TARGETS, mutate, target};

/// The same bytes each time.
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
        fn every_target_is_played() {
            let played = [$(stringify!($name)),*];
            assert!(TARGETS.iter().map(|target| target.name).eq(played));
        }
    };
}
targets!(archive github distribution record reference dockerfile ignore terminal);
