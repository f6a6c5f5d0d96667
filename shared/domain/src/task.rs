//! A saved recipe: what to build, and what starts it.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::id::{RunPrefix, TaskId};
use crate::recipe::Recipe;
use crate::sealed::Sealed;
use crate::source::RefName;
use crate::timestamp::Timestamp;

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its registry and name.
    pub id: TaskId,
    /// The registry's, which tells it from others of its name.
    pub prefix: RunPrefix,
    /// Counts from 1 with each change.
    pub revision: u64,
    /// Whether triggers may start it.
    pub status: Status,
    /// What a run executes.
    pub recipe: Recipe,
    /// Starts a run when a branch moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_trigger: Option<SourceTrigger>,
    /// The token that reads its git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_token: Option<Sealed>,
    /// How many of its runs may be ready or leased at once; the registry's limit alone if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_limit: Option<NonZeroU32>,
    /// When it was created: no two tasks of a name were at the same time.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

/// Whether something may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It may.
    #[default]
    Enabled,
    /// It may not.
    Disabled,
}

/// Starts a run when one branch of the task's repository moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTrigger {
    /// Its name in the task.
    pub name: String,
    /// The branch; as in the task's source, or the one that the provider calls default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<RefName>,
    /// Whether it may start runs.
    pub status: Status,
}
