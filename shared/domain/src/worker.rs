//! Workers as they report themselves, and as operators control them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{PoolName, RunId, TokenId, WorkerId};
use crate::platform::Platform;
use crate::platforms::Platforms;
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
    /// The platforms that its engine builds for and whose programs it executes: its own first, then those that it emulates.
    /// None while the engine is away.
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
        let live: Vec<&Worker> = self.live().filter(|worker| worker.pool == *pool).collect();
        let is_drained = |worker: &&Worker| self.drained.contains_key(&worker.id);
        if !live.iter().all(is_drained) {
            return None;
        }
        let drained = live.into_iter().map(|worker| worker.id.clone()).collect();
        let other = self.live().map(|worker| &worker.pool).filter(|other| *other != pool).min();
        let platform = Platform::of_pool(pool).filter(Platform::can_be_emulated);
        let emulation = platform.zip(other.cloned());
        Some(NoWorker { pool: pool.clone(), drained, emulation })
    }

    /// The pool for a run that builds for these platforms. For one: its own if it has workers, else the first whose engines
    /// all emulate it. For several: the first whose engines all build for all of them, beginning with the platforms' own.
    /// Without such a pool that of the first platform, where the run waits for a worker, or is refused by one.
    #[must_use]
    pub fn pool_for(&self, platforms: &Platforms) -> PoolName {
        let own = platforms.pool();
        if !platforms.are_several() && self.lacks(&own).is_none() {
            return own;
        }
        let named: BTreeSet<&PoolName> = self.live().map(|worker| &worker.pool).collect();
        let mut pools: Vec<PoolName> = platforms.iter().map(Platform::pool).collect();
        pools.extend(named.into_iter().cloned());
        pools.into_iter().find(|pool| self.builds_for(pool, platforms)).unwrap_or(own)
    }

    /// Whether every worker of a pool that takes runs builds for the platforms, and there is one: any of them may take the
    /// run.
    fn builds_for(&self, pool: &PoolName, platforms: &Platforms) -> bool {
        let serves =
            |worker: &&Worker| worker.pool == *pool && !self.drained.contains_key(&worker.id);
        let mut workers = self.live().filter(serves).peekable();
        let builds = |worker: &Worker| platforms.iter().all(|platform| worker.builds_for(platform));
        workers.peek().is_some() && workers.all(builds)
    }

    /// The workers that are there.
    fn live(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().filter(|worker| !worker.is_silent(self.now))
    }
}

impl Workforce {
    /// How many runs the workers of a pool execute at once, without drained workers and those that may be gone.
    #[must_use]
    pub fn slots(&self, pool: &PoolName) -> u32 {
        let serves =
            |worker: &&Worker| worker.pool == *pool && !self.drained.contains_key(&worker.id);
        self.live().filter(serves).fold(0, |slots, worker| slots.saturating_add(worker.slots))
    }
}

impl Worker {
    /// Whether its engine builds for the platform.
    #[must_use]
    pub fn builds_for(&self, platform: &Platform) -> bool {
        self.platforms.iter().any(|own| own.builds_for(platform))
    }

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
    /// The pool's platform and another pool with workers, whose engines could emulate it.
    pub emulation: Option<(Platform, PoolName)>,
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
        }?;
        match &self.emulation {
            Some((platform, other)) => write!(
                f,
                ", or let all engines of pool {other} emulate {platform}: install `qemu-user-static` on their machines, and \
                 register it with `binfmt_misc`"
            ),
            None => Ok(()),
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
        assert_eq!(
            lacks("linux-arm64"),
            "there is no worker in pool linux-arm64: start one with `gantry worker --pool linux-arm64`, or let all engines of \
             pool amd emulate linux/arm64: install `qemu-user-static` on their machines, and register it with `binfmt_misc`"
        );
        assert_eq!(
            lacks("windows-amd64"),
            "there is no worker in pool windows-amd64: start one with `gantry worker --pool windows-amd64`",
            "no engine emulates it"
        );
    }

    #[test]
    fn a_run_goes_to_the_pool_of_its_platform_else_to_one_whose_engines_all_emulate_it() {
        let building = |id: &str, pool: &str, platforms: &[&str]| Worker {
            platforms: platforms.iter().map(|platform| platform.parse().unwrap()).collect(),
            ..worker(id, pool, 100_000)
        };
        let pool_for = |platforms: &str, workers: &[Worker], drained: &[&str]| {
            let drain = |id: &&str| Drain {
                worker: id.parse().unwrap(),
                by: "t1".parse().unwrap(),
                since: Timestamp::default(),
            };
            let drained = drained.iter().map(drain);
            let workforce = Workforce {
                workers: workers.to_vec(),
                drained: drained.map(|drain| (drain.worker.clone(), drain)).collect(),
                now: Timestamp::from_millis(100_000),
            };
            workforce.pool_for(&platforms.parse().unwrap()).to_string()
        };
        let pool =
            |workers: &[Worker], drained: &[&str]| pool_for("linux/arm64/v8", workers, drained);
        let native = building("native", "linux-arm64", &["linux/arm64"]);
        let away = building("away", "linux-arm64", &[]);
        let plain = building("plain", "linux-amd64", &["linux/amd64", "linux/386"]);
        let emulating = building("emulating", "linux-amd64", &["linux/amd64", "linux/arm64"]);
        let large = building("large", "large", &["linux/amd64", "linux/arm64"]);
        let silent = Worker { last_seen: Timestamp::default(), ..native.clone() };

        assert_eq!(pool(&[], &[]), "linux-arm64");
        assert_eq!(pool(&[emulating.clone(), native.clone()], &[]), "linux-arm64");
        assert_eq!(pool(&[emulating.clone(), away], &[]), "linux-arm64", "its engine may return");
        assert_eq!(pool(&[emulating.clone(), silent], &[]), "linux-amd64");
        assert_eq!(pool(&[emulating.clone(), native.clone()], &["native"]), "linux-amd64");
        assert_eq!(pool(std::slice::from_ref(&plain), &[]), "linux-arm64");
        assert_eq!(
            pool(&[emulating.clone(), plain.clone()], &[]),
            "linux-arm64",
            "any may take it"
        );
        assert_eq!(pool(&[emulating.clone(), plain.clone()], &["plain"]), "linux-amd64");
        assert_eq!(pool(std::slice::from_ref(&large), &[]), "large");

        let both = |workers: &[Worker]| pool_for("linux/arm64,linux/amd64", workers, &[]);
        assert_eq!(both(&[native.clone(), plain.clone()]), "linux-arm64", "no engine has both");
        assert_eq!(both(&[native.clone(), emulating.clone()]), "linux-amd64");
        assert_eq!(both(&[native, plain, large]), "large");
    }
}
