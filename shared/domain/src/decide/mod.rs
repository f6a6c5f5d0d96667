//! Decides which runs an event starts, or the first rule that said no. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fact::FactKey;
use crate::id::{EventId, HookId, RegistryName, RunId, TaskId};
use crate::source::{CommitId, GitUrl, RefName, RepositoryKey};
use crate::timestamp::Timestamp;

pub mod judge;
pub mod matcher;
pub mod order;
pub mod planner;
#[cfg(test)]
pub(crate) mod samples;

/// The final decision on one event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct Decision {
    /// The event.
    pub event: EventId,
    pub at: Timestamp,
    /// All candidate tasks, ordered by name.
    pub candidates: Vec<Candidate>,
    /// Why there is no candidate, if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nothing: Option<Rule>,
}

/// A task that an event may start, and the decision on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The task; `None` for a quick build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// The decision.
    pub choice: Choice,
    /// Set if the push and the task have different URLs for the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_address: Option<OtherAddress>,
}

/// The URLs of a repository in a push and in a task, which differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherAddress {
    /// The URL in the push. It is never contacted.
    pub pushed: GitUrl,
    /// The URL in the task.
    pub task: GitUrl,
}

impl fmt::Display for OtherAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the push names {}, and the task {}: only the task's address is asked, and only it gets the task's token",
            self.pushed, self.task
        )
    }
}

/// The decision on one candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "choice")]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum Choice {
    /// The run was started.
    Run {
        /// Its id.
        run: RunId,
    },
    /// The rule said no.
    No { rule: Rule },
}

/// The rules that may say no, in the order in which they are checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "rule")]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum Rule {
    /// The registry was deleted before the event was decided.
    NoRegistry { registry: RegistryName },
    /// No task watches this repository.
    NoTask {
        /// The repository.
        repository: RepositoryKey,
    },
    /// The hook is limited to other repositories.
    HookNotForRepository {
        /// The hook.
        hook: HookId,
        /// The repository.
        repository: RepositoryKey,
    },
    /// The event was recorded. Events of its kind start nothing yet.
    RecordedOnly {
        /// What was recorded.
        what: String,
    },
    /// The task is disabled.
    TaskDisabled,
    /// The task's source trigger is disabled.
    TriggerDisabled,
    /// A tag moved; the trigger watches a branch.
    NotABranch {
        /// The tag.
        tag: RefName,
    },
    /// Another branch moved.
    OtherBranch {
        /// The branch that moved.
        pushed: RefName,
        /// The branch that the task watches.
        watched: RefName,
    },
    /// The task watches the default branch, which is not known.
    DefaultBranchUnknown {
        /// The repository.
        repository: RepositoryKey,
    },
    /// The branch was deleted.
    BranchDeleted { branch: RefName },
    /// The branch's head is already a newer commit, which is built instead.
    Superseded {
        /// The pushed commit.
        pushed: CommitId,
        /// The current head.
        head: CommitId,
    },
    /// The branch was deleted and exists again. The push that recreated it starts its run.
    BranchExists {
        branch: RefName,
        /// The current head.
        head: CommitId,
    },
    /// A run for this change was already started.
    AlreadyStarted {
        /// The run.
        run: RunId,
    },
    /// Asking for the head failed repeatedly.
    HeadUnknown {
        /// The fact.
        fact: FactKey,
        /// The cause, and the remedy.
        why: String,
    },
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRegistry { registry } => write!(f, "registry {registry} was deleted"),
            Self::NoTask { repository } => write!(
                f,
                "no task of this registry has a source trigger on {repository}: see `gantry task list`"
            ),
            Self::HookNotForRepository { hook, repository } => write!(
                f,
                "hook {hook} may not speak for {repository}: create a hook that names it"
            ),
            Self::RecordedOnly { what } => write!(f, "{what} was recorded; it starts nothing"),
            Self::TaskDisabled => f.write_str("the task is disabled: `gantry task update --status Enabled`"),
            Self::TriggerDisabled => f.write_str(
                "its source trigger is disabled: `gantry task update --commit-trigger-enabled true`",
            ),
            Self::NotABranch { tag } => {
                write!(f, "tag {tag} moved; the source trigger watches a branch")
            }
            Self::OtherBranch { pushed, watched } => {
                write!(f, "branch {pushed} moved; the source trigger watches {watched}")
            }
            Self::DefaultBranchUnknown { repository } => write!(
                f,
                "the default branch of {repository} is not known: name a branch in the task's context, like `URL#main`"
            ),
            Self::BranchDeleted { branch } => write!(f, "branch {branch} was deleted"),
            Self::BranchExists { branch, head } => write!(
                f,
                "branch {branch} exists again, at {}: the push that made it starts its run",
                short(head)
            ),
            Self::Superseded { pushed, head } => write!(
                f,
                "{} is not the head of the branch any more: that is {}, which is built instead",
                short(pushed),
                short(head)
            ),
            Self::AlreadyStarted { run } => write!(f, "run {run} was started for this change"),
            Self::HeadUnknown { fact, why } => write!(f, "{fact} could not be asked for: {why}"),
        }
    }
}

fn short(commit: &CommitId) -> &str {
    commit.as_str().get(..7).unwrap_or_default()
}
