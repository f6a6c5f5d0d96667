//! Runs: what to execute, the state, and the outcome.

mod legs;
mod outcome;
mod state;
mod status;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attempt::{AttemptEnd, EndedAttempt};
use crate::built_on::{BuiltOn, SourceRead};
use crate::cause::Cause;
use crate::decide::order::Class;
use crate::id::{GroupName, PoolName, RegistryName, RunId, TaskId, TaskName, TokenId};
use crate::recipe::{Recipe, Work};
use crate::report::Reported;
use crate::sealed::Sealed;
use crate::signature::RunSignature;
use crate::source::{CommitId, RefName};
use crate::timestamp::Timestamp;
use crate::trace::TraceParent;
use crate::wave::NodeTask;

pub use legs::{LegOf, LegWork, Legs, Split};
pub use outcome::{ErrorCode, KeptBecause, Outcome, Product, RunError, SupersededTag};
pub use state::{Done, IllegalTransition, Progress, Rank, ReadySecrets, RunState, WaitReason};
pub use status::RunStatus;

/// How many counting attempts a run may have before it ends as Error.
pub const COUNTED_ATTEMPTS: usize = 3;

/// How many attempts of any kind a run may have. Handed-back attempts do not count, but must be bounded as well.
pub const MOST_ATTEMPTS: usize = 50;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Unique in the installation.
    pub id: RunId,
    /// The registry.
    pub registry: RegistryName,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Purpose::is_default")]
    pub purpose: Purpose,
    /// The type of run, in the original's words.
    pub run_type: RunType,
    /// The task, and its revision; `None` for a quick build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskRevision>,
    /// What to execute. Later changes of the task do not affect it.
    pub recipe: Recipe,
    /// The token for its git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_token: Option<Sealed>,
    /// What started it.
    pub cause: Cause,
    /// Whether it may move tags that a newer change has moved.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force_tags: bool,
    /// The concurrency group of its task: it is executed while no other run of the group is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_group: Option<GroupName>,
    /// The run key: no other run has the same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_for: Option<String>,
    /// The W3C trace context of the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
    /// When it was created.
    pub created: Timestamp,
    /// The service's signature of all fields above; `None` until [`Run::sign`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<RunSignature>,
    /// The facts that it was built on. Not signed, because for most runs a worker reports them.
    pub built_on: BuiltOn,
    /// What its worker read from a git repository. Not signed, because a worker reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<SourceRead>,
    /// The runs that it is split into, if no engine builds for all its platforms. Not signed, because a worker asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legs: Option<Legs>,
    /// What was last passed on to its code host. Not signed, because it changes with the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<Reported>,
    /// Whether a scheduler has recorded what it used and made. Not signed, because it follows the end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_settled: bool,
    /// Whether the run and its log are kept for good.
    #[serde(default)]
    pub archived: bool,
    /// The approval, if it was held and somebody gave one. Not signed: a run that needs one has no secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Approval>,
    /// The request to cancel, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<CancelAsk>,
    /// The ended attempts, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<EndedAttempt>,
    /// The current state.
    pub state: RunState,
}

impl Run {
    /// The task's full id; `None` for a quick build.
    #[must_use]
    pub fn task_id(&self) -> Option<TaskId> {
        self.task
            .as_ref()
            .map(|task| TaskId { registry: self.registry.clone(), name: task.name.clone() })
    }

    /// Whether it is in no list that people see and counts against no limit: a leg is counted with its whole run.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.id.is_hidden()
    }

    /// The head of its pull request, which an approval must name; `None` if it is not one of a pull request.
    #[must_use]
    pub fn pull_request_head(&self) -> Option<&CommitId> {
        self.recipe.pull_request.as_ref().map(|of| &of.head)
    }

    /// The task's revision, if the run executes it as it is saved. Only such a run tells which images the task needs.
    #[must_use]
    pub fn unchanged_task(&self) -> Option<&TaskRevision> {
        self.task.as_ref().filter(|task| task.is_unchanged)
    }

    /// The task, if the run does all that a run of the task does: it is one of the task as it is saved, and not of a pull
    /// request. What it used and made is then what the task uses and makes.
    #[must_use]
    pub fn stands_for_task(&self) -> Option<NodeTask> {
        let task = self.unchanged_task()?;
        let stands = self.purpose == Purpose::Execute && self.recipe.pull_request.is_none();
        stands.then(|| NodeTask {
            prefix: self.id.prefix(),
            task: TaskId { registry: self.registry.clone(), name: task.name.clone() },
            created: task.created,
        })
    }

    /// Whether it has ended, and what it used and made is still to be recorded.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        let Some(done) = self.state.done().filter(|_| !self.is_settled) else { return false };
        let product = done.outcome.product().filter(|_| self.recipe.pull_request.is_none());
        let has_pushed = product.is_some_and(|product| !product.outputs.is_empty());
        self.stands_for_task().is_some() || has_pushed && self.purpose == Purpose::Execute
    }

    /// The class of runs that it is admitted and taken with.
    #[must_use]
    pub fn class(&self) -> Class {
        Class::of(&self.purpose, &self.cause)
    }

    /// The pool whose workers build it and open its secrets. Until it is admitted, and after its end, that of its
    /// first platform.
    #[must_use]
    pub fn pool(&self) -> PoolName {
        match &self.state {
            RunState::Ready { pool, .. } => pool.clone(),
            RunState::Started { lease } | RunState::Running { lease, .. } => lease.pool.clone(),
            RunState::Waiting { .. } | RunState::Done(_) => self.recipe.platforms.pool(),
        }
    }

    /// The branch that it builds, if that is known.
    #[must_use]
    pub fn branch(&self) -> Option<&RefName> {
        let read = || self.read.as_ref()?.branch.as_ref();
        self.cause.branch().or_else(read)
    }

    /// Whether its content is a stranger's: it gets no secrets, and shares nothing with other runs.
    #[must_use]
    pub fn is_of_fork(&self) -> bool {
        self.recipe.pull_request.as_ref().is_some_and(|of| of.is_fork)
    }

    /// The commit that it builds, if that is known: the one that its worker read, or that its source names.
    #[must_use]
    pub fn commit(&self) -> Option<CommitId> {
        match &self.read {
            Some(read) => Some(read.commit.clone()),
            None => self.recipe.source.git()?.reference.as_ref()?.as_str().parse().ok(),
        }
    }

    /// The status for people.
    #[must_use]
    pub fn status(&self) -> RunStatus {
        self.state.status()
    }

    /// The number of the next attempt, from 1.
    #[must_use]
    pub fn next_attempt(&self) -> u32 {
        u32::try_from(self.attempts.len() + 1).unwrap_or(u32::MAX)
    }

    /// Whether the next attempt needs a worker to itself, because a worker was lost with this run, which may be the
    /// reason.
    #[must_use]
    pub fn wants_to_be_alone(&self) -> bool {
        self.attempts.iter().any(|attempt| matches!(attempt.end, AttemptEnd::Lapsed))
    }

    /// Since when something that it needs is unavailable, and how many attempts found that. `None` if the last attempt
    /// ended in another way. Handed-back attempts are ignored.
    #[must_use]
    pub fn outage(&self) -> Option<Outage> {
        let mut outage = None;
        for attempt in self.attempts.iter().rev() {
            match attempt.end {
                AttemptEnd::Unavailable { .. } => {
                    let found = outage.map_or(0, |outage: Outage| outage.found);
                    outage = Some(Outage { since: attempt.ended, found: found + 1 });
                }
                AttemptEnd::HandedBack => {}
                AttemptEnd::Finished
                | AttemptEnd::Split
                | AttemptEnd::InfrastructureFailed { .. }
                | AttemptEnd::Lapsed => break,
            }
        }
        outage
    }

    /// Whether another attempt is allowed.
    #[must_use]
    pub fn may_be_tried_again(&self) -> bool {
        self.attempts.iter().filter(|attempt| attempt.end.counts()).count() < COUNTED_ATTEMPTS
            && self.attempts.len() < MOST_ATTEMPTS
    }
}

/// An outage of something that a run needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// When the first attempt found it.
    pub since: Timestamp,
    /// How many attempts found it.
    pub found: u32,
}

impl Outage {
    /// The pause before the next attempt: 5 s, doubling up to 5 minutes.
    #[must_use]
    pub fn pause(&self) -> Duration {
        let doubled = self.found.saturating_sub(1).min(6);
        Duration::from_secs((5 << doubled).min(300))
    }
}

/// What a run is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Executes the recipe.
    #[default]
    Execute,
    /// Reads the source and compiles the recipe, to learn which images it needs. Executes nothing. A hidden run.
    Scan,
    /// Builds and pushes the image of another run for one of its platforms. A hidden run.
    Leg(LegOf),
}

impl Purpose {
    /// Whether runs of this purpose are hidden.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        match self {
            Self::Execute => false,
            Self::Scan | Self::Leg(_) => true,
        }
    }

    /// The run that it is a leg of, if it is one.
    #[must_use]
    pub fn leg_of(&self) -> Option<&LegOf> {
        match self {
            Self::Leg(of) => Some(of),
            Self::Execute | Self::Scan => None,
        }
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A revision of a task, as a run has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRevision {
    /// The task's name in the run's registry.
    pub name: TaskName,
    /// When the task was created, which distinguishes it from others of the same name.
    pub created: Timestamp,
    /// The revision's number.
    pub revision: u64,
    /// Whether the run executes the revision as it is saved, without overrides, though maybe at an exact commit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_unchanged: bool,
    /// Whether the code host shows the run's states: it executes, or repeats, an unchanged revision that reports them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reports: bool,
}

/// The types of runs, as in the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RunType {
    /// A build that somebody requested.
    QuickBuild,
    /// A build that a trigger started.
    AutoBuild,
    /// A run of a task file that somebody requested.
    QuickRun,
    /// A run of a task file that a trigger started.
    AutoRun,
}

impl RunType {
    /// The type of a run that somebody requested.
    #[must_use]
    pub fn requested(work: &Work) -> Self {
        match work {
            Work::Build(_) => Self::QuickBuild,
            Work::File(_) => Self::QuickRun,
        }
    }

    /// The type of a run that a trigger started.
    #[must_use]
    pub fn triggered(work: &Work) -> Self {
        match work {
            Work::Build(_) => Self::AutoBuild,
            Work::File(_) => Self::AutoRun,
        }
    }
}

impl fmt::Display for RunType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QuickBuild => "QuickBuild",
            Self::AutoBuild => "AutoBuild",
            Self::QuickRun => "QuickRun",
            Self::AutoRun => "AutoRun",
        })
    }
}

/// A request to cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields explain themselves")]
pub struct CancelAsk {
    pub by: CanceledBy,
    pub at: Timestamp,
}

/// Who or what cancelled a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
#[expect(missing_docs, reason = "the fields explain themselves")]
pub enum CanceledBy {
    /// A person or program.
    Token { token: TokenId },
    /// A run of a newer change, as the task's trigger says.
    NewerRun { run: RunId },
    /// The end of the run that it is a leg of.
    WholeRun { run: RunId },
    /// The end of its pull request.
    PullRequestClosed { number: u64 },
    /// A comment below its pull request.
    Comment {
        /// Who wrote it, for people.
        author: String,
    },
}

impl fmt::Display for CanceledBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { token } => write!(f, "token {token}"),
            Self::NewerRun { run } => write!(f, "run {run}, which builds a newer change"),
            Self::WholeRun { run } => write!(f, "the end of run {run}, which it is a part of"),
            Self::PullRequestClosed { number } => {
                write!(f, "the end of pull request {number}")
            }
            Self::Comment { author } => write!(f, "a comment of {author}"),
        }
    }
}

/// The approval of a run that was held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct Approval {
    /// Who gave it, for people: a token, or the author of a comment.
    pub by: String,
    pub at: Timestamp,
}
