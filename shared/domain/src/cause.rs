//! Why a run exists.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fact::FactKey;
use crate::id::{EventId, RunId, TokenId};
use crate::signature::RunSignature;
use crate::source::{CommitId, RefName, RepositoryKey};

/// What started a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum Cause {
    /// A branch moved.
    Push {
        /// The event that reported it first.
        event: EventId,
        /// The repository.
        repository: RepositoryKey,
        /// The branch.
        branch: RefName,
        /// The head.
        commit: CommitId,
        /// The fact that advanced.
        fact: FactKey,
        /// The new generation. A run of an older generation never moves a tag that a newer one has moved.
        generation: u64,
        /// Who pushed, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pusher: Option<String>,
    },
    /// A task was saved.
    Saved {
        /// The event that records it.
        event: EventId,
    },
    /// A person or program requested it.
    Request {
        /// The event that records it.
        event: EventId,
        /// The token of the request.
        by: TokenId,
        /// The run that is repeated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rerun_of: Option<RunId>,
        /// The service's signature of the request's content, if the request had an idempotency key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<RunSignature>,
        /// The branch of the repeated run, which cannot be derived from its commit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        branch: Option<RefName>,
    },
}

impl Cause {
    /// The event that the run's decision is stored under.
    #[must_use]
    pub fn event(&self) -> &EventId {
        match self {
            Self::Push { event, .. } | Self::Saved { event } | Self::Request { event, .. } => event,
        }
    }

    /// The token of the request; `None` if nobody requested it.
    #[must_use]
    pub fn by(&self) -> Option<&TokenId> {
        match self {
            Self::Push { .. } | Self::Saved { .. } => None,
            Self::Request { by, .. } => Some(by),
        }
    }

    /// The value of the original's TRIGGER column.
    #[must_use]
    pub fn trigger(&self) -> &'static str {
        match self {
            Self::Push { .. } => "Commit",
            Self::Saved { .. } => "Saved",
            Self::Request { .. } => "Manual",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Push { branch, commit, .. } => {
                write!(f, "push to {branch} at {}", commit.as_str().get(..7).unwrap_or_default())
            }
            Self::Saved { .. } => f.write_str("the task was saved"),
            Self::Request { rerun_of: Some(run), .. } => write!(f, "rerun of {run}"),
            Self::Request { by, rerun_of: None, .. } => write!(f, "asked for with token {by}"),
        }
    }
}
