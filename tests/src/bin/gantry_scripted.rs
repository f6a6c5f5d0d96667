//! `gantry up` on parts that run nothing: everything is real but the engine and the registry, and leases are short.
//!
//! In: `gantry-scripted DATA SEED lapse|end [--new-admin-token] REPOSITORY…`. Out: what `gantry up` says at its start, until it is
//! killed. The seed decides how long builds and tag writes take. `end` ends the leases of the former process at once, as
//! an embedded start does; with `lapse` they end by themselves, as those of a lost worker do.

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
use gantry_remote::code_host::GitCodeHost;
use gantry_remote::git::{Git, GitLimits};
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;
use gantry_scheduler::{Retention, Scheduler, SchedulerSettings};
use gantry_seams::queue::Queues;
use gantry_seams::runs;
use gantry_seams::store::SharedStore;
use gantry_sqlite::{DataDir, Options, SqliteStore};
use gantry_tests::kept_registry::KeptRegistry;
use gantry_worker::engine::OutputStream;
use gantry_worker::engine::scripted::{Action, ScriptedEngine};
use gantry_worker::source::{Sources, UnpackLimits};
use gantry_worker::{Hand, LeaseTimes, Worker, WorkerSettings};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;

const LEASE: LeaseTimes =
    LeaseTimes { period: Duration::from_millis(2000), renew: Duration::from_millis(400) };

/// How often the sweeper and the housekeeper look.
const LOOK: Duration = Duration::from_millis(250);

/// The longest build.
const LONGEST_BUILD_MS: u64 = 80;

/// More builds of one repository than a process lives to see.
const SCRIPTS: usize = 256;

struct Arguments {
    data: PathBuf,
    seed: u64,
    ends_leases: bool,
    new_admin_token: bool,
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
        let mut rest: Vec<String> = given.collect();
        let before = rest.len();
        rest.retain(|argument| argument != "--new-admin-token");
        let new_admin_token = rest.len() != before;
        let repositories = rest.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
        Ok(Self { data, seed, ends_leases, new_admin_token, repositories })
    }
}

/// What all parts share.
struct Shared {
    store: SharedStore,
    queues: Queues,
    blobs: Arc<ObjectBlobs>,
    keyring: Arc<Keyring>,
    git: Git,
    http: OutboundClient,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let data = DataDir::lock(&arguments.data)?;
    let stop = CancellationToken::new();
    let http = OutboundClient::new(OutboundPolicy::parse(["127.0.0.1"])?)?;
    let limits =
        GitLimits { fetched_bytes: 1 << 26, checkout_bytes: 1 << 26, checkout_files: 10_000 };
    let shared = Shared {
        store: Arc::new(SqliteStore::open(data.path().join("gantry.db"), Options::default())?),
        queues: queues(&stop),
        blobs: Arc::new(ObjectBlobs::local(data.path().join("objects"))?),
        keyring: Arc::new(Keyring::open_or_create(&data.path().join("secret.key"))?),
        git: Git::new(Arc::clone(http.policy()), limits),
        http,
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
    let scheduling = tokio::spawn(shared.scheduler().run(stop.clone()));
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
            health: Health::default(),
            settings: IngressSettings {
                public_url: None,
                body_budget: 32 << 20,
                upload_limit: 1 << 20,
                tls: None,
                threads: 1,
                body_patience: Duration::from_secs(5),
            },
        }
    }

    fn scheduler(&self) -> Scheduler {
        Scheduler {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: self.blobs.clone(),
            keyring: Arc::clone(&self.keyring),
            code_host: Arc::new(GitCodeHost::new(self.git.clone())),
            asks: Arc::default(),
            settings: SchedulerSettings {
                sweep_interval: LOOK,
                lease: LEASE.period,
                queue_timeout: Duration::from_secs(3600),
                retention: Retention::default(),
            },
        }
    }

    fn worker(&self, arguments: &Arguments) -> Result<Worker> {
        let engine = engine(arguments);
        let registry = arguments.data.join("registry");
        let registry = KeptRegistry::open(registry, engine.clone(), arguments.seed)?;
        let work_folder = arguments.data.join("work");
        let limits =
            UnpackLimits { archive_bytes: 1 << 26, unpacked_bytes: 1 << 26, entries: 10_000 };
        let (git, http) = (self.git.clone(), self.http.clone());
        Ok(Worker {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: self.blobs.clone(),
            pool_key: Arc::new(self.keyring.pool_key(&Platform::default().pool())),
            engine: Arc::new(engine),
            sources: Sources::open(work_folder.clone(), git, http, limits, 1 << 26)?,
            registries: Arc::new(registry),
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
                housekeeping: LOOK,
            },
            hand: Arc::new(Hand::default()),
        })
    }
}

/// An engine whose builds say something, take a seeded while, and say something again.
fn engine(arguments: &Arguments) -> ScriptedEngine {
    let engine = ScriptedEngine::new();
    let mut times = StdRng::seed_from_u64(arguments.seed);
    let say = |text: &'static str| Action::Output(OutputStream::Stdout, text.into());
    for repository in &arguments.repositories {
        for _ in 0..SCRIPTS {
            let time = Duration::from_millis(times.random_range(0..=LONGEST_BUILD_MS));
            let script = [say("begins\n"), Action::Work(time), say("half\nof it\n"), say("ends\n")];
            engine.script(repository, script);
        }
    }
    engine
}
