//! Waves: what follows from a change of a base image.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The rebuilds that follow from one change of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Wave {
    /// Its id.
    #[schema(example = "ca-w1")]
    pub id: String,
    /// Its registry.
    pub registry: String,
    /// `Planning` (its tasks are being found), `Open`, `Frozen` (a canary failed), `Done` or `Dropped`.
    pub state: String,
    /// The image that changed.
    pub image: String,
    /// The platform for which it changed.
    pub platform: String,
    /// What it was.
    pub from: String,
    /// What it is since.
    pub to: String,
    /// The event that reports the change.
    pub event: String,
    /// The run that pushed it, if a run of gantry did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// How many of its tasks must succeed before the others begin.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub canary: u32,
    /// The canary's run that failed, while the wave is frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// When it began.
    pub created: String,
    /// When it was done or dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A wave with its tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaveDetails {
    /// The wave.
    #[serde(flatten)]
    pub wave: Wave,
    /// Its tasks, in the order in which it reached them.
    pub tasks: Vec<WaveTask>,
    /// Whether there are more tasks than are listed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
}

/// A task in a wave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaveTask {
    /// The task.
    pub task: String,
    /// The image through which the wave reached it.
    pub through: String,
    /// The tasks of the wave that make that image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// `Waiting`, `Building`, `Built`, `UpToDate`, `Failed` or `NotBuilt`.
    pub status: String,
    /// The run that builds or built it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// How it ended, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
    /// When it was reached, or ended.
    pub at: String,
}
