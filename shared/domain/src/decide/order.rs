//! Which run goes first.

use crate::run::{Rank, RunType};
use crate::timestamp::Timestamp;

/// How far apart the classes of runs stand: no run of a lower class ever overtakes one of a higher.
const CLASS: i64 = 1 << 52;

/// The place of a run in its pool's order: what a person waits for goes before what a trigger started, and within
/// each class the older goes first.
#[must_use]
pub fn rank(run_type: RunType, created: Timestamp) -> Rank {
    let class = match run_type {
        RunType::QuickBuild => 0,
        RunType::AutoBuild => 1,
    };
    Rank(class * CLASS + created.as_millis().clamp(0, CLASS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_goes_before_a_trigger_and_the_older_before_the_newer() {
        let (old, new) = (Timestamp::from_millis(1), Timestamp::from_millis(1 << 45));
        assert!(rank(RunType::QuickBuild, new) < rank(RunType::AutoBuild, old));
        assert!(rank(RunType::AutoBuild, old) < rank(RunType::AutoBuild, new));
    }
}
