//! How attempts end, and what follows for their run. Pure.

use gantry_domain::attempt::{AttemptEnd, EndedAttempt};
use gantry_domain::run::{ErrorCode, Outage, Outcome, Progress, Run, RunError, WaitReason};
use gantry_domain::timestamp::Timestamp;
use std::time::Duration;

use super::{RunOpError, advance};

/// For how long an outage is waited for.
pub const OUTAGE: Duration = Duration::from_secs(3600);

/// For how long a host is waited for that does not show yet what it sent a hook for.
pub const BEHIND: Duration = Duration::from_secs(180);

/// How a worker ends its attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Finish {
    /// The run ended.
    Outcome(Outcome),
    /// The infrastructure failed: another attempt after a pause, if there is one left.
    Retry {
        /// What failed.
        error: RunError,
        /// How long to wait before the next attempt.
        pause: Duration,
    },
    /// What the attempt needs does not answer: another attempt after a pause, which costs none, for as long as [`OUTAGE`].
    Unavailable {
        /// What does not answer.
        error: RunError,
        /// How long it wants to be left alone.
        not_before: Duration,
    },
    /// What a push announced is not in its repository yet: the same, for as long as [`BEHIND`]. Then the run failed.
    NotYetThere {
        /// What is not there.
        error: RunError,
    },
    /// The worker shuts down: another one takes the run at once. Does not count as an attempt.
    HandBack,
}

/// What became of a run whose attempt its worker ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Finished {
    /// It ended.
    Done(Run),
    /// It waits for its next attempt.
    WillBeTriedAgain(Run),
}

/// What became of a run whose lease ended without a word.
#[derive(Debug, Clone, PartialEq)]
pub enum Lapsed {
    /// It ended: cancelled, or no attempt is left.
    Done(Run),
    /// It waits for its next attempt.
    WillBeTriedAgain(Run),
}

/// Ends the leased attempt of `run` as its worker says.
pub(super) fn end_attempt(
    run: &mut Run,
    finish: &Finish,
    now: Timestamp,
) -> Result<(), RunOpError> {
    let end = match finish {
        Finish::Outcome(_) => AttemptEnd::Finished,
        Finish::Retry { error, .. } => {
            AttemptEnd::InfrastructureFailed { error: error.to_string() }
        }
        Finish::Unavailable { error, .. } | Finish::NotYetThere { error } => {
            AttemptEnd::Unavailable { error: error.to_string() }
        }
        Finish::HandBack => AttemptEnd::HandedBack,
    };
    record_end(run, end, now);
    match finish {
        Finish::Outcome(outcome) => {
            advance(run, Progress::Finished { outcome: outcome.clone() }, now)
        }
        Finish::Retry { error, pause } => {
            let reason = WaitReason::Backoff { until: now.after(*pause), error: error.to_string() };
            wait_or_end(run, reason, failed_for_good(error.clone()), now)
        }
        Finish::Unavailable { error, not_before } => {
            let end = |waited: Duration| {
                let minutes = waited.as_secs() / 60;
                let message = format!("{}; it was waited for {minutes} min", error.message);
                failed_for_good(RunError { message, ..error.clone() })
            };
            wait_for_return(run, error, *not_before, OUTAGE, end, now)
        }
        Finish::NotYetThere { error } => {
            let end = |_| Outcome::Failed { error: error.clone() };
            wait_for_return(run, error, Duration::ZERO, BEHIND, end, now)
        }
        Finish::HandBack => {
            let error = RunError {
                code: ErrorCode::WorkerLost,
                step: None,
                exit_code: None,
                message: format!("it was handed back {} times", run.attempts.len()),
            };
            wait_or_end(run, WaitReason::HandedBack, failed_for_good(error), now)
        }
    }
}

/// Ends the leased attempt of `run`, whose worker was silent for too long.
pub(super) fn lapse(run: &mut Run, attempt: u32, now: Timestamp) -> Result<(), RunOpError> {
    let worker = run.state.lease().map(|lease| lease.worker.to_string()).unwrap_or_default();
    record_end(run, AttemptEnd::Lapsed, now);
    let error = RunError {
        code: ErrorCode::WorkerLost,
        step: None,
        exit_code: None,
        message: format!(
            "worker lost: {worker} stopped renewing its lease in attempt {attempt}, the last one; see that worker's log"
        ),
    };
    wait_or_end(run, WaitReason::WorkerLost { attempt }, failed_for_good(error), now)
}

fn failed_for_good(error: RunError) -> Outcome {
    Outcome::Error { error }
}

/// Lets the run wait for what is away, or ends it once that took longer than `most`.
fn wait_for_return(
    run: &mut Run,
    error: &RunError,
    not_before: Duration,
    most: Duration,
    end: impl FnOnce(Duration) -> Outcome,
    now: Timestamp,
) -> Result<(), RunOpError> {
    let outage = run.outage().unwrap_or(Outage { since: now, found: 1 });
    let waited = now.since(outage.since);
    if waited >= most && run.cancel.is_none() {
        return advance(run, Progress::Finished { outcome: end(waited) }, now);
    }
    let until = now.after(outage.pause().max(not_before));
    let away_since = outage.since;
    let reason = WaitReason::Unavailable { error: error.to_string(), away_since, until };
    wait_or_end(run, reason, end(waited), now)
}

fn wait_or_end(
    run: &mut Run,
    reason: WaitReason,
    end: Outcome,
    now: Timestamp,
) -> Result<(), RunOpError> {
    let progress = match &run.cancel {
        Some(ask) => Progress::Finished { outcome: Outcome::Canceled { by: ask.by.clone() } },
        None if run.may_be_tried_again() => Progress::Held { reason },
        None => Progress::Finished { outcome: end },
    };
    advance(run, progress, now)
}

fn record_end(run: &mut Run, end: AttemptEnd, now: Timestamp) {
    if let Some(lease) = run.state.lease() {
        let ended = EndedAttempt {
            attempt: lease.attempt,
            worker: lease.worker.clone(),
            since: lease.since,
            ended: now,
            end,
        };
        run.attempts.push(ended);
    }
}
