//! Removes what an attempt has in the engine once its steps are over.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::engine::EngineError;
use crate::engine::containers::{Containers, Owner};
use crate::step::images::Images;
use crate::workspace::Workspace;

/// How long stopping, or removing, everything may take.
const WITHIN: Duration = Duration::from_secs(60);

/// The containers, networks, volumes and images of an attempt.
pub(crate) struct Cleanup {
    owner: Owner,
    /// `None` if there are only images.
    containers: Option<Arc<dyn Containers>>,
    images: Images,
}

impl Cleanup {
    pub(crate) fn new(workspace: Workspace, images: Images) -> Self {
        let (owner, containers) = workspace.end();
        Self { owner, containers, images }
    }

    /// Stops the containers. The rest is not in use afterwards.
    pub(crate) async fn stop(&self) {
        if let Some(containers) = &self.containers {
            self.within_time(containers.stop_all(&self.owner)).await;
        }
    }

    /// Removes everything. What the engine does not remove in time is removed by a later sweep.
    pub(crate) async fn run(self) {
        if let Some(containers) = &self.containers {
            self.within_time(containers.remove_all(&self.owner)).await;
        }
        self.images.remove().await;
    }

    async fn within_time(&self, removal: impl Future<Output = Result<(), EngineError>>) {
        let why = match timeout(WITHIN, removal).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the engine took longer than {} s", WITHIN.as_secs()),
        };
        let run = self.owner.run;
        tracing::warn!(run.id = %run, "some of what the steps used stays until the next sweep: {why}");
    }
}
