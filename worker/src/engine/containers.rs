//! Containers of steps.
//!
//! In: what to run, as values. Out: its output, and its exit code. Everything that is created bears the labels of its
//! attempt, and [`Containers::remove_all`] removes it.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_domain::id::{RunId, StepId};
use gantry_domain::image::ImageReference;
use gantry_domain::platform::Platform;
use gantry_ops::secret::Credentials;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::{ContextStream, EngineError, OutputStream};

/// An engine that runs containers.
#[async_trait]
pub trait Containers: Send + Sync {
    /// Creates the networks and volumes of an attempt. Fails if an engine cannot guard a network that is to be.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn prepare(&self, resources: &AttemptResources) -> Result<(), EngineError>;

    /// Unpacks a tar, plain or gzipped, into a folder of the attempt's volumes.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn fill(
        &self,
        resources: &AttemptResources,
        volume: &AttemptVolume,
        archive: ContextStream,
    ) -> Result<(), EngineError>;

    /// The files of a folder in one of the attempt's volumes, as a tar whose names begin with the folder's own name.
    /// `None` if there is no such folder.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn read(
        &self,
        resources: &AttemptResources,
        volume: &AttemptVolume,
        folder: &str,
    ) -> Result<Option<ContextStream>, EngineError>;

    /// Pulls an image for a platform; `None` is the engine's own. Dropping the future stops the pull.
    ///
    /// # Errors
    /// [`PullError`].
    async fn pull(
        &self,
        image: &ImageReference,
        platform: Option<&Platform>,
        credentials: Option<&Credentials>,
    ) -> Result<(), PullError>;

    /// Runs a container to its end, and removes it unless it is to be kept. Dropping the future removes it.
    ///
    /// `started` is told when the container runs. Output arrives in order until the future resolves; a full channel
    /// makes the container wait.
    ///
    /// # Errors
    /// [`ContainerError`]: it did not start, or the engine failed. A process that fails is an [`Exit`].
    async fn run(
        &self,
        order: ContainerOrder,
        started: oneshot::Sender<()>,
        output: mpsc::Sender<ContainerOutput>,
    ) -> Result<Exit, ContainerError>;

    /// Stops and removes all containers of an attempt. A second call removes what came since.
    ///
    /// # Errors
    /// [`EngineError`]: some of them may be left.
    async fn stop_all(&self, owner: &Owner) -> Result<(), EngineError>;

    /// Removes all containers, networks and volumes of an attempt. A second call removes what came since.
    ///
    /// # Errors
    /// [`EngineError`]: some of it may be left.
    async fn remove_all(&self, owner: &Owner) -> Result<(), EngineError>;
}

/// The attempt that an object of the engine belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The installation.
    pub installation: String,
    /// The run.
    pub run: RunId,
    /// The attempt, from 1.
    pub attempt: u32,
}

impl Owner {
    /// A name in the engine that no other attempt of any installation has.
    #[must_use]
    pub fn name(&self, suffix: &str) -> String {
        let hash = hex::encode(Sha256::digest(self.installation.as_bytes()));
        let installation = hash.get(..8).unwrap_or_default();
        format!("gantry-{installation}-{}-{}-{suffix}", self.run, self.attempt)
    }
}

/// The networks and volumes that the steps of an attempt share.
#[derive(Debug, Clone)]
pub struct AttemptResources {
    /// The attempt.
    pub owner: Owner,
    /// Its networks.
    pub networks: Vec<AttemptNetwork>,
    /// Its volumes.
    pub volumes: Vec<AttemptVolume>,
}

/// A network of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptNetwork {
    /// Its name in the engine.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Whether it has IPv6 addresses.
    pub ipv6: bool,
    /// Whether its containers are kept away from the engine's machine: from its ports, and from the addresses at which
    /// clouds tell a machine its credentials. Only for the driver `bridge`.
    pub is_guarded: bool,
}

/// A volume of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptVolume {
    /// Its name in the engine.
    pub name: String,
    /// Its folder in containers.
    pub path: String,
}

/// A container to run. `Debug` shows no values of variables.
#[derive(Clone)]
pub struct ContainerOrder {
    /// The attempt.
    pub owner: Owner,
    /// The step, which is also the container's name in its network.
    pub step: StepId,
    /// The image, which the engine has.
    pub image: ImageReference,
    /// The arguments of the image's program; the image's own if empty.
    pub arguments: Vec<String>,
    /// The program, instead of the image's own.
    pub entry_point: Option<String>,
    /// `NAME=VALUE`, in order.
    pub env: Vec<String>,
    /// The user, instead of the image's own.
    pub user: Option<String>,
    /// The working directory, instead of the image's own.
    pub working_directory: Option<String>,
    /// The network by its name in the engine, `host` or `none`; `None` is the engine's default.
    pub network: Option<String>,
    /// The volumes, by their names in the engine.
    pub volumes: Vec<AttemptVolume>,
    /// Ports on the engine's machine, as `docker run -p` takes them.
    pub ports: Vec<String>,
    /// Ports that are open to other containers, as `docker run --expose` takes them.
    pub expose: Vec<String>,
    /// Whether it has all rights on the engine's machine.
    pub privileged: bool,
    /// Whether it stays after its end, until [`Containers::remove_all`].
    pub keep: bool,
    /// What it may use of the machine.
    pub limits: ContainerLimits,
    /// Other options of `docker run`, by their long names without dashes.
    pub options: Vec<(&'static str, String)>,
}

impl fmt::Debug for ContainerOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerOrder")
            .field("owner", &self.owner)
            .field("step", &self.step)
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}

/// What a container may use of the engine's machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ContainerLimits {
    /// Memory in bytes, with what it swaps.
    pub memory: u64,
    /// Processors, for example 1.5; `None` is all of them.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub pids: u32,
}

/// A piece of a container's output, split at arbitrary bytes. Not masked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerOutput {
    /// Standard output or standard error.
    pub stream: OutputStream,
    /// At most 64 KiB.
    pub bytes: Bytes,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code of its first process; 128 + n if signal n killed it.
    pub code: i64,
    /// Whether the kernel killed a process of it because it used more memory than it may.
    pub out_of_memory: bool,
}

/// An image was not pulled. Messages are not masked yet.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum PullError {
    /// The registry has no such image, or does not show it to these credentials.
    #[error("{image} cannot be pulled: {message}")]
    Refused {
        image: ImageReference,
        /// The engine's message.
        message: String,
    },
    /// The registry did not answer, or failed.
    #[error("{image} could not be pulled: {message}")]
    Unavailable {
        image: ImageReference,
        /// The engine's message.
        message: String,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A container did not run. Messages are not masked yet.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The engine refused it because of what was asked for: a missing program, an unknown user, an option.
    #[error("the container does not start: {message}")]
    Refused {
        /// The engine's message.
        message: String,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
