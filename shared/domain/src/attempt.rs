//! One lease of a run, from take to its end.

use serde::{Deserialize, Serialize};

use crate::id::{LeaseNonce, WorkerId};
use crate::timestamp::Timestamp;

/// The timed right of one worker to one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// How often the run has been leased, from 1.
    pub attempt: u32,
    /// Who holds it.
    pub worker: WorkerId,
    /// Different in each lease: an older holder is refused.
    pub nonce: LeaseNonce,
    /// When it was taken, by the store's clock.
    pub since: Timestamp,
    /// When it ends unless it is renewed, by the store's clock.
    pub until: Timestamp,
}

/// What a worker shows to act on a run: checked against the lease in the same commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The attempt.
    pub attempt: u32,
    /// The nonce of its lease.
    pub nonce: LeaseNonce,
}

impl Lease {
    /// What its worker shows.
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
    /// From 1.
    pub attempt: u32,
    /// Who had it.
    pub worker: WorkerId,
    /// When it was leased.
    pub since: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    pub end: AttemptEnd,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "end")]
pub enum AttemptEnd {
    /// With the run's outcome.
    Finished,
    /// The infrastructure failed: it counts against the limit of attempts.
    InfrastructureFailed {
        /// What, where, and the remedy.
        error: String,
    },
    /// What the attempt needs was away, or not there yet: it does not count.
    Unavailable {
        /// What, where, and the remedy.
        error: String,
    },
    /// The worker gave it back in good order: it does not count.
    HandedBack,
    /// Its lease ended without a word.
    Lapsed,
}

impl AttemptEnd {
    /// Whether the attempt counts against the limit.
    #[must_use]
    pub fn counts(&self) -> bool {
        match self {
            Self::InfrastructureFailed { .. } | Self::Lapsed => true,
            Self::Finished | Self::Unavailable { .. } | Self::HandedBack => false,
        }
    }
}
