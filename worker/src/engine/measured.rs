//! Records metrics of an engine's operations.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use gantry_domain::image::ImageReference;
use gantry_ops::metrics::{self, BuildEnd, EngineOperation};
use gantry_ops::secret::Credentials;
use tokio::sync::mpsc;
use tokio::time::Instant;

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
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        timed(EngineOperation::Info, self.0.info()).await
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
