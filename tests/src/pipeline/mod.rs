//! The whole pipeline in one process, advanced step by step: real crates, SQLite and in-process queues or their scaled
//! counterparts, a real git host, a scripted engine, registries in memory, and a manual clock.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gantry_domain::base_trigger::BaseImageTrigger;
use gantry_domain::decide::planner::{self, RunDraft};
use gantry_domain::event::{Event, EventKind};
use gantry_domain::id::{EventId, RunId, RunPrefix, TaskId, TokenId};
use gantry_domain::image::{Digest, Repository};
use gantry_domain::platform::Platform;
use gantry_domain::platforms::Platforms;
use gantry_domain::recipe::{ImageBuild, Recipe, RunTimeout, Work};
use gantry_domain::registry::Registry;
use gantry_domain::run::{CanceledBy, Run};
use gantry_domain::scan::TaskImages;
use gantry_domain::secret::{Secret, SecretName};
use gantry_domain::task::{Status, Task};
use gantry_domain::timer::Timers;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::trigger::SourceTrigger;
use gantry_objects::ObjectBlobs;
use gantry_ops::secret::{Keyring, SecretString, random_hex};
use gantry_remote::code_host::CodeHosts;
use gantry_remote::credential_helper::CredentialHelpers;
use gantry_remote::git::{Git, GitLimits};
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;
use gantry_remote::registries::{Registries, RemoteRegistries};
use gantry_remote::webhook::Webhooks;
use gantry_scheduler::{BaseImageSettings, Retention, Scheduler, SchedulerSettings, VaultReads};
use gantry_seams::blobs::SharedBlobs;
use gantry_seams::clock::ManualClock;
use gantry_seams::logs::{LogId, LogPart, LogReader};
use gantry_seams::queue::Queues;
use gantry_seams::registries::NewRegistry;
use gantry_seams::requests::{self, AcceptedRequest, Idempotency, RunRequest};
use gantry_seams::runs::RunFilter;
use gantry_seams::secrets::{self, NewValue};
use gantry_seams::store::{SharedStore, Store};
use gantry_seams::{decisions, registries, runs, task_images, tasks};
use gantry_worker::engine::Engine;
use gantry_worker::engine::containers::{ContainerLimits, Containers};
use gantry_worker::engine::docker::DockerEngine;
use gantry_worker::engine::scripted::{Action, ScriptedEngine};
use gantry_worker::source::{Sources, UnpackLimits};
use gantry_worker::{HeldRuns, LeaseTimes, Policy, Usage, Worker, WorkerSettings};
use reqwest::{Client, Url};
use tokio_util::sync::CancellationToken;

use crate::backend::{Backend, StartedBackend, Vhost};
use crate::doubles::providers::ScriptedProviders;
use crate::doubles::vaults::ScriptedVaults;
use crate::git_server::GitServer;
use crate::hosts::code_hosts;
use crate::real;
use crate::registries::MemoryRegistries;

mod deliver;
mod folders;

pub use deliver::{Delivered, Door, HOOK};
use folders::WorkFolders;

/// The host of the registry that all tasks belong to.
pub const REGISTRY: &str = "registry.test";

/// A base image in the registry.
pub const BASE: &str = "registry.test/busybox:1";

/// The files of a commit: a Dockerfile with one step, based on [`BASE`].
pub const DOCKERFILE: &[(&str, &str)] =
    &[("Dockerfile", "FROM registry.test/busybox:1\nRUN true\n")];

/// The period of a lease.
pub const LEASE: Duration = Duration::from_secs(30);

/// How long a run may be ready in a pool without workers.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(3600);

/// An installation whose loops tick only when a test says so.
pub struct TestPipeline {
    /// The store.
    pub store: SharedStore,
    /// The store's clock.
    pub clock: ManualClock,
    /// The doorbells.
    pub queues: Queues,
    /// Logs and uploads.
    pub blobs: SharedBlobs,
    /// The service's keys.
    pub keyring: Arc<Keyring>,
    /// The scripted engine.
    pub engine: ScriptedEngine,
    /// The registries that images are pushed to.
    pub registries: MemoryRegistries,
    /// The vaults that tasks may name secrets of.
    pub vaults: ScriptedVaults,
    /// The programs that give the credentials of registries; none at first.
    pub helpers: Arc<CredentialHelpers>,
    /// The API of the host of sources.
    pub providers: ScriptedProviders,
    /// The host of sources.
    pub git: GitServer,
    /// The APIs of code hosts; of none at first.
    pub code_hosts: CodeHosts,
    /// Sends messages of notifications, also to this machine.
    pub webhooks: Webhooks,
    /// Stops all tasks that were started.
    pub stop: CancellationToken,
    client: Client,
    _vhost: Option<Vhost>,
    work: WorkFolders,
}

impl TestPipeline {
    /// An empty installation with a registry `reg`, and a hook `hook` for all repositories.
    ///
    /// # Panics
    /// If a part cannot be created.
    pub async fn start(backend: Backend) -> Self {
        let _already = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a folder");
        let clock = ManualClock::new(Timestamp::from_millis(1_700_000_000_000));
        let stop = CancellationToken::new();
        let StartedBackend { store, queues, vhost } = backend.start(&clock, &stop).await;
        let engine = ScriptedEngine::new();
        let pipeline = Self {
            queues,
            blobs: Arc::new(ObjectBlobs::local(folder.path().join("objects")).expect("a folder")),
            keyring: Arc::new(
                Keyring::open_or_create(&folder.path().join("secret.key")).expect("a key"),
            ),
            registries: MemoryRegistries::new(engine.clone()),
            vaults: ScriptedVaults::default(),
            helpers: Arc::default(),
            providers: ScriptedProviders::default(),
            git: GitServer::start().await.expect("a git host"),
            code_hosts: code_hosts(&[]),
            webhooks: webhooks(policy()),
            store,
            clock,
            work: WorkFolders {
                folder,
                engine: engine.clone(),
                may_be_left: AtomicBool::new(false),
            },
            engine,
            stop,
            client: Client::builder().no_proxy().build().expect("a client"),
            _vhost: vhost,
        };
        pipeline.set_up().await;
        pipeline
    }

    async fn set_up(&self) {
        let base = format!("sha256:{}", "b".repeat(64)).parse::<Digest>().expect("a digest");
        self.registries.have(BASE, &base);
        create_registry(self.store.as_ref(), "reg", REGISTRY, 8).await;
        self.create_hook().await;
    }

    /// The scheduler of this installation.
    #[must_use]
    pub fn scheduler(&self) -> Scheduler {
        Scheduler {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: Arc::clone(&self.blobs),
            keyring: Arc::clone(&self.keyring),
            code_host: Arc::new(self.code_hosts.clone()),
            providers: Arc::new(self.providers.clone()),
            asks: Arc::default(),
            sends: Arc::default(),
            webhooks: self.webhooks.clone(),
            posts: Arc::default(),
            looks: Arc::default(),
            provisions: Arc::default(),
            images: Arc::new(self.registries.clone()),
            image_looks: Arc::default(),
            vaults: Arc::new(VaultReads::new(Arc::new(self.vaults.clone()))),
            helpers: Arc::clone(&self.helpers),
            settings: SchedulerSettings {
                sweep_interval: Duration::from_secs(1),
                lease: LEASE,
                public_url: public_url(),
                reconcile_interval: Duration::from_secs(1800),
                provision: true,
                queue_timeout: QUEUE_TIMEOUT,
                base_images: BaseImageSettings {
                    interval: Duration::from_secs(300),
                    intervals: std::collections::BTreeMap::new(),
                    quiet: Duration::from_secs(60),
                    canary: 0,
                },
                retention: Retention::default(),
            },
        }
    }

    /// A worker of this name with the scripted engine.
    ///
    /// # Panics
    /// If its folder cannot be created.
    #[must_use]
    pub fn worker(&self, name: &str) -> Worker {
        self.worker_on(name, self.engine.clone(), Arc::new(self.registries.clone()))
    }

    /// A worker of this name with a real engine and real registries.
    ///
    /// # Panics
    /// If its folder cannot be created.
    #[must_use]
    pub fn real_worker(&self, name: &str) -> Worker {
        self.real_worker_on(name, &real::docker_host())
    }

    /// Like [`Self::real_worker`], with the engine at this address.
    ///
    /// # Panics
    /// If its folder cannot be created.
    #[must_use]
    pub fn real_worker_on(&self, name: &str, docker_host: &str) -> Worker {
        let engine = DockerEngine::connect(docker_host).expect("an engine's address");
        let http = OutboundClient::new(policy()).expect("a client");
        self.worker_on(name, engine, Arc::new(RemoteRegistries::new(http)))
    }

    fn worker_on(
        &self,
        name: &str,
        engine: impl Engine + Containers + Clone + 'static,
        registries: Arc<dyn Registries>,
    ) -> Worker {
        let work_folder = self.work.path().join(name);
        std::fs::create_dir_all(&work_folder).expect("a folder");
        let limits =
            UnpackLimits { archive_bytes: 2 << 30, unpacked_bytes: 2 << 30, entries: 10_000 };
        let http = OutboundClient::new(policy()).expect("a client");
        Worker {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: Arc::clone(&self.blobs),
            pool_key: Arc::new(self.keyring.pool_key(&Platform::default().pool())),
            engine: Arc::new(engine.clone()),
            containers: Arc::new(engine),
            http: http.clone(),
            sources: Sources::open(work_folder.clone(), self.git_program(), http, limits, 1 << 26)
                .expect("a folder"),
            registries,
            settings: WorkerSettings {
                id: name.parse().expect("an id"),
                has_fixed_name: true,
                pool: Platform::default().pool(),
                installation: self.work.path().display().to_string(),
                slots: 2,
                lease: LeaseTimes { period: LEASE, renew: Duration::from_millis(20) },
                work_folder,
                min_free: 0,
                keep_cache: 0,
                log_limit: 1 << 27,
                step_limits: ContainerLimits { memory: 256 << 20, cpus: None, pids: 512 },
                run_limits: Usage { memory: 8 * (256 << 20), pids: 8 * 512 },
                policy: Policy::default(),
                image_aliases: std::collections::BTreeMap::new(),
                housekeeping: Duration::from_secs(60),
            },
            held: Arc::new(HeldRuns::default()),
        }
    }

    /// This test cuts an attempt off for good: what it leaves is not looked for at the end.
    pub fn leaves_work(&self) {
        self.work.may_be_left.store(true, Ordering::Relaxed);
    }

    fn git_program(&self) -> Git {
        let limits =
            GitLimits { fetched_bytes: 1 << 26, checkout_bytes: 1 << 26, checkout_files: 10_000 };
        Git::new(Arc::new(policy()), limits)
    }

    /// Creates a task `reg/name` that builds `image` from branch `main` of the repository `name` on the git host.
    ///
    /// # Panics
    /// If it exists.
    pub async fn task(&self, name: &str, image: &str) -> Task {
        self.task_with(name, image, |_| {}).await
    }

    /// Like [`Self::task`], with a change before it is saved.
    ///
    /// # Panics
    /// If it exists.
    pub async fn task_with(&self, name: &str, image: &str, change: impl FnOnce(&mut Task)) -> Task {
        let now = self.clock.now();
        let mut task = Task {
            id: format!("reg/{name}").parse().expect("a task's id"),
            prefix: Self::prefix(),
            revision: 1,
            status: Status::Enabled,
            recipe: Recipe {
                source: format!("{}#main", self.git.url(name)).parse().expect("a source"),
                platforms: Platforms::default(),
                timeout: RunTimeout::default(),
                work: Work::Build(ImageBuild {
                    dockerfile: "Dockerfile".parse().expect("a path"),
                    images: vec![image.parse().expect("a template")],
                    build_args: std::collections::BTreeMap::default(),
                    secret_build_args: std::collections::BTreeMap::default(),
                    target: None,
                    push: true,
                    no_cache: false,
                }),
                logins: std::collections::BTreeMap::new(),
                follows: gantry_domain::tracked_image::TagPolicies::default(),
                bases: Vec::new(),
                pull_request: None,
            },
            source_trigger: Some(SourceTrigger::on_pushes("defaultSourceTriggerName")),
            base_image_trigger: Some(BaseImageTrigger::default()),
            timers: Timers::default(),
            git_token: None,
            reports: true,
            api_token: None,
            run_limit: None,
            concurrency_group: None,
            created: now,
            updated: now,
        };
        change(&mut task);
        let store = self.store.as_ref();
        let registry = registries::find(store, &task.id.registry).await.expect("the store answers");
        task.prefix = registry.expect("a registry").prefix;
        tasks::create(store, &task).await.expect("a new task").0
    }

    /// The images that a task needs, as far as they are known.
    ///
    /// # Panics
    /// If the store fails.
    pub async fn images(&self, task: &Task) -> TaskImages {
        task_images::find(self.store.as_ref(), task).await.expect("the store answers")
    }

    /// Decides and admits everything that is due, without running anything.
    ///
    /// # Panics
    /// If the store fails.
    pub async fn schedule(&self) {
        while self.scheduler().tick().await.expect("the store answers") {}
    }

    /// Runs scheduler and worker until neither has work left. Pauses between attempts are skipped.
    ///
    /// # Panics
    /// If the store fails.
    pub async fn settle(&self) {
        self.settle_with(&self.worker("worker-1")).await;
    }

    /// Like [`Self::settle`], with the given worker.
    ///
    /// # Panics
    /// If the store fails.
    pub async fn settle_with(&self, worker: &Worker) {
        self.settle_all(&self.scheduler(), worker).await;
    }

    /// Like [`Self::settle`], with the given scheduler.
    ///
    /// # Panics
    /// If the store fails.
    pub async fn settle_by(&self, scheduler: &Scheduler) {
        self.settle_all(scheduler, &self.worker("worker-1")).await;
    }

    async fn settle_all(&self, scheduler: &Scheduler, worker: &Worker) {
        loop {
            let mut moved = scheduler.tick().await.expect("the store answers");
            moved |= self.turn_beside(scheduler, worker).await;
            if !moved && !self.skip_pauses().await {
                return;
            }
        }
    }

    /// One turn of the worker, concurrently with the scheduler: a requested run needs it to resolve its facts before it
    /// moves tags.
    async fn turn_beside(&self, scheduler: &Scheduler, worker: &Worker) -> bool {
        let turn = worker.turn(&self.stop);
        tokio::pin!(turn);
        loop {
            tokio::select! {
                moved = &mut turn => return moved.expect("the store answers"),
                () = tokio::time::sleep(Duration::from_millis(20)) => {
                    scheduler.tick().await.expect("the store answers");
                }
            }
        }
    }

    /// Moves the clock past the pauses of runs that wait for another attempt. Returns whether there are any.
    async fn skip_pauses(&self) -> bool {
        let waiting = runs::waiting(self.store.as_ref(), None, 100).await.expect("runs");
        let pauses = waiting.iter().any(|run| {
            run.status() == gantry_domain::run::RunStatus::Queued && !run.attempts.is_empty()
        });
        if pauses {
            self.clock.advance(Duration::from_secs(120));
        }
        pauses
    }

    /// The current state of a run.
    ///
    /// # Panics
    /// If it does not exist.
    pub async fn run(&self, id: &str) -> Run {
        let id: RunId = id.parse().expect("a run's id");
        runs::find(self.store.as_ref(), id).await.expect("the store answers").expect("a run")
    }

    /// All runs, oldest first, one per line: id, status, cause, and the error or the pushed images.
    ///
    /// # Panics
    /// If the store fails.
    pub async fn transcript(&self) -> String {
        let mut all = runs::list(self.store.as_ref(), &RunFilter::default(), None, 100)
            .await
            .expect("the store answers");
        all.sort_by_key(|run| run.id);
        let lines = all.iter().map(|run| {
            let mut line = format!("{} {} {}", run.id, run.status(), run.cause);
            if let Some(done) = run.state.done() {
                for output in done.outcome.product().into_iter().flat_map(|made| &made.outputs) {
                    line.push_str(&format!(" -> {}", output.image));
                }
                if let Some(error) = done.outcome.error() {
                    line.push_str(&format!(" ({error})"));
                }
            }
            line
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The decision on an event, one line for each candidate.
    ///
    /// # Panics
    /// If the event is not decided.
    pub async fn decision(&self, event: &EventId) -> String {
        let recorded =
            decisions::find(self.store.as_ref(), event).await.expect("the store answers");
        let recorded = recorded.expect("a decision");
        assert!(recorded.is_final, "the decision is complete");
        let nothing = recorded.decision.nothing.iter().map(ToString::to_string);
        let candidates = recorded.decision.candidates.iter().map(|candidate| {
            let task = candidate.task.as_ref().map(ToString::to_string).unwrap_or_default();
            let files = candidate.files_unknown.iter().map(|why| format!(" ({why})"));
            let files: String = files.collect();
            match &candidate.choice {
                gantry_domain::decide::Choice::Run { run } => format!("{task}: run {run}{files}"),
                gantry_domain::decide::Choice::Wave { wave } => format!("{task}: wave {wave}"),
                gantry_domain::decide::Choice::WouldRun => format!("{task}: would run{files}"),
                gantry_domain::decide::Choice::No { rule } => format!("{task}: {rule}"),
            }
        });
        nothing.chain(candidates).collect::<Vec<_>>().join("\n")
    }

    /// The whole log of an attempt.
    ///
    /// # Panics
    /// If it cannot be read, or has a hole.
    pub async fn log(&self, run: &str, attempt: u32) -> String {
        let log = LogId { run: run.parse().expect("a run's id"), attempt };
        let mut reader = LogReader::at(log, 0);
        let mut text = String::new();
        loop {
            match reader.next(self.store.as_ref(), self.blobs.as_ref()).await.expect("a log") {
                LogPart::Frames(frames) => text.extend(frames.into_iter().map(|frame| frame.text)),
                LogPart::Hole { until } => panic!("a hole up to {until}"),
                LogPart::End => return text,
            }
        }
    }

    /// The repository of the images that a task pushes, for scripts of the engine.
    ///
    /// # Panics
    /// If the name is invalid.
    #[must_use]
    pub fn repository(name: &str) -> Repository {
        name.parse().expect("a repository")
    }

    /// Creates a ready run `ca1`, requested for a task that pushes to `hello`, with these actions of the engine.
    ///
    /// # Panics
    /// If the store fails, or the task exists.
    pub async fn ready_run(&self, actions: impl IntoIterator<Item = Action>) {
        self.git
            .repository("hello")
            .expect("a repository")
            .commit("main", DOCKERFILE)
            .expect("git");
        let task = self.task("hello", "hello:{{.Run.ID}}").await;
        self.settle().await;
        self.engine.script(&Self::repository("hello"), actions);
        self.ask(&task, None).await;
        self.schedule().await;
    }

    /// Requests a run of a task, with an optional idempotency key.
    ///
    /// # Panics
    /// If the store fails.
    pub async fn ask(&self, task: &Task, key: Option<&str>) -> AcceptedRequest {
        let idempotency = key.map(|key| Idempotency {
            key: key.to_owned(),
            asked: task.id.to_string().into_bytes(),
        });
        let draft =
            |event| planner::for_task_request(task, task.recipe.clone(), event, Self::somebody());
        self.request(draft, idempotency).await
    }

    /// Requests a run, as the API does. `draft` receives the request's event.
    ///
    /// # Panics
    /// If the store fails or the registry does not exist.
    pub async fn request(
        &self,
        draft: impl FnOnce(EventId) -> RunDraft,
        idempotency: Option<Idempotency>,
    ) -> AcceptedRequest {
        let random = random_hex::<8>().expect("a random number");
        let id: EventId = format!("request/{}", random.as_str()).parse().expect("an event's id");
        let draft = draft(id.clone());
        let store = self.store.as_ref();
        let registry = registries::find(store, &draft.registry).await.expect("the store answers");
        let task = draft.task.as_ref();
        let task =
            task.map(|task| TaskId { registry: draft.registry.clone(), name: task.name.clone() });
        let event = Event {
            id,
            registry: draft.registry.clone(),
            prefix: registry.expect("a registry").prefix,
            received: self.clock.now(),
            trace: None,
            kind: EventKind::Requested { by: Self::somebody(), task, rerun_of: None },
        };
        let request = RunRequest { event, draft, idempotency };
        requests::accept(store, request, self.keyring.as_ref()).await.expect("the store answers")
    }

    /// A token id.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn somebody() -> TokenId {
        "t1".parse().expect("an id")
    }

    /// Somebody who cancels runs.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn canceler() -> CanceledBy {
        CanceledBy::Token { token: Self::somebody() }
    }

    /// The binding of the registry's secrets.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn seals_for() -> String {
        Registry::seals_for(Self::prefix())
    }

    /// Sets a secret of the registry.
    ///
    /// # Panics
    /// If the store does not answer.
    pub async fn set_secret(&self, name: &str, value: &str) {
        let (name, prefix) = (name.parse::<SecretName>().expect("a name"), Self::prefix());
        let sealed_for = Secret::seals_for(prefix, &name);
        let value = self.keyring.seal(&sealed_for, &SecretString::from(value)).expect("a seal");
        let (registry, by) = ("reg".parse().expect("a registry"), Self::somebody());
        let new = NewValue { registry, prefix, name, value, by };
        secrets::set(self.store.as_ref(), &new).await.expect("the store answers");
    }

    /// The prefix of the registry, which is the first one.
    #[must_use]
    pub fn prefix() -> RunPrefix {
        RunPrefix::nth(0)
    }
}

/// The build in a recipe.
///
/// # Panics
/// If it runs a task file.
pub fn image_build(recipe: &mut Recipe) -> &mut ImageBuild {
    match &mut recipe.work {
        Work::Build(build) => build,
        Work::File(_) => panic!("this recipe runs a task file"),
    }
}

/// The URL at which people would reach the installation.
///
/// # Panics
/// Never.
#[must_use]
pub fn public_url() -> Url {
    Url::parse("http://gantry.test/").expect("a URL")
}

/// Sends messages of notifications where `policy` permits.
///
/// # Panics
/// If there is no TLS.
#[must_use]
pub fn webhooks(policy: OutboundPolicy) -> Webhooks {
    let http = OutboundClient::new(policy).expect("a client");
    Webhooks::new(&http).expect("a client")
}

fn policy() -> OutboundPolicy {
    OutboundPolicy::parse(["127.0.0.1"]).expect("an allowance")
}

/// Creates a registry without credentials.
///
/// # Panics
/// If it exists.
pub async fn create_registry(
    store: &dyn Store,
    name: &str,
    host: &str,
    run_limit: u32,
) -> Registry {
    let new = NewRegistry {
        name: name.parse().expect("a name"),
        prefix: registries::reserve_prefix(store).await.expect("the store answers"),
        host: host.parse().expect("a host"),
        credentials: None,
        run_limit: NonZeroU32::new(run_limit).expect("not zero"),
    };
    registries::create(store, new).await.expect("a new registry")
}
