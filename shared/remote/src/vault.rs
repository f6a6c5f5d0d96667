//! Secrets in vaults: Azure Key Vault and HashiCorp Vault.
//!
//! In: text of task files and settings. Out: addresses of secrets, and which registry may read them. Pure.

mod address;
mod grant;
mod origin;

pub use address::{InvalidSecretAddress, SecretAddress};
pub use grant::{SecretPrefix, VaultGrant};
pub use origin::{InvalidOrigin, Origin};
