//! What a code host is told about the runs of a commit.

use serde::{Deserialize, Serialize};

use crate::pull_request::ProviderRepository;
use crate::source::CommitId;
use crate::text::text_type;

text_type!(
    /// The name under which a task's states appear at a code host: `gantry/<task>`. Rules of branches refer to it, so
    /// it never contains a run's id.
    ReportContext,
    "name of a commit status",
    "1 to 200 printable characters",
    |text| (1..=200).contains(&text.len()) && !text.chars().any(char::is_control)
);

/// The state of a run, as code hosts show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportState {
    /// It waits for a worker.
    Pending,
    /// A worker has it.
    Running,
    /// It succeeded.
    Succeeded,
    /// A step failed, or it took too long.
    Failed,
    /// gantry or something that it needs failed.
    Errored,
    /// Somebody cancelled it, or a newer commit replaced it.
    Canceled,
}

/// What a commit status is attached to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReportTarget {
    /// The commit.
    pub commit: CommitId,
    /// The pull request with that head. Providers with statuses of pull requests show it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<u64>,
    /// The repository that has the commit, if that is not the one of the task's URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<ProviderRepository>,
}

/// The state of a run for one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// What it is attached to.
    pub target: ReportTarget,
    /// The name.
    pub context: ReportContext,
    /// The state.
    pub state: ReportState,
    /// One sentence for people. Longer ones are cut to what the provider takes.
    pub description: String,
    /// The address of the run.
    pub link: String,
}
