//! A checked task: what its steps do, and in which order.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_domain::id::StepId;
use gantry_domain::image::ImageReference;

use super::options::Given;
use super::position::Position;
use super::traced::Traced;

/// A checked task file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Task {
    /// In the order of the file. Each step runs after the steps that it names.
    pub steps: Vec<Step>,
    /// The networks that the steps use.
    pub networks: Vec<Network>,
    /// The volumes that the steps mount.
    pub volumes: Vec<Volume>,
    /// The secrets that the file names.
    pub secrets: Vec<SecretReference>,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name, unique in the task.
    pub id: StepId,
    /// Where it is written.
    pub position: Position,
    /// The steps that must have ended well before it begins, as places in [`Task::steps`], in order, each once.
    pub after: Vec<usize>,
    /// How long it waits before it begins. It counts against the run's time limit only.
    pub start_delay: Duration,
    /// The time limit of all its attempts together.
    pub timeout: Duration,
    /// Whether a failure counts as success.
    pub ignore_errors: bool,
    /// What it does.
    pub work: StepWork,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepWork {
    /// Runs a command in a container.
    Cmd(Box<Cmd>),
    /// Builds an image.
    Build(Box<Build>),
    /// Pushes images, one after the other; each is here once.
    Push(Vec<ImageReference>),
}

/// A command in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cmd {
    /// The image, as written or as its alias says.
    pub image: Traced,
    /// The arguments of the container.
    pub arguments: Vec<Traced>,
    /// Its container.
    pub container: Container,
    /// How often it runs.
    pub attempts: Attempts,
    /// How its image is pulled before it runs; `None`: only if the engine does not have it.
    pub pull: Option<Pull>,
}

/// A build of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The image's names.
    pub tags: Vec<ImageReference>,
    /// The Dockerfile, relative to the context; `None`: `Dockerfile`.
    pub dockerfile: Option<Traced>,
    /// A path in the workspace, relative to the working directory, or a URL.
    pub context: Traced,
    /// Build arguments. One without a value has the value of the variable in the step's environment.
    pub build_args: Vec<(String, Option<Traced>)>,
    /// The stage to build; `None`: the last one.
    pub target: Option<Traced>,
    /// Other options of `docker build` that have an effect.
    pub options: Vec<Given>,
    /// Whether its layers are cached in the registry.
    pub cache: bool,
    /// The container from which the original runs `docker build`. Of it, the working directory and the environment
    /// matter to a build.
    pub container: Container,
    /// How often it runs.
    pub attempts: Attempts,
}

/// The container of a step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Container {
    /// Variables in order, each name once: those of the step, then those of the task.
    pub env: Vec<(String, Traced)>,
    /// The program that runs instead of the image's own.
    pub entry_point: Option<Traced>,
    /// The user, instead of the image's own.
    pub user: Option<Traced>,
    /// Whether it has all rights on the host.
    pub privileged: bool,
    /// The isolation technology of Windows; on Linux only `default` exists.
    pub isolation: Option<Traced>,
    /// How many processors it may use, for example `1.5`.
    pub cpus: Option<Traced>,
    /// Ports to publish on the host, as `docker run -p` takes them.
    pub ports: Vec<Traced>,
    /// Ports that are open to other steps.
    pub expose: Vec<Traced>,
    /// The network; `None`: the engine's default, where steps have no names.
    pub network: Option<Traced>,
    /// The working directory, absolute; `None`: the image's own.
    pub working_directory: Option<String>,
    /// Volumes of the task.
    pub mounts: Vec<Mount>,
    /// Other options of `docker run`, which stand before the image.
    pub options: Vec<Given>,
    /// Whether the step ends when the container has started; the container ends with the run.
    pub detach: bool,
    /// Whether the container stays until the run ends.
    pub keep: bool,
}

/// How often a step runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attempts {
    /// How many more attempts there are after a failure.
    pub retries: u32,
    /// The pause between attempts.
    pub retry_delay: Duration,
    /// If not empty, only a failure whose output contains one of these texts is tried again.
    pub retry_on: Vec<Traced>,
    /// How many more times it runs, whether it succeeds or not.
    pub repeat: u32,
}

/// How an image is pulled before its step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pull {
    /// How many more attempts there are after a failure.
    pub retries: u32,
    /// The pause between attempts.
    pub retry_delay: Duration,
}

/// A volume in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The volume's name in the task.
    pub volume: String,
    /// The folder in the container.
    pub path: Traced,
}

/// A network of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its name in the task.
    pub name: String,
    /// The network driver; `None`: `bridge`.
    pub driver: Option<String>,
    /// Whether it has IPv6 addresses.
    pub ipv6: bool,
    /// Whether it exists already, and is not removed.
    pub exists: bool,
}

/// A volume of a task: files that only its steps see.
#[derive(Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name in the task.
    pub name: String,
    /// The files by name, with their content.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.files.keys().collect();
        f.debug_struct("Volume").field("name", &self.name).field("files", &names).finish()
    }
}

/// A secret that a task file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretReference {
    /// Its name in templates: `.Secrets.<id>`.
    pub id: String,
    /// Where its value is.
    pub at: SecretLocation,
}

/// Where a secret's value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretLocation {
    /// In a vault, at this URL.
    Vault(String),
    /// A token of a managed identity of Azure, which is nowhere but there.
    Identity,
}
