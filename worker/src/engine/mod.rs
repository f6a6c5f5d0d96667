//! The container engine, as a worker sees it.
//!
//! In: what to build, as values, and a stream of the context. Out: what happened, as events, and an image.
//! Two implementations pass one contract suite: [`docker`] on a real engine and [`scripted`] for tests.

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

pub mod docker;
pub mod measured;
pub mod scripted;

/// What staging tags begin with; a number of the worker and one of the slot follow. No image may ask for such a tag.
pub(crate) const STAGING: &str = "gantry-staging-";

/// A build's context: a plain or gzip tar, `.dockerignore` applied, its root the context's root.
pub type ContextStream = Pin<Box<dyn AsyncRead + Send>>;

/// A container engine with BuildKit.
#[async_trait]
pub trait Engine: Send + Sync {
    /// What the engine is and whether it answers.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`] when it does not.
    async fn info(&self) -> Result<EngineInfo, EngineError>;

    /// Builds one image and keeps it in the engine under `order.image`.
    ///
    /// Events arrive in order until the future resolves; a full channel holds back the engine's log, never another
    /// build. Dropping the future cancels the build: its container is gone within two seconds.
    ///
    /// # Errors
    /// [`BuildError`]: a step's own failure, a refused Dockerfile, or the infrastructure's.
    async fn build(
        &self,
        order: BuildOrder,
        context: ContextStream,
        events: mpsc::Sender<BuildEvent>,
    ) -> Result<BuiltImage, BuildError>;

    /// Gives an image in the engine another name; if something else had it, it has it no more.
    ///
    /// # Errors
    /// [`EngineError`], also when there is no such image.
    async fn tag(&self, image: &ImageReference, name: &ImageReference) -> Result<(), EngineError>;

    /// Pushes an image that [`Engine::build`] left in the engine.
    ///
    /// What the registry then has under that name is for the caller to ask the registry: engines with the containerd
    /// image store do not report a digest, and another process may have taken the name meanwhile.
    ///
    /// # Errors
    /// [`PushError`]: refused credentials, the registry's answer, or the engine gone.
    async fn push(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
    ) -> Result<(), PushError>;

    /// Removes an image by name; one that is not there is no error.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn remove_image(&self, image: &ImageReference) -> Result<(), EngineError>;

    /// What stands in the engine with this installation's label, containers and images, and the processes that a
    /// killed engine left, whoever's they were.
    ///
    /// What a living attempt uses has its label too: the caller compares [`Leftover::owner`] with the leases. A
    /// process is only told when nobody waits for it any more, so builds may go on meanwhile.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn leftovers(&self, installation: &str) -> Result<Vec<Leftover>, EngineError>;

    /// Removes one leftover; one that is gone already is no error.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn remove(&self, leftover: &Leftover) -> Result<(), EngineError>;

    /// Lets the build cache shrink to at most `keep_bytes`, oldest use first. Returns the bytes freed.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn prune_cache(&self, keep_bytes: u64) -> Result<u64, EngineError>;
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// `Docker Engine 20.10.24`.
    pub name: String,
    /// The platform of its machine.
    pub platform: Platform,
    /// Where it keeps images, when that is a path of this machine: its free space is the worker's.
    pub data_root: Option<std::path::PathBuf>,
}

/// One image build, complete: nothing is looked up any more.
#[derive(Debug, Clone)]
pub struct BuildOrder {
    /// The installation, for labels: a worker sweeps only its own.
    pub installation: String,
    /// The run that it belongs to.
    pub run: RunId,
    /// Its attempt, from 1.
    pub attempt: u32,
    /// Its step.
    pub step: StepId,
    /// The Dockerfile's text, each base pinned by digest.
    pub dockerfile: String,
    /// The images that it needs, with the digests that they must have. A build that loads another one is stopped.
    pub bases: BTreeSet<ImageReference>,
    /// One of them reads the Dockerfile: without it, no image does.
    pub has_frontend: bool,
    /// The name under which the engine keeps the result: only this run uses it.
    pub image: ImageReference,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Plain build arguments.
    pub build_args: BTreeMap<String, String>,
    /// Secret build arguments: given as build arguments and as BuildKit secrets of the same id.
    pub secret_build_args: BTreeMap<String, SecretString>,
    /// The stage to build, if not the last.
    pub target: Option<String>,
    /// The platform to build for.
    pub platform: Platform,
    /// Run each step anew.
    pub no_cache: bool,
    /// Keeps equal steps of builds apart that must not share a result: registry, task, trust class and a keyed hash of
    /// the secrets, as a host name of at most 63 letters, digits and `-`. BuildKit runs equal steps of concurrent
    /// builds once, with one build's secrets. Folders of `RUN --mount=type=cache` are kept apart by it too.
    pub isolation: String,
    /// Credentials by registry, for the bases.
    pub registries: BTreeMap<RegistryHost, Credentials>,
}

/// What a build says while it goes on. Texts are as the engine gave them: not yet masked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum BuildEvent {
    /// A vertex of the build graph began. Its number counts from 1 in this build.
    Started {
        vertex: u32,
        /// `[stage-1 2/3] COPY …`.
        name: String,
    },
    /// A vertex ended. Said once; a second time when the engine came back to it and it failed then.
    Completed {
        vertex: u32,
        /// Its result was there already.
        cached: bool,
        /// Why it failed, if it did.
        error: Option<String>,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// Output of a vertex, cut anywhere.
    Output {
        vertex: u32,
        /// Standard output or error.
        stream: OutputStream,
        /// At most 64 KiB.
        bytes: Bytes,
    },
}

pub use gantry_domain::log::OutputStream;

/// A finished build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// The digest of its configuration. It names the content: the configuration lists the layers. With the containerd
    /// image store the engine's own id of the image is another digest, that of the manifest.
    pub config: Digest,
}

/// Something with this installation's label in the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// What it is.
    pub kind: LeftoverKind,
    /// The engine's own id of it; an image's name, where it has one.
    pub id: String,
    /// The run and attempt of its labels; `None` for what cannot be told, like a process of a killed engine.
    pub owner: Option<(RunId, u32)>,
}

/// The kinds of things that a dead attempt may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftoverKind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A build step's process that a killed engine left in its cgroup.
    BuildProcess,
}

/// The engine could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nobody answers, or the connection broke.
    #[error(
        "the container engine at {address} does not answer: is it running, and may this user use it?"
    )]
    Unreachable {
        /// Its socket or URL.
        address: String,
        /// What the transport said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answered that it cannot.
    #[error("the container engine refused to {what}: {message}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Its words.
        message: String,
    },
}

/// Why a build gave no image. Texts are not yet masked.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A step of the Dockerfile ended with a code of its own: the user's failure.
    #[error("{step} ended with exit code {exit_code}")]
    StepFailed {
        /// The vertex's name: `[2/3] RUN make`.
        step: String,
        /// The code of the process.
        exit_code: i64,
    },
    /// The engine refused the build: wrong Dockerfile, missing file in the context, unknown target.
    #[error("the engine refused the build: {message}")]
    Refused {
        /// Its words.
        message: String,
    },
    /// Not the user's fault: another attempt may succeed. A full disk is one.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine has no space left.
    #[error(
        "the engine's disk is full: free space under its data root, or lower `engine.keep`; it said: {message}"
    )]
    DiskFull {
        /// Its words.
        message: String,
    },
    /// A registry or server did not give what the build needs: 5xx, reset, unreachable. Not the user's fault either.
    #[error("the build could not fetch what it needs: {message}")]
    Unavailable {
        /// The engine's words.
        message: String,
    },
    /// The worker could not read the context that it had unpacked to its end. Not the user's fault.
    #[error("the context could not be sent")]
    Context {
        /// What the reader said.
        source: std::io::Error,
    },
}

impl BuildError {
    /// Whether another attempt may succeed with nothing changed.
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

/// Why an image was not pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry refused the credentials.
    #[error(
        "{host} refused the credentials for {image}: check `gantry registry update`; it said: {message}"
    )]
    Unauthorized {
        /// The registry.
        host: RegistryHost,
        /// What was pushed.
        image: ImageReference,
        /// Its words.
        message: String,
    },
    /// The registry could not take it now: 5xx, reset, unreachable.
    #[error("{host} could not take {image}: {message}")]
    Registry {
        /// The registry.
        host: RegistryHost,
        /// What was pushed.
        image: ImageReference,
        /// Its words.
        message: String,
    },
    /// The engine's own.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl PushError {
    /// Whether another attempt may succeed with nothing changed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Registry { .. } | Self::Engine(_) => true,
            Self::Unauthorized { .. } => false,
        }
    }
}
