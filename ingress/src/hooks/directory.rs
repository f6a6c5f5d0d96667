//! Caches hooks and their decrypted secrets for two seconds, so that a burst of deliveries reads the store once.
//!
//! In other processes a removed secret stays valid for those two seconds; this process drops it at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gantry_domain::hook::Hook;
use gantry_domain::id::HookId;
use gantry_domain::image::RegistryHost;
use gantry_ops::secret::{Keyring, SecretError, SecretString, random_hex};
use gantry_seams::store::{Store, StoreError};
use gantry_seams::{hooks, registries};

use super::provider::descriptor;
use super::verify::HookKey;

const REMEMBERED_FOR: Duration = Duration::from_secs(2);

/// Unknown ids are cached too, so this bounds what a guesser can fill.
const MOST_REMEMBERED: usize = 1024;

/// A hook with its decrypted secrets.
pub(crate) struct OpenHook {
    pub(crate) hook: Hook,
    pub(crate) keys: Vec<HookKey>,
    /// The login server of its registry, if the provider's messages may leave the host out.
    pub(crate) home: Option<RegistryHost>,
}

pub(crate) struct HookDirectory {
    remembered: Mutex<HashMap<HookId, Remembered>>,
    /// A random key for unknown hooks, so that they take as long to refuse as known ones.
    nobody: Vec<HookKey>,
}

struct Remembered {
    at: Instant,
    hook: Option<Arc<OpenHook>>,
}

/// Looking up a hook failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl HookDirectory {
    pub(crate) fn new() -> Result<Self, SecretError> {
        let secret = random_hex::<32>()?;
        Ok(Self {
            remembered: Mutex::default(),
            nobody: HookKey::new(&SecretString::from(secret.as_str())).into_iter().collect(),
        })
    }

    /// The key for hooks that do not exist.
    pub(crate) fn nobody(&self) -> &[HookKey] {
        &self.nobody
    }

    /// Finds a hook in the state of at most two seconds ago.
    pub(crate) async fn find(
        &self,
        store: &dyn Store,
        keyring: &Keyring,
        id: &HookId,
    ) -> Result<Option<Arc<OpenHook>>, LookupError> {
        if let Some(hook) = self.recall(id) {
            return Ok(hook);
        }
        let found = hooks::find(store, id).await?;
        let hook = match found {
            Some(hook) => {
                let home = find_home(store, &hook).await?;
                Some(Arc::new(open(keyring, hook, home)?))
            }
            None => None,
        };
        self.remember(id, hook.clone());
        Ok(hook)
    }

    /// Drops a changed hook from the cache.
    pub(crate) fn forget(&self, id: &HookId) {
        self.lock().remove(id);
    }

    fn recall(&self, id: &HookId) -> Option<Option<Arc<OpenHook>>> {
        let remembered = self.lock();
        let found = remembered.get(id)?;
        (found.at.elapsed() < REMEMBERED_FOR).then(|| found.hook.clone())
    }

    fn remember(&self, id: &HookId, hook: Option<Arc<OpenHook>>) {
        let mut remembered = self.lock();
        if remembered.len() >= MOST_REMEMBERED {
            // Unknown ids are evicted first, so that a guesser cannot push known hooks out of the cache.
            remembered
                .retain(|_, found| found.hook.is_some() && found.at.elapsed() < REMEMBERED_FOR);
        }
        if remembered.len() < MOST_REMEMBERED {
            let at = Instant::now();
            remembered.insert(id.clone(), Remembered { at, hook });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<HookId, Remembered>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The login server of a hook's registry; `None` if the provider's messages always name the host.
pub(crate) async fn find_home(
    store: &dyn Store,
    hook: &Hook,
) -> Result<Option<RegistryHost>, StoreError> {
    if !descriptor(hook.provider()).may_omit_host {
        return Ok(None);
    }
    let registry = registries::find_exactly(store, &hook.registry, hook.prefix).await?;
    Ok(registry.map(|registry| registry.host))
}

fn open(
    keyring: &Keyring,
    hook: Hook,
    home: Option<RegistryHost>,
) -> Result<OpenHook, SecretError> {
    let seal = hooks::seal_for(&hook.id);
    let mut keys = Vec::with_capacity(hook.secrets.len());
    for secret in &hook.secrets {
        keys.extend(HookKey::new(&keyring.open(&seal, &secret.sealed)?));
    }
    Ok(OpenHook { hook, keys, home })
}
