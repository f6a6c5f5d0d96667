//! The settings of a worker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use gantry_domain::id::{PoolName, WorkerId};

use crate::budget::Usage;
use crate::engine::containers::ContainerLimits;
use crate::lease::LeaseTimes;
use crate::policy::Policy;

/// The settings of a worker.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// The id, unique in the installation.
    pub id: WorkerId,
    /// Whether the id is kept across restarts; otherwise each process has a new one.
    pub has_fixed_name: bool,
    /// The pool that it takes runs from.
    pub pool: PoolName,
    /// The installation, for labels in the engine: a worker removes only leftovers of its own installation.
    pub installation: String,
    /// The number of concurrent runs.
    pub slots: u32,
    /// The times of its leases.
    pub lease: LeaseTimes,
    /// The folder where sources are unpacked.
    pub work_folder: PathBuf,
    /// No runs are taken with less free space than this, in bytes.
    pub min_free: u64,
    /// The limit of the engine's build cache, in bytes.
    pub keep_cache: u64,
    /// The most bytes of an attempt's log.
    pub log_limit: u64,
    /// What each container of a step may use.
    pub step_limits: ContainerLimits,
    /// What all containers of a run may use together.
    pub run_limits: Usage,
    /// What steps may have beyond a container of their own.
    pub policy: Policy,
    /// The images that aliases such as `bash` stand for in commands of task files.
    pub image_aliases: BTreeMap<String, String>,
    /// The interval of looking for leftovers.
    pub housekeeping: Duration,
}
