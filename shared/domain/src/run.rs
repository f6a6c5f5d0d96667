//! One execution: what it is to do, where it stands, how it ended.

mod outcome;
mod state;
mod status;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attempt::{AttemptEnd, EndedAttempt};
use crate::built_on::{BuiltOn, SourceRead};
use crate::cause::Cause;
use crate::id::{PoolName, RegistryName, RunId, TaskId, TaskName, TokenId};
use crate::recipe::Recipe;
use crate::sealed::Sealed;
use crate::signature::RunSignature;
use crate::source::RefName;
use crate::timestamp::Timestamp;
use crate::trace::TraceParent;

pub use outcome::{ErrorCode, KeptBecause, Outcome, Product, RunError, SupersededTag};
pub use state::{Done, IllegalTransition, Progress, Rank, ReadySecrets, RunState, WaitReason};
pub use status::RunStatus;

/// How many attempts that count a run may have: then it ends as Error.
pub const COUNTED_ATTEMPTS: usize = 3;

/// How many attempts of any kind a run may have; handed-back ones do not count, but nothing is unbounded.
pub const MOST_ATTEMPTS: usize = 50;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Unique in the installation.
    pub id: RunId,
    /// Its registry.
    pub registry: RegistryName,
    /// Its kind, in the original's words.
    pub run_type: RunType,
    /// The task that it executes, and the revision of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskRevision>,
    /// What it executes: a later change of the task does not reach it.
    pub recipe: Recipe,
    /// The token that reads its git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_token: Option<Sealed>,
    /// Why it exists.
    pub cause: Cause,
    /// Whether it moves its tags though a newer change has moved them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force_tags: bool,
    /// What it was created for: there is no other run for the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_for: Option<String>,
    /// W3C trace context of what caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
    /// When it was created.
    pub created: Timestamp,
    /// The service's, over all of the above; `None` until [`Run::sign`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<RunSignature>,
    /// The facts that it was built on. Not signed: for most runs a worker learns it.
    pub built_on: BuiltOn,
    /// What its worker read of a git repository, once it was fetched. Not signed: a worker learns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<SourceRead>,
    /// Whether it and its log are kept for good.
    #[serde(default)]
    pub archived: bool,
    /// Who asked to cancel it, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<CancelAsk>,
    /// The attempts that ended, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<EndedAttempt>,
    /// Where it stands.
    pub state: RunState,
}

impl Run {
    /// The task, with its registry.
    #[must_use]
    pub fn task_id(&self) -> Option<TaskId> {
        self.task
            .as_ref()
            .map(|task| TaskId { registry: self.registry.clone(), name: task.name.clone() })
    }

    /// The pool whose workers build it, and open its secrets.
    #[must_use]
    pub fn pool(&self) -> PoolName {
        self.recipe.platform.pool()
    }

    /// The branch that it builds or built, where that is known.
    #[must_use]
    pub fn branch(&self) -> Option<&RefName> {
        match &self.cause {
            Cause::Push { branch, .. } | Cause::Request { branch: Some(branch), .. } => {
                Some(branch)
            }
            Cause::Request { branch: None, .. } => self.read.as_ref()?.branch.as_ref(),
        }
    }

    /// The status that people see.
    #[must_use]
    pub fn status(&self) -> RunStatus {
        self.state.status()
    }

    /// The number of its next attempt, from 1.
    #[must_use]
    pub fn next_attempt(&self) -> u32 {
        u32::try_from(self.attempts.len() + 1).unwrap_or(u32::MAX)
    }

    /// Whether its next attempt is to have a worker to itself: a worker was lost that had it, and it may be why.
    #[must_use]
    pub fn wants_to_be_alone(&self) -> bool {
        self.attempts.iter().any(|attempt| matches!(attempt.end, AttemptEnd::Lapsed))
    }

    /// Since when what it needs is away, and how many attempts found that; `None` if its last attempt found something else.
    /// Attempts that were handed back found nothing.
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
                | AttemptEnd::InfrastructureFailed { .. }
                | AttemptEnd::Lapsed => break,
            }
        }
        outage
    }

    /// Whether, after its last attempt, it may be tried again.
    #[must_use]
    pub fn may_be_tried_again(&self) -> bool {
        self.attempts.iter().filter(|attempt| attempt.end.counts()).count() < COUNTED_ATTEMPTS
            && self.attempts.len() < MOST_ATTEMPTS
    }
}

/// What a run needs is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// When the first attempt found that.
    pub since: Timestamp,
    /// How many did.
    pub found: u32,
}

impl Outage {
    /// How long to wait before the next attempt: 5 s, doubling to 5 minutes.
    #[must_use]
    pub fn pause(&self) -> Duration {
        let doubled = self.found.saturating_sub(1).min(6);
        Duration::from_secs((5 << doubled).min(300))
    }
}

/// A task at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRevision {
    /// The task's name in the run's registry.
    pub name: TaskName,
    /// Which revision.
    pub revision: u64,
}

/// The kinds of runs of the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RunType {
    /// One image build that somebody asked for.
    QuickBuild,
    /// One image build that a trigger started.
    AutoBuild,
}

impl fmt::Display for RunType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QuickBuild => "QuickBuild",
            Self::AutoBuild => "AutoBuild",
        })
    }
}

/// Somebody asked to cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct CancelAsk {
    /// With which token.
    pub by: TokenId,
    pub at: Timestamp,
}
