//! Puts together what the legs of a split run have built: one index of their images, whose tags are moved as for any image.
//!
//! In: an attempt of a run whose legs have ended well. Needs neither the source nor the engine.

use gantry_domain::id::RunId;
use gantry_domain::image::ImageReference;
use gantry_domain::run::{ErrorCode, Legs, Product, Run};
use gantry_domain::step::{Step, StepEnd, Steps};
use gantry_ops::metrics::Stage;
use gantry_seams::{runs, steps};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::attempt::Attempt;
use crate::away::ask_until_answered;
use crate::engine::containers::Owner;
use crate::executor::{Ending, Executor, Results, interrupted};
use crate::failure::Failure;
use crate::graph::{Graph, StepWork};
use crate::progress::Progress;
use crate::spans;
use crate::step::images::Bases;
use crate::step::push::{JoinedLeg, PushedImage};

/// A leg, with the step that built it.
struct EndedLeg {
    run: RunId,
    joined: JoinedLeg,
    build: Option<Step>,
}

impl Executor {
    pub(crate) async fn join(
        &self,
        attempt: &Attempt,
        owner: &Owner,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<Product, Ending> {
        let commit = attempt.run.read.as_ref().map(|read| read.commit.clone());
        let results = Results::of(commit);
        // Boxed, because the future is too large for the stack.
        let joining = Box::pin(self.join_legs(attempt, owner, progress, &results));
        let bases = tokio::select! {
            biased;
            ending = interrupted(attempt, stop, &results.tagging) => return Err(ending),
            joined = joining => joined?,
        };
        Ok(Product { bases: bases.into_vec(), ..results.into_product() })
    }

    async fn join_legs(
        &self,
        attempt: &Attempt,
        owner: &Owner,
        progress: &Progress,
        results: &Results,
    ) -> Result<Bases, Ending> {
        let graph = self.compiler.graph(attempt, owner, None).await?;
        progress.plan(graph.planned());
        self.begin(attempt, attempt.run.read.as_ref(), &progress.steps()).await?;
        self.pusher.try_credentials(attempt, graph.pushed()).await?;
        let (mut legs, mut bases) = (Vec::new(), Bases::default());
        for EndedLeg { run, joined, build } in self.ended_legs(attempt).await? {
            let line = format!("{} was built by run {run}", joined.platform);
            attempt.log.say(None, line).await;
            adopt(&graph, progress, &joined, build.as_ref());
            joined.bases.iter().for_each(|base| bases.add(base.clone()));
            legs.push(joined);
        }
        for (place, step) in graph.steps.iter().enumerate() {
            let StepWork::Push(images) = &step.work else { continue };
            progress.begin(place).await;
            let span = spans::step(&step.id);
            let pushing = async {
                let joined = self.join_images(attempt, &legs, images);
                let joined = spans::stage(Stage::Push, joined).await?;
                self.tag(attempt, &step.id, &joined, (progress, results)).await
            };
            let ended = pushing.instrument(span.clone()).await;
            spans::step_ended(&span, ended.is_ok());
            let end = match &ended {
                Ok(digest) => StepEnd::Succeeded { digest: digest.clone() },
                Err(Ending::Failed(_)) => StepEnd::Failed { exit_code: None, is_ignored: false },
                Err(_) => StepEnd::Stopped,
            };
            progress.end(place, end).await;
            if let Err(Ending::Failed(failure)) = ended {
                return Err(failure.in_step(&step.id).into());
            }
            ended?;
        }
        if graph.pushed().next().is_none() {
            attempt.log.say(None, "nothing was to be pushed").await;
        }
        Ok(bases)
    }

    /// An index in each repository of the images.
    async fn join_images(
        &self,
        attempt: &Attempt,
        legs: &[JoinedLeg],
        images: &[ImageReference],
    ) -> Result<Vec<PushedImage>, Failure> {
        let mut joined: Vec<PushedImage> = Vec::new();
        for image in images {
            let is_here = |other: &&mut PushedImage| {
                let first = other.images.first();
                first.is_some_and(|it| {
                    it.host() == image.host() && it.repository() == image.repository()
                })
            };
            match joined.iter_mut().find(is_here) {
                Some(other) => other.images.push(image.clone()),
                None => joined.push(self.pusher.join(attempt, legs, image).await?),
            }
        }
        Ok(joined)
    }

    /// The legs of the attempt's run, in the order of its platforms.
    async fn ended_legs(&self, attempt: &Attempt) -> Result<Vec<EndedLeg>, Ending> {
        let (store, lease, whole) = (self.store.as_ref(), &attempt.lease, &attempt.run);
        let mut legs = Vec::new();
        for run in whole.legs.as_ref().map(Legs::runs).unwrap_or_default() {
            let find = || runs::find(store, *run);
            let found = ask_until_answered(lease, "for its legs", find).await?;
            let leg = found.filter(|leg| is_leg_of(leg, whole.id)).ok_or_else(|| lost(*run))?;
            let product = leg.state.done().and_then(|done| done.outcome.product());
            let product = product.ok_or_else(|| lost(*run))?.clone();
            let last = leg.attempts.last().map_or(1, |attempt| attempt.attempt);
            // Only shown, so a record that cannot be read is no reason to fail.
            let steps = steps::find(store, *run, last).await.unwrap_or_default();
            legs.push(EndedLeg {
                run: *run,
                joined: JoinedLeg {
                    platform: leg.recipe.platforms.first().clone(),
                    bases: product.bases,
                    outputs: product.outputs,
                },
                build: build_of(&steps).cloned(),
            });
        }
        Ok(legs)
    }
}

fn is_leg_of(leg: &Run, whole: RunId) -> bool {
    leg.purpose.leg_of().is_some_and(|of| of.run == whole)
}

fn build_of(steps: &Steps) -> Option<&Step> {
    steps.iter().next()
}

/// Shows the build of a leg as the step that it is in the whole run.
fn adopt(graph: &Graph, progress: &Progress, leg: &JoinedLeg, build: Option<&Step>) {
    let is_own = |work: &StepWork| match work {
        StepWork::Build(work) => work.platform == leg.platform,
        StepWork::Push(_) | StepWork::Cmd(_) => false,
    };
    let place = graph.steps.iter().position(|step| is_own(&step.work));
    if let Some((place, build)) = place.zip(build) {
        progress.adopt(place, build);
    }
}

fn lost(leg: RunId) -> Failure {
    let message = format!(
        "the record of run {leg}, which built one of the platforms, is gone or was changed: start the run again"
    );
    Failure::in_words(ErrorCode::Internal, message)
}
