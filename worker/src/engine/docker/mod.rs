//! A Docker Engine, version 20.10 or later.
//!
//! Builds use its BuildKit in a session of gantry's own (`build`, `session`), everything else its HTTP API. The
//! `docker` program is never called.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bollard::auth::DockerCredentials;
use gantry_domain::image::{Digest, ImageReference, RegistryHost};
use gantry_domain::platform::Platform;
use gantry_ops::secret::{Credentials, ExposeSecret as _};
use tokio::sync::{mpsc, oneshot};

use self::archives::Archives;
use self::guard::Guard;
use self::transport::Socket;
use super::containers::{
    AttemptResources, AttemptVolume, ContainerError, ContainerOrder, ContainerOutput, Containers,
    Exit, Owner, PullError,
};
use super::{
    BuildError, BuildEvent, BuildOrder, BuiltImage, ContextStream, Engine, EngineError, EngineInfo,
    Leftover, LeftoverKind, PushError,
};

mod api;
mod archives;
mod build;
mod cache;
mod container_body;
mod containers;
mod failure;
mod guard;
mod labels;
mod layers;
mod orphans;
mod platforms;
mod progress;
mod push;
mod session;
mod transport;

/// A Docker Engine on this machine.
#[derive(Debug, Clone)]
pub struct DockerEngine {
    socket: Socket,
    /// Created by the first build.
    archives: Arc<OnceLock<Archives>>,
    guard: Arc<Guard>,
}

impl DockerEngine {
    /// The engine at `unix:///path` or `/path`. It need not be running yet.
    ///
    /// # Errors
    /// [`EngineError::Refused`] for an address of another form.
    pub fn connect(address: &str) -> Result<Self, EngineError> {
        let socket = Socket::parse(address)?;
        Ok(Self { socket, archives: Arc::default(), guard: Arc::default() })
    }

    fn archives(&self) -> &Archives {
        self.archives.get_or_init(|| {
            let (archives, removal) = Archives::of(self.socket.clone());
            tokio::spawn(removal);
            archives
        })
    }

    async fn orphans(&self) -> Result<Vec<Leftover>, EngineError> {
        let Some(data_root) = api::info(&self.socket).await?.data_root else {
            return Ok(Vec::new());
        };
        let found = blocking(move || Ok(orphans::find(&data_root))).await;
        let found = found.map_err(|error| self.socket.unreachable(error))?;
        let leftover = |id| Leftover { kind: LeftoverKind::BuildProcess, id, owner: None };
        Ok(found.into_iter().map(leftover).collect())
    }

    async fn kill_orphan(&self, id: &str) -> Result<(), EngineError> {
        let Some(data_root) = api::info(&self.socket).await?.data_root else { return Ok(()) };
        let id = id.to_owned();
        blocking(move || orphans::kill(&data_root, &id)).await.map_err(|error| {
            EngineError::Refused { what: "end a build step's process", message: error.to_string() }
        })
    }
}

#[async_trait]
impl Engine for DockerEngine {
    async fn ping(&self) -> Result<(), EngineError> {
        api::ping(&self.socket).await
    }

    async fn info(&self) -> Result<EngineInfo, EngineError> {
        api::info(&self.socket).await
    }

    async fn platforms(&self) -> Result<Vec<Platform>, EngineError> {
        platforms::platforms(&self.socket).await
    }

    async fn build(
        &self,
        order: BuildOrder,
        context: ContextStream,
        events: mpsc::Sender<BuildEvent>,
    ) -> Result<BuiltImage, BuildError> {
        build::build(&self.socket, self.archives(), order, context, events).await
    }

    async fn tag(&self, image: &ImageReference, name: &ImageReference) -> Result<(), EngineError> {
        api::tag(&self.socket, image, name).await
    }

    async fn image_id(&self, image: &ImageReference) -> Result<Option<Digest>, EngineError> {
        api::image_id(&self.socket, image).await
    }

    async fn push(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
    ) -> Result<(), PushError> {
        push::push(&self.socket, image, credentials).await
    }

    async fn remove_image(&self, image: &ImageReference) -> Result<(), EngineError> {
        api::remove_image(&self.socket, &image.to_string()).await
    }

    async fn leftovers(&self, installation: &str) -> Result<Vec<Leftover>, EngineError> {
        let mut found = api::containers(&self.socket, installation).await?;
        found.extend(api::images(&self.socket, installation).await?);
        // After the containers that use them.
        found.extend(api::networks(&self.socket, installation).await?);
        found.extend(api::volumes(&self.socket, installation).await?);
        found.extend(self.orphans().await?);
        Ok(found)
    }

    async fn remove(&self, leftover: &Leftover) -> Result<(), EngineError> {
        match leftover.kind {
            LeftoverKind::Container => api::remove_container(&self.socket, &leftover.id).await,
            LeftoverKind::Image => api::remove_left_image(&self.socket, &leftover.id).await,
            LeftoverKind::Network => containers::remove_network(&self.socket, &leftover.id).await,
            LeftoverKind::Volume => containers::remove_volume(&self.socket, &leftover.id).await,
            LeftoverKind::BuildProcess => self.kill_orphan(&leftover.id).await,
        }
    }

    async fn prune_cache(&self, keep_bytes: u64) -> Result<u64, EngineError> {
        cache::prune(&self.socket, keep_bytes).await
    }
}

#[async_trait]
impl Containers for DockerEngine {
    async fn prepare(&self, resources: &AttemptResources) -> Result<(), EngineError> {
        containers::prepare(&self.socket, &self.guard, resources).await
    }

    async fn fill(
        &self,
        resources: &AttemptResources,
        volume: &AttemptVolume,
        archive: ContextStream,
    ) -> Result<(), EngineError> {
        containers::fill(&self.socket, resources, volume, archive).await
    }

    async fn read(
        &self,
        resources: &AttemptResources,
        volume: &AttemptVolume,
        folder: &str,
    ) -> Result<Option<ContextStream>, EngineError> {
        containers::read(&self.socket, resources, volume, folder).await
    }

    async fn pull(
        &self,
        image: &ImageReference,
        platform: Option<&Platform>,
        credentials: Option<&Credentials>,
    ) -> Result<(), PullError> {
        containers::pull(&self.socket, image, platform, credentials).await
    }

    async fn run(
        &self,
        order: ContainerOrder,
        started: oneshot::Sender<()>,
        output: mpsc::Sender<ContainerOutput>,
    ) -> Result<Exit, ContainerError> {
        containers::run(&self.socket, &order, started, output).await
    }

    async fn stop_all(&self, owner: &Owner) -> Result<(), EngineError> {
        containers::stop_all(&self.socket, owner).await
    }

    async fn remove_all(&self, owner: &Owner) -> Result<(), EngineError> {
        containers::remove_all(&self.socket, owner).await
    }
}

/// Credentials as the engine's API takes them. An engine with the containerd image store compares the server with the one
/// that it connects to.
fn auth(host: &RegistryHost, credentials: &Credentials) -> DockerCredentials {
    let secret = Some(credentials.password.expose_secret().to_owned());
    let serveraddress = Some(host.docker_server().to_owned());
    match credentials.identity_token() {
        Some(_) => DockerCredentials {
            identitytoken: secret,
            serveraddress,
            ..DockerCredentials::default()
        },
        None => DockerCredentials {
            username: Some(credentials.username.clone()),
            password: secret,
            serveraddress,
            ..DockerCredentials::default()
        },
    }
}

/// 128 random bits in hexadecimal, for what no two builds may share.
fn random_id() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}
