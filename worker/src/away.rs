//! Asks the store for as long as it is away and nobody else took the run: what it does not answer now costs no attempt.

use std::time::Duration;

use gantry_domain::id::StepId;
use gantry_domain::run::ErrorCode;
use gantry_ops::backoff::Backoff;
use gantry_seams::runs::RunOpError;
use gantry_seams::store::StoreError;

use crate::failure::Failure;
use crate::lease::KeptLease;

/// The store's answer ends what the attempt was about to do.
pub(crate) enum Refused {
    /// The lease is someone else's: nothing may be done any more.
    LeaseLost,
    /// Somebody asked to cancel the run.
    CancelAsked,
    /// Asking again would be answered the same.
    Failed(Failure),
}

impl Refused {
    /// It happened in a step.
    pub(crate) fn in_step(self, step: &StepId) -> Self {
        match self {
            Self::Failed(failure) => Self::Failed(failure.in_step(step)),
            Self::LeaseLost | Self::CancelAsked => self,
        }
    }
}

/// Asks again, with pauses that grow to two seconds, until the store answers. `waits` goes on with `run ca1 waits …`.
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
            // The store knows of a cancel, and of a lease that is over, before the next renewal does.
            RunOpError::CancelAsked { .. } => return Err(Refused::CancelAsked),
            RunOpError::LeaseLost { .. } | RunOpError::Absent { .. } => {
                return Err(Refused::LeaseLost);
            }
            error @ (RunOpError::Illegal { .. } | RunOpError::Store(_)) => {
                let failure = Failure::infrastructures(ErrorCode::Internal, &error);
                return Err(Refused::Failed(failure));
            }
        }
    }
}
