//! The container engine.
//!
//! In: what to build, as values, and a stream of the context. Out: events, and an image. Two implementations pass one
//! contract suite: [`docker`] on a real engine, and [`scripted`] for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_domain::id::{RunId, StepId};
use gantry_domain::image::{Digest, ImageReference, RegistryHost};
use gantry_domain::platform::Platform;
use gantry_ops::secret::{Credentials, SecretString};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;

pub mod containers;
pub mod docker;
pub mod measured;
pub mod scripted;
pub(crate) mod size;

/// The host in the names of images that only this engine has. Whoever knows a run's id can guess them, so no name that a
/// user gives leads to one.
pub(crate) const LOCAL_HOST: &str = "gantry.local";

/// The prefix of staging tags, followed by a number of the worker and one of the slot. No image of a user may have such
/// a tag.
pub(crate) const STAGING: &str = "gantry-staging-";

/// A build's context: a plain or gzipped tar after `.dockerignore`, with the context's root as its root.
pub type ContextStream = Pin<Box<dyn AsyncRead + Send>>;

/// A container engine with BuildKit.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Waits until the engine answers, for a few seconds at most.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`].
    async fn ping(&self) -> Result<(), EngineError>;

    /// Returns the engine's properties. An engine takes much longer for this than for [`Self::ping`].
    ///
    /// # Errors
    /// [`EngineError::Unreachable`] if it does not answer.
    async fn info(&self) -> Result<EngineInfo, EngineError>;

    /// The platforms that it builds for and whose programs it executes now: its own first, then those that it emulates.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn platforms(&self) -> Result<Vec<Platform>, EngineError>;

    /// Builds one image and stores it in the engine under `order.image`.
    ///
    /// Events arrive in order until the future resolves. A full channel applies backpressure to the log of this build
    /// only. Dropping the future cancels the build, and its container is gone within two seconds.
    ///
    /// # Errors
    /// [`BuildError`]: a step failed, the Dockerfile was refused, or the infrastructure failed.
    async fn build(
        &self,
        order: BuildOrder,
        context: ContextStream,
        events: mpsc::Sender<BuildEvent>,
    ) -> Result<BuiltImage, BuildError>;

    /// Gives an image in the engine another name. An image that had this name loses it.
    ///
    /// # Errors
    /// [`EngineError`], also if there is no such image.
    async fn tag(&self, image: &ImageReference, name: &ImageReference) -> Result<(), EngineError>;

    /// The engine's id of an image, by name or digest: the digest of its configuration or, with the containerd image store,
    /// of its manifest. `None` if there is no such image.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn image_id(&self, image: &ImageReference) -> Result<Option<Digest>, EngineError>;

    /// Pushes an image that [`Engine::build`] stored in the engine.
    ///
    /// The caller must ask the registry what has that name afterwards: engines with the containerd image store do not
    /// report a digest, and another process may have moved the name meanwhile.
    ///
    /// # Errors
    /// [`PushError`]: the credentials were refused, the registry failed, or the engine did not answer.
    async fn push(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
    ) -> Result<(), PushError>;

    /// Removes an image by name; a missing image is no error.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn remove_image(&self, image: &ImageReference) -> Result<(), EngineError>;

    /// Lists the containers, images, networks and volumes with this installation's label, and all processes that a killed engine left
    /// behind, no matter who started them.
    ///
    /// Objects of running attempts have the label too, so the caller compares [`Leftover::owner`] with the leases.
    /// Processes are only listed if nothing waits for them, so builds may run meanwhile.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn leftovers(&self, installation: &str) -> Result<Vec<Leftover>, EngineError>;

    /// Removes one leftover; a missing one is no error.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn remove(&self, leftover: &Leftover) -> Result<(), EngineError>;

    /// Shrinks the build cache to at most `keep_bytes`, least recently used first. Returns the freed bytes.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn prune_cache(&self, keep_bytes: u64) -> Result<u64, EngineError>;
}

/// An engine's properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// Like `Docker Engine 20.10.24`.
    pub name: String,
    /// The platform of its machine.
    pub platform: Platform,
    /// Where it stores images, if that is a path on this machine, so that its free space can be checked.
    pub data_root: Option<std::path::PathBuf>,
}

/// A complete order for one image build.
#[derive(Debug, Clone)]
pub struct BuildOrder {
    /// The installation, for labels: a worker removes only leftovers of its own installation.
    pub installation: String,
    /// The run.
    pub run: RunId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The step.
    pub step: StepId,
    /// The text of the Dockerfile, with each base pinned by digest.
    pub dockerfile: String,
    /// The images that it may load, with their digests. A build that loads another one is stopped.
    pub bases: BTreeSet<ImageReference>,
    /// Whether one of them is only in this engine, under a name that no one else uses: an earlier step has built it.
    pub has_local_base: bool,
    /// Whether one of them is a frontend that reads the Dockerfile.
    pub has_frontend: bool,
    /// The name of the result in the engine, used only by this run.
    pub image: ImageReference,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Plain build arguments.
    pub build_args: BTreeMap<String, String>,
    /// Secret build arguments: passed both as build arguments and as BuildKit secrets with the same ids.
    pub secret_build_args: BTreeMap<String, SecretString>,
    /// BuildKit secrets by id, beside those.
    pub secrets: BTreeMap<String, SecretString>,
    /// Attributes of the Dockerfile frontend that the user chose, by its names, such as `add-hosts`.
    pub frontend: BTreeMap<String, String>,
    /// The stage to build; the last one if `None`.
    pub target: Option<String>,
    /// The platform to build for.
    pub platform: Platform,
    /// Whether every step is executed again.
    pub no_cache: bool,
    /// Where a registry keeps the layers of this build for later ones, on any engine; what is there is used.
    pub cache: Option<ImageReference>,
    /// Separates equal steps of builds that must not share a result: registry, task, trust class and a keyed hash of the
    /// secrets, in the form of a host name of at most 63 letters, digits and `-`. BuildKit runs equal steps of concurrent
    /// builds once, with the secrets of one of them. Folders of `RUN --mount=type=cache` are separated by it too.
    pub isolation: String,
    /// The credentials for bases, by registry.
    pub registries: BTreeMap<RegistryHost, Credentials>,
}

/// Progress of a build. Texts come from the engine and are not masked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum BuildEvent {
    /// A vertex of the build graph began. Vertices of a build are numbered from 1.
    Started {
        vertex: u32,
        /// Like `[stage-1 2/3] COPY …`.
        name: String,
    },
    /// A vertex ended. Reported once, or again if the engine ran it again and it failed then.
    Completed {
        vertex: u32,
        /// Its result was cached.
        cached: bool,
        /// The error, if it failed.
        error: Option<String>,
        /// Its duration in milliseconds.
        duration_ms: u64,
    },
    /// Output of a vertex, split at arbitrary bytes.
    Output {
        vertex: u32,
        /// Standard output or standard error.
        stream: OutputStream,
        /// At most 64 KiB.
        bytes: Bytes,
    },
}

pub use gantry_domain::log::OutputStream;

/// A finished build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// The digest of the image's configuration. It identifies the content, because the configuration lists the layers.
    /// With the containerd image store, the engine's id of the image is the manifest's digest instead.
    pub config: Digest,
    /// Why the registry does not keep its layers, if it was to.
    pub uncached: Option<String>,
}

/// An object in the engine with this installation's label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The kind of object.
    pub kind: LeftoverKind,
    /// The engine's id of it; for an image its name, if it has one.
    pub id: String,
    /// The run and attempt in its labels; `None` if unknown, as for a process of a killed engine.
    pub owner: Option<(RunId, u32)>,
}

/// The kinds of objects that a dead attempt may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftoverKind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// A process of a build step that a killed engine left in its cgroup.
    BuildProcess,
}

/// A request to the engine failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine does not answer, or the connection was lost.
    #[error(
        "the container engine at {address} does not answer: is it running, and may this user use it?"
    )]
    Unreachable {
        /// The engine's socket or URL.
        address: String,
        /// The transport's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine refused the request.
    #[error("the container engine refused to {what}: {message}")]
    Refused {
        /// What was requested.
        what: &'static str,
        /// The engine's message.
        message: String,
    },
}

/// A build failed. Messages are not masked yet.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A step of the Dockerfile exited with an error, which is the user's failure.
    #[error("{step} ended with exit code {exit_code}")]
    StepFailed {
        /// The vertex's name, like `[2/3] RUN make`.
        step: String,
        /// The exit code of the process.
        exit_code: i64,
    },
    /// The engine refused the build: the Dockerfile is invalid, a file is missing in the context, or the stage does not
    /// exist.
    #[error("the engine refused the build: {message}")]
    Refused {
        /// The engine's message.
        message: String,
    },
    /// The engine failed, which is not the user's fault: another attempt may succeed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine's disk is full.
    #[error(
        "the engine's disk is full: free space under its data root, or lower `engine.keep`; it said: {message}"
    )]
    DiskFull {
        /// The engine's message.
        message: String,
    },
    /// A registry or server could not provide what the build needs: 5xx, connection reset, unreachable. Not the user's
    /// fault either.
    #[error("the build could not fetch what it needs: {message}")]
    Unavailable {
        /// The engine's message.
        message: String,
    },
    /// Reading the unpacked context failed. Not the user's fault.
    #[error("the context could not be sent")]
    Context {
        /// The reader's error.
        source: std::io::Error,
    },
}

impl BuildError {
    /// Whether another attempt may succeed without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Engine(_)
            | Self::DiskFull { .. }
            | Self::Unavailable { .. }
            | Self::Context { .. } => true,
            Self::StepFailed { .. } | Self::Refused { .. } => false,
        }
    }
}

/// A push failed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry refused the credentials.
    #[error(
        "{host} refused the credentials for {image}: check those of the registry (`gantry registry update`) or of the task (`gantry task credential`); it said: {message}"
    )]
    Unauthorized {
        /// The registry.
        host: RegistryHost,
        /// The pushed image.
        image: ImageReference,
        /// The registry's message.
        message: String,
    },
    /// The registry is temporarily unavailable: 5xx, connection reset, unreachable.
    #[error("{host} could not take {image}: {message}")]
    Registry {
        /// The registry.
        host: RegistryHost,
        /// The pushed image.
        image: ImageReference,
        /// The registry's message.
        message: String,
    },
    /// An error of the engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl PushError {
    /// Whether another attempt may succeed without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Registry { .. } | Self::Engine(_) => true,
            Self::Unauthorized { .. } => false,
        }
    }
}
