//! `gantry up` with a scripted engine and registry; everything else is real, and leases are short.
//!
//! In: `gantry-scripted DATA SEED lapse|end [--new-admin-token] [--forget bodies|runs|unused] REPOSITORY…`. Out: the
//! messages of `gantry up`, until it is killed, or kills itself at the crash point in its environment. The seed
//! determines how long builds and tag writes take. With `end`, leases of the earlier process end at once, as at an
//! embedded start; with `lapse`, they expire like those of a lost worker. Data named by `--forget` expires at once.
//! `lapse` they end by themselves, as those of a lost worker do. What is to be forgotten is old at once.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use gantry_domain::image::Repository;
use gantry_domain::platform::Platform;
use gantry_ingress::{Ingress, IngressSettings, Listeners};
use gantry_local::queues;
use gantry_objects::ObjectBlobs;
use gantry_ops::health::Health;
use gantry_ops::secret::{Keyring, random_hex};
use gantry_remote::code_host::CodeHosts;
use gantry_remote::git::Git;
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;
use gantry_scheduler::{BaseImageSettings, Retention, Scheduler, SchedulerSettings};
use gantry_seams::queue::Queues;
use gantry_seams::runs;
use gantry_seams::store::SharedStore;
use gantry_sqlite::{DataDir, Options, SqliteStore};
use gantry_tests::crash::Crash;
use gantry_tests::kept_registry::KeptRegistry;
use gantry_tests::pipeline;
use gantry_tests::registries::LooksOf;
use gantry_tests::scripted::{self, MIRRORS, UNPACKED};
use gantry_worker::engine::containers::ContainerLimits;
use gantry_worker::engine::scripted::ScriptedEngine;
use gantry_worker::source::Sources;
use gantry_worker::{HeldRuns, LeaseTimes, Policy, Usage, Worker, WorkerSettings};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;

const LEASE: LeaseTimes =
    LeaseTimes { period: Duration::from_millis(2000), renew: Duration::from_millis(400) };

/// The interval of the sweeper and the housekeeper.
const LOOK: Duration = Duration::from_millis(250);

/// The longest build.
const LONGEST_BUILD_MS: u64 = 80;

#[derive(Default)]
struct Arguments {
    data: PathBuf,
    seed: u64,
    ends_leases: bool,
    new_admin_token: bool,
    retention: Retention,
    repositories: Vec<Repository>,
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Self> {
        let mut next = |what| given.next().with_context(|| format!("{what} is missing"));
        let data = next("DATA")?.into();
        let seed = next("SEED")?.parse()?;
        let ends_leases = match next("lapse|end")?.as_str() {
            "end" => true,
            "lapse" => false,
            other => bail!("`{other}` is neither `lapse` nor `end`"),
        };
        let mut arguments = Self { data, seed, ends_leases, ..Self::default() };
        let mut names = Vec::new();
        while let Some(argument) = given.next() {
            match argument.as_str() {
                "--new-admin-token" => arguments.new_admin_token = true,
                "--forget" => match given.next().context("what to forget is missing")?.as_str() {
                    "bodies" => arguments.retention.bodies = Duration::ZERO,
                    "runs" => arguments.retention.runs = Duration::ZERO,
                    "unused" => arguments.retention.unused_uploads = Duration::ZERO,
                    other => bail!("`{other}` is not forgotten by itself"),
                },
                _ => names.push(argument),
            }
        }
        arguments.repositories = scripted::repositories(&names)?;
        Ok(arguments)
    }
}

/// The connections that all parts share.
struct Shared {
    store: SharedStore,
    queues: Queues,
    blobs: Arc<ObjectBlobs>,
    keyring: Arc<Keyring>,
    git: Git,
    http: OutboundClient,
    code_hosts: Arc<CodeHosts>,
    crash: Crash,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let data = DataDir::lock(&arguments.data)?;
    let stop = CancellationToken::new();
    let http = OutboundClient::new(OutboundPolicy::parse(["127.0.0.1"])?)?;
    let git = scripted::git(&http);
    let crash = Crash::of_environment()?;
    let store = SqliteStore::open(data.path().join("gantry.db"), Options::default())?;
    let shared = Shared {
        store: crash.store(Arc::new(store)),
        queues: crash.queues(queues(&stop)),
        blobs: Arc::new(ObjectBlobs::local(data.path().join("objects"))?),
        keyring: Arc::new(Keyring::open_or_create(&data.path().join("secret.key"))?),
        code_hosts: Arc::new(CodeHosts::new(git.clone(), &http, Vec::new())?),
        git,
        http,
        crash,
    };
    if arguments.ends_leases {
        end_leases(&shared.store).await?;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let token = if arguments.new_admin_token {
        Some(gantry_ingress::issue_admin_token(shared.store.as_ref()).await?)
    } else {
        gantry_ingress::bootstrap_admin_token(shared.store.as_ref()).await?
    };
    let listeners = Listeners { api: listener, hooks: None };
    let serving = gantry_ingress::run(shared.ingress(), listeners, stop.clone());
    let scheduling = tokio::spawn(shared.scheduler(&arguments)?.run(stop.clone()));
    let working = tokio::spawn(shared.worker(&arguments)?.run(stop.clone()));

    println!("  address  http://{address}");
    if let Some(token) = token {
        println!("  token    {}", token.as_str());
    }
    println!("Ctrl-C stops it");
    serving.await?;
    scheduling.await?;
    working.await?;
    Ok(())
}

async fn end_leases(store: &SharedStore) -> Result<()> {
    for run in runs::leased(store.as_ref(), 256).await? {
        runs::lapse_now(store.as_ref(), run.id).await?;
    }
    Ok(())
}

impl Shared {
    fn ingress(&self) -> Ingress {
        Ingress {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: self.blobs.clone(),
            keyring: Arc::clone(&self.keyring),
            providers: self.code_hosts.clone(),
            webhooks: pipeline::webhooks(OutboundPolicy::default()),
            health: Health::default(),
            settings: IngressSettings { threads: 1, ..IngressSettings::default() },
        }
    }

    fn scheduler(&self, arguments: &Arguments) -> Result<Scheduler> {
        let folder = arguments.data.join("registry");
        let registry = KeptRegistry::open(folder, ScriptedEngine::new(), arguments.seed)?;
        Ok(Scheduler {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: self.blobs.clone(),
            keyring: Arc::clone(&self.keyring),
            code_host: self.code_hosts.clone(),
            providers: self.code_hosts.clone(),
            asks: Arc::default(),
            sends: Arc::default(),
            webhooks: pipeline::webhooks(OutboundPolicy::default()),
            posts: Arc::default(),
            looks: Arc::default(),
            provisions: Arc::default(),
            images: Arc::new(LooksOf::new(Arc::new(registry))),
            image_looks: Arc::default(),
            vaults: Arc::default(),
            helpers: Arc::default(),
            settings: SchedulerSettings {
                sweep_interval: LOOK,
                lease: LEASE.period,
                public_url: pipeline::public_url(),
                reconcile_interval: Duration::from_secs(1800),
                provision: true,
                queue_timeout: Duration::from_secs(3600),
                base_images: BaseImageSettings {
                    interval: scripted::look_every()?.unwrap_or(Duration::from_secs(300)),
                    intervals: std::collections::BTreeMap::new(),
                    quiet: Duration::from_secs(60),
                    canary: 0,
                },
                retention: arguments.retention.clone(),
            },
        })
    }

    fn worker(&self, arguments: &Arguments) -> Result<Worker> {
        let mut times = StdRng::seed_from_u64(arguments.seed);
        let time = || Duration::from_millis(times.random_range(0..=LONGEST_BUILD_MS));
        let gate = self.crash.in_build();
        let engine = scripted::engine(&arguments.repositories, gate.as_ref(), time);
        let registry = arguments.data.join("registry");
        let registry = KeptRegistry::open(registry, engine.clone(), arguments.seed)?;
        let work_folder = arguments.data.join("work");
        let (git, http) = (self.git.clone(), self.http.clone());
        Ok(Worker {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: self.blobs.clone(),
            pool_key: Arc::new(self.keyring.pool_key(&Platform::default().pool())),
            engine: Arc::new(engine.clone()),
            containers: Arc::new(engine),
            http: self.http.clone(),
            sources: Sources::open(work_folder.clone(), git, http, UNPACKED, MIRRORS)?,
            registries: self.crash.registries(registry),
            settings: WorkerSettings {
                id: format!("worker-{}", random_hex::<4>()?.as_str()).parse()?,
                has_fixed_name: false,
                pool: Platform::default().pool(),
                installation: "scripted".to_owned(),
                slots: 3,
                lease: LEASE,
                work_folder,
                min_free: 0,
                keep_cache: 0,
                log_limit: 1 << 20,
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
