//! A registry in a folder. Like a real one it outlives the process that pushes to it, and accepts concurrent pushes.
//!
//! In: what a scripted engine pushed, and the tags that a worker moves. Out: the same for the next process, and for the
//! test that inspects it. Each write takes a while, so that a process may crash before or after it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use gantry_domain::image::{Digest, ImageReference, RegistryHost};
use gantry_ops::secret::Credentials;
use gantry_remote::registries::Registries;
use gantry_remote::registry::{RawManifest, RegistryError};
use gantry_worker::engine::scripted::ScriptedEngine;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

/// The registry's host.
pub const HOST: &str = "registry.test";

/// A base image in the registry.
pub const BASE: &str = "registry.test/busybox:1";

/// One of this many writes is slow.
const LONG_WRITES: u32 = 8;

/// A registry whose tags and manifests are files.
pub struct KeptRegistry {
    folder: PathBuf,
    engine: ScriptedEngine,
    delays: Mutex<StdRng>,
}

impl KeptRegistry {
    /// Opens the registry in `folder`, which is created if necessary. `engine` pushes to it; `seed` determines the
    /// duration of writes.
    ///
    /// # Errors
    /// The system's error.
    pub fn open(folder: PathBuf, engine: ScriptedEngine, seed: u64) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder.join("manifests"))?;
        Ok(Self { folder, engine, delays: Mutex::new(StdRng::seed_from_u64(seed)) })
    }

    /// The current digest of a tag.
    #[must_use]
    pub fn tag_in(folder: &Path, image: &ImageReference) -> Option<Digest> {
        let journal = std::fs::read_to_string(journal(folder)).ok()?;
        let mut writes = journal.lines().rev().filter_map(|line| line.split_once(' '));
        let (_, digest) = writes.find(|(tag, _)| *tag == image.to_string())?;
        digest.parse().ok()
    }

    /// Moves a tag of the registry in `folder`, which is created if necessary, as somebody else who pushes to it. There is
    /// no manifest of what was pushed: it can only be built on.
    ///
    /// # Errors
    /// The system's error.
    pub fn push_to(folder: &Path, image: &ImageReference, digest: &Digest) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        append(folder, image, digest)
    }

    fn not_found(image: &ImageReference) -> RegistryError {
        RegistryError::NotFound { host: image.host().clone(), what: image.to_string() }
    }

    fn manifest_file(&self, digest: &Digest) -> PathBuf {
        self.folder.join("manifests").join(digest.to_string())
    }

    async fn take_a_while(&self) {
        let wait = {
            let mut delays = self.delays.lock().expect("nobody panics with it");
            let most = if delays.random_ratio(1, LONG_WRITES) { 200 } else { 60 };
            Duration::from_millis(delays.random_range(0..=most))
        };
        tokio::time::sleep(wait).await;
    }

    fn write_tag(&self, image: &ImageReference, manifest: &RawManifest) -> std::io::Result<()> {
        // Renamed when complete, so that readers of a digest see all of it. Several processes may push the same
        // manifest.
        let mut partial = tempfile::NamedTempFile::new_in(&self.folder)?;
        partial.write_all(&manifest.bytes)?;
        partial.persist(self.manifest_file(&manifest.digest))?;
        append(&self.folder, image, &manifest.digest)
    }
}

fn append(folder: &Path, image: &ImageReference, digest: &Digest) -> std::io::Result<()> {
    let mut journal =
        std::fs::OpenOptions::new().create(true).append(true).open(journal(folder))?;
    // A single write, so that a crash leaves a whole line or nothing.
    journal.write_all(format!("{image} {digest}\n").as_bytes())
}

/// The journal of all tag writes.
fn journal(folder: &Path) -> PathBuf {
    folder.join("tags")
}

#[async_trait]
impl Registries for KeptRegistry {
    async fn check(
        &self,
        _host: &RegistryHost,
        _credentials: Option<&Credentials>,
        _deadline: Instant,
    ) -> Result<(), RegistryError> {
        Ok(())
    }

    async fn resolve(
        &self,
        image: &ImageReference,
        _credentials: Option<&Credentials>,
        _deadline: Instant,
    ) -> Result<Digest, RegistryError> {
        if let Some(digest) = image.digest() {
            return Ok(digest.clone());
        }
        if image.to_string() == BASE {
            return Ok(format!("sha256:{}", "b".repeat(64)).parse().expect("a digest"));
        }
        let tagged = Self::tag_in(&self.folder, image).or_else(|| self.engine.pushed(image));
        tagged.ok_or_else(|| Self::not_found(image))
    }

    async fn manifest(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<RawManifest, RegistryError> {
        let digest = self.resolve(image, credentials, deadline).await?;
        let kept = std::fs::read(self.manifest_file(&digest)).ok().map(Into::into);
        let bytes = kept.or_else(|| self.engine.manifest(&digest));
        let bytes = bytes.ok_or_else(|| Self::not_found(image))?;
        let media_type = "application/vnd.docker.distribution.manifest.v2+json".to_owned();
        Ok(RawManifest { media_type, bytes, digest })
    }

    async fn put_tag(
        &self,
        image: &ImageReference,
        manifest: &RawManifest,
        _credentials: Option<&Credentials>,
        _deadline: Instant,
    ) -> Result<(), RegistryError> {
        self.take_a_while().await;
        self.write_tag(image, manifest).expect("the registry's folder can be written");
        self.take_a_while().await;
        Ok(())
    }

    async fn put_index(
        &self,
        _image: &ImageReference,
        index: &RawManifest,
        _children: &[Digest],
        _credentials: Option<&Credentials>,
        _deadline: Instant,
    ) -> Result<(), RegistryError> {
        std::fs::write(self.manifest_file(&index.digest), &index.bytes)
            .expect("the registry's folder can be written");
        Ok(())
    }

    async fn delete_tag(
        &self,
        image: &ImageReference,
        _credentials: Option<&Credentials>,
        _deadline: Instant,
    ) -> Result<(), RegistryError> {
        let (host, what) = (image.host().clone(), image.to_string());
        let message = "it deletes no tag".to_owned();
        Err(RegistryError::Unauthorized { host, what, message })
    }
}
