//! Vaults outside of gantry: the addresses of their secrets, and which registry may read which of them.

mod address;
mod grant;
mod origin;

pub use address::{InvalidSecretAddress, SecretAddress, SecretDetail};
pub use grant::{InvalidGrant, SecretPrefix, VaultGrant};
pub use origin::{InvalidOrigin, Origin};
