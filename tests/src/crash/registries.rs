//! Registries; the process may crash after it has put the first tag.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_domain::image::{Digest, ImageReference, RegistryHost};
use gantry_ops::secret::Credentials;
use gantry_remote::registries::Registries;
use gantry_remote::registry::{RawManifest, RegistryError};
use tokio::time::Instant;

use super::Crash;
use super::point::When;

pub(super) fn before(crash: Crash, registries: impl Registries + 'static) -> Arc<dyn Registries> {
    Arc::new(Doomed { crash, registries })
}

struct Doomed<R> {
    crash: Crash,
    registries: R,
}

#[async_trait]
impl<R: Registries> Registries for Doomed<R> {
    async fn check(
        &self,
        host: &RegistryHost,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<(), RegistryError> {
        self.registries.check(host, credentials, deadline).await
    }

    async fn resolve(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<Digest, RegistryError> {
        self.registries.resolve(image, credentials, deadline).await
    }

    async fn manifest(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<RawManifest, RegistryError> {
        self.registries.manifest(image, credentials, deadline).await
    }

    async fn put_tag(
        &self,
        image: &ImageReference,
        manifest: &RawManifest,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<(), RegistryError> {
        self.registries.put_tag(image, manifest, credentials, deadline).await?;
        self.crash.crash_if(|when| matches!(when, When::TagPut));
        Ok(())
    }

    async fn put_index(
        &self,
        image: &ImageReference,
        index: &RawManifest,
        children: &[Digest],
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<(), RegistryError> {
        self.registries.put_index(image, index, children, credentials, deadline).await
    }

    async fn delete_tag(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<(), RegistryError> {
        self.registries.delete_tag(image, credentials, deadline).await
    }
}
