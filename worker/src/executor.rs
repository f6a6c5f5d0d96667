//! Executes the steps of a run, and records them.
//!
//! In: an attempt. Out: how it ended, and the state of its steps. A step is interrupted when the lease is lost,
//! cancellation is requested, the worker shuts down, or the deadline passes; it cleans up when it is dropped. Only
//! moving the final tags is not interrupted: moving half of them would be worse than a late cancellation.

use std::sync::Arc;

use gantry_domain::built_on::SourceRead;
use gantry_domain::id::{RunId, StepId};
use gantry_domain::image::Digest;
use gantry_domain::lineage::Lineage;
use gantry_domain::recipe::{ImageBuild, Work};
use gantry_domain::run::{ErrorCode, Product};
use gantry_domain::step::{StepState, Steps};
use gantry_domain::timestamp::Timestamp;
use gantry_ops::metrics::Stage;
use gantry_ops::telemetry;
use gantry_seams::queue::{Queue, RunsMoved};
use gantry_seams::runs;
use gantry_seams::steps;
use gantry_seams::store::SharedStore;
use tokio_util::sync::CancellationToken;

use crate::attempt::Attempt;
use crate::away::{Refused, ask_until_answered};
use crate::failure::Failure;
use crate::spans;
use crate::step::build::{BuildStep, Builder};
use crate::step::push::Pusher;
use crate::tags::Tagger;

pub(crate) struct Executor {
    pub(crate) store: SharedStore,
    pub(crate) runs_moved: Arc<dyn Queue<RunsMoved>>,
    pub(crate) builder: Builder,
    pub(crate) pusher: Pusher,
    pub(crate) tagger: Tagger,
}

/// How an attempt ended.
pub(crate) enum Ending {
    Succeeded(Product),
    Failed(Failure),
    CancelAsked,
    TimedOut,
    /// The worker is shutting down.
    Stopped,
    LeaseLost,
}

impl From<Failure> for Ending {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Refused> for Ending {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::LeaseLost => Self::LeaseLost,
            Refused::CancelAsked => Self::CancelAsked,
            Refused::Failed(failure) => Self::Failed(failure),
        }
    }
}

impl Executor {
    /// Executes the steps of an attempt's run. Returns their state, and how the attempt ended.
    pub(crate) async fn run(&self, attempt: &Attempt, stop: &CancellationToken) -> (Steps, Ending) {
        let mut steps = Steps::default();
        let worked = match &attempt.run.recipe.work {
            Work::Build(build) => self.build_and_push(attempt, build, &mut steps, stop).await,
        };
        let ending = match worked {
            Ok(product) => Ending::Succeeded(product),
            Err(ending) => ending,
        };
        if steps.is_any_running() {
            let at = self.now(attempt, &steps).await;
            steps.end_all(match ending {
                Ending::Succeeded(_) => StepState::Succeeded { at },
                Ending::Failed(_) => StepState::Failed { at },
                Ending::CancelAsked | Ending::TimedOut | Ending::Stopped | Ending::LeaseLost => {
                    StepState::Stopped { at }
                }
            });
        }
        (steps, ending)
    }

    async fn build_and_push(
        &self,
        attempt: &Attempt,
        asked: &ImageBuild,
        steps: &mut Steps,
        stop: &CancellationToken,
    ) -> Result<Product, Ending> {
        let (build, push) = (step("build")?, step("push")?);
        let building = BuildStep { attempt, id: &build, asked };
        let built = unless_interrupted(attempt, stop, async {
            let source = self.builder.fetch(attempt).await?;
            steps.begin(&build, self.now(attempt, steps).await);
            self.begin(attempt, source.read().as_ref(), steps).await?;
            let order = self.builder.plan(building, source).await?;
            self.pusher.try_credentials(attempt, order.images()).await?;
            Ok(self.builder.build(building, order).await?)
        })
        .await?;
        let mut product = Product {
            bases: built.bases.clone(),
            commit: built.commit.clone(),
            ..Product::default()
        };
        if built.images.is_empty() {
            attempt.log.say(None, "nothing was to be pushed").await;
            return Ok(product);
        }
        let at = self.now(attempt, steps).await;
        steps.end(&build, StepState::Succeeded { at });
        steps.begin(&push, at);
        let pushed = unless_interrupted(attempt, stop, async {
            let pushing = self.pusher.push(attempt, &push, &built);
            let (pushed, ()) =
                tokio::join!(spans::stage(Stage::Push, pushing), self.record(attempt, steps));
            pushed.map_err(|failure| failure.in_step(&push).into())
        })
        .await?;
        let tagging = self.tagger.tag(attempt, &push, &pushed, &built.images);
        let tagged = spans::stage(Stage::Tag, tagging).await?;
        self.pusher.delete_staging(attempt, &pushed).await;
        for output in &tagged.outputs {
            let line = format!("pushed {} at {}", output.image, output.digest);
            attempt.log.say(Some(&push), line).await;
        }
        for tag in &tagged.superseded {
            attempt.log.say(Some(&push), tag.to_string()).await;
        }
        (product.outputs, product.superseded) = (tagged.outputs, tagged.superseded);
        let at = self.now(attempt, steps).await;
        steps.end(&push, StepState::Succeeded { at });
        if let Some(first) = pushed.first() {
            let lineage = lineage(attempt, &product, &first.manifest.digest, at);
            self.say_pushed(attempt, &lineage, steps).await?;
        }
        Ok(product)
    }

    /// Records that the first step begins, retrying while the store is unavailable and the lease is held.
    async fn begin(
        &self,
        attempt: &Attempt,
        read: Option<&SourceRead>,
        steps: &Steps,
    ) -> Result<(), Ending> {
        let lease = &attempt.lease;
        let began = || runs::began(self.store.as_ref(), lease.run, &lease.holder, read, steps);
        let is_to_be_resolved = ask_until_answered(lease, "to begin", began).await?;
        if is_to_be_resolved {
            self.wake_scheduler(lease.run).await;
        }
        Ok(())
    }

    /// Notifies the scheduler of work for this run.
    pub(crate) async fn wake_scheduler(&self, run: RunId) {
        let moved = RunsMoved { run };
        if let Err(error) = self.runs_moved.publish(moved, telemetry::current_trace()).await {
            tracing::debug!("the scheduler is not notified and will poll: {error}");
        }
    }

    /// Records the lineage of the pushed images, independent of later steps, because tags have moved.
    async fn say_pushed(
        &self,
        attempt: &Attempt,
        lineage: &Lineage,
        steps: &Steps,
    ) -> Result<(), Ending> {
        let lease = &attempt.lease;
        let pushed = || runs::pushed(self.store.as_ref(), lease.run, &lease.holder, lineage, steps);
        Ok(ask_until_answered(lease, "to say what it pushed", pushed).await?)
    }

    /// Records the state of the steps. Errors are ignored: the end of the attempt records it again.
    async fn record(&self, attempt: &Attempt, steps: &Steps) {
        let recorded = steps::record(self.store.as_ref(), attempt.run.id, attempt.number, steps);
        if let Err(error) = recorded.await {
            tracing::debug!(run.id = %attempt.run.id, "the steps are written later: {error}");
        }
    }

    /// The store's time; while the store is unavailable, the latest time that the attempt knows.
    async fn now(&self, attempt: &Attempt, steps: &Steps) -> Timestamp {
        match self.store.now().await {
            Ok(now) => now,
            Err(_) => steps.iter().map(|step| step.began).max().unwrap_or(attempt.since),
        }
    }
}

/// Runs work that may be interrupted.
async fn unless_interrupted<T>(
    attempt: &Attempt,
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, Ending>>,
) -> Result<T, Ending> {
    // Boxed, because the future of a whole build is too large for the stack.
    let work = Box::pin(work);
    tokio::select! {
        biased;
        () = attempt.lease.lost() => Err(Ending::LeaseLost),
        () = attempt.lease.cancel_asked() => Err(Ending::CancelAsked),
        () = stop.cancelled() => Err(Ending::Stopped),
        () = tokio::time::sleep_until(attempt.deadline) => Err(Ending::TimedOut),
        done = work => done,
    }
}

fn step(name: &str) -> Result<StepId, Failure> {
    name.parse().map_err(|error| Failure::infrastructures(ErrorCode::Internal, &error))
}

fn lineage(attempt: &Attempt, product: &Product, digest: &Digest, pushed: Timestamp) -> Lineage {
    let run = &attempt.run;
    Lineage {
        digest: digest.clone(),
        images: product.outputs.iter().map(|output| output.image.clone()).collect(),
        platform: run.recipe.platform.clone(),
        bases: product.bases.clone(),
        run: run.id,
        registry: run.registry.clone(),
        task: run.task.as_ref().map(|task| task.name.clone()),
        source: run.recipe.source.to_string(),
        commit: product.commit.clone(),
        cause: run.cause.to_string(),
        pushed,
    }
}
