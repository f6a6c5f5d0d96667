//! Attempts: the leases of a run, and how they ended.

use serde::{Deserialize, Serialize};

use crate::id::{LeaseNonce, PoolName, WorkerId};
use crate::timestamp::Timestamp;

/// The timed right of one worker to one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The worker that holds it.
    pub worker: WorkerId,
    /// The worker's pool.
    pub pool: PoolName,
    /// Unique to this lease, so that earlier holders are refused.
    pub nonce: LeaseNonce,
    /// When it began, by the store's clock.
    pub since: Timestamp,
    /// When it ends unless it is renewed, by the store's clock.
    pub until: Timestamp,
}

/// A worker's claim to a run, checked against the lease in the same commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The number of the attempt.
    pub attempt: u32,
    /// The lease's nonce.
    pub nonce: LeaseNonce,
}

impl Lease {
    /// The claim of the lease's worker.
    #[must_use]
    pub fn holder(&self) -> Holder {
        Holder { attempt: self.attempt, nonce: self.nonce.clone() }
    }

    /// Whether `holder` holds this lease.
    #[must_use]
    pub fn is_held_by(&self, holder: &Holder) -> bool {
        self.attempt == holder.attempt && self.nonce == holder.nonce
    }
}

/// An attempt that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct EndedAttempt {
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The worker that had the lease.
    pub worker: WorkerId,
    /// When the lease began.
    pub since: Timestamp,
    /// When the attempt ended.
    pub ended: Timestamp,
    pub end: AttemptEnd,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "end")]
pub enum AttemptEnd {
    /// The worker ended the run with an outcome.
    Finished,
    /// The infrastructure failed. Counts against the limit of attempts.
    InfrastructureFailed {
        /// What failed and where, and the remedy.
        error: String,
    },
    /// Something that the attempt needs was unavailable, or not there yet. Does not count.
    Unavailable {
        /// What is unavailable and where, and the remedy.
        error: String,
    },
    /// The worker returned the run, because it shut down or the token for the source was over. Does not count.
    HandedBack,
    /// The worker split the run into legs. Does not count.
    Split,
    /// The lease expired. Counts.
    Lapsed,
}

impl AttemptEnd {
    /// Whether the attempt counts against the limit.
    #[must_use]
    pub fn counts(&self) -> bool {
        match self {
            Self::InfrastructureFailed { .. } | Self::Lapsed => true,
            Self::Finished | Self::Unavailable { .. } | Self::HandedBack | Self::Split => false,
        }
    }
}
