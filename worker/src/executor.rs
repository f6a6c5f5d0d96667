//! Executes the step graph of a run.
//!
//! In: an attempt. Out: how it ended, and the state of its steps. Knows no YAML: what the graph is made from is the
//! business of `compile`, and what a step does that of `step`. All steps are dropped when the lease is lost,
//! cancellation is requested, the worker shuts down, or the deadline passes. Only moving the final tags is not
//! interrupted: moving half of them would be worse than a late cancellation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use gantry_domain::built_on::SourceRead;
use gantry_domain::id::{RunId, StepId};
use gantry_domain::image::{Digest, ImageReference, RegistryHost};
use gantry_domain::lineage::{ChildImage, Lineage, OutputImage};
use gantry_domain::platforms::Platforms;
use gantry_domain::recipe::Work;
use gantry_domain::run::{ErrorCode, Product, Purpose, Run, Split};
use gantry_domain::scan::Scanned;
use gantry_domain::source::CommitId;
use gantry_domain::step::{StepEnd, Steps};
use gantry_domain::timestamp::Timestamp;
use gantry_ops::metrics::Stage;
use gantry_ops::secret::Credentials;
use gantry_ops::telemetry;
use gantry_seams::queue::{Queue, RunsMoved};
use gantry_seams::runs;
use gantry_seams::store::SharedStore;
use gantry_taskfile::task_file::{Attempts, Cmd};
use tokio::sync::RwLock;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::attempt::Attempt;
use crate::away::{Refused, ask_until_answered};
use crate::budget::{self, Budget};
use crate::cleanup::Cleanup;
use crate::compile::Compiler;
use crate::engine::containers::Owner;
use crate::failure::Failure;
use crate::graph::{BuildWork, Graph, GraphStep, StepWork};
use crate::policy::{Permission, Policy};
use crate::progress::Progress;
use crate::scan::Scan;
use crate::source::Checkout;
use crate::spans;
use crate::step::build::{BuildStep, Builder};
use crate::step::cmd::{CmdStep, Commander, Detached, Prepared};
use crate::step::images::{Bases, Built, Images};
use crate::step::output::Search;
use crate::step::push::{PushedImage, PushedLeg, Pusher};
use crate::tags::Tagger;
use crate::walk::walk;
use crate::workspace::{Workspace, resources};

/// How many steps of a run execute at once.
const MOST_AT_ONCE: usize = 8;

/// How long a run reads which images its task needs, beside its steps: a run that is over sooner waits for that. A remote context
/// that takes longer is left to the scan of the task's next save.
const IMAGES_WITHIN: Duration = Duration::from_secs(10);

pub(crate) struct Executor {
    pub(crate) store: SharedStore,
    pub(crate) runs_moved: Arc<dyn Queue<RunsMoved>>,
    pub(crate) installation: String,
    pub(crate) compiler: Compiler,
    pub(crate) policy: Policy,
    pub(crate) builder: Builder,
    pub(crate) commander: Commander,
    pub(crate) pusher: Pusher,
    pub(crate) tagger: Tagger,
}

/// How an attempt ended.
pub(crate) enum Ending {
    Succeeded(Product),
    Failed(Failure),
    CancelAsked,
    TimedOut,
    /// The engine does not build for all platforms.
    Split(Split),
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

/// What the steps of a running attempt share.
struct Shared<'a> {
    attempt: &'a Attempt,
    graph: &'a Graph,
    progress: &'a Progress,
    workspace: Workspace,
    images: Images,
    budget: Arc<Budget>,
    detached: Detached,
    results: Results,
}

/// What an attempt has pushed.
pub(crate) struct Results {
    product: Mutex<Product>,
    /// Held for reading by a step that moves tags, which must not be dropped meanwhile.
    pub(crate) tagging: RwLock<()>,
}

impl Results {
    /// Nothing yet, of a source at this commit.
    pub(crate) fn of(commit: Option<CommitId>) -> Self {
        let product = Mutex::new(Product { commit, ..Product::default() });
        Self { product, tagging: RwLock::new(()) }
    }

    pub(crate) fn into_product(self) -> Product {
        self.product.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Product> {
        self.product.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an attempt has prepared.
struct Begun {
    source: Option<Arc<Checkout>>,
    graph: Graph,
    /// What its worker read of a git repository.
    read: Option<SourceRead>,
    /// Whether the engine does not build for all platforms, so that the run is to be split.
    is_to_be_split: bool,
}

impl Executor {
    /// Executes the steps of an attempt's run. Returns their state, how the attempt ended, and what is to be removed once
    /// that is recorded.
    pub(crate) async fn run(
        &self,
        attempt: &Attempt,
        stop: &CancellationToken,
    ) -> (Steps, Ending, Option<Cleanup>) {
        let (store, run) = (Arc::clone(&self.store), attempt.run.id);
        let progress = Progress::new(store, run, attempt.number, attempt.since);
        let mut cleanup = None;
        let ending = match Box::pin(self.work(attempt, &progress, stop, &mut cleanup)).await {
            Ok(product) => Ending::Succeeded(product),
            Err(ending) => ending,
        };
        progress.end_all(&StepEnd::Stopped).await;
        (progress.steps(), ending, cleanup)
    }

    async fn work(
        &self,
        attempt: &Attempt,
        progress: &Progress,
        stop: &CancellationToken,
        cleanup: &mut Option<Cleanup>,
    ) -> Result<Product, Ending> {
        let (run, number) = (attempt.run.id, attempt.number);
        let installation = self.installation.clone();
        let owner = Owner { installation, run, attempt: number };
        if attempt.run.purpose == Purpose::Scan {
            return unless_interrupted(attempt, stop, self.scan(attempt, &owner)).await;
        }
        if attempt.run.legs.is_some() {
            return Box::pin(self.join(attempt, &owner, progress, stop)).await;
        }
        let preparing = self.prepare(attempt, &owner, progress);
        let Begun { source, graph, read, is_to_be_split } =
            unless_interrupted(attempt, stop, preparing).await?;
        let commit = source.as_ref().and_then(|source| source.commit().cloned());
        let is_guarded = attempt.run.is_of_fork()
            || !self.policy.allows(Permission::Machine, &attempt.run.registry);
        let shared = Shared {
            attempt,
            graph: &graph,
            progress,
            workspace: Workspace::new(
                Arc::clone(&self.commander.containers),
                self.builder.sources.clone(),
                resources(owner, &graph, is_guarded),
                graph.volumes.clone(),
                source,
                login(attempt),
                attempt.deadline,
            ),
            images: Images::default(),
            budget: Budget::new(self.commander.run_limits),
            detached: Detached::default(),
            results: Results::of(commit),
        };
        let walking = async {
            match is_to_be_split {
                true => Err(Box::pin(self.split(&shared, read.as_ref(), stop)).await),
                false => self.walk(&shared, stop).await,
            }
        };
        let (walked, ()) = tokio::join!(walking, self.report_images(&shared, stop));
        let has_detached = shared.detached.end().await;
        let Shared { workspace, images, results, .. } = shared;
        let bases = images.bases();
        let cleanup = cleanup.insert(Cleanup::new(workspace, images));
        if has_detached || walked.is_err() {
            cleanup.stop().await;
        }
        walked?;
        if graph.pushed().next().is_none() {
            attempt.log.say(None, "nothing was to be pushed").await;
        }
        Ok(Product { bases, ..results.into_product() })
    }

    /// How an attempt ends whose engine does not build for all platforms: with the images that the builds need.
    async fn split(
        &self,
        shared: &Shared<'_>,
        read: Option<&SourceRead>,
        stop: &CancellationToken,
    ) -> Ending {
        let Shared { attempt, graph, workspace, images, .. } = shared;
        let resolving = async {
            let mut bases = Bases::default();
            for (id, work) in graph.builds() {
                let step = BuildStep { attempt, id, work, workspace, images };
                let needed = self.builder.bases(step).await;
                let needed = needed.map_err(|failure| failure.in_step(id))?;
                needed.into_iter().for_each(|base| bases.add(base));
            }
            Ok(self.builder.split(attempt, read, bases.into_vec()))
        };
        match unless_interrupted(attempt, stop, resolving).await {
            Ok(split) => Ending::Split(split),
            Err(ending) => ending,
        }
    }

    /// Reads which images the task needs, and executes nothing.
    async fn scan(&self, attempt: &Attempt, owner: &Owner) -> Result<Product, Ending> {
        let source = self.builder.fetch_source(attempt).await?;
        let graph = self.compiler.graph(attempt, owner, source.as_ref()).await?;
        let builder = &self.builder;
        let scan = Scan {
            attempt,
            graph: &graph,
            source: source.as_ref().map(|source| &source.files),
            builder,
        };
        let images = scan.needed_images().await?;
        let commit = source.as_ref().and_then(|source| source.files.commit().cloned());
        self.say_scanned(attempt, &Scanned::Read { commit: commit.clone(), images }).await?;
        Ok(Product { commit, ..Product::default() })
    }

    /// Records which images the run's task needs, if the run executes it as it is saved. A failure fails no run, because
    /// its steps will tell it.
    async fn report_images(&self, shared: &Shared<'_>, stop: &CancellationToken) {
        let Shared { attempt, graph, workspace, .. } = shared;
        if attempt.run.unchanged_task().is_none() || attempt.run.purpose != Purpose::Execute {
            return;
        }
        let source = workspace.source();
        let scan = Scan { attempt, graph, source, builder: &self.builder };
        let report = async {
            let found = match scan.needed_images().await {
                Ok(images) => Scanned::Read { commit: workspace.commit().cloned(), images },
                Err(failure) => failed_scan(attempt, failure)?,
            };
            self.say_scanned(attempt, &found).await
        };
        let reported = timeout(IMAGES_WITHIN, unless_interrupted(attempt, stop, report)).await;
        if !matches!(reported, Ok(Ok(()))) {
            let run = attempt.run.id;
            tracing::debug!(run.id = %run, "run {run} does not tell which images its task needs");
        }
    }

    /// Fetches the source and makes the graph, and records that the run begins.
    async fn prepare(
        &self,
        attempt: &Attempt,
        owner: &Owner,
        progress: &Progress,
    ) -> Result<Begun, Ending> {
        let source = self.builder.fetch(attempt).await?;
        let read = source.as_ref().and_then(|source| source_read(&attempt.run, &source.files));
        let graph = self.compiler.graph(attempt, owner, source.as_ref()).await;
        if let Ok(graph) = &graph {
            progress.plan(graph.planned());
        }
        let steps = progress.steps();
        let checks = async {
            match &graph {
                Ok(graph) => self.check(attempt, graph).await,
                Err(_) => Ok(false),
            }
        };
        let (begun, checked) = tokio::join!(self.begin(attempt, read.as_ref(), &steps), checks);
        begun?;
        let graph = match graph {
            Ok(graph) => graph,
            Err(failure) => {
                if attempt.run.unchanged_task().is_some() && attempt.run.purpose == Purpose::Execute
                {
                    let found = failed_scan(attempt, failure.clone())?;
                    self.say_scanned(attempt, &found).await?;
                }
                return Err(failure.into());
            }
        };
        let is_to_be_split = checked?;
        Ok(Begun { source: source.map(|source| source.files), graph, read, is_to_be_split })
    }

    /// Checks that the graph may be executed, and that its images can be pushed. Returns whether the run is to be split.
    async fn check(&self, attempt: &Attempt, graph: &Graph) -> Result<bool, Ending> {
        // What a stranger wrote may run in the steps of a fork's run, whatever the base says.
        let nothing = Policy::default();
        let policy = if attempt.run.is_of_fork() { &nothing } else { &self.policy };
        policy.check(graph, &attempt.run.registry)?;
        budget::check(graph, self.commander.run_limits, self.commander.limits)?;
        let refused = self.builder.refuses(graph).await?;
        let is_to_be_split = match refused {
            Some(_) if may_be_split(&attempt.run) => true,
            Some(refused) => return Err(refused.into()),
            None => false,
        };
        self.pusher.try_credentials(attempt, graph.pushed()).await?;
        Ok(is_to_be_split)
    }

    /// Walks the graph, and keeps the record of its steps meanwhile. An interruption waits until no step moves tags.
    async fn walk(&self, shared: &Shared<'_>, stop: &CancellationToken) -> Result<(), Ending> {
        let after: Vec<&[usize]> =
            shared.graph.steps.iter().map(|step| step.after.as_slice()).collect();
        let may_drop = || async {
            let _no_step_moves_tags = shared.results.tagging.write().await;
        };
        let walking = walk(&after, MOST_AT_ONCE, |place| self.step(shared, place), may_drop);
        // Boxed, because the future of a whole graph is too large for the stack.
        let mut walking = Box::pin(walking);
        tokio::select! {
            biased;
            ending = interrupted(shared.attempt, stop, &shared.results.tagging) => Err(ending),
            walked = &mut walking => walked,
            never = shared.progress.keep_written() => match never {},
        }
    }

    /// Executes one step, however often its task file says.
    async fn step(&self, shared: &Shared<'_>, place: usize) -> Result<(), Ending> {
        let Some(step) = shared.graph.steps.get(place) else { return Ok(()) };
        let log = &shared.attempt.log;
        if !step.start_delay.is_zero() {
            let seconds = step.start_delay.as_secs();
            log.say(Some(&step.id), format!("begins in {seconds} s")).await;
            tokio::time::sleep(step.start_delay).await;
        }
        shared.progress.begin(place).await;
        let span = spans::step(&step.id);
        let ended = self.within_its_time(shared, place, step).instrument(span.clone()).await;
        spans::step_ended(&span, ended.is_ok());
        match ended {
            Ok(digest) => {
                shared.progress.end(place, StepEnd::Succeeded { digest }).await;
                Ok(())
            }
            Err(Ending::Failed(failure)) => {
                let failure = failure.in_step(&step.id);
                // A failure of the infrastructure is tried again with the whole run.
                let is_ignored = step.ignore_errors && failure.is_users();
                let exit_code = failure.error().exit_code;
                shared.progress.end(place, StepEnd::Failed { exit_code, is_ignored }).await;
                if !is_ignored {
                    return Err(Ending::Failed(failure));
                }
                let message = &failure.error().message;
                log.say(Some(&step.id), format!("{message}: the failure is ignored")).await;
                Ok(())
            }
            Err(ending) => Err(ending),
        }
    }

    async fn within_its_time(
        &self,
        shared: &Shared<'_>,
        place: usize,
        step: &GraphStep,
    ) -> Result<Option<Digest>, Ending> {
        match &step.work {
            StepWork::Build(build) => {
                within(step.timeout, shared, self.build(shared, place, step, build)).await
            }
            StepWork::Push(images) => {
                within(step.timeout, shared, self.push(shared, step, images)).await
            }
            StepWork::Cmd(cmd) => {
                let prepared = self.commander.prepare(cmd_step(shared, step, cmd)).await?;
                let work = self.cmd(shared, place, step, (cmd, &prepared));
                within(step.timeout, shared, work).await.map(|()| None)
            }
        }
    }

    async fn cmd(
        &self,
        shared: &Shared<'_>,
        place: usize,
        step: &GraphStep,
        (cmd, prepared): (&Cmd, &Prepared),
    ) -> Result<(), Ending> {
        let asked = cmd_step(shared, step, cmd);
        let execute = || {
            async move {
                let mut search = Search::of(&cmd.attempts.retry_on);
                let ended = self.commander.run(asked, prepared, &mut search).await;
                (ended, search.permits_retry())
            }
            .boxed()
        };
        repeated(shared, place, step, &cmd.attempts, execute).await
    }

    async fn build(
        &self,
        shared: &Shared<'_>,
        place: usize,
        step: &GraphStep,
        work: &BuildWork,
    ) -> Result<Option<Digest>, Ending> {
        let (attempt, workspace, images) = (shared.attempt, &shared.workspace, &shared.images);
        let asked = BuildStep { attempt, id: &step.id, work, workspace, images };
        let _until_it_ends = images.begin(&work.images);
        let built = &Mutex::new(None);
        let execute = || {
            async move {
                let mut search = Search::of(&work.attempts.retry_on);
                let ended = self.builder.run(asked, &mut search).await.map(|done| {
                    *built.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
                });
                (ended, search.permits_retry())
            }
            .boxed()
        };
        repeated(shared, place, step, &work.attempts, execute).await?;
        let built = built.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(built.map(|built: Arc<Built>| built.id.clone()))
    }

    async fn push(
        &self,
        shared: &Shared<'_>,
        step: &GraphStep,
        images: &[ImageReference],
    ) -> Result<Option<Digest>, Ending> {
        let attempt = shared.attempt;
        if images.is_empty() {
            return Ok(None);
        }
        let has_socket = shared.graph.has_engine_socket();
        let pushing = self.pusher.push(attempt, &step.id, images, (&shared.images, has_socket));
        let pushed = spans::stage(Stage::Push, pushing).await?;
        if attempt.run.purpose.leg_of().is_some() {
            shared.results.lock().outputs.extend(pushed.iter().flat_map(untagged));
            return Ok(pushed.first().map(|image| image.manifest.digest.clone()));
        }
        self.tag(attempt, &step.id, &pushed, (shared.progress, &shared.results)).await
    }

    /// Moves the tags of pushed images, and records their lineage. Returns the digest of the first.
    pub(crate) async fn tag(
        &self,
        attempt: &Attempt,
        step: &StepId,
        pushed: &[PushedImage],
        (progress, results): (&Progress, &Results),
    ) -> Result<Option<Digest>, Ending> {
        let _must_not_be_dropped = results.tagging.read().await;
        let tagging = self.tagger.tag(attempt, step, pushed);
        let tagged = spans::stage(Stage::Tag, tagging).await?;
        self.pusher.delete_staging(attempt, pushed).await;
        for output in &tagged.outputs {
            let line = format!("pushed {} at {}", output.image, output.digest);
            attempt.log.say(Some(step), line).await;
            for ChildImage { platform, digest } in &output.children {
                attempt.log.say(Some(step), format!("  {platform} at {digest}")).await;
            }
        }
        for tag in &tagged.superseded {
            attempt.log.say(Some(step), tag.to_string()).await;
        }
        let now = progress.now().await;
        let commit = results.lock().commit.clone();
        for image in pushed {
            let outputs = tagged.outputs.iter().map(|output| &output.image);
            let moved: Vec<ImageReference> =
                outputs.filter(|output| image.images.contains(output)).cloned().collect();
            for lineage in lineages(attempt, commit.as_ref(), image, moved, now) {
                self.say_pushed(attempt, &lineage, &progress.steps()).await?;
            }
        }
        let mut product = results.lock();
        product.outputs.extend(tagged.outputs);
        product.superseded.extend(tagged.superseded);
        Ok(pushed.first().map(|image| image.manifest.digest.clone()))
    }

    /// Records that the first step begins, retrying while the store is unavailable and the lease is held.
    pub(crate) async fn begin(
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

    /// Records what was found in the source.
    async fn say_scanned(&self, attempt: &Attempt, found: &Scanned) -> Result<(), Ending> {
        let lease = &attempt.lease;
        let scanned = || runs::scanned(self.store.as_ref(), lease.run, &lease.holder, found);
        Ok(ask_until_answered(lease, "to say which images it needs", scanned).await?)
    }

    /// Notifies the scheduler of work for this run.
    pub(crate) async fn wake_scheduler(&self, run: RunId) {
        let moved = RunsMoved { run };
        if let Err(error) = self.runs_moved.publish(moved, telemetry::current_trace()).await {
            tracing::debug!("the scheduler is not notified and will poll: {error}");
        }
    }

    /// Records the lineage of a pushed image, independent of later steps, because tags have moved.
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
}

fn cmd_step<'a>(shared: &'a Shared<'_>, step: &'a GraphStep, cmd: &'a Cmd) -> CmdStep<'a> {
    CmdStep {
        attempt: shared.attempt,
        id: &step.id,
        cmd,
        workspace: &shared.workspace,
        images: &shared.images,
        budget: &shared.budget,
        detached: &shared.detached,
    }
}

/// Limits the time of a step's work. It is not dropped while a step moves tags.
async fn within<T>(
    limit: Option<Duration>,
    shared: &Shared<'_>,
    work: impl Future<Output = Result<T, Ending>>,
) -> Result<T, Ending> {
    let Some(limit) = limit else { return work.await };
    let time_is_up = async {
        tokio::time::sleep(limit).await;
        let _no_step_moves_tags = shared.results.tagging.write().await;
    };
    tokio::select! {
        biased;
        ended = work => ended,
        () = time_is_up => {
            let seconds = limit.as_secs();
            let message = format!(
                "it took longer than its {seconds} s: give it a longer `timeout` in the task file"
            );
            Err(Failure::in_words(ErrorCode::TimedOut, message).into())
        }
    }
}

/// Executes a step once more than it is to be repeated, and each time again after a failure, as often as it says.
/// `execute` returns whether a failure may be tried again. Of several failures the first is returned.
async fn repeated<'a>(
    shared: &Shared<'_>,
    place: usize,
    step: &GraphStep,
    attempts: &Attempts,
    execute: impl Fn() -> BoxFuture<'a, (Result<(), Failure>, bool)>,
) -> Result<(), Ending> {
    let log = &shared.attempt.log;
    let mut is_first = true;
    let mut failed: Option<Failure> = None;
    for _ in 0..=attempts.repeat {
        let mut retries = attempts.retries;
        loop {
            if !is_first {
                shared.progress.begin(place).await;
            }
            is_first = false;
            let failure = match execute().await {
                (Ok(()), _) => break,
                (Err(failure), may_retry) if retries > 0 && may_retry => failure,
                (Err(failure), _) => {
                    if failed.is_some() || attempts.repeat > 0 {
                        log.say(Some(&step.id), &failure.error().message).await;
                    }
                    failed.get_or_insert(failure);
                    break;
                }
            };
            retries -= 1;
            let seconds = attempts.retry_delay.as_secs();
            let message = &failure.error().message;
            let line =
                format!("{message}: it is tried again in {seconds} s, {retries} retries are left");
            log.say(Some(&step.id), line).await;
            tokio::time::sleep(attempts.retry_delay).await;
        }
    }
    failed.map_or(Ok(()), |failure| Err(failure.into()))
}

/// A failure that the task's owner can fix. Any other failure tells nothing about the task.
fn failed_scan(attempt: &Attempt, failure: Failure) -> Result<Scanned, Failure> {
    if !failure.is_users() {
        return Err(failure);
    }
    let failure = failure.masked(|text| attempt.log.secrets().mask(text));
    Ok(Scanned::Failed { error: failure.error().clone() })
}

/// Runs work that may be interrupted.
async fn unless_interrupted<T>(
    attempt: &Attempt,
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, Ending>>,
) -> Result<T, Ending> {
    // Boxed, because the future of a whole build is too large for the stack.
    let work = Box::pin(work);
    let nothing_to_wait_for = RwLock::new(());
    tokio::select! {
        biased;
        ending = interrupted(attempt, stop, &nothing_to_wait_for) => Err(ending),
        done = work => done,
    }
}

/// Returns once an attempt is to end early and nobody holds `tagging`.
pub(crate) async fn interrupted(
    attempt: &Attempt,
    stop: &CancellationToken,
    tagging: &RwLock<()>,
) -> Ending {
    let ending = tokio::select! {
        biased;
        () = attempt.lease.lost() => Ending::LeaseLost,
        () = attempt.lease.cancel_asked() => Ending::CancelAsked,
        () = stop.cancelled() => Ending::Stopped,
        () = tokio::time::sleep_until(attempt.deadline) => Ending::TimedOut,
    };
    let _no_step_moves_tags = tagging.write().await;
    ending
}

/// The credentials that the steps of a run may use.
fn login(attempt: &Attempt) -> Option<BTreeMap<RegistryHost, Credentials>> {
    match &attempt.run.recipe.work {
        Work::File(file) if file.has_registry_login => Some(attempt.bundle.registries.clone()),
        Work::File(_) | Work::Build(_) => None,
    }
}

/// What was fetched, if it came from git.
fn source_read(run: &Run, checkout: &Checkout) -> Option<SourceRead> {
    let git = run.recipe.source.git()?;
    let commit = checkout.commit()?.clone();
    // The branch of a commit that was requested by its id is not known.
    let branch = checkout.branch().filter(|branch| branch.as_str() != commit.as_str()).cloned();
    Some(SourceRead { repository: git.url.key(), branch, commit })
}

/// Whether a run may be split into a run for each of its platforms. What the steps of a task file leave in their workspace is
/// for all of them, so those need one engine.
fn may_be_split(run: &Run) -> bool {
    run.purpose == Purpose::Execute
        && run.recipe.platforms.are_several()
        && matches!(run.recipe.work, Work::Build(_))
}

/// What a leg of a split run has pushed: images without final tags.
fn untagged(pushed: &PushedImage) -> impl Iterator<Item = OutputImage> {
    pushed.legs.iter().map(|leg| OutputImage {
        image: leg.staging.clone(),
        digest: leg.manifest.digest.clone(),
        children: Vec::new(),
    })
}

/// The lineage of an image; of an index also those of its images, which have no names.
fn lineages(
    attempt: &Attempt,
    commit: Option<&CommitId>,
    pushed: &PushedImage,
    images: Vec<ImageReference>,
    at: Timestamp,
) -> Vec<Lineage> {
    let run = &attempt.run;
    let of = |legs: &[PushedLeg], digest: &Digest| {
        let mut bases = Bases::default();
        let used = legs.iter().flat_map(|leg| &leg.bases);
        used.for_each(|base| bases.add(base.clone()));
        let platforms = legs.iter().map(|leg| leg.platform.clone());
        Some(Lineage {
            digest: digest.clone(),
            images: Vec::new(),
            platforms: Platforms::of(platforms)?,
            children: Vec::new(),
            bases: bases.into_vec(),
            run: run.id,
            registry: run.registry.clone(),
            task: run.task.as_ref().map(|task| task.name.clone()),
            source: run.recipe.source.to_string(),
            commit: commit.cloned(),
            cause: run.cause.to_string(),
            pushed: at,
        })
    };
    let (legs, children) = (pushed.legs.as_slice(), pushed.children());
    let own = legs.iter().filter(|_| !children.is_empty());
    let own = own.filter_map(|leg| of(std::slice::from_ref(leg), &leg.manifest.digest));
    let whole = of(legs, &pushed.manifest.digest);
    let whole = whole.map(|whole| Lineage { images, children: children.clone(), ..whole });
    own.chain(whole).collect()
}
