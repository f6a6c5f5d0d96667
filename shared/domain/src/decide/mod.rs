//! From an event and the tasks that it may concern to runs, or the first rule that said no. Pure.

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

/// What was decided for one event, for good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct Decision {
    /// The event.
    pub event: EventId,
    pub at: Timestamp,
    /// Each candidate task, in order of name.
    pub candidates: Vec<Candidate>,
    /// Why there is no candidate at all, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nothing: Option<Rule>,
}

/// A task that an event may concern, and what was decided for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The task; `None` for a quick build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// What was decided.
    pub choice: Choice,
    /// The push names the repository by another address than the task does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_address: Option<OtherAddress>,
}

/// A push and a task name one repository by two addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherAddress {
    /// What the push says. Nobody asks there.
    pub pushed: GitUrl,
    /// The task's.
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

/// What was decided for one candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "choice")]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum Choice {
    /// This run was started.
    Run {
        /// Its id.
        run: RunId,
    },
    /// This rule said no.
    No { rule: Rule },
}

/// The rules that may say no, in the order in which they are asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "rule")]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum Rule {
    /// The registry was deleted before its event was decided.
    NoRegistry { registry: RegistryName },
    /// Nobody subscribed to this.
    NoTask {
        /// The repository.
        repository: RepositoryKey,
    },
    /// The hook may not speak for this repository.
    HookNotForRepository {
        /// The hook.
        hook: HookId,
        /// The repository.
        repository: RepositoryKey,
    },
    /// The event was recorded; nothing starts on its kind yet.
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
    /// The task watches the default branch, and nobody says which that is.
    DefaultBranchUnknown {
        /// The repository.
        repository: RepositoryKey,
    },
    /// The branch is gone.
    BranchDeleted { branch: RefName },
    /// The branch has moved on: its head is another commit, which is built instead.
    Superseded {
        /// What was pushed.
        pushed: CommitId,
        /// What the head is.
        head: CommitId,
    },
    /// The branch was deleted, and exists again: the push that made it starts its run.
    BranchExists {
        branch: RefName,
        /// Its head.
        head: CommitId,
    },
    /// This change was built already, or is being built.
    AlreadyStarted {
        /// By which run.
        run: RunId,
    },
    /// The head could not be asked for, again and again.
    HeadUnknown {
        /// The fact.
        fact: FactKey,
        /// Why, and the remedy.
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
