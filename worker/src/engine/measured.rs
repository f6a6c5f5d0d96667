//! Records metrics of an engine's operations.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::platform::Platform;
use gantry_ops::metrics::{self, BuildEnd, EngineOperation};
use gantry_ops::secret::Credentials;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::containers::{
    AttemptResources, AttemptVolume, ContainerError, ContainerOrder, ContainerOutput, Containers,
    Exit, Owner, PullError,
};
use super::{
    BuildError, BuildEvent, BuildOrder, BuiltImage, ContextStream, Engine, EngineError, EngineInfo,
    Leftover, PushError,
};

/// An engine with metrics.
pub struct MeasuredEngine(Arc<dyn Engine>);

impl MeasuredEngine {
    /// Records metrics of `engine`.
    #[must_use]
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self(engine)
    }
}

#[async_trait]
impl Engine for MeasuredEngine {
    async fn ping(&self) -> Result<(), EngineError> {
        timed(EngineOperation::Ping, self.0.ping()).await
    }

    async fn info(&self) -> Result<EngineInfo, EngineError> {
        timed(EngineOperation::Info, self.0.info()).await
    }

    async fn platforms(&self) -> Result<Vec<Platform>, EngineError> {
        timed(EngineOperation::Platforms, self.0.platforms()).await
    }

    async fn build(
        &self,
        order: BuildOrder,
        context: ContextStream,
        events: mpsc::Sender<BuildEvent>,
    ) -> Result<BuiltImage, BuildError> {
        let mut watched = WatchedBuild { end: BuildEnd::Stopped };
        let built = timed(EngineOperation::Build, self.0.build(order, context, events)).await;
        watched.end = match &built {
            Ok(_) => BuildEnd::Built,
            Err(error) if error.is_transient() => BuildEnd::Unavailable,
            Err(_) => BuildEnd::Failed,
        };
        built
    }

    async fn tag(&self, image: &ImageReference, name: &ImageReference) -> Result<(), EngineError> {
        timed(EngineOperation::Tag, self.0.tag(image, name)).await
    }

    async fn image_id(&self, image: &ImageReference) -> Result<Option<Digest>, EngineError> {
        timed(EngineOperation::ImageId, self.0.image_id(image)).await
    }

    async fn push(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
    ) -> Result<(), PushError> {
        timed(EngineOperation::Push, self.0.push(image, credentials)).await
    }

    async fn remove_image(&self, image: &ImageReference) -> Result<(), EngineError> {
        timed(EngineOperation::RemoveImage, self.0.remove_image(image)).await
    }

    async fn leftovers(&self, installation: &str) -> Result<Vec<Leftover>, EngineError> {
        timed(EngineOperation::Leftovers, self.0.leftovers(installation)).await
    }

    async fn remove(&self, leftover: &Leftover) -> Result<(), EngineError> {
        timed(EngineOperation::Remove, self.0.remove(leftover)).await
    }

    async fn prune_cache(&self, keep_bytes: u64) -> Result<u64, EngineError> {
        timed(EngineOperation::PruneCache, self.0.prune_cache(keep_bytes)).await
    }
}

/// Containers with metrics.
pub struct MeasuredContainers(Arc<dyn Containers>);

impl MeasuredContainers {
    /// Records metrics of `containers`.
    #[must_use]
    pub fn new(containers: Arc<dyn Containers>) -> Self {
        Self(containers)
    }
}

#[async_trait]
impl Containers for MeasuredContainers {
    async fn prepare(&self, resources: &AttemptResources) -> Result<(), EngineError> {
        timed(EngineOperation::Prepare, self.0.prepare(resources)).await
    }

    async fn fill(
        &self,
        resources: &AttemptResources,
        volume: &AttemptVolume,
        archive: ContextStream,
    ) -> Result<(), EngineError> {
        timed(EngineOperation::Fill, self.0.fill(resources, volume, archive)).await
    }

    async fn read(
        &self,
        resources: &AttemptResources,
        volume: &AttemptVolume,
        folder: &str,
    ) -> Result<Option<ContextStream>, EngineError> {
        timed(EngineOperation::Read, self.0.read(resources, volume, folder)).await
    }

    async fn pull(
        &self,
        image: &ImageReference,
        platform: Option<&Platform>,
        credentials: Option<&Credentials>,
    ) -> Result<(), PullError> {
        timed(EngineOperation::Pull, self.0.pull(image, platform, credentials)).await
    }

    async fn run(
        &self,
        order: ContainerOrder,
        started: oneshot::Sender<()>,
        output: mpsc::Sender<ContainerOutput>,
    ) -> Result<Exit, ContainerError> {
        let (says_started, has_started) = oneshot::channel();
        let running = timed(EngineOperation::Run, self.0.run(order, says_started, output));
        let starting = async {
            timed(EngineOperation::Start, has_started).await?;
            // Whoever waits may have gone.
            let _ignored = started.send(());
            Ok::<(), oneshot::error::RecvError>(())
        };
        let (exit, _not_started) = tokio::join!(running, starting);
        exit
    }

    async fn stop_all(&self, owner: &Owner) -> Result<(), EngineError> {
        timed(EngineOperation::StopAll, self.0.stop_all(owner)).await
    }

    async fn remove_all(&self, owner: &Owner) -> Result<(), EngineError> {
        timed(EngineOperation::RemoveAll, self.0.remove_all(owner)).await
    }
}

/// Counts a build as stopped if it is dropped before its end.
struct WatchedBuild {
    end: BuildEnd,
}

impl Drop for WatchedBuild {
    fn drop(&mut self) {
        metrics::build_ended(self.end);
    }
}

async fn timed<T, E>(
    operation: EngineOperation,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let began = Instant::now();
    let done = work.await;
    metrics::engine(operation, began.elapsed(), done.is_err());
    done
}
