//! The keys that a pool's workers open the secrets of their runs with.
//!
//! A pool key is an X25519 key derived from a key of the service; there is one for each key of the service's ring.
//! Bundles are sealed to its public half by HPKE (RFC 9180: base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
//! ChaCha20-Poly1305), and bound to the pool and to the fixed part of the run. So after a change to what a ready run
//! builds, its secrets no longer open.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gantry_domain::id::{PoolName, RunId};
use gantry_domain::run::Run;
use gantry_domain::signature::RunSignature;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeR, OpModeS, Serializable as _};
use rand::SeedableRng as _;
use rand::rngs::{StdRng, SysRng};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{
    KeyFingerprint, Sealed, SecretError, SecretString, derive, hex_bytes, hex_text, key_lines,
    write_private,
};

/// Separates bundles from anything else that is sealed to the same key.
const INFO: &[u8] = b"gantry bundle";

type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;
type EncappedKey = <X25519HkdfSha256 as Kem>::EncappedKey;

/// A pool key cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PoolKeyError {
    /// The file cannot be written.
    #[error("cannot write the pool key {path}: let this user write there, or name another file")]
    Unwritten {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file cannot be read.
    #[error(
        "cannot read the pool key {path}: `gantry secret pool-key {pool} --to FILE` makes one where the service key is, \
         and the worker's user has to read it"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// The pool of the expected key.
        pool: PoolName,
        /// The system's error.
        source: std::io::Error,
    },
    /// A line of the file is malformed.
    #[error(
        "line {line} of {path} is no pool key: it is a pool's name, a fingerprint of 16 and a key of 64 hexadecimal \
         digits; make the file anew with `gantry secret pool-key {pool}`"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The pool of the expected key.
        pool: PoolName,
        /// The line, from 1.
        line: usize,
    },
    /// The key belongs to another pool.
    #[error(
        "line {line} of {path} is the key of pool {found}, and this worker is of pool {pool}: make its own with \
         `gantry secret pool-key {pool}`"
    )]
    OtherPool {
        /// The file.
        path: PathBuf,
        /// The pool of the expected key.
        pool: PoolName,
        /// The pool of the key in the file.
        found: PoolName,
        /// The line, from 1.
        line: usize,
    },
}

/// A run's secrets do not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// They are sealed with a key that this pool key is not derived from.
    #[error(
        "the key of pool {pool} does not open the secrets of run {run}: they are sealed by service key {sealed_by}, and \
         the pool key is derived from {}: make it anew with `gantry secret pool-key {pool}`", listed(.derived_from)
    )]
    OtherKey {
        /// The pool.
        pool: PoolName,
        /// The run.
        run: RunId,
        /// The service key that they are sealed with.
        sealed_by: KeyFingerprint,
        /// The service keys that the pool key is derived from.
        derived_from: Vec<KeyFingerprint>,
    },
    /// They were sealed for another pool or another state of the run, or are corrupt.
    #[error(
        "the key of pool {pool} does not open the secrets of run {run}: they were sealed for another run, or for \
         what its record said before it was changed"
    )]
    NotThese {
        /// The pool.
        pool: PoolName,
        /// The run.
        run: RunId,
    },
}

/// The key of a pool, which opens the secrets of its runs.
///
/// A key that is derived from several keys of the service opens what was sealed with any of them.
#[derive(Clone)]
pub struct PoolKey {
    pool: PoolName,
    first: Derived,
    others: Vec<Derived>,
}

/// The public half of a pool key, which seals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolPublicKey {
    pool: PoolName,
    derived_from: KeyFingerprint,
    key: PublicKey,
}

#[derive(Clone)]
struct Derived {
    from: KeyFingerprint,
    key: PrivateKey,
}

fn mac(key: &Derived, text: &[u8]) -> Hmac<Sha256> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    key.key.write_exact(bytes.as_mut());
    let Ok(mac) = Hmac::new_from_slice(derive(bytes.as_ref(), "proof of a pool").as_ref()) else {
        unreachable!("HMAC takes a key of any length")
    };
    mac.chain_update(text)
}

impl PoolKey {
    /// The key of a pool, from material derived from each key of the service.
    pub(super) fn derived_from(
        pool: PoolName,
        first: (KeyFingerprint, Zeroizing<[u8; 32]>),
        others: impl Iterator<Item = (KeyFingerprint, Zeroizing<[u8; 32]>)>,
    ) -> Self {
        let derived = |(from, material): (KeyFingerprint, Zeroizing<[u8; 32]>)| Derived {
            from,
            key: X25519HkdfSha256::derive_keypair(material.as_ref()).0,
        };
        Self { pool, first: derived(first), others: others.map(derived).collect() }
    }

    /// Reads the key of `pool` in the form that [`PoolKey::write`] wrote.
    ///
    /// # Errors
    /// [`PoolKeyError`].
    pub fn read(path: &Path, pool: &PoolName) -> Result<Self, PoolKeyError> {
        let text = std::fs::read_to_string(path).map_err(|source| PoolKeyError::File {
            path: path.to_owned(),
            pool: pool.clone(),
            source,
        })?;
        Self::parse(&Zeroizing::new(text), path, pool)
    }

    fn parse(text: &str, path: &Path, pool: &PoolName) -> Result<Self, PoolKeyError> {
        let malformed =
            |line| PoolKeyError::Malformed { path: path.to_owned(), pool: pool.clone(), line };
        let mut keys = Vec::new();
        for (line, text) in key_lines(text) {
            let (found, key) = parse_line(text).ok_or_else(|| malformed(line))?;
            if found != *pool {
                let (path, pool) = (path.to_owned(), pool.clone());
                return Err(PoolKeyError::OtherPool { path, pool, found, line });
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        let first = keys.next().ok_or_else(|| malformed(1))?;
        Ok(Self { pool: pool.clone(), first, others: keys.collect() })
    }

    /// Writes the key to a file that only its owner may read. A file with other content than a key of this pool is not
    /// overwritten.
    ///
    /// # Errors
    /// [`PoolKeyError`].
    pub fn write(&self, path: &Path) -> Result<(), PoolKeyError> {
        if path.exists() {
            Self::read(path, &self.pool)?;
        }
        write_private(path, self.to_text().as_bytes())
            .map_err(|source| PoolKeyError::Unwritten { path: path.to_owned(), source })
    }

    /// The content of the file: a line for each key of the service, with the pool, that key's fingerprint, and the key.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(format!(
            "# Opens the secrets of the runs of pool {pool}, and nothing else. Only for its workers: `secrets.pool_key_file`.\n\
             # The pool, the service key that it is derived from, and the key.\n",
            pool = self.pool
        ));
        // Reserve enough for the whole text, since a growing text leaves copies of the keys in memory.
        text.reserve(self.keys().count() * 200);
        for Derived { from, key } in self.keys() {
            let mut bytes = Zeroizing::new([0_u8; 32]);
            key.write_exact(bytes.as_mut());
            text.push_str(self.pool.as_str());
            text.push(' ');
            text.push_str(from.as_str());
            text.push(' ');
            text.push_str(&hex_text(bytes.as_ref()));
            text.push('\n');
        }
        text
    }

    /// The pool of the key.
    #[must_use]
    pub fn pool(&self) -> &PoolName {
        &self.pool
    }

    /// The service keys that it is derived from.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<KeyFingerprint> {
        self.keys().map(|key| key.from.clone()).collect()
    }

    /// The public half that seals, derived from the first service key.
    #[must_use]
    pub fn public(&self) -> PoolPublicKey {
        PoolPublicKey {
            pool: self.pool.clone(),
            derived_from: self.first.from.clone(),
            key: X25519HkdfSha256::sk_to_pk(&self.first.key),
        }
    }

    /// Derives a key for one purpose; always the same for the same pool key.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> SecretString {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        self.first.key.write_exact(bytes.as_mut());
        SecretString::from(hex_text(derive(bytes.as_ref(), purpose).as_ref()).as_str())
    }

    /// The proof that a worker of this pool, or the service, made a text.
    #[must_use]
    pub fn prove(&self, text: &[u8]) -> RunSignature {
        match hex::encode(mac(&self.first, text).finalize().into_bytes()).parse() {
            Ok(proof) => proof,
            Err(_) => unreachable!("32 bytes are 64 hexadecimal digits"),
        }
    }

    /// Whether a worker of this pool, or the service, made this proof of this text, with any of the keys.
    #[must_use]
    pub fn has_proved(&self, text: &[u8], proof: &RunSignature) -> bool {
        let mut tag = [0_u8; 32];
        hex::decode_to_slice(proof.as_str(), &mut tag).is_ok()
            // In constant time, as for the signatures of runs.
            && self.keys().any(|key| mac(key, text).verify_slice(&tag).is_ok())
    }

    /// Opens what was sealed for `run`.
    pub(crate) fn open(&self, run: &Run, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        let not_these = || Unopened::NotThese { pool: self.pool.clone(), run: run.id };
        let envelope = Envelope::parse(sealed).ok_or_else(not_these)?;
        let Some(Derived { key, .. }) = self.keys().find(|key| key.from == envelope.sealed_by)
        else {
            return Err(Unopened::OtherKey {
                pool: self.pool.clone(),
                run: run.id,
                sealed_by: envelope.sealed_by,
                derived_from: self.fingerprints(),
            });
        };
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            key,
            &envelope.encapped,
            INFO,
            &envelope.sealed,
            &bound_to(&self.pool, run),
        )
        .map(Zeroizing::new)
        .map_err(|_| not_these())
    }

    /// Whether it was sealed with the first service key.
    pub(crate) fn sealed_by_the_first(&self, sealed: &Sealed) -> bool {
        Envelope::parse(sealed).is_some_and(|envelope| envelope.sealed_by == self.first.from)
    }

    fn keys(&self) -> impl Iterator<Item = &Derived> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl PoolPublicKey {
    /// Seals `plain` so that only this pool opens it, and only for `run`.
    pub(crate) fn seal(&self, run: &Run, plain: &[u8]) -> Result<Sealed, SecretError> {
        let mut random = StdRng::try_from_rng(&mut SysRng).map_err(|_| SecretError::NoEntropy)?;
        let (encapped, sealed) =
            hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
                &OpModeS::Base,
                &self.key,
                INFO,
                plain,
                &bound_to(&self.pool, run),
                &mut random,
            )
            // The X25519 point is gantry's own and the message has a few KiB, so nothing else can fail.
            .map_err(|_| SecretError::NoEntropy)?;
        Ok(Envelope { sealed_by: self.derived_from.clone(), encapped, sealed }.to_sealed())
    }
}

impl std::fmt::Debug for PoolKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolKey")
            .field("pool", &self.pool)
            .field("derived_from", &self.fingerprints())
            .finish_non_exhaustive()
    }
}

/// The record form of a sealed text: the fingerprint of the sealing key, HPKE's encapsulated key, and the sealed bytes.
struct Envelope {
    sealed_by: KeyFingerprint,
    encapped: EncappedKey,
    sealed: Vec<u8>,
}

impl Envelope {
    fn parse(sealed: &Sealed) -> Option<Self> {
        let mut parts = sealed.as_text().split('.');
        let sealed_by = parts.next()?.parse().ok()?;
        let encapped = EncappedKey::from_bytes(&BASE64.decode(parts.next()?).ok()?).ok()?;
        let sealed = BASE64.decode(parts.next()?).ok()?;
        parts.next().is_none().then_some(Self { sealed_by, encapped, sealed })
    }

    fn to_sealed(&self) -> Sealed {
        let encapped = BASE64.encode(self.encapped.to_bytes());
        let sealed = BASE64.encode(&self.sealed);
        Sealed::from_text(format!("{}.{encapped}.{sealed}", self.sealed_by))
    }
}

fn parse_line(text: &str) -> Option<(PoolName, Derived)> {
    let mut words = text.split_ascii_whitespace();
    let pool = words.next()?.parse().ok()?;
    let from = words.next()?.parse().ok()?;
    let key = PrivateKey::from_bytes(hex_bytes(words.next()?)?.as_ref()).ok()?;
    words.next().is_none().then_some((pool, Derived { from, key }))
}

fn bound_to(pool: &PoolName, run: &Run) -> Vec<u8> {
    let mut text = format!("{pool}/").into_bytes();
    text.extend(run.fixed_text());
    text
}

fn listed(fingerprints: &[KeyFingerprint]) -> String {
    fingerprints.iter().map(KeyFingerprint::as_str).collect::<Vec<_>>().join(", ")
}
