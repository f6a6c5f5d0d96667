//! Vaults that a test fills, and that are away or silent when it says so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use gantry_domain::id::RegistryName;
use gantry_domain::vault::SecretAddress;
use gantry_ops::secret::SecretString;
use gantry_remote::vault::{VaultError, Vaults};
use tokio::sync::watch;
use tokio::time::Instant;

/// The vaults of a test.
#[derive(Clone, Default)]
pub struct ScriptedVaults(Arc<Shared>);

#[derive(Default)]
struct Shared {
    secrets: Mutex<BTreeMap<String, String>>,
    asked: Mutex<Vec<String>>,
    is_away: Mutex<bool>,
    /// Whether reads wait.
    is_silent: watch::Sender<bool>,
}

impl ScriptedVaults {
    /// Puts a secret at an address, or replaces it.
    pub fn put(&self, address: &str, value: &str) {
        let mut secrets = self.0.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.insert(address.to_owned(), value.to_owned());
    }

    /// Lets every read fail, or none.
    pub fn set_away(&self, is_away: bool) {
        *self.0.is_away.lock().unwrap_or_else(PoisonError::into_inner) = is_away;
    }

    /// Lets every read wait, until it is called with `false`.
    pub fn set_silent(&self, is_silent: bool) {
        self.0.is_silent.send_replace(is_silent);
    }

    /// The addresses that were asked for, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Vaults for ScriptedVaults {
    async fn read(
        &self,
        _: &RegistryName,
        address: &SecretAddress,
        _: Instant,
    ) -> Result<SecretString, VaultError> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).push(address.to_string());
        let mut silent = self.0.is_silent.subscribe();
        // The sender is a part of this.
        let _spoken = silent.wait_for(|is_silent| !is_silent).await;
        let (by, at) = (address.origin().clone(), address.clone());
        if *self.0.is_away.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(VaultError::Unreachable { by, at, source: "connection refused".into() });
        }
        let secrets = self.0.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        match secrets.get(&address.to_string()) {
            Some(value) => Ok(SecretString::from(value.as_str())),
            None => Err(VaultError::NotFound { at, remedy: "put it there" }),
        }
    }
}
