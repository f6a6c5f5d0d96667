//! Where a run stands, and the one function that moves it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attempt::Lease;
use crate::id::PoolName;
use crate::run::{Outcome, RunStatus};
use crate::timestamp::Timestamp;

/// Where a run stands. Each state carries the facts that exist in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum RunState {
    /// Not yet admitted.
    Waiting {
        /// For what.
        reason: WaitReason,
        /// Since when.
        since: Timestamp,
    },
    /// Any worker of the pool may take it.
    Ready {
        /// Which pool.
        pool: PoolName,
        /// The lowest goes first.
        rank: Rank,
        /// Since when.
        since: Timestamp,
        /// Its secrets.
        secrets: ReadySecrets,
    },
    /// A worker has it; its first step has not begun.
    Started {
        /// The worker's right.
        lease: Lease,
    },
    /// Its first step began.
    Running {
        /// The worker's right.
        lease: Lease,
        /// When the first step began.
        since: Timestamp,
    },
    /// It ended. This never changes.
    Done(Done),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The end.
    pub outcome: Outcome,
    /// When the last attempt was leased; `None` if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it ended.
    pub at: Timestamp,
}

/// Whether a ready run has secrets stored for it, without which it must not be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadySecrets {
    /// It needs none.
    None,
    /// They are stored, sealed for its pool.
    Stored,
}

/// The place of a ready run in its pool's order: the lowest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rank(pub i64);

/// What a waiting run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "for")]
pub enum WaitReason {
    /// To be looked at: it is new.
    Admission,
    /// A place among the runs of its registry.
    RegistryLimit {
        /// How many places there are.
        limit: u32,
    },
    /// A place among the runs of its task.
    TaskLimit {
        /// How many places there are.
        limit: u32,
    },
    /// The pause before another attempt.
    Backoff {
        /// Until when.
        until: Timestamp,
        /// What failed.
        error: String,
    },
    /// Something that is away or not there yet: a git host, a commit, a registry, the engine.
    Unavailable {
        /// What is away, and how that shows.
        error: String,
        /// Since when.
        away_since: Timestamp,
        /// When it is tried again.
        until: Timestamp,
    },
    /// A worker: its last one was lost.
    WorkerLost {
        /// The attempt that was lost.
        attempt: u32,
    },
    /// A worker: its last one shut down and gave it back.
    HandedBack,
}

impl WaitReason {
    /// Until when the run rests, whatever is free.
    #[must_use]
    pub fn rests_until(&self) -> Option<Timestamp> {
        match self {
            Self::Backoff { until, .. } | Self::Unavailable { until, .. } => Some(*until),
            Self::Admission
            | Self::RegistryLimit { .. }
            | Self::TaskLimit { .. }
            | Self::WorkerLost { .. }
            | Self::HandedBack => None,
        }
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admission => f.write_str("admission"),
            Self::RegistryLimit { limit } => {
                write!(f, "one of the registry's {limit} places for runs")
            }
            Self::TaskLimit { limit } => write!(f, "one of the task's {limit} places for runs"),
            Self::Backoff { until, error } => {
                write!(f, "another attempt at {until}, after: {error}")
            }
            Self::Unavailable { error, away_since, until } => {
                write!(
                    f,
                    "what is missing since {away_since}; it is tried again at {until}: {error}"
                )
            }
            Self::WorkerLost { attempt } => {
                write!(f, "another worker: that of attempt {attempt} was lost")
            }
            Self::HandedBack => f.write_str("another worker: the last one shut down"),
        }
    }
}

/// What moves a run on.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum Progress {
    /// It waits for something else, or again.
    Held {
        /// For what.
        reason: WaitReason,
    },
    /// The scheduler admitted it.
    Admitted {
        /// To which pool.
        pool: PoolName,
        /// At which place.
        rank: Rank,
        /// With which secrets.
        secrets: ReadySecrets,
    },
    /// A worker took it.
    Taken {
        /// The worker's right.
        lease: Lease,
    },
    /// Its first step began.
    Began,
    /// It ended.
    Finished { outcome: Outcome },
}

/// A run was asked to move where it cannot.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("a run that is {from} cannot be {to}")]
pub struct IllegalTransition {
    /// Where it stands.
    pub from: RunStatus,
    /// What was asked.
    pub to: &'static str,
}

impl RunState {
    /// The status that people see.
    #[must_use]
    pub fn status(&self) -> RunStatus {
        match self {
            Self::Waiting { .. } | Self::Ready { .. } => RunStatus::Queued,
            Self::Started { .. } => RunStatus::Started,
            Self::Running { .. } => RunStatus::Running,
            Self::Done(done) => done.outcome.status(),
        }
    }

    /// The lease, while there is one.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Started { lease } | Self::Running { lease, .. } => Some(lease),
            Self::Waiting { .. } | Self::Ready { .. } | Self::Done(_) => None,
        }
    }

    /// The lease, to be renewed.
    pub fn lease_mut(&mut self) -> Option<&mut Lease> {
        match self {
            Self::Started { lease } | Self::Running { lease, .. } => Some(lease),
            Self::Waiting { .. } | Self::Ready { .. } | Self::Done(_) => None,
        }
    }

    /// The end, once there is one.
    #[must_use]
    pub fn done(&self) -> Option<&Done> {
        match self {
            Self::Done(done) => Some(done),
            Self::Waiting { .. }
            | Self::Ready { .. }
            | Self::Started { .. }
            | Self::Running { .. } => None,
        }
    }

    /// Whether it holds one of its registry's and its task's places.
    #[must_use]
    pub fn holds_a_place(&self) -> bool {
        matches!(self, Self::Ready { .. }) || self.lease().is_some()
    }

    /// Moves on. Whether a worker may say so has been checked by the caller, in the same commit.
    ///
    /// # Errors
    /// [`IllegalTransition`], always for a terminal state.
    pub fn apply(self, progress: Progress, now: Timestamp) -> Result<Self, IllegalTransition> {
        match (self, progress) {
            (Self::Waiting { since, .. }, Progress::Held { reason }) => {
                Ok(Self::Waiting { reason, since })
            }
            (Self::Started { .. } | Self::Running { .. }, Progress::Held { reason }) => {
                Ok(Self::Waiting { reason, since: now })
            }
            (Self::Waiting { .. }, Progress::Admitted { pool, rank, secrets }) => {
                Ok(Self::Ready { pool, rank, since: now, secrets })
            }
            (Self::Ready { .. }, Progress::Taken { lease }) => Ok(Self::Started { lease }),
            (Self::Started { lease }, Progress::Began) => Ok(Self::Running { lease, since: now }),
            (Self::Done(done), progress) => {
                Err(IllegalTransition { from: done.outcome.status(), to: progress.word() })
            }
            (from, Progress::Finished { outcome }) => {
                let started = from.lease().map(|lease| lease.since);
                Ok(Self::Done(Done { outcome, started, at: now }))
            }
            (from, progress) => Err(IllegalTransition { from: from.status(), to: progress.word() }),
        }
    }
}

impl Progress {
    fn word(&self) -> &'static str {
        match self {
            Self::Held { .. } => "held back",
            Self::Admitted { .. } => "admitted",
            Self::Taken { .. } => "taken",
            Self::Began => "begun",
            Self::Finished { .. } => "finished",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> Lease {
        Lease {
            attempt: 1,
            worker: "w".parse().unwrap(),
            nonce: "0".repeat(32).parse().unwrap(),
            since: Timestamp::from_millis(1),
            until: Timestamp::from_millis(2),
        }
    }

    fn every_progress() -> Vec<Progress> {
        vec![
            Progress::Held { reason: WaitReason::Admission },
            Progress::Admitted {
                pool: "p".parse().unwrap(),
                rank: Rank(0),
                secrets: ReadySecrets::None,
            },
            Progress::Taken { lease: lease() },
            Progress::Began,
            Progress::Finished { outcome: Outcome::Canceled { by: "t".parse().unwrap() } },
        ]
    }

    #[test]
    fn a_run_moves_through_the_states_of_the_original() {
        let now = Timestamp::from_millis(9);
        let mut state = RunState::Waiting { reason: WaitReason::Admission, since: now };
        let mut seen = vec![state.status().as_str()];
        for progress in every_progress() {
            state = state.apply(progress, now).unwrap();
            seen.push(state.status().as_str());
        }
        assert_eq!(seen, ["Queued", "Queued", "Queued", "Started", "Running", "Canceled"]);
        assert_eq!(state.done().unwrap().started, Some(Timestamp::from_millis(1)));
    }

    #[test]
    fn a_terminal_state_never_changes() {
        let end = RunState::Done(Done {
            outcome: Outcome::Canceled { by: "t".parse().unwrap() },
            started: None,
            at: Timestamp::default(),
        });
        for progress in every_progress() {
            assert!(end.clone().apply(progress, Timestamp::default()).is_err());
        }
    }

    #[test]
    fn only_a_ready_run_is_taken() {
        let now = Timestamp::default();
        let waiting = RunState::Waiting { reason: WaitReason::Admission, since: now };
        let started = RunState::Started { lease: lease() };
        for state in [waiting, started] {
            let refused = state.apply(Progress::Taken { lease: lease() }, now).unwrap_err();
            assert_eq!(refused.to, "taken");
        }
    }
}
