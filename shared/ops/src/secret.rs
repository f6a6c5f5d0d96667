//! Secrets in memory and at rest.
//!
//! In memory a secret is a [`SecretString`]: its `Debug` shows nothing, and its bytes are wiped. At rest it is
//! [`Sealed`], in one of two ways. Secrets for the service are sealed with a key of its [`Keyring`] and bound to their
//! record, so that they cannot be moved to another one. Secrets for a worker are sealed to its [`PoolKey`] and bound to
//! one run, because workers have no key of the service.

use std::fmt::Write as _;
use std::path::Path;

pub use gantry_domain::sealed::{KeyFingerprint, Sealed};
use hmac::{Hmac, KeyInit as _, Mac as _};
pub use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use zeroize::{Zeroize as _, Zeroizing};

mod deploy_key;
mod keyring;
mod pool_key;

pub use deploy_key::{InvalidDeployKey, deploy_key};
pub use keyring::{Keyring, SecretError};
pub use pool_key::{PoolKey, PoolKeyError, PoolPublicKey, Unopened};

/// A user name with a password or token, for a registry or a git host.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user name; may be empty with a token.
    pub username: String,
    /// The password or token.
    pub password: SecretString,
}

/// The user name that says that the password is an identity token, in the protocol of Docker's credential helpers.
const IDENTITY_TOKEN: &str = "<token>";

impl Credentials {
    /// The token to be exchanged for others, if this is no user with a password.
    #[must_use]
    pub fn identity_token(&self) -> Option<&SecretString> {
        (self.username == IDENTITY_TOKEN).then_some(&self.password)
    }
}

/// `N` random bytes as hexadecimal digits.
///
/// # Errors
/// [`SecretError::NoEntropy`].
pub fn random_hex<const N: usize>() -> Result<Zeroizing<String>, SecretError> {
    let mut bytes = Zeroizing::new([0_u8; N]);
    getrandom::fill(bytes.as_mut()).map_err(|_| SecretError::NoEntropy)?;
    Ok(hex_text(bytes.as_ref()))
}

/// Writes a file atomically that only its owner may read.
///
/// # Errors
/// The system's error.
pub fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let partial = write_partial(path, bytes)?;
    std::fs::rename(&partial, path)
}

/// Like [`write_private`], but fails if the file exists.
///
/// # Errors
/// The system's error; [`std::io::ErrorKind::AlreadyExists`] if the file exists.
pub fn write_new_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let partial = write_partial(path, bytes)?;
    // Unlike a rename, a link does not replace an existing file.
    let linked = std::fs::hard_link(&partial, path);
    std::fs::remove_file(&partial)?;
    linked
}

fn write_partial(path: &Path, bytes: &[u8]) -> std::io::Result<std::path::PathBuf> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    let partial = path.with_extension("partial");
    let _absent = std::fs::remove_file(&partial);
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(partial)
}

/// Derives 32 bytes for one purpose; always the same for the same key.
fn derive(key: &[u8], purpose: &str) -> Zeroizing<[u8; 32]> {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        unreachable!("HMAC takes a key of any length")
    };
    mac.update(purpose.as_bytes());
    let mut tag = mac.finalize().into_bytes();
    let derived = Zeroizing::new(tag.into());
    tag.zeroize();
    derived
}

fn hex_text(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for byte in bytes {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

/// Parses 32 bytes from 64 hexadecimal digits.
fn hex_bytes(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    hex::decode_to_slice(text, bytes.as_mut()).ok()?;
    Some(bytes)
}

/// The lines of a key file without empty ones and comments, with their numbers from 1.
fn key_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(before, line)| (before + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}
