//! Workers as they report themselves, and as operators control them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{PoolName, RunId, TokenId, WorkerId};
use crate::platform::Platform;
use crate::timestamp::Timestamp;

/// Workers report every few seconds. One that has not reported for this long may be gone.
pub const SILENT_AFTER: Duration = Duration::from_secs(60);

/// A worker's last report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its id, unique among the listed workers.
    pub id: WorkerId,
    /// Whether it keeps its id across restarts, because its name was configured.
    #[serde(default)]
    pub has_fixed_name: bool,
    /// The pool it takes runs from.
    pub pool: PoolName,
    /// The platforms that its engine supports.
    pub platforms: Vec<Platform>,
    /// The number of concurrent runs.
    pub slots: u32,
    /// Its current runs.
    pub runs: Vec<RunId>,
    /// The version of gantry.
    pub version: String,
    /// The engine's name and version, or why it cannot be used.
    pub engine: EngineHealth,
    /// Free bytes on the disk of the engine's images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_disk: Option<u64>,
    /// Why it takes no runs now, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_because: Option<String>,
    /// When it reported last, by the store's clock.
    pub last_seen: Timestamp,
}

/// Whether a worker's engine can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "engine")]
pub enum EngineHealth {
    /// The engine answers.
    Ready {
        /// Like `Docker Engine 20.10.24`.
        name: String,
    },
    /// The engine does not answer.
    Away {
        /// The cause, and the remedy.
        why: String,
    },
}

/// An operator's request that a worker take no more runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// The worker.
    pub worker: WorkerId,
    /// The token of the request.
    pub by: TokenId,
    /// When it was requested.
    pub since: Timestamp,
}

/// The known workers at one moment, and which of them are drained.
#[derive(Debug, Clone, PartialEq)]
pub struct Workforce {
    /// All workers, ordered by id.
    pub workers: Vec<Worker>,
    /// The drained workers.
    pub drained: BTreeMap<WorkerId, Drain>,
    /// The time of this state.
    pub now: Timestamp,
}

impl Workforce {
    /// Why no worker will take a run of `pool`, if so. Workers that are busy, or whose engine does not answer, count as
    /// available.
    #[must_use]
    pub fn lacks(&self, pool: &PoolName) -> Option<NoWorker> {
        let live: Vec<&Worker> = self
            .workers
            .iter()
            .filter(|worker| worker.pool == *pool && !worker.is_silent(self.now))
            .collect();
        let is_drained = |worker: &&Worker| self.drained.contains_key(&worker.id);
        if !live.iter().all(is_drained) {
            return None;
        }
        let drained = live.into_iter().map(|worker| worker.id.clone()).collect();
        Some(NoWorker { pool: pool.clone(), drained })
    }
}

impl Worker {
    /// Whether the worker may be gone.
    #[must_use]
    pub fn is_silent(&self, now: Timestamp) -> bool {
        now.since(self.last_seen) > SILENT_AFTER
    }
}

/// A pool without workers that take runs. Its message includes the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoWorker {
    /// The pool.
    pub pool: PoolName,
    /// The pool's drained workers.
    pub drained: Vec<WorkerId>,
}

impl fmt::Display for NoWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pool = &self.pool;
        match self.drained.as_slice() {
            [] => write!(
                f,
                "there is no worker in pool {pool}: start one with `gantry worker --pool {pool}`"
            ),
            [worker] => write!(
                f,
                "the only worker in pool {pool} is drained: let it take runs again with `gantry worker resume {worker}`"
            ),
            [worker, ..] => write!(
                f,
                "all workers in pool {pool} are drained: let one take runs again with `gantry worker resume {worker}`"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(id: &str, pool: &str, last_seen: i64) -> Worker {
        Worker {
            id: id.parse().unwrap(),
            has_fixed_name: true,
            pool: pool.parse().unwrap(),
            platforms: Vec::new(),
            slots: 1,
            runs: vec!["ca1".parse().unwrap()],
            version: "1".to_owned(),
            engine: EngineHealth::Away { why: "gone".to_owned() },
            free_disk: None,
            idle_because: Some("gone".to_owned()),
            last_seen: Timestamp::from_millis(last_seen),
        }
    }

    #[test]
    fn a_pool_lacks_workers_if_all_are_gone_or_drained_but_not_if_busy() {
        let drain = Drain {
            worker: "drained".parse().unwrap(),
            by: "t1".parse().unwrap(),
            since: Timestamp::default(),
        };
        let workforce = Workforce {
            workers: vec![
                worker("busy", "amd", 100_000),
                worker("drained", "arm", 100_000),
                worker("silent", "arm", 1),
                worker("silent-too", "riscv", 1),
            ],
            drained: BTreeMap::from([(drain.worker.clone(), drain)]),
            now: Timestamp::from_millis(100_000),
        };
        let lacks = |pool: &str| {
            workforce.lacks(&pool.parse().unwrap()).map(|lack| lack.to_string()).unwrap_or_default()
        };
        assert_eq!(lacks("amd"), "");
        assert_eq!(
            lacks("arm"),
            "the only worker in pool arm is drained: let it take runs again with `gantry worker resume drained`"
        );
        assert_eq!(
            lacks("riscv"),
            "there is no worker in pool riscv: start one with `gantry worker --pool riscv`"
        );
    }
}
