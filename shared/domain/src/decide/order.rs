//! The order in which runs are taken.

use crate::run::{Rank, RunType};
use crate::timestamp::Timestamp;

/// The distance between classes of runs: no run of a lower class ever overtakes one of a higher class.
const CLASS: i64 = 1 << 52;

/// The rank of a run in its pool. Runs that a person requested come before those of triggers; within each class, older
/// runs come first.
#[must_use]
pub fn rank(run_type: RunType, created: Timestamp) -> Rank {
    let class = match run_type {
        RunType::QuickBuild | RunType::QuickRun => 0,
        RunType::AutoBuild | RunType::AutoRun => 1,
    };
    Rank(class * CLASS + created.as_millis().clamp(0, CLASS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_before_triggers_and_older_before_newer() {
        let (old, new) = (Timestamp::from_millis(1), Timestamp::from_millis(1 << 45));
        assert!(rank(RunType::QuickBuild, new) < rank(RunType::AutoBuild, old));
        assert!(rank(RunType::AutoBuild, old) < rank(RunType::AutoBuild, new));
    }
}
