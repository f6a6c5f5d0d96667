//! Registries in memory, with base images, moved tags, and failures on demand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use gantry_domain::image::{Digest, ImageReference, RegistryHost};
use gantry_ops::secret::{Credentials, ExposeSecret as _};
use gantry_remote::registries::Registries;
use gantry_remote::registry::{RawManifest, RegistryError};
use gantry_worker::engine::scripted::ScriptedEngine;
use tokio::time::Instant;

/// Registries that accept what a scripted engine pushed.
#[derive(Clone)]
pub struct MemoryRegistries {
    engine: ScriptedEngine,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    tags: BTreeMap<ImageReference, Digest>,
    late_write: Option<(ImageReference, Digest)>,
    password: Option<String>,
    failures: VecDeque<u16>,
}

impl MemoryRegistries {
    /// Registries that contain only what `engine` pushes.
    #[must_use]
    pub fn new(engine: ScriptedEngine) -> Self {
        Self { engine, state: Arc::default() }
    }

    /// Adds an image with this digest.
    pub fn have(&self, image: &str, digest: &Digest) {
        let image = image.parse().expect("an image reference");
        self.state().tags.insert(image, digest.clone());
    }

    /// Requires this password from now on.
    pub fn demand(&self, password: &str) {
        self.state().password = Some(password.to_owned());
    }

    /// Answers the next requests with these statuses.
    pub fn fail(&self, statuses: impl IntoIterator<Item = u16>) {
        self.state().failures.extend(statuses);
    }

    /// The current digest of a tag.
    #[must_use]
    pub fn tag(&self, image: &str) -> Option<Digest> {
        let image = image.parse().expect("an image reference");
        self.state().tags.get(&image).cloned()
    }

    /// After the next write of this tag, writes this digest: the late write of an attempt that counted as dead.
    pub fn overwrite_next(&self, image: &str, digest: &Digest) {
        let image = image.parse().expect("an image reference");
        self.state().late_write = Some((image, digest.clone()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(
        &self,
        host: &RegistryHost,
        what: &str,
        credentials: Option<&Credentials>,
    ) -> Result<MutexGuard<'_, State>, RegistryError> {
        let mut state = self.state();
        let given = credentials.map(|credentials| credentials.password.expose_secret().to_owned());
        if let Some(status) = state.failures.pop_front() {
            return Err(RegistryError::Unavailable {
                host: host.clone(),
                what: what.to_owned(),
                status: status.try_into().expect("a status"),
                retry_after: None,
            });
        }
        if state.password.is_some() && state.password != given {
            return Err(RegistryError::Unauthorized {
                host: host.clone(),
                what: what.to_owned(),
                message: "authentication required".to_owned(),
            });
        }
        Ok(state)
    }
}

#[async_trait]
impl Registries for MemoryRegistries {
    async fn check(
        &self,
        host: &RegistryHost,
        credentials: Option<&Credentials>,
        _deadline: Instant,
    ) -> Result<(), RegistryError> {
        self.answer(host, "its API", credentials).map(drop)
    }

    async fn resolve(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
        _deadline: Instant,
    ) -> Result<Digest, RegistryError> {
        let what = image.to_string();
        let state = self.answer(image.host(), &what, credentials)?;
        if let Some(digest) = image.digest() {
            return Ok(digest.clone());
        }
        state
            .tags
            .get(image)
            .cloned()
            .or_else(|| self.engine.pushed(image))
            .ok_or_else(|| RegistryError::NotFound { host: image.host().clone(), what })
    }

    async fn manifest(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<RawManifest, RegistryError> {
        let digest = self.resolve(image, credentials, deadline).await?;
        let bytes = self.engine.manifest(&digest).ok_or_else(|| RegistryError::NotFound {
            host: image.host().clone(),
            what: image.to_string(),
        })?;
        let media_type = "application/vnd.docker.distribution.manifest.v2+json".to_owned();
        Ok(RawManifest { media_type, bytes, digest })
    }

    async fn put_tag(
        &self,
        image: &ImageReference,
        manifest: &RawManifest,
        credentials: Option<&Credentials>,
        _deadline: Instant,
    ) -> Result<(), RegistryError> {
        let mut state = self.answer(image.host(), &image.to_string(), credentials)?;
        state.tags.insert(image.clone(), manifest.digest.clone());
        if let Some((image, digest)) = state.late_write.take_if(|(late, _)| late == image) {
            state.tags.insert(image, digest);
        }
        Ok(())
    }

    async fn delete_tag(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
        _deadline: Instant,
    ) -> Result<(), RegistryError> {
        let mut state = self.answer(image.host(), &image.to_string(), credentials)?;
        state.tags.remove(image);
        Ok(())
    }
}
