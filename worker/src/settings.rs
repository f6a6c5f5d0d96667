//! What an operator decides about a worker.

use std::path::PathBuf;
use std::time::Duration;

use gantry_domain::id::{PoolName, WorkerId};

use crate::lease::LeaseTimes;

/// What an operator decides about a worker.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Its id: unique in the installation.
    pub id: WorkerId,
    /// Whether a later process has the same id: else it is new with each.
    pub has_fixed_name: bool,
    /// Whose runs it takes.
    pub pool: PoolName,
    /// The installation, for labels in the engine: a worker sweeps only its own.
    pub installation: String,
    /// How many runs it takes at once.
    pub slots: u32,
    /// Its leases.
    pub lease: LeaseTimes,
    /// Where sources are unpacked.
    pub work_folder: PathBuf,
    /// With less free space than this it takes nothing.
    pub min_free: u64,
    /// How much build cache the engine keeps.
    pub keep_cache: u64,
    /// How much of an attempt's log is kept.
    pub log_limit: u64,
    /// How often leftovers are looked for.
    pub housekeeping: Duration,
}
