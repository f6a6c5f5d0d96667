//! The order in which runs are taken.

use crate::run::{Purpose, Rank, RunType};
use crate::timestamp::Timestamp;

/// The distance between classes of runs: no run of a lower class ever overtakes one of a higher class.
const CLASS: i64 = 1 << 52;

/// The rank of a run in its pool. Runs that a person requested come before those of triggers, and scans behind both;
/// within each class, older runs come first.
#[must_use]
pub fn rank(purpose: Purpose, run_type: RunType, created: Timestamp) -> Rank {
    let class = match (purpose, run_type) {
        (Purpose::Execute, RunType::QuickBuild | RunType::QuickRun) => 0,
        (Purpose::Execute, RunType::AutoBuild | RunType::AutoRun) => 1,
        (Purpose::Scan, _) => 2,
    };
    Rank(class * CLASS + created.as_millis().clamp(0, CLASS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_before_triggers_then_scans_and_older_before_newer() {
        let (old, new) = (Timestamp::from_millis(1), Timestamp::from_millis(1 << 45));
        let (run, scan) = (Purpose::Execute, Purpose::Scan);
        assert!(rank(run, RunType::QuickBuild, new) < rank(run, RunType::AutoBuild, old));
        assert!(rank(run, RunType::AutoBuild, old) < rank(run, RunType::AutoBuild, new));
        assert!(rank(run, RunType::AutoBuild, new) < rank(scan, RunType::QuickBuild, old));
    }
}
