//! The states of a run, and the one function that changes them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attempt::Lease;
use crate::id::{GroupName, PoolName, RunId, WaveId};
use crate::run::{Outcome, RunStatus};
use crate::timestamp::Timestamp;

/// The state of a run. Each state has the data that exists in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum RunState {
    /// Not yet admitted.
    Waiting {
        /// What it waits for.
        reason: WaitReason,
        /// Since when it waits.
        since: Timestamp,
    },
    /// Any worker of the pool may take it.
    Ready {
        /// The pool.
        pool: PoolName,
        /// The order in the pool; the lowest rank comes first.
        rank: Rank,
        /// Since when it is ready.
        since: Timestamp,
        /// Whether it has secrets.
        secrets: ReadySecrets,
    },
    /// A worker has leased it; its first step has not begun.
    Started {
        /// The lease.
        lease: Lease,
    },
    /// Its first step began.
    Running {
        /// The lease.
        lease: Lease,
        /// When the first step began.
        since: Timestamp,
    },
    /// It has ended. This state is final.
    Done(Done),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The outcome.
    pub outcome: Outcome,
    /// When the last attempt was leased; `None` if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it ended.
    pub at: Timestamp,
}

/// Whether a ready run has stored secrets, without which it must not be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadySecrets {
    /// It needs no secrets.
    None,
    /// Its secrets are stored, sealed for its pool.
    Stored,
}

/// The position of a ready run in its pool; the lowest comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rank(pub i64);

/// What a waiting run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "for")]
pub enum WaitReason {
    /// Admission: the run is new.
    Admission,
    /// Somebody to approve it: its content is a stranger's.
    Approval,
    /// The images that its task uses: a wave is building some of them.
    Bases {
        /// The wave.
        wave: WaveId,
    },
    /// Its legs, which build it for each of its platforms.
    Legs,
    /// A place among the runs of its registry.
    RegistryLimit {
        /// The number of places.
        limit: u32,
    },
    /// A place among the runs of its task.
    TaskLimit {
        /// The number of places.
        limit: u32,
    },
    /// The end of an earlier run of its timer.
    EarlierRun,
    /// The end of another run of its concurrency group.
    Group {
        /// The group.
        group: GroupName,
        /// The run that is ready or executed.
        run: RunId,
    },
    /// The pause before another attempt.
    Backoff {
        /// The end of the pause.
        until: Timestamp,
        /// What failed.
        error: String,
    },
    /// Something that is unavailable or not there yet: a git host, a commit, a registry, the engine.
    Unavailable {
        /// What is unavailable, with the error.
        error: String,
        /// Since when it is unavailable.
        away_since: Timestamp,
        /// When the next attempt is due.
        until: Timestamp,
    },
    /// The values of its secrets: a vault is being asked.
    Secrets,
    /// A vault that does not answer.
    VaultAway {
        /// The error.
        error: String,
        /// Since when it does not.
        away_since: Timestamp,
        /// When it is asked again.
        until: Timestamp,
    },
    /// A worker: the last one was lost.
    WorkerLost {
        /// The lost attempt.
        attempt: u32,
    },
    /// A worker: the last one handed the run back, because it shut down or the token for the source was over.
    HandedBack,
}

impl WaitReason {
    /// The end of the run's pause; `None` if it is not pausing.
    #[must_use]
    pub fn rests_until(&self) -> Option<Timestamp> {
        match self {
            Self::Backoff { until, .. }
            | Self::Unavailable { until, .. }
            | Self::VaultAway { until, .. } => Some(*until),
            Self::Admission
            | Self::Approval
            | Self::Bases { .. }
            | Self::Legs
            | Self::RegistryLimit { .. }
            | Self::TaskLimit { .. }
            | Self::EarlierRun
            | Self::Group { .. }
            | Self::Secrets
            | Self::WorkerLost { .. }
            | Self::HandedBack => None,
        }
    }
}

impl WaitReason {
    /// Whether the run is not considered for admission.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Approval | Self::Bases { .. } | Self::Legs)
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admission => f.write_str("its turn"),
            Self::Approval => f.write_str(
                "approval, because its pull request is from a fork: `gantry runs approve`, or `/gantry approve COMMIT` below it",
            ),
            Self::Bases { wave } => {
                write!(f, "images that it is built on: wave {wave} is building them")
            }
            Self::Legs => f.write_str("its legs: a run for each of its platforms"),
            Self::RegistryLimit { limit } => {
                write!(f, "one of the registry's {limit} places for runs")
            }
            Self::TaskLimit { limit } => write!(f, "one of the task's {limit} places for runs"),
            Self::EarlierRun => f.write_str("the end of an earlier run of its timer"),
            Self::Group { group, run } => {
                write!(f, "the end of run {run}, in its concurrency group {group}")
            }
            Self::Secrets => f.write_str("the values of its secrets"),
            Self::Backoff { until, error } => {
                write!(f, "another attempt at {until}, after: {error}")
            }
            Self::Unavailable { error, away_since, until }
            | Self::VaultAway { error, away_since, until } => {
                write!(
                    f,
                    "what is missing since {away_since}; it is tried again at {until}: {error}"
                )
            }
            Self::WorkerLost { attempt } => {
                write!(f, "another worker: that of attempt {attempt} was lost")
            }
            Self::HandedBack => f.write_str("another worker: the last one handed it back"),
        }
    }
}

/// A change of a run's state.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum Progress {
    /// Somebody approved it.
    Approved,
    /// The images or legs that it waited for are there.
    Released,
    /// It waits again, or for another reason.
    Held {
        /// What it waits for.
        reason: WaitReason,
    },
    /// The scheduler admitted it.
    Admitted {
        /// The pool.
        pool: PoolName,
        /// The rank in the pool.
        rank: Rank,
        /// Whether it has secrets.
        secrets: ReadySecrets,
    },
    /// A worker leased it.
    Taken {
        /// The lease.
        lease: Lease,
    },
    /// Its first step began.
    Began,
    /// It ended.
    Finished { outcome: Outcome },
}

/// A transition is not allowed in the run's state.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("a run that is {from} cannot be {to}")]
pub struct IllegalTransition {
    /// The current state.
    pub from: RunStatus,
    /// The requested transition.
    pub to: &'static str,
}

impl RunState {
    /// The status for people.
    #[must_use]
    pub fn status(&self) -> RunStatus {
        match self {
            Self::Waiting { .. } | Self::Ready { .. } => RunStatus::Queued,
            Self::Started { .. } => RunStatus::Started,
            Self::Running { .. } => RunStatus::Running,
            Self::Done(done) => done.outcome.status(),
        }
    }

    /// The lease, if there is one.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Started { lease } | Self::Running { lease, .. } => Some(lease),
            Self::Waiting { .. } | Self::Ready { .. } | Self::Done(_) => None,
        }
    }

    /// When the last attempt was leased; `None` while the run waits for one.
    #[must_use]
    pub fn started(&self) -> Option<Timestamp> {
        match self {
            Self::Waiting { .. } | Self::Ready { .. } => None,
            Self::Started { lease } | Self::Running { lease, .. } => Some(lease.since),
            Self::Done(done) => done.started,
        }
    }

    /// The lease, to be renewed.
    pub fn lease_mut(&mut self) -> Option<&mut Lease> {
        match self {
            Self::Started { lease } | Self::Running { lease, .. } => Some(lease),
            Self::Waiting { .. } | Self::Ready { .. } | Self::Done(_) => None,
        }
    }

    /// The end, if the run has ended.
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

    /// Whether it waits for an approval.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Waiting { reason: WaitReason::Approval, .. })
    }

    /// Whether it waits for images that a wave is building.
    #[must_use]
    pub fn waits_for_bases(&self) -> bool {
        matches!(self, Self::Waiting { reason: WaitReason::Bases { .. }, .. })
    }

    /// Whether it occupies a place of its registry and task. One that waits for its legs does, for all of them.
    #[must_use]
    pub fn holds_a_place(&self) -> bool {
        match self {
            Self::Waiting { reason, .. } => *reason == WaitReason::Legs,
            Self::Ready { .. } | Self::Started { .. } | Self::Running { .. } => true,
            Self::Done(_) => false,
        }
    }

    /// Applies a transition. The caller has checked in the same commit that the worker may request it.
    ///
    /// # Errors
    /// [`IllegalTransition`]; always for a final state.
    pub fn apply(self, progress: Progress, now: Timestamp) -> Result<Self, IllegalTransition> {
        match (self, progress) {
            (Self::Waiting { reason: WaitReason::Approval, since }, Progress::Approved) => {
                Ok(Self::Waiting { reason: WaitReason::Admission, since })
            }
            (Self::Waiting { reason: WaitReason::Bases { .. }, since }, Progress::Released) => {
                Ok(Self::Waiting { reason: WaitReason::Admission, since })
            }
            (Self::Waiting { reason: WaitReason::Legs, .. }, Progress::Released) => {
                Ok(Self::Waiting { reason: WaitReason::Admission, since: now })
            }
            (
                from @ Self::Waiting {
                    reason: WaitReason::Approval | WaitReason::Bases { .. } | WaitReason::Legs,
                    ..
                },
                progress @ (Progress::Held { .. } | Progress::Admitted { .. }),
            ) => Err(IllegalTransition { from: from.status(), to: progress.word() }),
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
            Self::Approved => "approved",
            Self::Released => "released",
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
    use crate::run::CanceledBy;

    fn lease() -> Lease {
        Lease {
            attempt: 1,
            worker: "w".parse().unwrap(),
            pool: "linux-amd64".parse().unwrap(),
            nonce: "0".repeat(32).parse().unwrap(),
            since: Timestamp::from_millis(1),
            until: Timestamp::from_millis(2),
        }
    }

    fn canceled() -> CanceledBy {
        CanceledBy::PullRequestClosed { number: 7 }
    }

    fn every_progress() -> Vec<Progress> {
        vec![
            Progress::Approved,
            Progress::Held { reason: WaitReason::Admission },
            Progress::Admitted {
                pool: "p".parse().unwrap(),
                rank: Rank(0),
                secrets: ReadySecrets::None,
            },
            Progress::Taken { lease: lease() },
            Progress::Began,
            Progress::Finished { outcome: Outcome::Canceled { by: canceled() } },
        ]
    }

    #[test]
    fn a_held_run_is_admitted_only_after_an_approval() {
        let now = Timestamp::from_millis(9);
        let held = RunState::Waiting { reason: WaitReason::Approval, since: now };
        for progress in every_progress() {
            let is_allowed = matches!(progress, Progress::Approved | Progress::Finished { .. });
            assert_eq!(
                held.clone().apply(progress.clone(), now).is_ok(),
                is_allowed,
                "{progress:?}"
            );
        }
        let approved = held.apply(Progress::Approved, now).unwrap();
        assert!(!approved.is_held() && approved.apply(Progress::Approved, now).is_err());
    }

    #[test]
    fn a_run_moves_through_the_states_of_the_original() {
        let now = Timestamp::from_millis(9);
        let mut state = RunState::Waiting { reason: WaitReason::Approval, since: now };
        let mut seen = vec![state.status().as_str()];
        for progress in every_progress() {
            state = state.apply(progress, now).unwrap();
            seen.push(state.status().as_str());
        }
        assert_eq!(
            seen,
            ["Queued", "Queued", "Queued", "Queued", "Started", "Running", "Canceled"]
        );
        assert_eq!(state.done().unwrap().started, Some(Timestamp::from_millis(1)));
    }

    #[test]
    fn a_terminal_state_never_changes() {
        let end = RunState::Done(Done {
            outcome: Outcome::Canceled { by: canceled() },
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
