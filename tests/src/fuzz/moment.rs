//! A moment of every fuzz target: examples as they are, and changed by a seed.
//!
//! `make fuzz` looks for longer, and for what reaches new code.

use std::time::Duration;

use super::{TARGETS, mutate, target};

/// The same bytes each time.
const SEED: u64 = 1;

fn play(name: &str) {
    let given = mutate::play(target(name).unwrap(), SEED, Duration::from_millis(700));
    println!("{name}: {given}");
    assert!(given >= 50, "{name} is slow: {given}");
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
