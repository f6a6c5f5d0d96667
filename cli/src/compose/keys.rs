//! The keys of a process for secrets.

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

/// The keys of one process.
pub(super) enum Keys {
    /// The keys of the service, and the key of its pool if it builds.
    Service { keyring: Arc<Keyring>, pool: Option<Arc<PoolKey>> },
    /// Only a pool's key: a separate worker has no key of the service.
    Pool(Arc<PoolKey>),
}

impl Keys {
    pub(super) fn read(role: Role, settings: &Settings) -> Result<Self> {
        if role == Role::Worker {
            return Ok(Self::Pool(Arc::new(pool_key(settings, None)?)));
        }
        let keyring = service_keys(settings)?;
        let builds = role == Role::All && settings.worker.enabled;
        let pool = builds.then(|| pool_key(settings, Some(&keyring))).transpose()?;
        Ok(Self::Service { keyring: Arc::new(keyring), pool: pool.map(Arc::new) })
    }

    pub(super) fn service(&self) -> Option<&Arc<Keyring>> {
        match self {
            Self::Service { keyring, .. } => Some(keyring),
            Self::Pool(_) => None,
        }
    }

    pub(super) fn pool(&self) -> Option<&Arc<PoolKey>> {
        match self {
            Self::Service { pool, .. } => pool.as_ref(),
            Self::Pool(pool) => Some(pool),
        }
    }

    /// Returns the id of the installation in the store, after checking that these are its keys. With the service's
    /// keys, creates the installation in an empty store; a separate worker waits for that.
    pub(super) async fn open_installation(
        &self,
        settings: &Settings,
        store: &SharedStore,
        patience: &Patience<'_>,
    ) -> Result<String> {
        match self {
            Self::Service { keyring, pool } => {
                let id = open_with(keyring, settings, store, patience).await?;
                if let Some(pool) = pool {
                    find_with(pool, settings, store, patience).await?;
                }
                Ok(id)
            }
            Self::Pool(pool) => find_with(pool, settings, store, patience).await,
        }
    }
}

async fn open_with(
    keyring: &Keyring,
    settings: &Settings,
    store: &SharedStore,
    patience: &Patience<'_>,
) -> Result<String> {
    let (new, ring) = (random_hex::<8>()?, keyring.fingerprints());
    let open = || installation::open(store.as_ref(), new.as_str(), &ring);
    let is_temporary =
        |error: &OpenError| matches!(error, OpenError::Store(StoreError::Unavailable { .. }));
    let opened = patience.wait("store", is_temporary, open).await;
    let (installation, _) = opened.map_err(|error| with_key_file(error, &key_file(settings)))?;
    Ok(installation.id)
}

async fn find_with(
    pool: &PoolKey,
    settings: &Settings,
    store: &SharedStore,
    patience: &Patience<'_>,
) -> Result<String> {
    let found = patience.wait("store", NotYet::is_temporary, || begun(store, pool)).await;
    let file = settings.secrets.pool_key_file.clone().unwrap_or_else(|| key_file(settings));
    found.map_err(|error| with_key_file(error, &file))
}

/// The installation, if it was created and `pool` opens what it seals.
async fn begun(store: &SharedStore, pool: &PoolKey) -> Result<String, NotYet> {
    let found = installation::find(store.as_ref()).await?.ok_or(NotYet::NotBegun)?;
    found.check_pool_key(&pool.fingerprints())?;
    Ok(found.id)
}

/// Adds the key file that an error is about. Errors of the store get none.
fn with_key_file(error: anyhow::Error, file: &Path) -> anyhow::Error {
    let is_refused = matches!(error.downcast_ref(), Some(OpenError::KeyMissing { .. }))
        || matches!(error.downcast_ref(), Some(NotYet::Key(PoolKeyRefused::OtherKey { .. })));
    if is_refused { error.context(refused(file)) } else { error }
}

/// A worker cannot work for the installation yet.
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
        // If two processes each created a key, they could not read each other's secrets; and a misspelt path is not a
        // request for a new key.
        (Some(_), _) => Ok(Keyring::read(&file)?),
        (None, Some(_)) => Keyring::read(&file).context("`secrets.key_file` is not set"),
        // A new key beside an existing store would not open anything in it.
        (None, None) if settings.data.join(SQLITE_FILE).exists() => Ok(Keyring::read(&file)?),
        (None, None) => Ok(Keyring::open_or_create(&file)?),
    }
}

/// The path of the service's key file.
pub(crate) fn key_file(settings: &Settings) -> PathBuf {
    settings.secrets.key_file.clone().unwrap_or_else(|| settings.data.join("secret.key"))
}

/// The context of an error about a key file that the installation does not know.
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

/// The pool that a worker of this process takes runs from. A local engine builds for the platform of its machine.
pub(super) fn pool(settings: &Settings) -> PoolName {
    let this_machine = || {
        let platform: Platform =
            format!("linux/{}", std::env::consts::ARCH).parse().unwrap_or_default();
        platform.pool()
    };
    settings.worker.pool.clone().unwrap_or_else(this_machine)
}
