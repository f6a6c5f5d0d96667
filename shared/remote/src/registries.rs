//! The registries that a worker reads bases from and moves tags in.

use async_trait::async_trait;
use gantry_domain::image::{Digest, ImageReference, RegistryHost};
use gantry_ops::secret::Credentials;
use tokio::time::Instant;

use crate::http::OutboundClient;
use crate::registry::{RawManifest, RegistryClient, RegistryError};

/// Registries, by host. Requests are retried until their deadline while the registry is unavailable.
#[async_trait]
pub trait Registries: Send + Sync {
    /// Checks that the registry answers and accepts the credentials.
    ///
    /// # Errors
    /// [`RegistryError::Unauthorized`] if it does not accept them.
    async fn check(
        &self,
        host: &RegistryHost,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<(), RegistryError>;

    /// The current digest of the image's tag.
    ///
    /// # Errors
    /// [`RegistryError`].
    async fn resolve(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<Digest, RegistryError>;

    /// The manifest or index of an image.
    ///
    /// # Errors
    /// [`RegistryError`].
    async fn manifest(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<RawManifest, RegistryError>;

    /// Points the tag of `image` to a manifest in its repository.
    ///
    /// # Errors
    /// [`RegistryError`].
    async fn put_tag(
        &self,
        image: &ImageReference,
        manifest: &RawManifest,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<(), RegistryError>;

    /// Stores an index in the repository of `image` under its digest, if the registry still has its children.
    ///
    /// # Errors
    /// [`RegistryError`].
    async fn put_index(
        &self,
        image: &ImageReference,
        index: &RawManifest,
        children: &[Digest],
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<(), RegistryError>;

    /// Removes the tag of `image`, if the registry supports it; the manifest stays.
    ///
    /// # Errors
    /// [`RegistryError`].
    async fn delete_tag(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<(), RegistryError>;
}

/// Registries through the guarded client.
#[derive(Debug, Clone)]
pub struct RemoteRegistries {
    http: OutboundClient,
}

impl RemoteRegistries {
    /// Uses `http`.
    #[must_use]
    pub fn new(http: OutboundClient) -> Self {
        Self { http }
    }

    fn client(&self, host: &RegistryHost, credentials: Option<&Credentials>) -> RegistryClient {
        RegistryClient::new(self.http.clone(), host.clone(), credentials.cloned())
    }
}

#[async_trait]
impl Registries for RemoteRegistries {
    async fn check(
        &self,
        host: &RegistryHost,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<(), RegistryError> {
        self.client(host, credentials).check(deadline).await
    }

    async fn resolve(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<Digest, RegistryError> {
        self.client(image.host(), credentials).resolve(image, deadline).await
    }

    async fn manifest(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<RawManifest, RegistryError> {
        self.client(image.host(), credentials).manifest(image, deadline).await
    }

    async fn put_tag(
        &self,
        image: &ImageReference,
        manifest: &RawManifest,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<(), RegistryError> {
        let Some(tag) = image.tag() else { return Ok(()) };
        self.client(image.host(), credentials)
            .put_manifest(image.repository(), tag, manifest, deadline)
            .await
    }

    async fn put_index(
        &self,
        image: &ImageReference,
        index: &RawManifest,
        children: &[Digest],
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<(), RegistryError> {
        self.client(image.host(), credentials)
            .put_index(image.repository(), index, children, deadline)
            .await
    }

    async fn delete_tag(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<(), RegistryError> {
        let Some(tag) = image.tag() else { return Ok(()) };
        self.client(image.host(), credentials).delete_tag(image.repository(), tag, deadline).await
    }
}
