//! Secrets in memory and at rest.
//!
//! In memory a secret is a [`SecretString`]: its `Debug` prints nothing and its bytes are wiped. At rest it is
//! [`Sealed`], in one of two ways. What the service opens again is sealed with a key of its [`Keyring`], bound to the
//! record that holds it, so that it cannot be moved to another. What a worker opens is sealed to the key of its pool,
//! [`PoolKey`], bound to one run: a worker holds no key of the service.

use std::fmt::Write as _;
use std::path::Path;

pub use gantry_domain::sealed::{KeyFingerprint, Sealed};
use hmac::{Hmac, KeyInit as _, Mac as _};
pub use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use zeroize::{Zeroize as _, Zeroizing};

mod keyring;
mod pool_key;

pub use keyring::{Keyring, SecretError};
pub use pool_key::{PoolKey, PoolKeyError, PoolPublicKey, Unopened};

/// A user's name and password (or token) at a registry or a git host.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user's name; may be empty beside a token.
    pub username: String,
    /// The password or token.
    pub password: SecretString,
}

/// `N` random bytes in hexadecimal digits.
///
/// # Errors
/// [`SecretError::NoEntropy`].
pub fn random_hex<const N: usize>() -> Result<Zeroizing<String>, SecretError> {
    let mut bytes = Zeroizing::new([0_u8; N]);
    getrandom::fill(bytes.as_mut()).map_err(|_| SecretError::NoEntropy)?;
    Ok(hex_text(bytes.as_ref()))
}

/// Writes a file that only its owner may read, whole or not at all.
///
/// # Errors
/// What the system says.
pub fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let partial = write_partial(path, bytes)?;
    std::fs::rename(&partial, path)
}

/// The same, but only where there is no file yet.
///
/// # Errors
/// What the system says; [`std::io::ErrorKind::AlreadyExists`] when there is one.
pub fn write_new_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let partial = write_partial(path, bytes)?;
    // Unlike a rename, a link refuses to take another file's place.
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

/// 32 bytes of their own for one purpose, always the same for the same key.
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

/// 32 bytes from 64 hexadecimal digits.
fn hex_bytes(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    hex::decode_to_slice(text, bytes.as_mut()).ok()?;
    Some(bytes)
}

/// The lines of a key file that are neither empty nor a comment, with their numbers from 1.
fn key_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(before, line)| (before + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}
