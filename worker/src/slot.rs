//! Executes one attempt of a run, from its lease to its end.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use gantry_domain::id::WorkerId;
use gantry_domain::registry::Registry;
use gantry_domain::run::{ErrorCode, Outcome, Purpose, Run, RunError};
use gantry_domain::step::Steps;
use gantry_ops::backoff::Backoff;
use gantry_ops::bundle::Bundle;
use gantry_ops::secret::PoolKey;
use gantry_seams::blobs::SharedBlobs;
use gantry_seams::logs::LogId;
use gantry_seams::registries;
use gantry_seams::runs::{self, Bundled, Finish, Finished, RunOpError, TakenRun};
use gantry_seams::store::{SharedStore, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::attempt::Attempt;
use crate::away::{Refused, ask_until_answered};
use crate::executor::{Ending, Executor};
use crate::failure::Failure;
use crate::held::Held;
use crate::lease::KeptLease;
use crate::log::{LogWriter, RunLog};
use crate::mask::Secrets;
use crate::settings::WorkerSettings;
use crate::spans;

/// How long writing the outcome is retried while the store is unavailable and the lease is held.
const FINISH_WITHIN: Duration = Duration::from_secs(900);

pub(crate) struct Slot {
    pub(crate) store: SharedStore,
    /// For logs.
    pub(crate) blobs: SharedBlobs,
    pub(crate) pool_key: Arc<PoolKey>,
    pub(crate) executor: Executor,
    pub(crate) settings: WorkerSettings,
}

/// The attempt cannot start.
#[derive(Debug, thiserror::Error)]
#[error("worker {worker} cannot start")]
struct CannotBegin {
    worker: WorkerId,
    source: Box<dyn Error>,
}

impl Slot {
    /// Executes one attempt. Returns when its outcome was written, or can no longer be written.
    pub(crate) async fn attempt(&self, taken: TakenRun, held: Held, stop: &CancellationToken) {
        let span = spans::attempt(&taken, &self.settings);
        self.attempt_in_span(taken, held, stop).instrument(span).await;
    }

    async fn attempt_in_span(&self, taken: TakenRun, held: Held, stop: &CancellationToken) {
        let (id, number) = (taken.run.id, taken.holder.attempt);
        tracing::info!(run.id = %id, run.attempt = number, "run {id}: attempt {number} begins");
        let Some((attempt, writer)) = self.begin(taken, held).await else { return };
        let (steps, ending, cleanup) = Box::pin(self.executor.run(&attempt, stop)).await;
        self.end(attempt, writer, &steps, ending).await;
        // Whoever waits for the run does not wait for this.
        if let Some(cleanup) = cleanup {
            cleanup.run().await;
        }
    }

    /// Prepares an attempt. Without its secrets a run is not built; they are sealed again for its next attempt.
    async fn begin(&self, taken: TakenRun, held: Held) -> Option<(Attempt, LogWriter)> {
        let TakenRun { run, holder, bundle, .. } = taken;
        let times = self.settings.lease;
        let number = holder.attempt;
        let Held { cancel_asked, slot } = held;
        let lease = KeptLease::keep(Arc::clone(&self.store), run.id, holder, times, cancel_asked);
        let needs = self.open_needs(&lease, &run, bundle).await;
        let needs = needs.and_then(|(bundle, registry)| {
            Ok((secrets(&bundle).map_err(Refused::Failed)?, bundle, registry))
        });
        let (secrets, bundle, registry) = match needs {
            Ok(needs) => needs,
            Err(Refused::LeaseLost | Refused::CancelAsked) => return None,
            Err(Refused::Failed(failure)) => {
                tracing::warn!(run.id = %run.id, "run {}: {}", run.id, failure.error());
                self.finish(&lease, failure.finish(number), &Steps::default()).await;
                return None;
            }
        };
        let since = run.state.lease().map_or(run.created, |lease| lease.since);
        if bundle.is_over(since) {
            tracing::info!(run.id = %run.id, "run {} gets a new token for its source: it was ready for too long", run.id);
            self.finish(&lease, Finish::HandBack, &Steps::default()).await;
            return None;
        }
        let (log, writer) = RunLog::begin(
            Arc::clone(&self.store),
            Arc::clone(&self.blobs),
            LogId { run: run.id, attempt: number },
            secrets,
            self.settings.log_limit,
        );
        let deadline = Instant::now() + run.recipe.timeout.as_duration();
        let attempt = Attempt { run, registry, number, slot, bundle, log, lease, since, deadline };
        Some((attempt, writer))
    }

    async fn open_needs(
        &self,
        lease: &KeptLease,
        run: &Run,
        bundle: Bundled,
    ) -> Result<(Bundle, Registry), Refused> {
        let cannot_begin = |source: Box<dyn Error>| {
            let error = CannotBegin { worker: self.settings.id.clone(), source };
            Refused::Failed(Failure::infrastructures(ErrorCode::Internal, &error))
        };
        let bundle = match bundle.map_err(|error| cannot_begin(error.into()))? {
            None => Bundle::default(),
            Some(sealed) => Bundle::open(&self.pool_key, run, &sealed)
                .map_err(|error| cannot_begin(error.into()))?,
        };
        let (name, prefix) = (&run.registry, run.id.prefix());
        let find = || registries::find_exactly(self.store.as_ref(), name, prefix);
        match ask_until_answered(lease, "to begin", find).await? {
            Some(registry) => Ok((bundle, registry)),
            None => {
                let message = format!("registry {name} was deleted");
                Err(Refused::Failed(Failure::in_words(ErrorCode::Internal, message)))
            }
        }
    }

    /// Logs how the attempt ended, and writes the outcome.
    async fn end(&self, attempt: Attempt, writer: LogWriter, steps: &Steps, ending: Ending) {
        let run = attempt.run.id;
        let finish = match ending {
            Ending::Succeeded(product) => Some(Finish::Outcome(Outcome::Succeeded(product))),
            Ending::Failed(failure) => Some(say_failed(&attempt, failure).await),
            Ending::CancelAsked => self.canceled(&attempt).await,
            Ending::TimedOut => Some(timed_out(&attempt).await),
            Ending::Stopped => {
                attempt.log.say(None, "the worker shuts down: another one takes this run").await;
                Some(Finish::HandBack)
            }
            Ending::Split(split) => {
                let line =
                    "no engine here builds for all platforms: each is built by a run of its own";
                attempt.log.say(None, line).await;
                Some(Finish::Split(split))
            }
            Ending::LeaseLost => None,
        };
        let Attempt { log, lease, number, .. } = attempt;
        drop(log);
        writer.finished().await;
        let Some(finish) = finish else {
            tracing::warn!(run.id = %run, "run {run}: the lease of attempt {number} is lost; another attempt has it");
            return;
        };
        self.finish(&lease, finish, steps).await;
    }

    async fn canceled(&self, attempt: &Attempt) -> Option<Finish> {
        let found = runs::find(self.store.as_ref(), attempt.run.id).await;
        let by = found.ok().flatten().and_then(|run| run.cancel).map(|ask| ask.by)?;
        attempt.log.say(None, format!("canceled by {by}")).await;
        Some(Finish::Outcome(Outcome::Canceled { by }))
    }

    /// Writes the outcome, retrying while the store is unavailable and the lease is held.
    async fn finish(&self, lease: &KeptLease, finish: Finish, steps: &Steps) {
        let give_up = Instant::now() + FINISH_WITHIN;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        loop {
            let finished =
                runs::finish(self.store.as_ref(), lease.run, &lease.holder, finish.clone(), steps);
            match finished.instrument(tracing::info_span!("finish")).await {
                Ok(finished) => {
                    spans::ended(&finished);
                    say_finished(&finished);
                    return self.executor.wake_scheduler(lease.run).await;
                }
                Err(RunOpError::Store(error))
                    if Instant::now() < give_up
                        && !matches!(error, StoreError::Undecodable { .. }) =>
                {
                    tracing::warn!(run.id = %lease.run, "the outcome of run {} is not written yet: {error}", lease.run);
                    tokio::time::sleep(backoff.wait()).await;
                }
                Err(error) => {
                    tracing::warn!(run.id = %lease.run, "the outcome of run {} is not written: {error}", lease.run);
                    return;
                }
            }
        }
    }
}

fn say_finished(finished: &Finished) {
    match finished {
        Finished::Done(run) => {
            tracing::info!(run.id = %run.id, run.status = %run.status(), "run {} ended: {}", run.id, run.status());
        }
        Finished::WillBeTriedAgain(run) => {
            tracing::warn!(run.id = %run.id, "run {} will be tried again", run.id);
        }
    }
}

async fn say_failed(attempt: &Attempt, failure: Failure) -> Finish {
    let failure = failure.masked(|text| attempt.log.secrets().mask(text));
    attempt.log.say(None, format!("failed: {}", failure.error())).await;
    failure.finish(attempt.number)
}

async fn timed_out(attempt: &Attempt) -> Finish {
    let seconds = attempt.run.recipe.timeout.as_duration().as_secs();
    let message = match &attempt.run.purpose {
        Purpose::Execute | Purpose::Leg(_) => {
            format!("the run took longer than its {seconds} s: give it more with `--timeout`")
        }
        Purpose::Scan => format!("reading the source took longer than {seconds} s"),
    };
    let error = RunError { code: ErrorCode::TimedOut, step: None, exit_code: None, message };
    attempt.log.say(None, error.to_string()).await;
    Finish::Outcome(Outcome::Timeout { error })
}

/// The secrets to mask in the log. A run with too many secrets is not built, because they would appear in its log.
fn secrets(bundle: &Bundle) -> Result<Secrets, Failure> {
    let masked = bundle.masked();
    let masked = masked.map_err(|error| Failure::users(ErrorCode::BuildRefused, &error))?;
    Ok(Secrets::new(&masked))
}
