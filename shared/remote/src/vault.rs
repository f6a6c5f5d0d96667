//! Secrets in vaults: Azure Key Vault and HashiCorp Vault.
//!
//! In: a registry, and the address of a secret that one of its tasks names. Out: the value, or an error that tells
//! whether a retry may help. Nothing is read without a grant of the operator, and a vault's token or password is sent
//! only to the servers that the operator configured: no redirect and no challenge is followed. When to read, and how
//! long a value is kept, is not decided here.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use gantry_domain::id::RegistryName;
use gantry_domain::vault::{Origin, SecretAddress, SecretDetail, VaultGrant};
use gantry_ops::secret::SecretString;
use tokio::time::{Instant, timeout_at};

use crate::http::{ClientError, OutboundClient};

mod error;
mod exchange;
mod hashicorp;
mod key_vault;
mod token;

pub use error::VaultError;
use hashicorp::Hashicorp;
pub use hashicorp::HashicorpLogin;
use key_vault::KeyVault;
pub use key_vault::KeyVaultLogin;

/// The vaults that tasks may name secrets of.
#[async_trait]
pub trait Vaults: Send + Sync {
    /// The current value of the secret at `address`, for a task of `registry`.
    ///
    /// Not retried and not cached.
    ///
    /// # Errors
    /// [`VaultError::NotGranted`], before anything is sent. [`VaultError::Unreachable`] after `deadline`.
    async fn read(
        &self,
        registry: &RegistryName,
        address: &SecretAddress,
        deadline: Instant,
    ) -> Result<SecretString, VaultError>;
}

/// A vault that the operator configured.
#[derive(Debug, Clone)]
pub struct VaultConfig {
    /// Its address.
    pub origin: Origin,
    /// Its kind, and the credentials.
    pub kind: VaultKind,
}

/// The kind of a vault, and how gantry logs in.
#[derive(Debug, Clone)]
pub enum VaultKind {
    /// An Azure Key Vault.
    KeyVault(KeyVaultLogin),
    /// A HashiCorp Vault, or OpenBao.
    Hashicorp {
        /// The credentials.
        login: HashicorpLogin,
        /// The namespace that all its paths are in, and the login too; `None` for the root.
        namespace: Option<String>,
    },
}

/// The configured vaults cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VaultsError {
    /// Two of them have the same address.
    #[error("the vault {0} is configured twice: remove one")]
    Twice(Origin),
    /// There is no HTTP client.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Vaults through the guarded client. The token of each is obtained at the first use and shared by all reads.
/// The default has none.
#[derive(Default)]
pub struct RemoteVaults {
    vaults: HashMap<Origin, Client>,
    grants: Vec<VaultGrant>,
}

enum Client {
    KeyVault(KeyVault),
    Hashicorp(Hashicorp),
}

impl RemoteVaults {
    /// Reads from `vaults` what `grants` permit. Uses the policy of `http`, but follows no redirects.
    ///
    /// # Errors
    /// [`VaultsError`].
    pub fn new(
        http: &OutboundClient,
        vaults: Vec<VaultConfig>,
        grants: Vec<VaultGrant>,
    ) -> Result<Self, VaultsError> {
        let http = http.without_redirects()?;
        let mut clients = HashMap::new();
        for VaultConfig { origin, kind } in vaults {
            let client = match kind {
                VaultKind::KeyVault(login) => Client::KeyVault(KeyVault::new(http.clone(), login)),
                VaultKind::Hashicorp { login, namespace } => {
                    Client::Hashicorp(Hashicorp::new(http.clone(), login, namespace))
                }
            };
            if clients.insert(origin.clone(), client).is_some() {
                return Err(VaultsError::Twice(origin));
            }
        }
        Ok(Self { vaults: clients, grants })
    }

    async fn read_granted(&self, address: &SecretAddress) -> Result<SecretString, VaultError> {
        match (self.vaults.get(address.origin()), address.detail()) {
            (Some(Client::KeyVault(vault)), SecretDetail::KeyVault) => vault.read(address).await,
            (Some(Client::Hashicorp(vault)), SecretDetail::Hashicorp { version, field }) => {
                vault.read(address, *version, field).await
            }
            (Some(Client::KeyVault(_)), SecretDetail::Hashicorp { .. })
            | (Some(Client::Hashicorp(_)), SecretDetail::KeyVault)
            | (None, _) => Err(VaultError::NotConfigured { at: address.clone() }),
        }
    }
}

#[async_trait]
impl Vaults for RemoteVaults {
    async fn read(
        &self,
        registry: &RegistryName,
        address: &SecretAddress,
        deadline: Instant,
    ) -> Result<SecretString, VaultError> {
        if !self.grants.iter().any(|grant| grant.permits(registry, address)) {
            return Err(VaultError::NotGranted { registry: registry.clone(), at: address.clone() });
        }
        let began = Instant::now();
        let read = timeout_at(deadline, self.read_granted(address)).await;
        read.unwrap_or_else(|_| {
            let waited = began.elapsed();
            Err(VaultError::Unreachable {
                by: address.origin().clone(),
                at: address.clone(),
                source: format!("login and read were not done within {waited:.1?}").into(),
            })
        })
    }
}

impl fmt::Debug for RemoteVaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteVaults")
            .field("vaults", &self.vaults.keys())
            .field("grants", &self.grants)
            .finish()
    }
}
