//! A real engine that says it builds for some platforms only, so that what it does not build is another engine's.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::platform::Platform;
use gantry_ops::secret::Credentials;
use gantry_worker::engine::{
    BuildError, BuildEvent, BuildOrder, BuiltImage, ContextStream, Engine, EngineError, EngineInfo,
    Leftover, PushError,
};
use tokio::sync::mpsc;

/// The engine, and what it says it builds for.
pub struct NarrowEngine {
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// The platforms.
    pub platforms: Vec<Platform>,
}

#[async_trait]
impl Engine for NarrowEngine {
    async fn ping(&self) -> Result<(), EngineError> {
        self.engine.ping().await
    }

    async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.engine.info().await
    }

    async fn platforms(&self) -> Result<Vec<Platform>, EngineError> {
        Ok(self.platforms.clone())
    }

    async fn build(
        &self,
        order: BuildOrder,
        context: ContextStream,
        events: mpsc::Sender<BuildEvent>,
    ) -> Result<BuiltImage, BuildError> {
        assert!(self.platforms.contains(&order.platform), "it was given {}", order.platform);
        self.engine.build(order, context, events).await
    }

    async fn tag(&self, image: &ImageReference, name: &ImageReference) -> Result<(), EngineError> {
        self.engine.tag(image, name).await
    }

    async fn image_id(&self, image: &ImageReference) -> Result<Option<Digest>, EngineError> {
        self.engine.image_id(image).await
    }

    async fn push(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
    ) -> Result<(), PushError> {
        self.engine.push(image, credentials).await
    }

    async fn remove_image(&self, image: &ImageReference) -> Result<(), EngineError> {
        self.engine.remove_image(image).await
    }

    async fn leftovers(&self, installation: &str) -> Result<Vec<Leftover>, EngineError> {
        self.engine.leftovers(installation).await
    }

    async fn remove(&self, leftover: &Leftover) -> Result<(), EngineError> {
        self.engine.remove(leftover).await
    }

    async fn prune_cache(&self, keep_bytes: u64) -> Result<u64, EngineError> {
        self.engine.prune_cache(keep_bytes).await
    }
}
