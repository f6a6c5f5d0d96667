//! Composes the parts of a process. The only place that knows a concrete store, queue and engine together.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use gantry_amqp::AmqpOptions;
use gantry_ingress::{Ingress, Listeners};
use gantry_objects::ObjectsOptions;
use gantry_ops::health::{Health, Need};
use gantry_ops::secret::SecretString;
use gantry_ops::settings::{Rule, Settings};
use gantry_redis::RedisOptions;
use gantry_remote::guard::{InvalidAllowance, OutboundPolicy};
use gantry_scheduler::Scheduler;
use gantry_seams::store::SharedStore;
use gantry_seams::{registries, runs, workers};
use gantry_sqlite::DataDir;
use gantry_worker::engine::docker::DockerEngine;
use gantry_worker::engine::{Engine as _, EngineError};
use gantry_worker::{Worker, WorkerSettings};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::environment::Environment;
use crate::loopback;

mod github_app;
mod helpers;
mod keys;
mod measured;
mod parts;
mod patience;
mod servers;
mod vaults;

use keys::Keys;
pub(crate) use keys::{key_file, refused};
use parts::SharedParts;
use patience::Patience;
use servers::Servers;

pub(crate) use servers::{Belongings, OBJECTS, OpenStore, SQLITE_FILE, check_is_there};

/// The default address of the engine.
const ENGINE_ADDRESS: &str = "unix:///var/run/docker.sock";

/// Rules for settings that only the parts know.
pub(crate) const RULES: [Rule; 6] = [
    Rule {
        key: "store.url",
        check: |settings| match &settings.store.url {
            Some(url) => RedisOptions::parse(url).map(drop).map_err(|error| error.to_string()),
            None => Ok(()),
        },
    },
    Rule {
        key: "queue.urls",
        check: |settings| match settings.queue.urls.as_slice() {
            [] => Ok(()),
            urls => AmqpOptions::parse(urls, SecretString::default())
                .map(drop)
                .map_err(|error| error.to_string()),
        },
    },
    Rule {
        key: "objects.url",
        check: |settings| match &settings.objects.url {
            Some(url) => ObjectsOptions::check_url(url).map_err(|error| error.to_string()),
            None => Ok(()),
        },
    },
    Rule {
        key: "engine.address",
        check: |settings| match &settings.engine.address {
            Some(address) => {
                DockerEngine::connect(address).map(drop).map_err(|error| error.to_string())
            }
            None => Ok(()),
        },
    },
    Rule { key: "github_app.private_key_file", check: github_app::check_key },
    Rule {
        key: "outbound.allow",
        check: |settings| outbound(settings).map(drop).map_err(|error| error.to_string()),
    },
];

/// The role of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `gantry up`.
    All,
    Ingress,
    Scheduler,
    Worker,
}

impl Role {
    /// The name of the process in traces and in the broker.
    pub(crate) fn service(self) -> &'static str {
        match self {
            Self::All => "gantry-up",
            Self::Ingress => "gantry-ingress",
            Self::Scheduler => "gantry-scheduler",
            Self::Worker => "gantry-worker",
        }
    }

    /// What to print when the process is asked to stop.
    pub(crate) fn stopping(self) -> &'static str {
        match self {
            Self::All | Self::Worker => "stopping; runs that are being built are handed back",
            Self::Ingress => "stopping; what is under way is answered",
            Self::Scheduler => "stopping",
        }
    }

    /// Whether this role includes `part`.
    fn does(self, part: Self) -> bool {
        self == Self::All || self == part
    }
}

/// All parts of one process, ready to be started.
pub(crate) struct Service {
    settings: Settings,
    store: SharedStore,
    engine: Engine,
    ingress: Option<(Ingress, Listeners)>,
    scheduler: Option<Scheduler>,
    worker: Option<Worker>,
    /// Dropped last, because it holds the lock of the folder. `None` for a role that stores nothing there.
    data: Option<DataDir>,
}

/// The engine of a process.
struct Engine {
    address: String,
    /// `Err` if the address is not a socket of this machine.
    docker: Result<DockerEngine, EngineError>,
}

impl Service {
    /// Opens everything that the role needs, waiting for servers as long as `patience` allows, and binds the ports.
    pub(crate) async fn open(
        role: Role,
        settings: Settings,
        environment: &Environment,
        health: &Health,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let is_embedded = settings.store.url.is_none();
        let keeps_something = is_embedded || role.does(Role::Worker);
        let data = keeps_something.then(|| DataDir::lock(&settings.data)).transpose()?;
        let keys = Keys::read(role, &settings)?;
        let engine = Engine::new(&settings, environment);
        let patience = Patience::new(health, settings.patience);
        let servers = match &data {
            Some(data) if is_embedded => {
                let servers = Servers::embedded(&settings, data.path(), environment, health, stop)?;
                end_former_leases(&servers.store).await?;
                servers
            }
            _ => Servers::connect(role, &settings, environment, &patience, stop).await?,
        };
        let installation = keys.open_installation(&settings, &servers.store, &patience).await?;
        servers.watch_store(health);
        let servers = servers.measured();

        let shared = SharedParts::new(&settings, &servers, installation)?;
        let ingress = match keys.service().filter(|_| role.does(Role::Ingress)) {
            Some(keyring) => Some((shared.ingress(keyring, health)?, bind(&settings)?)),
            None => None,
        };
        let scheduler = match keys.service().filter(|_| role.does(Role::Scheduler)) {
            Some(keyring) => {
                let listeners = ingress.as_ref().map(|(_, listeners)| listeners);
                let url = public_url(&settings, listeners)?;
                Some(shared.scheduler(keyring, url, helpers::helpers(&settings, environment)?)?)
            }
            None => None,
        };
        let worker = match (keys.pool(), engine.to_build_with(role)?, &data) {
            (Some(key), Some(docker), Some(data)) => {
                engine.watch(role, docker, health);
                Some(shared.worker(key, docker, data.path())?)
            }
            _ => None,
        };
        Ok(Self { store: servers.store, settings, engine, ingress, scheduler, worker, data })
    }

    /// The folder for everything that is stored on this machine.
    pub(crate) fn data(&self) -> &Path {
        self.data.as_ref().map_or(&self.settings.data, DataDir::path)
    }

    /// The settings of its worker, if it builds.
    pub(crate) fn worker(&self) -> Option<&WorkerSettings> {
        self.worker.as_ref().map(|worker| &worker.settings)
    }

    /// The URL for other machines.
    pub(crate) fn public_url(&self) -> Result<Url> {
        public_url(&self.settings, self.listeners())
    }

    /// The URL for clients on this machine. With TLS it is the public one, because the certificate is only valid for
    /// that name.
    pub(crate) fn local_url(&self) -> Result<Url> {
        local_url(&self.settings, self.listeners())
    }

    fn listeners(&self) -> Option<&Listeners> {
        self.ingress.as_ref().map(|(_, listeners)| listeners)
    }

    /// The engine's name and address, or why it does not answer.
    pub(crate) async fn engine(&self) -> Result<String, String> {
        let docker = self.engine.docker.as_ref().map_err(ToString::to_string)?;
        let info = docker.info().await.map_err(|error| error.to_string())?;
        Ok(format!("{} at {}", info.name, self.engine.address))
    }

    /// Whether there are no registries yet.
    pub(crate) async fn is_new(&self) -> Result<bool> {
        Ok(registries::list(self.store.as_ref(), None, 1).await?.is_empty())
    }

    /// Creates the admin token of a new installation; `None` if there is any token.
    pub(crate) async fn first_admin_token(&self) -> Result<Option<SecretString>> {
        let token = gantry_ingress::bootstrap_admin_token(self.store.as_ref()).await?;
        Ok(token.map(|token| SecretString::from(token.as_str())))
    }

    /// Creates another admin token.
    pub(crate) async fn new_admin_token(&self) -> Result<SecretString> {
        new_admin_token(&self.store).await
    }

    /// Starts all parts. Each ends once `stop` is cancelled.
    pub(crate) fn start(&mut self, stop: &CancellationToken) -> JoinSet<Result<()>> {
        let mut parts = JoinSet::new();
        if let Some((ingress, listeners)) = self.ingress.take() {
            let serving = gantry_ingress::run(ingress, listeners, stop.clone());
            parts.spawn(async move { Ok(serving.await?) });
        }
        if let Some(scheduler) = self.scheduler.take() {
            let scheduling = scheduler.run(stop.clone());
            parts.spawn(async move {
                scheduling.await;
                Ok(())
            });
        }
        if let Some(worker) = self.worker.take() {
            let building = worker.run(stop.clone());
            parts.spawn(async move {
                building.await;
                Ok(())
            });
        }
        parts
    }
}

fn public_url(settings: &Settings, listeners: Option<&Listeners>) -> Result<Url> {
    settings.server.public_url.clone().map_or_else(|| local_url(settings, listeners), Ok)
}

fn local_url(settings: &Settings, listeners: Option<&Listeners>) -> Result<Url> {
    let has_tls = settings.server.tls_certificate.is_some();
    if let Some(url) = settings.server.public_url.as_ref().filter(|_| has_tls) {
        return Ok(url.clone());
    }
    let address = match listeners {
        Some(listeners) => listeners.api.local_addr().context("cannot tell the bound address")?,
        None => settings.server.listen,
    };
    let address = loopback::from_here(address);
    let scheme = if has_tls { "https" } else { "http" };
    Ok(Url::parse(&format!("{scheme}://{address}"))?)
}

impl Engine {
    fn new(settings: &Settings, environment: &Environment) -> Self {
        let set = settings.engine.address.as_deref();
        let address = set.or(environment.get("DOCKER_HOST")).unwrap_or(ENGINE_ADDRESS);
        Self { address: address.to_owned(), docker: DockerEngine::connect(address) }
    }

    /// A worker needs a valid address. `gantry up` also runs without one, as it does without an engine.
    fn to_build_with(&self, role: Role) -> Result<Option<&DockerEngine>> {
        match (&self.docker, role) {
            (_, Role::Ingress | Role::Scheduler) => Ok(None),
            (Ok(docker), _) => Ok(Some(docker)),
            (Err(_), Role::All) => Ok(None),
            (Err(error), Role::Worker) => {
                let address = &self.address;
                bail!(
                    "there can be no engine at {address} (`engine.address`, else DOCKER_HOST): {error}"
                )
            }
        }
    }

    fn watch(&self, role: Role, docker: &DockerEngine, health: &Health) {
        // With `gantry up`, hooks and API work without an engine.
        let need = if role == Role::Worker { Need::Needed } else { Need::Helpful };
        let docker = docker.clone();
        health.watches("engine", need, move || {
            let docker = docker.clone();
            async move { docker.info().await.map(drop).map_err(|error| error.to_string()) }
        });
    }
}

/// Creates an admin token directly in the store.
pub(crate) async fn new_admin_token(store: &SharedStore) -> Result<SecretString> {
    let token = gantry_ingress::issue_admin_token(store.as_ref()).await?;
    Ok(SecretString::from(token.as_str()))
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

/// Ends the leases of an earlier process on this folder. It is gone, since this process holds the lock, so its runs
/// need not wait for their leases to expire.
async fn end_former_leases(store: &SharedStore) -> Result<()> {
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
            break;
        }
    }
    if ended > 0 {
        tracing::warn!(
            runs = ended,
            "runs that the previous process was building are queued again: {ended}"
        );
    }
    Ok(())
}
