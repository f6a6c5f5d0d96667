//! gantry's components, composed as in its commands, with the default settings.

use std::net::TcpListener;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use gantry_domain::hook::{Hook, HookSecret, Sender};
use gantry_domain::id::{RunId, WorkerId};
use gantry_domain::platform::Platform;
use gantry_domain::run::Run;
use gantry_ingress::{Ingress, IngressSettings, Listeners, ServeError};
use gantry_objects::ObjectBlobs;
use gantry_ops::health::Health;
use gantry_ops::secret::{Keyring, SecretString, random_hex};
use gantry_ops::settings::{Layers, Settings};
use gantry_remote::code_host::CodeHosts;
use gantry_remote::git::{Git, GitLimits};
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;
use gantry_remote::image_registry::{ImageRegistry, RemoteImageRegistry};
use gantry_remote::registries::RemoteRegistries;
use gantry_scheduler::{BaseImageSettings, Retention, Scheduler, SchedulerSettings};
use gantry_seams::blobs::SharedBlobs;
use gantry_seams::queue::Queues;
use gantry_seams::registries::NewRegistry;
use gantry_seams::store::SharedStore;
use gantry_seams::{hooks, installation, registries, runs};
use gantry_tests::pipeline;
use gantry_tests::real;
use gantry_worker::engine::Engine;
use gantry_worker::engine::containers::ContainerLimits;
use gantry_worker::engine::docker::DockerEngine;
use gantry_worker::source::{Sources, UnpackLimits};
use gantry_worker::{HeldRuns, LeaseTimes, Policy, Usage, Worker, WorkerSettings};
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::github;

/// The registry's name in gantry.
pub(crate) const REGISTRY: &str = "bench";

/// What all components share.
pub(crate) struct Parts {
    /// The records.
    pub(crate) store: SharedStore,
    /// Logs and uploads.
    pub(crate) blobs: SharedBlobs,
    /// The default settings.
    pub(crate) settings: Settings,
    queues: Queues,
    /// Signs runs and seals secrets.
    pub(crate) keyring: Arc<Keyring>,
    http: OutboundClient,
    images: Arc<dyn ImageRegistry>,
    code_hosts: Arc<CodeHosts>,
    git: Git,
    installation: String,
    folder: PathBuf,
}

impl Parts {
    /// Opens the contents of a folder.
    pub(crate) async fn open(folder: &Path, stop: &CancellationToken) -> Result<Self> {
        Self::open_on(&Backend::Embedded, folder, stop).await
    }

    /// Opens the store and the queues of a backend. Keys, objects and working files are in the folder.
    pub(crate) async fn open_on(
        backend: &Backend,
        folder: &Path,
        stop: &CancellationToken,
    ) -> Result<Self> {
        Self::on(backend.store(folder).await?, backend.queues(stop).await?, folder).await
    }

    /// The same, on an open store.
    pub(crate) async fn on(store: SharedStore, queues: Queues, folder: &Path) -> Result<Self> {
        let nothing = Layers { file: None, environment: &[], flags: &[], rules: &[] };
        let settings = Settings::parse(&nothing)?;
        // The registry and the git host are on loopback.
        let http = OutboundClient::new(OutboundPolicy::parse(["127.0.0.1"])?)?;
        let limits = GitLimits {
            fetched_bytes: settings.limits.context,
            checkout_bytes: settings.limits.context,
            checkout_files: settings.limits.context_files,
        };
        let git = Git::new(Arc::clone(http.policy()), limits);
        let keyring = Keyring::open_or_create(&folder.join("secret.key"))?;
        let (installation, _) =
            installation::open(store.as_ref(), REGISTRY, &keyring.fingerprints()).await?;
        Ok(Self {
            blobs: Arc::new(ObjectBlobs::local(folder.join("objects"))?),
            queues,
            code_hosts: Arc::new(CodeHosts::new(git.clone(), &http, Vec::new())?),
            git,
            installation: installation.id,
            keyring: Arc::new(keyring),
            images: Arc::new(RemoteImageRegistry::new(http.clone())?),
            http,
            folder: folder.to_owned(),
            settings,
            store,
        })
    }

    /// Creates a registry at `host` with a GitHub hook, unless they exist.
    pub(crate) async fn set_up(&self, host: &str) -> Result<()> {
        let store = self.store.as_ref();
        if registries::find(store, &REGISTRY.parse()?).await?.is_some() {
            return Ok(());
        }
        let registry = NewRegistry {
            name: REGISTRY.parse()?,
            prefix: registries::reserve_prefix(store).await?,
            host: host.parse()?,
            credentials: None,
            run_limit: NonZeroU32::new(8).context("8 is not 0")?,
        };
        let registry = registries::create(store, registry).await?;
        let id = github::HOOK.parse()?;
        let secret = SecretString::from(github::SECRET);
        let created = self.store.now().await?;
        let sealed = self.keyring.seal(&hooks::seal_for(&id), &secret)?;
        let hook = Hook {
            id,
            registry: registry.name,
            prefix: registry.prefix,
            sender: Sender::GitHub,
            repositories: Vec::new(),
            secrets: vec![HookSecret { sealed, created }],
            is_provisioned: false,
            created,
        };
        Ok(hooks::create(self.store.as_ref(), &hook).await?)
    }

    /// Serves the API and the hooks until `stop` is cancelled.
    pub(crate) fn serve(
        &self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), ServeError>> + Send + use<> {
        let ingress = Ingress {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: Arc::clone(&self.blobs),
            keyring: Arc::clone(&self.keyring),
            providers: self.code_hosts.clone(),
            webhooks: pipeline::webhooks(OutboundPolicy::default()),
            health: Health::default(),
            settings: IngressSettings {
                body_budget: self.settings.server.body_budget,
                body_patience: self.settings.server.body_patience,
                upload_limit: self.settings.limits.upload,
                threads: std::thread::available_parallelism().map_or(1, usize::from),
                ..IngressSettings::default()
            },
        };
        gantry_ingress::run(ingress, Listeners { api: listener, hooks: None }, stop)
    }

    /// A scheduler with these components.
    pub(crate) fn scheduler(&self) -> Scheduler {
        let kept = &self.settings.retention;
        Scheduler {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: Arc::clone(&self.blobs),
            keyring: Arc::clone(&self.keyring),
            code_host: self.code_hosts.clone(),
            providers: self.code_hosts.clone(),
            asks: Arc::default(),
            sends: Arc::default(),
            webhooks: pipeline::webhooks(OutboundPolicy::default()),
            posts: Arc::default(),
            looks: Arc::default(),
            provisions: Arc::default(),
            images: Arc::clone(&self.images),
            image_looks: Arc::default(),
            vaults: Arc::default(),
            helpers: Arc::default(),
            settings: SchedulerSettings {
                sweep_interval: self.settings.sweep.interval,
                lease: self.settings.lease.duration,
                public_url: pipeline::public_url(),
                reconcile_interval: self.settings.reconcile.interval,
                provision: true,
                queue_timeout: self.settings.runs.queue_timeout,
                base_images: BaseImageSettings {
                    interval: self.settings.images.interval,
                    intervals: self.settings.images.intervals.clone(),
                    quiet: self.settings.images.quiet,
                    canary: self.settings.images.canary,
                },
                retention: Retention {
                    runs: kept.runs,
                    deliveries: kept.deliveries,
                    bodies: kept.bodies,
                    lineage: kept.lineage,
                    waves: kept.waves,
                    revisions: kept.revisions,
                    messages: kept.messages,
                    uploads: kept.uploads,
                    unused_uploads: kept.unused_uploads,
                },
            },
        }
    }

    /// The real engine.
    pub(crate) fn engine(&self) -> Result<Arc<dyn Engine>> {
        Ok(Arc::new(DockerEngine::connect(&real::docker_host())?))
    }

    /// A worker on an engine.
    pub(crate) fn worker(&self, engine: Arc<dyn Engine>) -> Result<Worker> {
        let settings = &self.settings;
        // Several workers may share the folder, on the same machine.
        let id: WorkerId = format!("worker-{}", random_hex::<4>()?.as_str()).parse()?;
        let work_folder = self.folder.join(id.as_str());
        let limits = UnpackLimits {
            archive_bytes: settings.limits.upload,
            unpacked_bytes: settings.limits.context,
            entries: settings.limits.context_files,
        };
        let (git, http) = (self.git.clone(), self.http.clone());
        let mirrors = settings.worker.mirrors;
        Ok(Worker {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: Arc::clone(&self.blobs),
            pool_key: Arc::new(self.keyring.pool_key(&Platform::default().pool())),
            engine,
            containers: Arc::new(DockerEngine::connect(&real::docker_host())?),
            http: self.http.clone(),
            sources: Sources::open(work_folder.clone(), git, http, limits, mirrors)?,
            registries: Arc::new(RemoteRegistries::new(self.http.clone())),
            settings: WorkerSettings {
                id,
                has_fixed_name: false,
                pool: Platform::default().pool(),
                installation: self.installation.clone(),
                slots: settings.worker.slots.get(),
                lease: LeaseTimes { period: settings.lease.duration, renew: settings.lease.renew },
                work_folder,
                min_free: settings.worker.min_free,
                keep_cache: settings.engine.keep,
                log_limit: settings.limits.log,
                step_limits: ContainerLimits { memory: 1 << 30, cpus: None, pids: 4096 },
                run_limits: Usage { memory: 8 * (1 << 30), pids: 8 * 4096 },
                policy: Policy::default(),
                image_aliases: std::collections::BTreeMap::new(),
                housekeeping: Duration::from_secs(60),
            },
            held: Arc::new(HeldRuns::default()),
        })
    }

    /// Waits until a run has ended.
    pub(crate) async fn ended(&self, run: RunId) -> Result<Run> {
        let mut moved = runs::watch(self.store.as_ref(), run);
        loop {
            let found = runs::find(self.store.as_ref(), run).await?.context("a run is kept")?;
            if found.state.done().is_some() {
                return Ok(found);
            }
            let _or_look_again =
                tokio::time::timeout(Duration::from_secs(1), moved.changed()).await;
        }
    }
}
