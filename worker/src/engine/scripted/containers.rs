//! Containers of the scripted engine. Scripts are by the repository of the image, as for builds.

use async_trait::async_trait;
use gantry_domain::image::ImageReference;
use gantry_domain::platform::Platform;
use gantry_ops::secret::Credentials;
use tokio::sync::{mpsc, oneshot};

use super::{Action, Running, ScriptedEngine, gone};
use crate::engine::containers::{
    AttemptResources, AttemptVolume, ContainerError, ContainerOrder, ContainerOutput, Containers,
    Exit, Owner, PullError,
};
use crate::engine::{ContextStream, EngineError};

#[async_trait]
impl Containers for ScriptedEngine {
    async fn prepare(&self, _resources: &AttemptResources) -> Result<(), EngineError> {
        let _here = self.here()?;
        Ok(())
    }

    async fn fill(
        &self,
        _resources: &AttemptResources,
        _volume: &AttemptVolume,
        _archive: ContextStream,
    ) -> Result<(), EngineError> {
        let _here = self.here()?;
        Ok(())
    }

    async fn read(
        &self,
        _resources: &AttemptResources,
        _volume: &AttemptVolume,
        _folder: &str,
    ) -> Result<Option<ContextStream>, EngineError> {
        let _here = self.here()?;
        Ok(None)
    }

    async fn pull(
        &self,
        image: &ImageReference,
        _platform: Option<&Platform>,
        credentials: Option<&Credentials>,
    ) -> Result<(), PullError> {
        self.here()?.given.push((image.host().clone(), credentials.cloned()));
        Ok(())
    }

    async fn run(
        &self,
        order: ContainerOrder,
        started: oneshot::Sender<()>,
        output: mpsc::Sender<ContainerOutput>,
    ) -> Result<Exit, ContainerError> {
        let script = self.next_script(order.image.repository())?;
        self.remember_container(&order);
        let _running = Running::one_more(&self.shared.running);
        let _ignored = started.send(());
        for action in script {
            match action {
                Action::Output(stream, bytes) => {
                    let _gone = output.send(ContainerOutput { stream, bytes }).await;
                }
                Action::Log { .. } => {}
                Action::Wait(gate) => gate.pass().await,
                Action::Work(time) => tokio::time::sleep(time).await,
                Action::Hang => std::future::pending().await,
                Action::Exit(code) => return Ok(Exit { code, out_of_memory: false }),
                Action::Refuse(message) => return Err(ContainerError::Refused { message }),
                Action::FillDisk | Action::GoAway => {
                    self.go_away();
                    return Err(gone().into());
                }
            }
        }
        Ok(Exit { code: 0, out_of_memory: false })
    }

    async fn stop_all(&self, _owner: &Owner) -> Result<(), EngineError> {
        let _here = self.here()?;
        Ok(())
    }

    async fn remove_all(&self, _owner: &Owner) -> Result<(), EngineError> {
        let _here = self.here()?;
        Ok(())
    }
}
