//! The store, the queues and the objects of an installation, in the data folder or on servers.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use gantry_amqp::{AmqpOptions, AmqpQueues};
use gantry_local::queues;
use gantry_objects::{ObjectBlobs, ObjectsOptions};
use gantry_ops::health::{Health, Need};
use gantry_ops::secret::SecretString;
use gantry_ops::settings::Settings;
use gantry_redis::{RedisOptions, RedisStore};
use gantry_seams::installation;
use gantry_seams::queue::Queues;
use gantry_seams::store::{SharedStore, Walk};
use gantry_sqlite::{DataDir, Options, SqliteStore};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::Role;
use super::measured;
use super::patience::Patience;
use crate::environment::Environment;

/// The file of the store with `gantry up`, in the data folder.
pub(crate) const SQLITE_FILE: &str = "gantry.db";

/// The folder of the objects, also in the data folder.
pub(crate) const OBJECTS: &str = "objects";

/// The error for a shared store without shared objects.
const NO_OBJECTS: &str =
    "`objects.url` is not set: say where objects are, like s3://bucket/gantry or file:///folder";

/// RabbitMQ's default password.
const DEFAULT_PASSWORD: &str = "guest";

/// A store, queues and objects, ready to be used.
pub(super) struct Servers {
    pub(super) store: SharedStore,
    pub(super) queues: Queues,
    pub(super) blobs: Arc<ObjectBlobs>,
}

impl Servers {
    /// Those of `gantry up`: a file, channels and a folder.
    pub(super) fn embedded(
        settings: &Settings,
        data: &Path,
        environment: &Environment,
        health: &Health,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let store = SqliteStore::open(data.join(SQLITE_FILE), sqlite_options(settings))?;
        let blobs = match objects_options(settings, environment) {
            Some(options) => ObjectBlobs::open(&options)?,
            None => ObjectBlobs::local(data.join(OBJECTS))?,
        };
        let servers = Self { store: Arc::new(store), queues: queues(stop), blobs: Arc::new(blobs) };
        servers.watch_store(health);
        watch_objects(&servers.blobs, health);
        Ok(servers)
    }

    /// Connects to servers, and waits for each of them.
    pub(super) async fn connect(
        role: Role,
        settings: &Settings,
        environment: &Environment,
        patience: &Patience<'_>,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let objects = objects_options(settings, environment);
        let objects = objects.context(NO_OBJECTS)?;
        let blobs = Arc::new(ObjectBlobs::open(&objects)?);
        let (store, queues, ()) = tokio::try_join!(
            connect_store(role, settings, patience),
            connect_queues(role, settings, patience, stop),
            check_objects(&blobs, patience.health()),
        )?;
        Ok(Self { store, queues, blobs })
    }

    /// Adds metrics.
    pub(super) fn measured(self) -> Self {
        Self { store: measured::store(self.store), queues: measured::queues(self.queues), ..self }
    }

    /// Adds the store to `/readyz`.
    pub(super) fn watch_store(&self, health: &Health) {
        watch_store(&self.store, health);
    }
}

fn watch_store(store: &SharedStore, health: &Health) {
    let store = Arc::clone(store);
    health.watches("store", Need::Needed, move || {
        let store = Arc::clone(&store);
        async move {
            let probed = installation::probe(store.as_ref()).await;
            probed.map_err(|error| error.to_string())
        }
    });
}

/// Helpful only: without the broker hooks are answered, and work is found by polling.
fn watch_broker(broker: AmqpQueues, health: &Health) {
    health.watches("queue", Need::Helpful, move || std::future::ready(broker.state()));
}

fn watch_objects(blobs: &Arc<ObjectBlobs>, health: &Health) {
    let blobs = Arc::clone(blobs);
    health.watches("objects", Need::Helpful, move || {
        let blobs = Arc::clone(&blobs);
        async move { blobs.probe().await.map_err(|error| error.to_string()) }
    });
}

/// Only the store, for commands that work on it.
pub(crate) struct OpenStore {
    pub(crate) store: SharedStore,
    _data: Option<DataDir>,
}

impl OpenStore {
    /// Opens the store of the settings. Does not create one.
    pub(crate) async fn open(settings: &Settings) -> Result<Self> {
        if settings.store.url.is_some() {
            let health = Health::default();
            let patience = Patience::new(&health, settings.patience);
            let store = connect_store(Role::All, settings, &patience).await?;
            return Ok(Self { store, _data: None });
        }
        check_is_there(settings)?;
        let data = DataDir::lock(&settings.data)?;
        let store = SqliteStore::open(settings.data.join(SQLITE_FILE), sqlite_options(settings))?;
        Ok(Self { store: Arc::new(store), _data: Some(data) })
    }
}

pub(crate) fn check_is_there(settings: &Settings) -> Result<()> {
    if settings.data.join(SQLITE_FILE).exists() {
        return Ok(());
    }
    bail!(
        "there is no store in {}: name the data folder with --data, or a server in `store.url`",
        settings.data.display()
    )
}

/// Everything that an installation stores, to be moved.
pub(crate) struct Belongings {
    pub(crate) store: Arc<dyn Walk>,
    pub(crate) blobs: ObjectBlobs,
    _data: Option<DataDir>,
}

impl Belongings {
    /// Opens existing data.
    pub(crate) async fn open(settings: &Settings, environment: &Environment) -> Result<Self> {
        if settings.store.url.is_none() {
            check_is_there(settings)?;
        }
        Self::open_or_begin(settings, environment).await
    }

    /// Opens the data, and creates a store in a folder that has none.
    pub(crate) async fn open_or_begin(
        settings: &Settings,
        environment: &Environment,
    ) -> Result<Self> {
        let objects = objects_options(settings, environment);
        if settings.store.url.is_some() {
            let health = Health::default();
            let patience = Patience::new(&health, settings.patience);
            let blobs = ObjectBlobs::open(&objects.context(NO_OBJECTS)?)?;
            let store = connect_redis(Role::All, settings, &patience).await?;
            return Ok(Self { store, blobs, _data: None });
        }
        let data = DataDir::lock(&settings.data)?;
        let store = SqliteStore::open(data.path().join(SQLITE_FILE), sqlite_options(settings))?;
        let blobs = match objects {
            Some(options) => ObjectBlobs::open(&options)?,
            None => ObjectBlobs::local(data.path().join(OBJECTS))?,
        };
        Ok(Self { store: Arc::new(store), blobs, _data: Some(data) })
    }
}

fn sqlite_options(settings: &Settings) -> Options {
    let budget = settings.store.budget;
    Options { max_bytes: Some(budget).filter(|budget| *budget > 0), ..Options::default() }
}

async fn connect_store(
    role: Role,
    settings: &Settings,
    patience: &Patience<'_>,
) -> Result<SharedStore> {
    let store: SharedStore = connect_redis(role, settings, patience).await?;
    watch_store(&store, patience.health());
    Ok(store)
}

async fn connect_redis(
    role: Role,
    settings: &Settings,
    patience: &Patience<'_>,
) -> Result<Arc<RedisStore>> {
    let set = &settings.store;
    let mut options = RedisOptions::parse(set.url.as_deref().unwrap_or_default())
        .context("`store.url` is wrong")?;
    options.password = read_password("store.password_file", set.password_file.as_deref())?;
    options.ca_file.clone_from(&set.ca_file);
    options.prefix.clone_from(&set.prefix);
    options.budget = Some(set.budget).filter(|budget| *budget > 0);
    options.allow_weak_durability = set.allow_weak_durability;
    // The check needs a right that also shows passwords, which a worker should not have.
    options.check_durability = role != Role::Worker;
    let connect = || RedisStore::connect(options.clone());
    let store = patience.wait("store", gantry_redis::ConnectError::is_temporary, connect).await?;
    Ok(Arc::new(store))
}

async fn connect_queues(
    role: Role,
    settings: &Settings,
    patience: &Patience<'_>,
    stop: &CancellationToken,
) -> Result<Queues> {
    let set = &settings.queue;
    let password = read_password("queue.password_file", set.password_file.as_deref())?;
    let password = password.unwrap_or_else(|| SecretString::from(DEFAULT_PASSWORD));
    let mut options = AmqpOptions::parse(&set.urls, password).context("`queue.urls` is wrong")?;
    options.ca_file.clone_from(&set.ca_file);
    options.name = format!("{} on {}", role.service(), host_name());
    let connect = || AmqpQueues::connect(options.clone(), stop);
    let broker = patience.wait("queue", gantry_amqp::ConnectError::is_temporary, connect).await?;
    let queues = broker.queues();
    watch_broker(broker, patience.health());
    Ok(queues)
}

/// A permanent error stops the start. An unavailable object store does not: only requests that need it wait.
async fn check_objects(blobs: &Arc<ObjectBlobs>, health: &Health) -> Result<()> {
    watch_objects(blobs, health);
    match blobs.probe().await {
        Err(error) if error.is_temporary() => tracing::warn!("{error}"),
        probed => probed?,
    }
    Ok(())
}

fn objects_options(settings: &Settings, environment: &Environment) -> Option<ObjectsOptions> {
    let set = &settings.objects;
    Some(ObjectsOptions {
        url: set.url.clone()?,
        endpoint: set.endpoint.clone(),
        region: set.region.clone(),
        ca_file: set.ca_file.clone(),
        environment: environment.all(),
    })
}

/// Reads the password from the file that a setting names.
fn read_password(setting: &str, file: Option<&Path>) -> Result<Option<SecretString>> {
    let Some(path) = file else { return Ok(None) };
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "`{setting}`: {} cannot be read: write the password into it, readable by this user",
            path.display()
        )
    })?;
    let text = Zeroizing::new(text);
    let password = text.trim();
    if password.is_empty() {
        bail!("`{setting}`: {} is empty: write the password into it", path.display());
    }
    Ok(Some(SecretString::from(password)))
}

/// The host name of this machine.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_| "this machine".to_owned(), |name| name.trim().to_owned())
}
