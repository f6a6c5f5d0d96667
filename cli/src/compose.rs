//! The one file that names a concrete store, queue and engine together: everything in one process.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use gantry_domain::id::WorkerId;
use gantry_domain::platform::Platform;
use gantry_ingress::{Ingress, IngressSettings, Listeners, TlsFiles};
use gantry_local::{ObjectBlobs, queues};
use gantry_ops::secret::{Keyring, SecretString, random_hex};
use gantry_ops::settings::{Rule, Settings};
use gantry_remote::code_host::GitCodeHost;
use gantry_remote::git::{Git, GitLimits};
use gantry_remote::guard::{InvalidAllowance, OutboundPolicy};
use gantry_remote::http::OutboundClient;
use gantry_remote::registries::RemoteRegistries;
use gantry_scheduler::{Retention, Scheduler, SchedulerSettings};
use gantry_seams::blobs::SharedBlobs;
use gantry_seams::queue::Queues;
use gantry_seams::store::SharedStore;
use gantry_seams::{installation, registries, runs, workers};
use gantry_sqlite::{DataDir, Options, SqliteStore};
use gantry_worker::engine::docker::DockerEngine;
use gantry_worker::engine::{Engine as _, EngineError};
use gantry_worker::source::{Sources, UnpackLimits};
use gantry_worker::{Hand, LeaseTimes, Worker, WorkerSettings};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

/// Where an engine is when nobody says otherwise.
const ENGINE_ADDRESS: &str = "unix:///var/run/docker.sock";

/// How often a worker looks for what a dead attempt left in the engine.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// What only the parts know about settings.
pub(crate) const RULES: [Rule; 2] = [
    Rule {
        key: "engine.address",
        check: |settings| match &settings.engine.address {
            Some(address) => {
                DockerEngine::connect(address).map(drop).map_err(|error| error.to_string())
            }
            None => Ok(()),
        },
    },
    Rule {
        key: "outbound.allow",
        check: |settings| outbound(settings).map(drop).map_err(|error| error.to_string()),
    },
];

/// Everything of one process, put together and not yet running.
pub(crate) struct Service {
    settings: Settings,
    store: SharedStore,
    queues: Queues,
    blobs: SharedBlobs,
    keyring: Arc<Keyring>,
    http: OutboundClient,
    git: Git,
    installation: String,
    engine_address: String,
    /// `Err` when DOCKER_HOST names what is no socket of this machine.
    engine: Result<DockerEngine, EngineError>,
    listeners: Listeners,
    /// The last to go: it says that nobody else uses the folder.
    data: DataDir,
}

impl Service {
    /// Takes the data folder, opens what is in it, ends what the former process held, and binds the ports.
    pub(crate) async fn open(
        settings: Settings,
        docker_host: Option<&str>,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let data = DataDir::lock(&settings.data)?;
        let path = data.path().to_owned();
        let store: SharedStore =
            Arc::new(SqliteStore::open(path.join("gantry.db"), Options::default())?);
        let blobs: SharedBlobs = Arc::new(ObjectBlobs::local(path.join("objects"))?);
        let keyring = Arc::new(Keyring::open_or_create(&path.join("secret.key"))?);
        let http = OutboundClient::new(outbound(&settings)?)?;
        let limits = GitLimits {
            fetched_bytes: settings.limits.context,
            checkout_bytes: settings.limits.context,
            checkout_files: settings.limits.context_files,
        };
        let git = Git::new(Arc::clone(http.policy()), limits);
        let (installation, _) = installation::open(
            store.as_ref(),
            random_hex::<8>()?.as_str(),
            &keyring.fingerprints(),
        )
        .await
        .with_context(|| format!("the keys in {} are refused", path.display()))?;
        let ended = bury_former_process(&store).await?;
        if ended > 0 {
            tracing::warn!(
                runs = ended,
                "runs that the former process was building are queued again: {ended}"
            );
        }
        let engine_address =
            settings.engine.address.as_deref().or(docker_host).unwrap_or(ENGINE_ADDRESS);
        Ok(Self {
            listeners: bind(&settings)?,
            engine: DockerEngine::connect(engine_address),
            engine_address: engine_address.to_owned(),
            settings,
            store,
            queues: queues(stop),
            blobs,
            keyring,
            http,
            git,
            installation: installation.id,
            data,
        })
    }

    /// Where everything is kept.
    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// What people are told to reach it by.
    pub(crate) fn public_url(&self) -> Result<Url> {
        self.settings.server.public_url.clone().map_or_else(|| self.local_url(), Ok)
    }

    /// Where a client on this machine reaches it. A certificate holds only for the name in it.
    pub(crate) fn local_url(&self) -> Result<Url> {
        let has_tls = self.settings.server.tls_certificate.is_some();
        if let Some(url) = self.settings.server.public_url.as_ref().filter(|_| has_tls) {
            return Ok(url.clone());
        }
        let mut address =
            self.listeners.api.local_addr().context("cannot tell the bound address")?;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            });
        }
        let scheme = if has_tls { "https" } else { "http" };
        Ok(Url::parse(&format!("{scheme}://{address}"))?)
    }

    /// The engine that answers, or why none does.
    pub(crate) async fn engine(&self) -> Result<String, String> {
        let engine = self.engine.as_ref().map_err(ToString::to_string)?;
        let info = engine.info().await.map_err(|error| error.to_string())?;
        Ok(format!("{} at {}", info.name, self.engine_address))
    }

    /// Whether nothing was set up yet.
    pub(crate) async fn is_new(&self) -> Result<bool> {
        Ok(registries::list(self.store.as_ref(), None, 1).await?.is_empty())
    }

    /// The admin token that a new installation begins with; `None` if there is any token.
    pub(crate) async fn first_admin_token(&self) -> Result<Option<SecretString>> {
        let token = gantry_ingress::bootstrap_admin_token(self.store.as_ref()).await?;
        Ok(token.map(|token| SecretString::from(token.as_str())))
    }

    /// Another admin token.
    pub(crate) async fn new_admin_token(&self) -> Result<SecretString> {
        let token = gantry_ingress::issue_admin_token(self.store.as_ref()).await?;
        Ok(SecretString::from(token.as_str()))
    }

    /// Starts every part; each ends once `stop` is cancelled.
    pub(crate) fn start(&self, stop: &CancellationToken) -> Result<JoinSet<Result<()>>> {
        let mut parts = JoinSet::new();
        let listeners = Listeners {
            api: self.listeners.api.try_clone()?,
            hooks: self.listeners.hooks.as_ref().map(TcpListener::try_clone).transpose()?,
        };
        let serving = gantry_ingress::run(self.ingress(), listeners, stop.clone());
        parts.spawn(async move { Ok(serving.await?) });
        let scheduling = self.scheduler().run(stop.clone());
        parts.spawn(async move {
            scheduling.await;
            Ok(())
        });
        if let (true, Ok(engine)) = (self.settings.worker.enabled, &self.engine) {
            let building = self.worker(engine.clone())?.run(stop.clone());
            parts.spawn(async move {
                building.await;
                Ok(())
            });
        }
        Ok(parts)
    }

    fn ingress(&self) -> Ingress {
        let server = &self.settings.server;
        let tls = server.tls_certificate.clone().zip(server.tls_key.clone());
        Ingress {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: Arc::clone(&self.blobs),
            keyring: Arc::clone(&self.keyring),
            settings: IngressSettings {
                public_url: server.public_url.clone(),
                body_budget: server.body_budget,
                body_patience: server.body_patience,
                upload_limit: self.settings.limits.upload,
                tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
                threads: std::thread::available_parallelism().map_or(1, usize::from),
            },
        }
    }

    fn scheduler(&self) -> Scheduler {
        let kept = &self.settings.retention;
        Scheduler {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: Arc::clone(&self.blobs),
            keyring: Arc::clone(&self.keyring),
            code_host: Arc::new(GitCodeHost::new(self.git.clone())),
            settings: SchedulerSettings {
                sweep_interval: self.settings.sweep.interval,
                lease: self.settings.lease.duration,
                retention: Retention {
                    runs: kept.runs,
                    deliveries: kept.deliveries,
                    bodies: kept.bodies,
                    lineage: kept.lineage,
                    revisions: kept.revisions,
                    uploads: kept.uploads,
                },
            },
        }
    }

    fn worker(&self, engine: DockerEngine) -> Result<Worker> {
        let settings = &self.settings;
        let pool = settings.worker.pool.clone().unwrap_or_else(|| this_machine().pool());
        let work_folder = self.data().join("work");
        let limits = UnpackLimits {
            archive_bytes: settings.limits.upload,
            unpacked_bytes: settings.limits.context,
            entries: settings.limits.context_files,
        };
        let (git, http) = (self.git.clone(), self.http.clone());
        let sources =
            Sources::open(work_folder.clone(), git, http, limits, settings.worker.mirrors)?;
        Ok(Worker {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: Arc::clone(&self.blobs),
            pool_key: Arc::new(self.keyring.pool_key(&pool)),
            engine: Arc::new(engine),
            sources,
            registries: Arc::new(RemoteRegistries::new(self.http.clone())),
            settings: WorkerSettings {
                id: worker_id()?,
                pool,
                installation: self.installation.clone(),
                slots: settings.worker.slots.get(),
                lease: LeaseTimes { period: settings.lease.duration, renew: settings.lease.renew },
                work_folder,
                min_free: settings.worker.min_free,
                keep_cache: settings.engine.keep,
                log_limit: settings.limits.log,
                housekeeping: HOUSEKEEPING,
            },
            hand: Arc::new(Hand::default()),
        })
    }
}

fn bind(settings: &Settings) -> Result<Listeners> {
    let listen = |address: SocketAddr, option: &str| {
        TcpListener::bind(address).with_context(|| {
            format!("cannot listen on {address}: is it another program's? Choose one with {option}")
        })
    };
    let hooks = settings.server.hooks_listen;
    Ok(Listeners {
        api: listen(settings.server.listen, "--listen")?,
        hooks: hooks
            .map(|address| listen(address, "--set server.hooks_listen=ADDRESS"))
            .transpose()?,
    })
}

fn outbound(settings: &Settings) -> Result<OutboundPolicy, InvalidAllowance> {
    OutboundPolicy::parse(settings.outbound.allow.iter().map(String::as_str))
}

/// The former process on this folder is gone, since we hold its lock: its worker is forgotten, and what that held need not
/// wait for its leases to end.
async fn bury_former_process(store: &SharedStore) -> Result<usize> {
    for worker in workers::list(store.as_ref(), 256).await? {
        workers::forget(store.as_ref(), &worker.id).await?;
    }
    let mut ended = 0;
    loop {
        let held = runs::leased(store.as_ref(), 256).await?;
        let before = ended;
        for run in held {
            ended += usize::from(runs::lapse_now(store.as_ref(), run.id).await?.is_some());
        }
        if ended == before {
            return Ok(ended);
        }
    }
}

/// Engines here build for the machine that they are on.
fn this_machine() -> Platform {
    format!("linux/{}", std::env::consts::ARCH).parse().unwrap_or_default()
}

fn worker_id() -> Result<WorkerId> {
    Ok(format!("worker-{}", random_hex::<4>()?.as_str()).parse()?)
}
