//! Retries requests to the store while it is unavailable and the lease is held, so that an outage costs no attempt.

use std::time::Duration;

use gantry_domain::id::StepId;
use gantry_domain::run::ErrorCode;
use gantry_ops::backoff::Backoff;
use gantry_seams::runs::RunOpError;
use gantry_seams::store::StoreError;

use crate::failure::Failure;
use crate::lease::KeptLease;

/// Why the store refused what the attempt was about to do.
pub(crate) enum Refused {
    /// The lease is lost: nothing more may be done.
    LeaseLost,
    /// Cancellation was requested.
    CancelAsked,
    /// Retrying would give the same result.
    Failed(Failure),
}

impl Refused {
    /// Adds the step in which it happened.
    pub(crate) fn in_step(self, step: &StepId) -> Self {
        match self {
            Self::Failed(failure) => Self::Failed(failure.in_step(step)),
            Self::LeaseLost | Self::CancelAsked => self,
        }
    }
}

/// Retries with pauses growing to two seconds until the store answers. `waits` completes the message `run ca1 waits …`.
pub(crate) async fn ask_until_answered<T, E, F>(
    lease: &KeptLease,
    waits: &str,
    ask: impl Fn() -> F,
) -> Result<T, Refused>
where
    E: Into<RunOpError>,
    F: Future<Output = Result<T, E>>,
{
    let run = lease.run;
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error.into(),
        };
        match error {
            RunOpError::Store(error) if !matches!(error, StoreError::Undecodable { .. }) => {
                tracing::warn!(run.id = %run, "run {run} waits {waits}: {error}");
                tokio::select! {
                    () = lease.lost() => return Err(Refused::LeaseLost),
                    () = tokio::time::sleep(backoff.wait()) => {}
                }
            }
            // The store knows about a cancellation or a lost lease before the next renewal does.
            RunOpError::CancelAsked { .. } => return Err(Refused::CancelAsked),
            RunOpError::LeaseLost { .. } | RunOpError::Absent { .. } => {
                return Err(Refused::LeaseLost);
            }
            error @ (RunOpError::Illegal { .. }
            | RunOpError::OtherCommit { .. }
            | RunOpError::Store(_)) => {
                let failure = Failure::infrastructures(ErrorCode::Internal, &error);
                return Err(Refused::Failed(failure));
            }
        }
    }
}
