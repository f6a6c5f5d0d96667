//! The service's keys.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use gantry_domain::id::PoolName;
use gantry_domain::signature::{RunSignature, Signer};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::pool_key::PoolKey;
use super::{
    ExposeSecret as _, KeyFingerprint, Sealed, SecretString, derive, hex_bytes, hex_text,
    key_lines, random_hex, write_new_private,
};

/// A secret cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The key file does not exist.
    #[error(
        "there is no key file {path}: every ingress and scheduler has the same one; for a new installation \
         `gantry secret key --to {path}` makes it"
    )]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// The key file to be created exists already.
    #[error("{path} already exists: a key that something was sealed with is never overwritten")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The key file cannot be read or written.
    #[error("cannot use the key file {path}: give it to the user that gantry runs as")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A line of the key file is malformed.
    #[error("line {line} of the key file {path} is no key: each line is 64 hexadecimal digits")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// No key of the ring opens the secret.
    #[error(
        "a stored secret of {bound_to} does not open with the keys given: was `secret.key` replaced?"
    )]
    WrongKey {
        /// The record that the secret belongs to.
        bound_to: String,
    },
    /// The system's random number generator failed.
    #[error("the system gave no random bytes")]
    NoEntropy,
}

/// The keys for secrets at rest. The first one seals, all of them open.
pub struct Keyring {
    first: ServiceKey,
    others: Vec<ServiceKey>,
}

struct ServiceKey {
    bytes: Zeroizing<[u8; 32]>,
    cipher: XChaCha20Poly1305,
    signing: Zeroizing<[u8; 32]>,
    fingerprint: KeyFingerprint,
}

impl Keyring {
    /// Reads the key file: each line has a key of 64 hexadecimal digits, or a comment after `#`.
    ///
    /// # Errors
    /// [`SecretError::Absent`], [`SecretError::File`], [`SecretError::Malformed`].
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&Zeroizing::new(text), path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(SecretError::Absent { path: path.to_owned() })
            }
            Err(source) => Err(SecretError::File { path: path.to_owned(), source }),
        }
    }

    /// Creates a key file with one new key, readable only by its owner.
    ///
    /// # Errors
    /// [`SecretError::Exists`], [`SecretError::File`], [`SecretError::NoEntropy`].
    pub fn create(path: &Path) -> Result<Self, SecretError> {
        let text = Zeroizing::new(format!("{}\n", random_hex::<32>()?.as_str()));
        match write_new_private(path, text.as_bytes()) {
            Ok(()) => Self::parse(&text, path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(SecretError::Exists { path: path.to_owned() })
            }
            Err(source) => Err(SecretError::File { path: path.to_owned(), source }),
        }
    }

    /// Reads the key file, or creates it if it does not exist.
    ///
    /// # Errors
    /// Those of [`Keyring::read`] and [`Keyring::create`].
    pub fn open_or_create(path: &Path) -> Result<Self, SecretError> {
        match Self::read(path) {
            Err(SecretError::Absent { .. }) => Self::create(path),
            opened => opened,
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, SecretError> {
        let mut keys = Vec::new();
        for (line, text) in key_lines(text) {
            let key = hex_bytes(text).and_then(ServiceKey::new);
            keys.push(key.ok_or_else(|| SecretError::Malformed { path: path.to_owned(), line })?);
        }
        let mut keys = keys.into_iter();
        let first = keys.next();
        let first =
            first.ok_or_else(|| SecretError::Malformed { path: path.to_owned(), line: 1 })?;
        Ok(Self { first, others: keys.collect() })
    }

    /// The fingerprints of its keys, in order; the first one seals.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<KeyFingerprint> {
        self.keys().map(|key| key.fingerprint.clone()).collect()
    }

    /// The key of a pool; always the same for the same ring. It seals with the first service key, and opens what was
    /// sealed with any of them.
    #[must_use]
    pub fn pool_key(&self, pool: &PoolName) -> PoolKey {
        let derived = |key: &ServiceKey| {
            (key.fingerprint.clone(), derive(key.bytes.as_ref(), &format!("pool {pool}")))
        };
        let others = self.others.iter().map(derived);
        PoolKey::derived_from(pool.clone(), derived(&self.first), others)
    }

    /// Seals `secret` so that it opens only as a secret of `bound_to`, the key of a record.
    ///
    /// # Errors
    /// [`SecretError::NoEntropy`].
    pub fn seal(&self, bound_to: &str, secret: &SecretString) -> Result<Sealed, SecretError> {
        let mut nonce = [0_u8; 24];
        getrandom::fill(&mut nonce).map_err(|_| SecretError::NoEntropy)?;
        let payload = Payload { msg: secret.expose_secret().as_bytes(), aad: bound_to.as_bytes() };
        let sealed = self.first.cipher.encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.map_err(|_| SecretError::NoEntropy)?;
        Ok(Sealed::from_text(format!("{}.{}", BASE64.encode(nonce), BASE64.encode(sealed))))
    }

    /// Opens a secret that was sealed for the same `bound_to`.
    ///
    /// # Errors
    /// [`SecretError::WrongKey`], also if it was sealed for another record or is corrupt.
    pub fn open(&self, bound_to: &str, sealed: &Sealed) -> Result<SecretString, SecretError> {
        self.keys()
            .find_map(|key| key.open(bound_to, sealed))
            .ok_or_else(|| SecretError::WrongKey { bound_to: bound_to.to_owned() })
    }

    /// Reseals a stored secret with the first key; `None` if it is already sealed with it.
    ///
    /// # Errors
    /// [`SecretError::WrongKey`], [`SecretError::NoEntropy`].
    pub fn reseal(&self, bound_to: &str, sealed: &Sealed) -> Result<Option<Sealed>, SecretError> {
        if self.first.open(bound_to, sealed).is_some() {
            return Ok(None);
        }
        self.seal(bound_to, &self.open(bound_to, sealed)?).map(Some)
    }

    fn keys(&self) -> impl Iterator<Item = &ServiceKey> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl ServiceKey {
    fn new(bytes: Zeroizing<[u8; 32]>) -> Option<Self> {
        let cipher = XChaCha20Poly1305::new_from_slice(bytes.as_ref()).ok()?;
        let digits = hex_text(derive(bytes.as_ref(), "fingerprint").as_ref());
        let fingerprint = digits.get(..16)?.parse().ok()?;
        let signing = derive(bytes.as_ref(), "signature of a run");
        Some(Self { bytes, cipher, signing, fingerprint })
    }

    fn mac(&self, text: &[u8]) -> Hmac<Sha256> {
        let Ok(mac) = Hmac::new_from_slice(self.signing.as_ref()) else {
            unreachable!("HMAC takes a key of any length")
        };
        mac.chain_update(text)
    }

    fn open(&self, bound_to: &str, sealed: &Sealed) -> Option<SecretString> {
        let (nonce, bytes) = sealed.as_text().split_once('.')?;
        let nonce: [u8; 24] = BASE64.decode(nonce).ok()?.try_into().ok()?;
        let bytes = BASE64.decode(bytes).ok()?;
        let payload = Payload { msg: &bytes, aad: bound_to.as_bytes() };
        let plain = Zeroizing::new(self.cipher.decrypt(&XNonce::from(nonce), payload).ok()?);
        Some(SecretString::from(std::str::from_utf8(&plain).ok()?))
    }
}

/// HMAC-SHA256: the key that verifies can also sign, so only the service does both.
impl Signer for Keyring {
    fn sign(&self, text: &[u8]) -> RunSignature {
        let tag = self.first.mac(text).finalize().into_bytes();
        match hex::encode(tag).parse() {
            Ok(signature) => signature,
            Err(_) => unreachable!("32 bytes are 64 hexadecimal digits"),
        }
    }

    fn vouches_for(&self, text: &[u8], signature: &RunSignature) -> bool {
        let mut tag = [0_u8; 32];
        hex::decode_to_slice(signature.as_str(), &mut tag).is_ok()
            // In constant time: `==` would reveal to a forger how many leading bytes are right.
            && self.keys().any(|key| key.mac(text).verify_slice(&tag).is_ok())
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keyring").field(&self.fingerprints()).finish()
    }
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
        let opened = rotated.open("registry/a", &sealed).unwrap();
        assert_eq!(opened.expose_secret(), "hunter2");
        assert!(rotated.open("registry/b", &sealed).is_err());
        assert!(keyring(&new).open("registry/a", &sealed).is_err());
        assert!(!format!("{sealed:?}").contains("hunter2"));
    }

    #[test]
    fn resealed_secrets_do_not_need_the_old_key() {
        let (old, new) = ("11".repeat(32), "22".repeat(32));
        let sealed = keyring(&old).seal("hook/a", &SecretString::from("s")).unwrap();
        let both = keyring(&format!("{new}\n{old}\n"));
        let again = both.reseal("hook/a", &sealed).unwrap().unwrap();
        assert_eq!(keyring(&new).open("hook/a", &again).unwrap().expose_secret(), "s");
        assert!(both.reseal("hook/a", &again).unwrap().is_none(), "it is sealed so already");
        assert!(keyring(&new).reseal("hook/a", &sealed).is_err());
    }

    #[test]
    fn a_signature_is_valid_for_its_text_while_its_key_is_in_the_ring() {
        let (old, new) = ("11".repeat(32), "22".repeat(32));
        let signature = keyring(&old).sign(b"run ca1");
        let rotated = keyring(&format!("{new}\n{old}\n"));
        assert!(rotated.vouches_for(b"run ca1", &signature));
        assert!(!rotated.vouches_for(b"run ca2", &signature));
        assert!(!keyring(&new).vouches_for(b"run ca1", &signature));
        assert_eq!(rotated.sign(b"run ca1"), keyring(&new).sign(b"run ca1"), "the first signs");
    }

    #[test]
    fn fingerprints_do_not_reveal_keys() {
        let (old, new) = ("11".repeat(32), "22".repeat(32));
        let ring = keyring(&format!("# the new one\n{new}\n\n{old}\n"));
        let [first, second] = ring.fingerprints().try_into().unwrap();
        assert_eq!(keyring(&new).fingerprints(), [first]);
        assert_eq!(keyring(&old).fingerprints(), [second]);
        let shown = format!("{ring:?}");
        assert!(!shown.contains("1111") && !shown.contains("2222"), "{shown}");
    }

    #[test]
    fn a_key_file_is_created_once_and_is_private() {
        use std::os::unix::fs::PermissionsExt as _;

        let path = std::env::temp_dir()
            .join(format!("gantry-key-{}", random_hex::<8>().unwrap().as_str()));
        assert!(matches!(Keyring::read(&path), Err(SecretError::Absent { .. })));
        let made = Keyring::open_or_create(&path).unwrap();
        let sealed = made.seal("x", &SecretString::from("s")).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Keyring::open_or_create(&path).unwrap().open("x", &sealed).is_ok());
        assert!(matches!(Keyring::create(&path), Err(SecretError::Exists { .. })));
        std::fs::write(&path, "not a key\n").unwrap();
        let error = Keyring::open_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
        std::fs::remove_file(path).unwrap();
    }
}
