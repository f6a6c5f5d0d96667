//! A worker, as it says of itself.

use serde::{Deserialize, Serialize};

use crate::id::{PoolName, RunId, WorkerId};
use crate::platform::Platform;
use crate::timestamp::Timestamp;

/// A worker, as it was last seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its id.
    pub id: WorkerId,
    /// Whose runs it takes.
    pub pool: PoolName,
    /// The platforms that its engine builds for.
    pub platforms: Vec<Platform>,
    /// How many runs it takes at once.
    pub slots: u32,
    /// The runs that it has now.
    pub runs: Vec<RunId>,
    /// gantry's version.
    pub version: String,
    /// The engine: its name and version, or why it cannot be used.
    pub engine: EngineHealth,
    /// Free bytes where the engine keeps images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_disk: Option<u64>,
    /// Why it takes nothing now, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_because: Option<String>,
    /// When it was last seen, by the store's clock.
    pub last_seen: Timestamp,
}

/// Whether a worker's engine can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "engine")]
pub enum EngineHealth {
    /// It answers.
    Ready {
        /// `Docker Engine 20.10.24`.
        name: String,
    },
    /// It does not.
    Away {
        /// Why, and the remedy.
        why: String,
    },
}
