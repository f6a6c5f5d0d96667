//! The step graph of a run: what a Docker build and a task file have in common.
//!
//! Pure. A Docker build is the graph `build`, `push`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_domain::id::StepId;
use gantry_domain::image::ImageReference;
use gantry_domain::platform::Platform;
use gantry_domain::platforms::Platforms;
use gantry_domain::recipe::{ImageBuild, StageName};
use gantry_domain::step::{StepKind, Steps};
use gantry_ops::secret::SecretString;
use gantry_taskfile::task_file::{
    Ask, Attempts, Cmd, Network, StepWork as FileStepWork, Task, Volume,
};

use crate::failure::Failure;

mod build_of_file;
mod legs;

pub(crate) use build_of_file::WORKSPACE;

/// A step graph.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// In the order of the task file.
    pub(crate) steps: Vec<GraphStep>,
    /// The networks that the task declares.
    pub(crate) networks: Vec<Network>,
    /// The volumes that the task declares.
    pub(crate) volumes: Vec<Volume>,
}

impl Graph {
    /// Leaves out of the push steps every image that may not be pushed. Returns them with their steps.
    pub(crate) fn limit_pushes(
        &mut self,
        may_push: impl Fn(&ImageReference) -> bool,
    ) -> Vec<(StepId, ImageReference)> {
        let mut left_out = Vec::new();
        for step in &mut self.steps {
            let StepWork::Push(images) = &mut step.work else { continue };
            let (kept, refused) = std::mem::take(images).into_iter().partition(&may_push);
            *images = kept;
            let refused: Vec<ImageReference> = refused;
            left_out.extend(refused.into_iter().map(|image| (step.id.clone(), image)));
        }
        left_out
    }

    /// Whether a command is on the engine's default network.
    pub(crate) fn uses_default_bridge(&self) -> bool {
        self.steps.iter().any(|step| match &step.work {
            StepWork::Cmd(cmd) => {
                let network = cmd.container.network.as_ref().map(|network| network.exposed());
                matches!(network, None | Some("bridge" | "default"))
            }
            StepWork::Build(_) | StepWork::Push(_) => false,
        })
    }
}

/// A step.
#[derive(Debug)]
pub(crate) struct GraphStep {
    pub(crate) id: StepId,
    /// The steps that must have ended well before it begins, as places in [`Graph::steps`].
    pub(crate) after: Vec<usize>,
    pub(crate) start_delay: Duration,
    /// The time limit of all its executions together; `None`: that of the run.
    pub(crate) timeout: Option<Duration>,
    /// Whether a failure counts as success.
    pub(crate) ignore_errors: bool,
    /// What it asks for beyond a container of its own.
    pub(crate) asks: BTreeSet<Ask>,
    pub(crate) work: StepWork,
}

/// What a step does.
#[derive(Debug)]
pub(crate) enum StepWork {
    Build(Box<BuildWork>),
    /// Pushes images, one after the other.
    Push(Vec<ImageReference>),
    Cmd(Box<Cmd>),
}

/// A build of an image for one platform.
#[derive(Debug, Clone)]
pub(crate) struct BuildWork {
    /// The image's names in this run.
    pub(crate) images: Vec<ImageReference>,
    pub(crate) context: BuildContext,
    /// The Dockerfile, relative to the context's root.
    pub(crate) dockerfile: String,
    pub(crate) build_args: BTreeMap<String, String>,
    /// Given both as build arguments and as BuildKit secrets.
    pub(crate) secret_build_args: BTreeMap<String, SecretString>,
    /// BuildKit secrets by id.
    pub(crate) secrets: BTreeMap<String, BuildSecret>,
    pub(crate) target: Option<StageName>,
    pub(crate) no_cache: bool,
    pub(crate) platform: Platform,
    /// The build that this is a leg of; the only one, if that is for one platform.
    pub(crate) whole: WholeBuild,
    /// Labels of the image, beside gantry's.
    pub(crate) labels: BTreeMap<String, String>,
    /// Options of the frontend, by its own names.
    pub(crate) frontend: BTreeMap<String, String>,
    /// Whether its layers are to be kept in the registry.
    pub(crate) cache: bool,
    pub(crate) attempts: Attempts,
}

/// A build with all its legs: the builds of its image for each platform, which share their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WholeBuild {
    /// The step of the task.
    pub(crate) step: StepId,
    pub(crate) platforms: Platforms,
}

/// A secret of a build.
#[derive(Debug, Clone)]
pub(crate) enum BuildSecret {
    Value(SecretString),
    /// A file of the workspace, relative to its root.
    File(String),
}

/// What a build reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BuildContext {
    /// A folder of the workspace, relative to its root, without `.` and `..`; empty is the root itself.
    Workspace(String),
    /// A git repository or an archive.
    Remote(gantry_domain::source::Source),
}

impl Graph {
    /// The graph of a Docker build, whose names and arguments have the run's variables replaced.
    ///
    /// # Errors
    /// [`legs::split`].
    pub(crate) fn of_build(
        asked: &ImageBuild,
        ids: (StepId, StepId),
        platforms: &Platforms,
        images: Vec<ImageReference>,
        build_args: BTreeMap<String, String>,
        secret_build_args: BTreeMap<String, SecretString>,
    ) -> Result<Self, Failure> {
        let step = |id, after, work| GraphStep {
            id,
            after,
            start_delay: Duration::ZERO,
            timeout: None,
            ignore_errors: false,
            asks: BTreeSet::new(),
            work,
        };
        let (build_id, push_id) = ids;
        let build = BuildWork {
            images: images.clone(),
            context: BuildContext::Workspace(String::new()),
            dockerfile: asked.dockerfile.to_string(),
            build_args,
            secret_build_args,
            secrets: BTreeMap::new(),
            target: asked.target.clone(),
            no_cache: asked.no_cache,
            platform: platforms.first().clone(),
            whole: WholeBuild { step: build_id.clone(), platforms: platforms.clone() },
            labels: BTreeMap::new(),
            frontend: BTreeMap::new(),
            cache: false,
            attempts: Attempts::default(),
        };
        let mut steps = vec![step(build_id, vec![], StepWork::Build(Box::new(build)))];
        if asked.push && !images.is_empty() {
            steps.push(step(push_id, vec![0], StepWork::Push(images)));
        }
        Ok(Self { steps: legs::split(steps)?, ..Self::default() })
    }

    /// The graph of a task file for runs on `platforms`.
    ///
    /// # Errors
    /// What a build step asks for and cannot be done; [`legs::split`].
    pub(crate) fn of_file(task: Task, platforms: &Platforms) -> Result<Self, Failure> {
        let asks: Vec<_> = task.steps.iter().map(|step| task.asks(&step.work)).collect();
        let steps = task.steps.into_iter().zip(asks).map(|(step, asks)| {
            let work = match step.work {
                FileStepWork::Build(build) => {
                    let build = build_of_file::translate(*build, &step.id, platforms);
                    StepWork::Build(Box::new(build.map_err(|failure| failure.in_step(&step.id))?))
                }
                FileStepWork::Push(images) => StepWork::Push(images),
                FileStepWork::Cmd(cmd) => StepWork::Cmd(cmd),
            };
            Ok(GraphStep {
                id: step.id,
                after: step.after,
                start_delay: step.start_delay,
                timeout: Some(step.timeout),
                ignore_errors: step.ignore_errors,
                asks,
                work,
            })
        });
        Ok(Self {
            steps: legs::split(steps.collect::<Result<_, Failure>>()?)?,
            networks: task.networks,
            volumes: task.volumes,
        })
    }

    /// The record of its steps, of which none has begun.
    pub(crate) fn planned(&self) -> Steps {
        Steps::planned(self.steps.iter().map(|step| {
            let kind = match step.work {
                StepWork::Build(_) => StepKind::Build,
                StepWork::Push(_) => StepKind::Push,
                StepWork::Cmd(_) => StepKind::Cmd,
            };
            (step.id.clone(), kind, step.after.clone())
        }))
    }

    /// The images that are built beside the step at this place and the other legs of its build.
    pub(crate) fn built_beside(&self, place: usize) -> BTreeSet<&ImageReference> {
        let own = self.steps.get(place).and_then(|step| match &step.work {
            StepWork::Build(work) => Some(&work.whole),
            StepWork::Push(_) | StepWork::Cmd(_) => None,
        });
        let others = self.builds().filter(|(_, work)| Some(&work.whole) != own);
        others.flat_map(|(_, work)| &work.images).collect()
    }

    /// Its builds, with their steps.
    pub(crate) fn builds(&self) -> impl Iterator<Item = (&StepId, &BuildWork)> {
        self.steps.iter().filter_map(|step| match &step.work {
            StepWork::Build(work) => Some((&step.id, work.as_ref())),
            StepWork::Push(_) | StepWork::Cmd(_) => None,
        })
    }

    /// Whether a step has the engine's socket, and so may make an image that gantry does not build.
    pub(crate) fn has_engine_socket(&self) -> bool {
        self.steps.iter().any(|step| step.asks.contains(&Ask::EngineSocket))
    }

    /// The images that its steps push.
    pub(crate) fn pushed(&self) -> impl Iterator<Item = &ImageReference> {
        self.steps.iter().flat_map(|step| match &step.work {
            StepWork::Push(images) => images.as_slice(),
            StepWork::Build(_) | StepWork::Cmd(_) => &[],
        })
    }
}
