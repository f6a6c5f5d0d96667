//! What a role opens secrets with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use gantry_domain::id::PoolName;
use gantry_domain::platform::Platform;
use gantry_ops::secret::{Keyring, PoolKey, random_hex};
use gantry_ops::settings::Settings;
use gantry_seams::installation::{self, OpenError, PoolKeyRefused};
use gantry_seams::store::{SharedStore, StoreError};

use super::Role;
use super::patience::Patience;
use super::servers::SQLITE_FILE;

/// The keys of one process. A worker by itself has none of the service's.
pub(super) struct Keys {
    service: Option<Arc<Keyring>>,
    pool: Option<Arc<PoolKey>>,
}

impl Keys {
    pub(super) fn read(role: Role, settings: &Settings) -> Result<Self> {
        let service = match role {
            Role::Worker => None,
            Role::All | Role::Ingress | Role::Scheduler => Some(service_keys(settings)?),
        };
        let builds = role == Role::Worker || (role == Role::All && settings.worker.enabled);
        let pool = builds.then(|| pool_key(settings, service.as_ref())).transpose()?;
        Ok(Self { service: service.map(Arc::new), pool: pool.map(Arc::new) })
    }

    pub(super) fn service(&self) -> Option<&Arc<Keyring>> {
        self.service.as_ref()
    }

    pub(super) fn pool(&self) -> Option<&Arc<PoolKey>> {
        self.pool.as_ref()
    }

    /// The id of the installation in the store, once it is clear that these are its keys. Who has the service's keys
    /// begins one in an empty store; a worker by itself waits for that.
    pub(super) async fn open_installation(
        &self,
        settings: &Settings,
        store: &SharedStore,
        patience: &Patience<'_>,
    ) -> Result<String> {
        let mut id = None;
        if let Some(keyring) = &self.service {
            let (new, ring) = (random_hex::<8>()?, keyring.fingerprints());
            let open = || installation::open(store.as_ref(), new.as_str(), &ring);
            let is_temporary = |error: &OpenError| {
                matches!(error, OpenError::Store(StoreError::Unavailable { .. }))
            };
            let opened = patience.wait("store", is_temporary, open).await;
            id = Some(opened.map_err(|error| with_key_file(error, &key_file(settings)))?.0.id);
        }
        if let Some(pool) = &self.pool {
            let ask = || begun(store, pool);
            let found = patience.wait("store", NotYet::is_temporary, ask).await;
            let file = settings.secrets.pool_key_file.clone().unwrap_or_else(|| key_file(settings));
            id = Some(found.map_err(|error| with_key_file(error, &file))?);
        }
        id.context("a process has keys")
    }
}

/// The installation, if it is begun and `pool` opens what it seals.
async fn begun(store: &SharedStore, pool: &PoolKey) -> Result<String, NotYet> {
    let found = installation::find(store.as_ref()).await?.ok_or(NotYet::NotBegun)?;
    found.check_pool_key(&pool.fingerprints())?;
    Ok(found.id)
}

/// The error, with the key file that it is about; a store that is away is about none.
fn with_key_file(error: anyhow::Error, file: &Path) -> anyhow::Error {
    let is_refused = matches!(error.downcast_ref(), Some(OpenError::KeyMissing { .. }))
        || matches!(error.downcast_ref(), Some(NotYet::Key(PoolKeyRefused::OtherKey { .. })));
    if is_refused { error.context(refused(file)) } else { error }
}

/// A worker cannot work for the installation.
#[derive(Debug, thiserror::Error)]
enum NotYet {
    #[error("there is no installation in it yet: start an ingress or a scheduler")]
    NotBegun,
    #[error(transparent)]
    Key(#[from] PoolKeyRefused),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl NotYet {
    fn is_temporary(&self) -> bool {
        match self {
            Self::NotBegun | Self::Key(PoolKeyRefused::NobodySeals) => true,
            Self::Key(PoolKeyRefused::OtherKey { .. }) => false,
            Self::Store(error) => matches!(error, StoreError::Unavailable { .. }),
        }
    }
}

fn service_keys(settings: &Settings) -> Result<Keyring> {
    let file = key_file(settings);
    match (&settings.secrets.key_file, &settings.store.url) {
        // Two processes that each make a key could not read each other's secrets, and a misspelt path is no wish for one.
        (Some(_), _) => Ok(Keyring::read(&file)?),
        (None, Some(_)) => Keyring::read(&file).context("`secrets.key_file` is not set"),
        // A key that is made beside a store that is there opens nothing in it.
        (None, None) if settings.data.join(SQLITE_FILE).exists() => Ok(Keyring::read(&file)?),
        (None, None) => Ok(Keyring::open_or_create(&file)?),
    }
}

/// Where the service's keys are.
pub(crate) fn key_file(settings: &Settings) -> PathBuf {
    settings.secrets.key_file.clone().unwrap_or_else(|| settings.data.join("secret.key"))
}

/// What is said first of a key file that the installation does not know.
pub(crate) fn refused(file: &Path) -> String {
    format!("the key file {} is refused", file.display())
}

fn pool_key(settings: &Settings, service: Option<&Keyring>) -> Result<PoolKey> {
    let pool = pool(settings);
    match (&settings.secrets.pool_key_file, service) {
        (Some(named), _) => Ok(PoolKey::read(named, &pool)?),
        (None, Some(keyring)) => Ok(keyring.pool_key(&pool)),
        (None, None) => bail!(
            "`secrets.pool_key_file` is not set: make the file with `gantry secret pool-key {pool} --to FILE`, where the \
             service's key is"
        ),
    }
}

/// Whose runs a worker of this process takes. Engines here build for the machine that they are on.
pub(super) fn pool(settings: &Settings) -> PoolName {
    let this_machine = || {
        let platform: Platform =
            format!("linux/{}", std::env::consts::ARCH).parse().unwrap_or_default();
        platform.pool()
    };
    settings.worker.pool.clone().unwrap_or_else(this_machine)
}
