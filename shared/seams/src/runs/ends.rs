//! How attempts end, and what follows for the run. Pure.

use gantry_domain::attempt::{AttemptEnd, EndedAttempt};
use gantry_domain::run::{
    ErrorCode, Legs, Outage, Outcome, Progress, Run, RunError, Split, WaitReason,
};
use gantry_domain::timestamp::Timestamp;
use std::time::Duration;

use super::{RunOpError, advance};

/// How long a run waits for an outage to end.
pub const OUTAGE: Duration = Duration::from_secs(3600);

/// How long a run waits for a code host that does not serve a commit yet for which it has sent a hook.
pub const BEHIND: Duration = Duration::from_secs(180);

/// How a worker ends its attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Finish {
    /// The run ended.
    Outcome(Outcome),
    /// The infrastructure failed: retried after a pause while attempts are left.
    Retry {
        /// What failed.
        error: RunError,
        /// How long to wait before the next attempt.
        pause: Duration,
    },
    /// Something that the attempt needs does not answer: retried after a pause for up to [`OUTAGE`], without using up
    /// an attempt.
    Unavailable {
        /// What does not answer.
        error: RunError,
        /// The pause that the service asked for.
        not_before: Duration,
    },
    /// A commit that a push announced is not in its repository yet: retried like `Unavailable`, for up to [`BEHIND`],
    /// then the run fails.
    NotYetThere {
        /// What is missing.
        error: RunError,
    },
    /// No engine builds for all platforms of the run: it waits until a run for each has built its image. Does not use up an attempt.
    Split(Split),
    /// The worker shuts down, or the run's token for its source is over. It is admitted again, with new secrets, and another
    /// worker may take it at once. Does not use up an attempt.
    HandBack,
}

/// The state of a run after its worker ended the attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Finished {
    /// The run ended.
    Done(Run),
    /// The run waits for its next attempt.
    WillBeTriedAgain(Run),
}

/// The state of a run after its lease expired.
#[derive(Debug, Clone, PartialEq)]
pub enum Lapsed {
    /// The run ended: it was cancelled, or no attempt is left.
    Done(Run),
    /// The run waits for its next attempt.
    WillBeTriedAgain(Run),
}

/// Ends the leased attempt of `run` as its worker reports it.
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
        Finish::Split(_) => AttemptEnd::Split,
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
                let message = format!("{}; gave up after {minutes} min", error.message);
                failed_for_good(RunError { message, ..error.clone() })
            };
            wait_for_return(run, error, *not_before, OUTAGE, end, now)
        }
        Finish::NotYetThere { error } => {
            let end = |_| Outcome::Failed { error: error.clone() };
            wait_for_return(run, error, Duration::ZERO, BEHIND, end, now)
        }
        Finish::Split(split) => {
            run.legs = Some(Legs::Wanted(split.clone()));
            wait_or_end(run, WaitReason::Legs, handed_back_too_often(run), now)
        }
        Finish::HandBack => {
            wait_or_end(run, WaitReason::HandedBack, handed_back_too_often(run), now)
        }
    }
}

fn handed_back_too_often(run: &Run) -> Outcome {
    failed_for_good(RunError {
        code: ErrorCode::WorkerLost,
        step: None,
        exit_code: None,
        message: format!("it was handed back {} times", run.attempts.len()),
    })
}

/// Ends the leased attempt of `run` because its worker stopped renewing.
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

/// Lets the run wait for the outage to end, or ends it once the outage has lasted `most`.
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
