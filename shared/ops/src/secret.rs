//! Secrets in memory and at rest.
//!
//! In memory a secret is a [`SecretString`]: its `Debug` prints nothing and its bytes are wiped. At rest it is
//! [`Sealed`] with a key of the [`Keyring`], bound to the record that holds it, so that it cannot be moved to another.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
pub use gantry_domain::sealed::Sealed;
use hmac::{Hmac, Mac as _};
pub use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use zeroize::Zeroizing;

/// A user's name and password (or token) at a registry or a git host.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user's name; may be empty beside a token.
    pub username: String,
    /// The password or token.
    pub password: SecretString,
}

/// Why a secret cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The key file cannot be read or written.
    #[error("cannot use the key file {path}")]
    File {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key file holds a line that is no key.
    #[error("line {line} of the key file {path} is no key: each line is 64 hexadecimal digits")]
    Malformed {
        /// Where it is.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// None of the keys opens it.
    #[error(
        "a stored secret of {bound_to} does not open with the keys given: was `secret.key` replaced?"
    )]
    WrongKey {
        /// The record that the secret belongs to.
        bound_to: String,
    },
    /// The system has no random bytes.
    #[error("the system gave no random bytes")]
    NoEntropy,
}

/// The keys that secrets at rest are sealed with: the first seals, all open.
pub struct Keyring {
    keys: Vec<XChaCha20Poly1305>,
    first: Zeroizing<Vec<u8>>,
}

impl Keyring {
    /// Reads the key file, one key of 64 hexadecimal digits a line. Makes one, readable by its owner
    /// alone, if there is none.
    ///
    /// # Errors
    /// [`SecretError::File`], [`SecretError::Malformed`], [`SecretError::NoEntropy`].
    pub fn open_or_create(path: &Path) -> Result<Self, SecretError> {
        let file_error = |source| SecretError::File { path: path.to_owned(), source };
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&Zeroizing::new(text), path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = Zeroizing::new(format!("{}\n", random_hex::<32>()?.as_str()));
                write_private(path, text.as_bytes()).map_err(file_error)?;
                Self::parse(&text, path)
            }
            Err(error) => Err(file_error(error)),
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, SecretError> {
        let (mut keys, mut first) = (Vec::new(), None);
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let malformed = || SecretError::Malformed { path: path.to_owned(), line: number + 1 };
            let key = Zeroizing::new(hex::decode(line).map_err(|_| malformed())?);
            keys.push(XChaCha20Poly1305::new_from_slice(&key).map_err(|_| malformed())?);
            first.get_or_insert(key);
        }
        let Some(first) = first else {
            return Err(SecretError::Malformed { path: path.to_owned(), line: 1 });
        };
        Ok(Self { keys, first })
    }

    /// Seals `secret` so that it opens only as a secret of `bound_to`, a record's key.
    ///
    /// # Errors
    /// [`SecretError::NoEntropy`].
    pub fn seal(&self, bound_to: &str, secret: &SecretString) -> Result<Sealed, SecretError> {
        let mut nonce = [0_u8; 24];
        getrandom::fill(&mut nonce).map_err(|_| SecretError::NoEntropy)?;
        let payload = Payload { msg: secret.expose_secret().as_bytes(), aad: bound_to.as_bytes() };
        let sealed = self
            .keys
            .first()
            .and_then(|key| key.encrypt(&XNonce::from(nonce), payload).ok())
            .ok_or(SecretError::NoEntropy)?;
        Ok(Sealed::from_text(format!("{}.{}", BASE64.encode(nonce), BASE64.encode(sealed))))
    }

    /// Opens a secret that was sealed for the same `bound_to`.
    ///
    /// # Errors
    /// [`SecretError::WrongKey`], also when it was sealed for another record or changed since.
    pub fn open(&self, bound_to: &str, sealed: &Sealed) -> Result<SecretString, SecretError> {
        self.try_open(bound_to, sealed)
            .ok_or_else(|| SecretError::WrongKey { bound_to: bound_to.to_owned() })
    }

    /// A key of its own for one purpose, always the same for the same first key.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> SecretString {
        let mac = Hmac::<Sha256>::new_from_slice(&self.first).map(|mut mac| {
            mac.update(purpose.as_bytes());
            hex::encode(mac.finalize().into_bytes())
        });
        match mac {
            Ok(key) => SecretString::from(key),
            Err(_) => unreachable!("HMAC takes a key of any length"),
        }
    }

    fn try_open(&self, bound_to: &str, sealed: &Sealed) -> Option<SecretString> {
        let (nonce, bytes) = sealed.as_text().split_once('.')?;
        let nonce: [u8; 24] = BASE64.decode(nonce).ok()?.try_into().ok()?;
        let bytes = BASE64.decode(bytes).ok()?;
        let open = |key: &XChaCha20Poly1305| {
            let payload = Payload { msg: &bytes, aad: bound_to.as_bytes() };
            key.decrypt(&XNonce::from(nonce), payload).ok()
        };
        let plain = Zeroizing::new(self.keys.iter().find_map(open)?);
        Some(SecretString::from(std::str::from_utf8(&plain).ok()?))
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({} keys)", self.keys.len())
    }
}

/// `N` random bytes in hexadecimal digits.
///
/// # Errors
/// [`SecretError::NoEntropy`].
pub fn random_hex<const N: usize>() -> Result<Zeroizing<String>, SecretError> {
    let mut bytes = Zeroizing::new([0_u8; N]);
    getrandom::fill(bytes.as_mut()).map_err(|_| SecretError::NoEntropy)?;
    let mut text = Zeroizing::new(String::with_capacity(2 * N));
    for byte in bytes.iter() {
        let _infallible = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// Writes a file that only its owner may read, whole or not at all.
///
/// # Errors
/// What the system says.
pub fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    let partial = path.with_extension("partial");
    let _absent = std::fs::remove_file(&partial);
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(lines: &str) -> Keyring {
        Keyring::parse(lines, Path::new("secret.key")).unwrap()
    }

    #[test]
    fn a_secret_opens_only_for_its_record_and_with_a_key_of_the_ring() {
        let (old, new) = ("11".repeat(32), "22".repeat(32));
        let sealed = keyring(&old).seal("registry/a", &SecretString::from("hunter2")).unwrap();
        let rotated = keyring(&format!("{new}\n{old}\n"));
        assert_eq!(rotated.open("registry/a", &sealed).unwrap().expose_secret(), "hunter2");
        assert!(rotated.open("registry/b", &sealed).is_err());
        assert!(keyring(&new).open("registry/a", &sealed).is_err());
        assert!(!format!("{sealed:?}").contains("hunter2"));
    }

    #[test]
    fn a_key_file_is_made_once_and_only_for_its_owner() {
        use std::os::unix::fs::PermissionsExt as _;

        let path = std::env::temp_dir()
            .join(format!("gantry-key-{}", random_hex::<8>().unwrap().as_str()));
        let sealed =
            Keyring::open_or_create(&path).unwrap().seal("x", &SecretString::from("s")).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Keyring::open_or_create(&path).unwrap().open("x", &sealed).is_ok());
        std::fs::write(&path, "not a key\n").unwrap();
        let error = Keyring::open_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
        std::fs::remove_file(path).unwrap();
    }
}
