//! One role of gantry over servers, with a scripted engine, and a registry in a folder that all workers share.
//!
//! In: `gantry-scripted-role ingress|scheduler|worker REGISTRY SEED REPOSITORY… --config FILE`, where the seed
//! determines how long builds and tag writes take. Runs until SIGTERM, or until it kills itself at the crash point in
//! its environment. SIGUSR1 makes a worker's engine unavailable: builds fail as if it had been killed, until SIGUSR2.

use std::net::TcpListener as StdListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use gantry_amqp::{AmqpOptions, AmqpQueues};
use gantry_domain::id::WorkerId;
use gantry_domain::image::Repository;
use gantry_domain::platform::Platform;
use gantry_ingress::{Ingress, IngressSettings, Listeners};
use gantry_objects::ObjectBlobs;
use gantry_ops::health::Health;
use gantry_ops::secret::{Keyring, PoolKey, SecretString, random_hex};
use gantry_ops::settings::{Layers, Settings, SettingsFile};
use gantry_redis::{RedisOptions, RedisStore};
use gantry_remote::code_host::CodeHosts;
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;
use gantry_remote::webhook::Webhooks;
use gantry_scheduler::{BaseImageSettings, Retention, Scheduler, SchedulerSettings};
use gantry_seams::installation;
use gantry_seams::queue::Queues;
use gantry_seams::store::SharedStore;
use gantry_tests::crash::Crash;
use gantry_tests::kept_registry::KeptRegistry;
use gantry_tests::pipeline;
use gantry_tests::registries::LooksOf;
use gantry_tests::scripted::{self, MIRRORS, UNPACKED};
use gantry_tests::servers::rabbitmq::PASSWORD;
use gantry_worker::engine::containers::ContainerLimits;
use gantry_worker::engine::scripted::ScriptedEngine;
use gantry_worker::source::Sources;
use gantry_worker::{HeldRuns, LeaseTimes, Policy, Usage, Worker, WorkerSettings};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The interval of a worker's housekeeping.
const LOOK: Duration = Duration::from_secs(1);

/// The pause between attempts to reach a server.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// The longest of the usual builds.
const SHORT_BUILD: Duration = Duration::from_millis(800);

/// The longest of the other builds: longer than a lease, so that it must be renewed.
const LONG_BUILD: Duration = Duration::from_secs(6);

/// One of this many builds is long.
const LONG_BUILDS: u32 = 6;

struct Arguments {
    role: String,
    registry: PathBuf,
    seed: u64,
    repositories: Vec<Repository>,
    config: PathBuf,
}

impl Arguments {
    fn parse(given: impl Iterator<Item = String>) -> Result<Self> {
        let given: Vec<String> = given.collect();
        let [role, registry, seed, repositories @ .., option, config] = given.as_slice() else {
            bail!("ROLE REGISTRY SEED REPOSITORY… --config FILE")
        };
        ensure!(option == "--config", "`--config FILE` comes last");
        Ok(Self {
            role: role.clone(),
            registry: registry.into(),
            seed: seed.parse()?,
            repositories: scripted::repositories(repositories)?,
            config: config.into(),
        })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let text = std::fs::read_to_string(&arguments.config)?;
    let file = Some(SettingsFile { path: &arguments.config, text: &text });
    let settings = Settings::parse(&Layers { file, environment: &[], flags: &[], rules: &[] })?;
    let name = format!("gantry-{}", arguments.role);
    let _telemetry = gantry_ops::telemetry::start(&settings.log, &settings.telemetry, name)?;
    let stop = CancellationToken::new();
    let crash = Crash::of_environment()?;
    let engine = engine(&arguments, crash);
    let signals = Signals::listen()?;
    tokio::spawn(signals.obey(engine.clone(), stop.clone()));
    let parts = tokio::select! {
        parts = RoleParts::open(settings, crash, &stop) => parts?,
        () = stop.cancelled() => return Ok(()),
    };
    let address = parts.settings.telemetry.listen.context("`telemetry.listen` is set")?;
    match arguments.role.as_str() {
        "ingress" => {
            let listener = StdListener::bind(parts.settings.server.listen)?;
            let listeners = Listeners { api: listener, hooks: None };
            let serving = gantry_ingress::run(parts.ingress().await?, listeners, stop);
            tokio::spawn(be_ready(TcpListener::bind(address).await?));
            serving.await?;
        }
        "scheduler" => {
            let scheduler = parts.scheduler(&arguments).await?;
            tokio::spawn(be_ready(TcpListener::bind(address).await?));
            scheduler.run(stop).await;
        }
        "worker" => {
            let worker = tokio::select! {
                worker = parts.worker(&arguments, engine) => worker?,
                () = stop.cancelled() => return Ok(()),
            };
            tokio::spawn(be_ready(TcpListener::bind(address).await?));
            worker.run(stop).await;
        }
        other => bail!("`{other}` is no role"),
    }
    Ok(())
}

struct Signals {
    terminate: Signal,
    engine_goes: Signal,
    engine_comes: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            engine_goes: signal(SignalKind::user_defined1())?,
            engine_comes: signal(SignalKind::user_defined2())?,
        })
    }

    async fn obey(mut self, engine: ScriptedEngine, stop: CancellationToken) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return stop.cancel(),
                _ = self.engine_goes.recv() => engine.go_away(),
                _ = self.engine_comes.recv() => engine.come_back(),
            }
        }
    }
}

/// Answers readiness probes.
async fn be_ready(listener: TcpListener) {
    const YES: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    while let Ok((mut asked, _)) = listener.accept().await {
        let _question = asked.read(&mut [0; 1024]).await;
        let _gone = asked.write_all(YES).await;
    }
}

fn engine(arguments: &Arguments, crash: Crash) -> ScriptedEngine {
    let mut times = StdRng::seed_from_u64(arguments.seed);
    let time = || {
        let most = if times.random_ratio(1, LONG_BUILDS) { LONG_BUILD } else { SHORT_BUILD };
        times.random_range(Duration::ZERO..=most)
    };
    scripted::engine(&arguments.repositories, crash.in_build().as_ref(), time)
}

/// The connections that all roles need.
struct RoleParts {
    settings: Settings,
    store: SharedStore,
    queues: Queues,
    blobs: Arc<ObjectBlobs>,
    http: OutboundClient,
    crash: Crash,
}

impl RoleParts {
    async fn open(settings: Settings, crash: Crash, stop: &CancellationToken) -> Result<Self> {
        let objects = settings.objects.url.as_ref().and_then(|url| url.to_file_path().ok());
        let objects = objects.context("`objects.url` is a folder")?;
        let allowed = settings.outbound.allow.iter().map(String::as_str);
        Ok(Self {
            store: crash.store(store(&settings).await?),
            queues: crash.queues(queues(&settings, stop).await?),
            blobs: Arc::new(ObjectBlobs::local(objects)?),
            http: OutboundClient::new(OutboundPolicy::parse(allowed)?)?,
            crash,
            settings,
        })
    }

    async fn ingress(&self) -> Result<Ingress> {
        Ok(Ingress {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: self.blobs.clone(),
            keyring: self.keyring().await?,
            providers: Arc::new(CodeHosts::new(scripted::git(&self.http), &self.http, Vec::new())?),
            webhooks: Webhooks::new(&self.http)?,
            health: Health::default(),
            settings: IngressSettings { threads: 1, ..IngressSettings::default() },
        })
    }

    async fn scheduler(&self, arguments: &Arguments) -> Result<Scheduler> {
        let folder = arguments.registry.clone();
        let registry = KeptRegistry::open(folder, ScriptedEngine::new(), arguments.seed)?;
        let kept = &self.settings.retention;
        let git = scripted::git(&self.http);
        let code_hosts = Arc::new(CodeHosts::new(git, &self.http, Vec::new())?);
        Ok(Scheduler {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: self.blobs.clone(),
            keyring: self.keyring().await?,
            code_host: code_hosts.clone(),
            providers: code_hosts,
            asks: Arc::default(),
            sends: Arc::default(),
            webhooks: Webhooks::new(&self.http)?,
            posts: Arc::default(),
            looks: Arc::default(),
            provisions: Arc::default(),
            images: Arc::new(LooksOf::new(Arc::new(registry))),
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
                    interval: scripted::look_every()?.unwrap_or(self.settings.images.interval),
                    intervals: self.settings.images.intervals.clone(),
                    quiet: self.settings.images.quiet,
                    canary: self.settings.images.canary,
                },
                retention: Retention {
                    runs: kept.runs,
                    bodies: kept.bodies,
                    ..Retention::default()
                },
            },
        })
    }

    /// The service's keys. Creates the installation if there is none.
    async fn keyring(&self) -> Result<Arc<Keyring>> {
        let file = self.settings.secrets.key_file.as_deref();
        let keyring = Keyring::read(file.context("`secrets.key_file` is set")?)?;
        let id = random_hex::<8>()?;
        installation::open(self.store.as_ref(), id.as_str(), &keyring.fingerprints()).await?;
        Ok(Arc::new(keyring))
    }

    async fn worker(&self, arguments: &Arguments, engine: ScriptedEngine) -> Result<Worker> {
        let settings = &self.settings;
        let pool = settings.worker.pool.clone().unwrap_or_else(|| Platform::default().pool());
        let key =
            settings.secrets.pool_key_file.as_deref().context("`secrets.pool_key_file` is set")?;
        let pool_key = PoolKey::read(key, &pool)?;
        let installation = installation(&self.store, &pool_key).await?;
        let (git, http) = (scripted::git(&self.http), self.http.clone());
        let work_folder = settings.data.join("work");
        let registry =
            KeptRegistry::open(arguments.registry.clone(), engine.clone(), arguments.seed)?;
        Ok(Worker {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: self.blobs.clone(),
            pool_key: Arc::new(pool_key),
            engine: Arc::new(engine.clone()),
            containers: Arc::new(engine),
            http: self.http.clone(),
            sources: Sources::open(work_folder.clone(), git, http, UNPACKED, MIRRORS)?,
            registries: self.crash.registries(registry),
            settings: WorkerSettings {
                id: settings.worker.name.clone().map_or_else(random_name, Ok)?,
                has_fixed_name: settings.worker.name.is_some(),
                pool,
                installation,
                slots: settings.worker.slots.get(),
                lease: LeaseTimes { period: settings.lease.duration, renew: settings.lease.renew },
                work_folder,
                min_free: settings.worker.min_free,
                keep_cache: 0,
                log_limit: settings.limits.log,
                step_limits: ContainerLimits { memory: 1 << 30, cpus: None, pids: 4096 },
                run_limits: Usage { memory: 8 * (1 << 30), pids: 8 * 4096 },
                policy: Policy::default(),
                image_aliases: std::collections::BTreeMap::new(),
                housekeeping: LOOK,
            },
            held: Arc::new(HeldRuns::default()),
        })
    }
}

fn random_name() -> Result<WorkerId> {
    Ok(format!("worker-{}", random_hex::<4>()?.as_str()).parse()?)
}

async fn store(settings: &Settings) -> Result<SharedStore> {
    let url = settings.store.url.as_deref().context("`store.url` is set")?;
    let mut options = RedisOptions::parse(url)?;
    options.prefix.clone_from(&settings.store.prefix);
    loop {
        match RedisStore::connect(options.clone()).await {
            Ok(store) => return Ok(Arc::new(store)),
            Err(error) if error.is_temporary() => tokio::time::sleep(TRY_AGAIN).await,
            Err(error) => return Err(error.into()),
        }
    }
}

async fn queues(settings: &Settings, stop: &CancellationToken) -> Result<Queues> {
    let options = AmqpOptions::parse(&settings.queue.urls, SecretString::from(PASSWORD))?;
    loop {
        match AmqpQueues::connect(options.clone(), stop).await {
            Ok(queues) => return Ok(queues.queues()),
            Err(error) if error.is_temporary() => tokio::time::sleep(TRY_AGAIN).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits for the id of the installation.
async fn installation(store: &SharedStore, key: &PoolKey) -> Result<String> {
    loop {
        if let Ok(Some(found)) = installation::find(store.as_ref()).await {
            found.check_pool_key(&key.fingerprints())?;
            return Ok(found.id);
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}
