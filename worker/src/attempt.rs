//! One attempt at a run, from its lease to its finish.
//!
//! Fetches, builds and pushes while the lease holds, nobody cancels and the time lasts; then moves the tags; then writes
//! the outcome. Whatever ends it early drops what goes on, and what goes on cleans up when it is dropped.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use gantry_domain::id::{StepId, WorkerId};
use gantry_domain::image::ImageReference;
use gantry_domain::lineage::Lineage;
use gantry_domain::registry::Registry;
use gantry_domain::run::{ErrorCode, Outcome, Product, Run, RunError};
use gantry_ops::backoff::Backoff;
use gantry_ops::bundle::Bundle;
use gantry_ops::metrics::Stage;
use gantry_ops::secret::Credentials;
use gantry_ops::telemetry;
use gantry_seams::logs::LogId;
use gantry_seams::queue::RunsMoved;
use gantry_seams::registries;
use gantry_seams::runs::{self, Bundled, Finish, Finished, RunOpError, TakenRun};
use gantry_seams::store::StoreError;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::Worker;
use crate::failure::Failure;
use crate::lease::KeptLease;
use crate::log::{LogWriter, RunLog};
use crate::mask::Secrets;
use crate::spans;
use crate::step::build::Built;
use crate::tags::NotTagged;

/// How long the outcome is tried to be written while the store is away and nobody else took the run.
const FINISH_WITHIN: Duration = Duration::from_secs(900);

/// Everything that one attempt knows.
pub(crate) struct Attempt {
    /// The run.
    pub(crate) run: Run,
    /// Its registry as it was when the attempt began.
    pub(crate) registry: Registry,
    /// From 1.
    pub(crate) number: u32,
    /// Its secrets.
    pub(crate) bundle: Bundle,
    /// Where it talks.
    pub(crate) log: RunLog,
    /// The lease.
    pub(crate) lease: KeptLease,
    /// When the run's time is over.
    pub(crate) deadline: Instant,
    /// The one step that there is.
    pub(crate) step: StepId,
}

/// How the part of an attempt ended that may be stopped at any moment.
pub(crate) enum Ending {
    Built(Box<Built>),
    Failed(Failure),
    CancelAsked,
    TimedOut,
    Stopped,
    LeaseLost,
}

/// An attempt lacks what it needs.
#[derive(Debug, thiserror::Error)]
#[error("worker {worker} cannot begin")]
struct CannotBegin {
    worker: WorkerId,
    source: Box<dyn Error>,
}

impl From<Failure> for Ending {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Attempt {
    /// The credentials for an image's registry, if the run has any.
    pub(crate) fn credentials(&self, image: &ImageReference) -> Option<Credentials> {
        self.bundle.registries.get(image.host()).cloned()
    }
}

impl Worker {
    /// Does one attempt. Returns when its outcome is written, or can no longer be.
    pub(crate) async fn attempt(
        &self,
        taken: TakenRun,
        bell: Arc<Notify>,
        stop: &CancellationToken,
    ) {
        let span = spans::attempt(&taken, &self.settings);
        self.attempt_in_span(taken, bell, stop).instrument(span).await;
    }

    async fn attempt_in_span(&self, taken: TakenRun, bell: Arc<Notify>, stop: &CancellationToken) {
        let (id, number) = (taken.run.id, taken.holder.attempt);
        tracing::info!(run.id = %id, run.attempt = number, "run {id}: attempt {number} begins");
        let Some((attempt, writer)) = self.begin(taken, bell).await else { return };
        let ending = tokio::select! {
            biased;
            () = attempt.lease.lost() => Ending::LeaseLost,
            () = attempt.lease.cancel_asked() => Ending::CancelAsked,
            () = stop.cancelled() => Ending::Stopped,
            () = tokio::time::sleep_until(attempt.deadline) => Ending::TimedOut,
            built = self.build_and_push(&attempt) => match built {
                Ok(built) => Ending::Built(Box::new(built)),
                Err(ending) => ending,
            },
        };
        self.end(attempt, writer, ending).await;
    }

    /// Opens what the run needs. Without its secrets it is not built: they are sealed anew for its next attempt.
    async fn begin(&self, taken: TakenRun, bell: Arc<Notify>) -> Option<(Attempt, LogWriter)> {
        let TakenRun { run, holder, bundle, .. } = taken;
        let times = self.settings.lease;
        let number = holder.attempt;
        let lease = KeptLease::keep(Arc::clone(&self.store), run.id, holder, times, bell);
        let needs = tokio::select! {
            () = lease.lost() => return None,
            needs = self.open_needs(&run, bundle) => needs,
        };
        let needs = needs.and_then(|(bundle, registry)| Ok((secrets(&bundle)?, bundle, registry)));
        let (secrets, bundle, registry) = match needs {
            Ok(needs) => needs,
            Err(failure) => {
                tracing::warn!(run.id = %run.id, "run {}: {}", run.id, failure.error());
                self.finish(&lease, failure.finish(number), None).await;
                return None;
            }
        };
        let (log, writer) = RunLog::begin(
            Arc::clone(&self.store),
            Arc::clone(&self.blobs),
            LogId { run: run.id, attempt: number },
            secrets,
            self.settings.log_limit,
        );
        let deadline = Instant::now() + run.build.timeout.as_duration();
        let Ok(step) = "build".parse() else { return None };
        Some((Attempt { run, registry, number, bundle, log, lease, deadline, step }, writer))
    }

    async fn open_needs(&self, run: &Run, bundle: Bundled) -> Result<(Bundle, Registry), Failure> {
        let cannot_begin = |source: Box<dyn Error>| {
            let error = CannotBegin { worker: self.settings.id.clone(), source };
            Failure::infrastructures(ErrorCode::Internal, &error)
        };
        let bundle = match bundle.map_err(|error| cannot_begin(error.into()))? {
            None => Bundle::default(),
            Some(sealed) => Bundle::open(&self.pool_key, run, &sealed)
                .map_err(|error| cannot_begin(error.into()))?,
        };
        match self.find_registry(run).await.map_err(|error| cannot_begin(error.into()))? {
            Some(registry) => Ok((bundle, registry)),
            None => {
                let message = format!("registry {} was deleted", run.registry);
                Err(Failure::in_words(ErrorCode::Internal, message))
            }
        }
    }

    /// Waits for a store that is away: for as long as the lease holds that costs no attempt.
    async fn find_registry(&self, run: &Run) -> Result<Option<Registry>, StoreError> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
        loop {
            match registries::find(self.store.as_ref(), &run.registry).await {
                Err(StoreError::Unavailable { message }) => {
                    tracing::warn!(run.id = %run.id, "run {} waits to begin: {message}", run.id);
                    tokio::time::sleep(backoff.wait()).await;
                }
                found => return found,
            }
        }
    }

    /// Moves the tags of what was built, says how it ended, and writes the outcome.
    async fn end(&self, attempt: Attempt, writer: LogWriter, ending: Ending) {
        let run = attempt.run.id;
        let (finish, lineage) = match ending {
            Ending::Built(built) => self.tag(&attempt, *built).await,
            Ending::Failed(failure) => (Some(say_failed(&attempt, failure).await), None),
            Ending::CancelAsked => (self.canceled(&attempt).await, None),
            Ending::TimedOut => (Some(timed_out(&attempt).await), None),
            Ending::Stopped => {
                attempt.log.say(None, "the worker shuts down: another one takes this run").await;
                (Some(Finish::HandBack), None)
            }
            Ending::LeaseLost => (None, None),
        };
        let Attempt { log, lease, number, .. } = attempt;
        drop(log);
        writer.finished().await;
        let Some(finish) = finish else {
            tracing::warn!(run.id = %run, "run {run}: the lease of attempt {number} is lost; another attempt has it");
            return;
        };
        self.finish(&lease, finish, lineage).await;
    }

    async fn tag(&self, attempt: &Attempt, built: Built) -> (Option<Finish>, Option<Lineage>) {
        let Some(digest) = built.pushed.first().map(|pushed| pushed.manifest.digest.clone()) else {
            attempt.log.say(None, "nothing was to be pushed").await;
            let product =
                Product { bases: built.bases, commit: built.commit, ..Product::default() };
            return (Some(Finish::Outcome(Outcome::Succeeded(product))), None);
        };
        let credentials = |image: &ImageReference| attempt.credentials(image);
        let tagged = async {
            let lease = &attempt.lease;
            let tagged = self.move_tags(lease, &attempt.step, &built, &credentials).await?;
            self.settle_tags(lease, &tagged, &credentials).await?;
            self.delete_staging(attempt, &built.pushed).await;
            Ok(tagged)
        };
        match spans::stage(Stage::Tag, tagged).await {
            Ok(tagged) => {
                for output in &tagged.outputs {
                    attempt
                        .log
                        .say(None, format!("pushed {} at {}", output.image, output.digest))
                        .await;
                }
                for tag in &tagged.superseded {
                    attempt.log.say(None, tag.to_string()).await;
                }
                let product = Product {
                    outputs: tagged.outputs,
                    superseded: tagged.superseded,
                    bases: built.bases,
                    commit: built.commit,
                };
                let lineage = self.lineage(attempt, &product, &digest).await;
                (Some(Finish::Outcome(Outcome::Succeeded(product))), Some(lineage))
            }
            Err(NotTagged::LeaseLost) => (None, None),
            Err(NotTagged::CancelAsked) => (self.canceled(attempt).await, None),
            Err(NotTagged::Failed(failure)) => (Some(say_failed(attempt, failure).await), None),
        }
    }

    async fn lineage(
        &self,
        attempt: &Attempt,
        product: &Product,
        digest: &gantry_domain::image::Digest,
    ) -> Lineage {
        let run = &attempt.run;
        Lineage {
            digest: digest.clone(),
            images: product.outputs.iter().map(|output| output.image.clone()).collect(),
            platform: run.build.platform.clone(),
            bases: product.bases.clone(),
            run: run.id,
            registry: run.registry.clone(),
            task: run.task.as_ref().map(|task| task.name.clone()),
            source: run.build.source.to_string(),
            commit: product.commit.clone(),
            cause: run.cause.to_string(),
            pushed: self.store.now().await.unwrap_or(run.created),
        }
    }

    async fn canceled(&self, attempt: &Attempt) -> Option<Finish> {
        let found = runs::find(self.store.as_ref(), attempt.run.id).await;
        let by = found.ok().flatten().and_then(|run| run.cancel).map(|ask| ask.by)?;
        attempt.log.say(None, format!("canceled by token {by}")).await;
        Some(Finish::Outcome(Outcome::Canceled { by }))
    }

    /// Writes the end, for as long as the store is away and nobody else took the run.
    async fn finish(&self, lease: &KeptLease, finish: Finish, lineage: Option<Lineage>) {
        let give_up = Instant::now() + FINISH_WITHIN;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        loop {
            let finished = runs::finish(
                self.store.as_ref(),
                lease.run,
                &lease.holder,
                finish.clone(),
                lineage.clone(),
            );
            match finished.instrument(tracing::info_span!("finish")).await {
                Ok(finished) => {
                    spans::ended(&finished);
                    say_finished(&finished);
                    return self.ring(lease).await;
                }
                Err(RunOpError::Store(error))
                    if Instant::now() < give_up
                        && !matches!(error, StoreError::Undecodable { .. }) =>
                {
                    tracing::warn!(run.id = %lease.run, "the outcome of run {} waits: {error}", lease.run);
                    tokio::time::sleep(backoff.wait()).await;
                }
                Err(error) => {
                    tracing::warn!(run.id = %lease.run, "the outcome of run {} is not written: {error}", lease.run);
                    return;
                }
            }
        }
    }

    pub(crate) async fn ring(&self, lease: &KeptLease) {
        let moved = RunsMoved { run: lease.run };
        if let Err(error) = self.queues.runs.publish(moved, telemetry::current_trace()).await {
            tracing::debug!("the scheduler looks for itself: {error}");
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
    let seconds = attempt.run.build.timeout.as_duration().as_secs();
    let error = RunError {
        code: ErrorCode::TimedOut,
        step: None,
        exit_code: None,
        message: format!("the run took longer than its {seconds} s: give it more with `--timeout`"),
    };
    attempt.log.say(None, error.to_string()).await;
    Finish::Outcome(Outcome::Timeout { error })
}

/// What to mask in the log. A run whose secrets are too many to look for is not built: they would stand in its log.
fn secrets(bundle: &Bundle) -> Result<Secrets, Failure> {
    let masked = bundle.masked();
    let masked = masked.map_err(|error| Failure::users(ErrorCode::BuildRefused, &error))?;
    Ok(Secrets::new(&masked))
}
