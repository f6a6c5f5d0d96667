//! `gantry worker` on an engine that runs nothing and a registry in a folder that all workers share.
//!
//! In: `gantry-scripted-worker REGISTRY SEED REPOSITORY… --config FILE`, where the seed decides how long builds and writes of
//! tags take. Out: what a worker does, until SIGTERM. SIGUSR1 takes its engine away: builds fail as if it had been killed,
//! until SIGUSR2.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use gantry_amqp::{AmqpOptions, AmqpQueues};
use gantry_domain::id::WorkerId;
use gantry_domain::image::Repository;
use gantry_domain::platform::Platform;
use gantry_objects::ObjectBlobs;
use gantry_ops::secret::{PoolKey, SecretString, random_hex};
use gantry_ops::settings::{Layers, Settings, SettingsFile};
use gantry_redis::{RedisOptions, RedisStore};
use gantry_remote::git::{Git, GitLimits};
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;
use gantry_seams::installation;
use gantry_seams::queue::Queues;
use gantry_seams::store::SharedStore;
use gantry_tests::kept_registry::KeptRegistry;
use gantry_tests::servers::rabbitmq::PASSWORD;
use gantry_worker::engine::OutputStream;
use gantry_worker::engine::scripted::{Action, ScriptedEngine};
use gantry_worker::source::{Sources, UnpackLimits};
use gantry_worker::{Hand, LeaseTimes, Worker, WorkerSettings};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How often a worker looks for what dead attempts left.
const LOOK: Duration = Duration::from_secs(1);

/// Between two tries at a server that is not there.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// The longest of most builds.
const SHORT_BUILD: Duration = Duration::from_millis(800);

/// The longest of the others: longer than a lease, so that it must be renewed.
const LONG_BUILD: Duration = Duration::from_secs(6);

/// One build in so many is long.
const LONG_BUILDS: u32 = 6;

/// More builds of one repository than a process lives to see.
const SCRIPTS: usize = 512;

struct Arguments {
    registry: PathBuf,
    seed: u64,
    repositories: Vec<Repository>,
    config: PathBuf,
}

impl Arguments {
    fn parse(given: impl Iterator<Item = String>) -> Result<Self> {
        let given: Vec<String> = given.collect();
        let [registry, seed, repositories @ .., option, config] = given.as_slice() else {
            bail!("REGISTRY SEED REPOSITORY… --config FILE")
        };
        ensure!(option == "--config", "`--config FILE` comes last");
        let repositories =
            repositories.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
        Ok(Self {
            registry: registry.into(),
            seed: seed.parse()?,
            repositories,
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
    let name = "gantry-worker".to_owned();
    let _telemetry = gantry_ops::telemetry::start(&settings.log, &settings.telemetry, name)?;
    let stop = CancellationToken::new();
    let engine = engine(&arguments);
    let signals = Signals::listen()?;
    tokio::spawn(signals.obey(engine.clone(), stop.clone()));
    let worker = tokio::select! {
        worker = worker(&settings, &arguments, engine, &stop) => worker?,
        () = stop.cancelled() => return Ok(()),
    };
    let address = settings.telemetry.listen.context("`telemetry.listen` is set")?;
    tokio::spawn(be_ready(TcpListener::bind(address).await?));
    worker.run(stop).await;
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

/// Tells whoever asks that this process is ready.
async fn be_ready(listener: TcpListener) {
    const YES: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    while let Ok((mut asked, _)) = listener.accept().await {
        let _question = asked.read(&mut [0; 1024]).await;
        let _gone = asked.write_all(YES).await;
    }
}

/// An engine whose builds say something, take a seeded while, and say something again.
fn engine(arguments: &Arguments) -> ScriptedEngine {
    let engine = ScriptedEngine::new();
    let mut times = StdRng::seed_from_u64(arguments.seed);
    let say = |text: &'static str| Action::Output(OutputStream::Stdout, text.into());
    for repository in &arguments.repositories {
        for _ in 0..SCRIPTS {
            let most = if times.random_ratio(1, LONG_BUILDS) { LONG_BUILD } else { SHORT_BUILD };
            let time = times.random_range(Duration::ZERO..=most);
            let script = [say("begins\n"), Action::Work(time), say("half\nof it\n"), say("ends\n")];
            engine.script(repository, script);
        }
    }
    engine
}

async fn worker(
    settings: &Settings,
    arguments: &Arguments,
    engine: ScriptedEngine,
    stop: &CancellationToken,
) -> Result<Worker> {
    let pool = settings.worker.pool.clone().unwrap_or_else(|| Platform::default().pool());
    let key =
        settings.secrets.pool_key_file.as_deref().context("`secrets.pool_key_file` is set")?;
    let pool_key = PoolKey::read(key, &pool)?;
    let store = store(settings).await?;
    let queues = queues(settings, stop).await?;
    let installation = installation(&store, &pool_key).await?;
    let objects = settings.objects.url.as_ref().and_then(|url| url.to_file_path().ok());
    let allowed = settings.outbound.allow.iter().map(String::as_str);
    let http = OutboundClient::new(OutboundPolicy::parse(allowed)?)?;
    let fetched =
        GitLimits { fetched_bytes: 1 << 26, checkout_bytes: 1 << 26, checkout_files: 10_000 };
    let git = Git::new(Arc::clone(http.policy()), fetched);
    let unpacked =
        UnpackLimits { archive_bytes: 1 << 26, unpacked_bytes: 1 << 26, entries: 10_000 };
    let work_folder = settings.data.join("work");
    let registry = KeptRegistry::open(arguments.registry.clone(), engine.clone(), arguments.seed)?;
    Ok(Worker {
        store,
        queues,
        blobs: Arc::new(ObjectBlobs::local(objects.context("`objects.url` is a folder")?)?),
        pool_key: Arc::new(pool_key),
        engine: Arc::new(engine),
        sources: Sources::open(work_folder.clone(), git, http, unpacked, 1 << 26)?,
        registries: Arc::new(registry),
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
            housekeeping: LOOK,
        },
        hand: Arc::new(Hand::default()),
    })
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

/// The id of the installation, once somebody has begun it.
async fn installation(store: &SharedStore, key: &PoolKey) -> Result<String> {
    loop {
        if let Ok(Some(found)) = installation::find(store.as_ref()).await {
            found.check_pool_key(&key.fingerprints())?;
            return Ok(found.id);
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}
