//! Finds the images that the steps of a run need from outside.
//!
//! In: a step graph and the source. Out: every image with its role and step. Reads the Dockerfiles of the source and of
//! remote contexts, and executes nothing.

use std::sync::Arc;

use gantry_domain::scan::{ImageRole, NeededImage, NeededImages, UnreadStep};
use gantry_taskfile::dockerfile::Role;
use gantry_taskfile::task_file::Cmd;

use crate::attempt::Attempt;
use crate::engine::LOCAL_HOST;
use crate::failure::Failure;
use crate::graph::{BuildContext, BuildWork, Graph, GraphStep, StepWork};
use crate::source::Checkout;
use crate::step::build::{Builder, read_dockerfile};
use crate::step::cmd::{image_of, platform_of};
use crate::workspace::source_files;

/// What is scanned.
#[derive(Clone, Copy)]
pub(crate) struct Scan<'a> {
    pub(crate) attempt: &'a Attempt,
    pub(crate) graph: &'a Graph,
    pub(crate) source: Option<&'a Arc<Checkout>>,
    /// Fetches remote contexts.
    pub(crate) builder: &'a Builder,
}

impl Scan<'_> {
    /// The images that the steps need, without those that a step builds for another.
    ///
    /// The images of a build are known only once it is executed if its Dockerfile cannot be read and a command before it
    /// may write it. They are also left out if their names contain a secret.
    pub(crate) async fn needed_images(self) -> Result<NeededImages, Failure> {
        let mut needed = NeededImages::default();
        let mut has_command = false;
        for (place, step) in self.graph.steps.iter().enumerate() {
            let found = match &step.work {
                StepWork::Push(_) => continue,
                StepWork::Cmd(cmd) => {
                    has_command = true;
                    self.of_command(step, cmd).map(|image| vec![image])
                }
                StepWork::Build(work) => match self.of_build(step, work).await {
                    Err(failure) if has_command && failure.is_users() => {
                        let why = self.masked(&failure.error().message);
                        needed.leave_unread(UnreadStep { step: step.id.clone(), why });
                        continue;
                    }
                    found => found,
                },
            };
            let found = found.map_err(|failure| failure.in_step(&step.id))?;
            let built = self.graph.built_beside(place);
            for image in found.into_iter().filter(|needed| !built.contains(&needed.image)) {
                // Such a name is only in the engine.
                if image.image.host().as_str() == LOCAL_HOST {
                    continue;
                }
                let name = image.image.to_string();
                if self.masked(&name) == name {
                    needed.add(image);
                } else {
                    let why = "the name of its image contains a secret".to_owned();
                    needed.leave_unread(UnreadStep { step: step.id.clone(), why });
                }
            }
        }
        Ok(needed)
    }

    fn of_command(self, step: &GraphStep, cmd: &Cmd) -> Result<NeededImage, Failure> {
        let platform = platform_of(cmd)?;
        Ok(NeededImage {
            image: image_of(cmd)?,
            role: ImageRole::Step,
            step: step.id.clone(),
            dockerfile: None,
            platform: platform.unwrap_or_else(|| self.attempt.run.recipe.platforms.first().clone()),
        })
    }

    async fn of_build(
        self,
        step: &GraphStep,
        work: &BuildWork,
    ) -> Result<Vec<NeededImage>, Failure> {
        let files = match &work.context {
            BuildContext::Workspace(folder) => source_files(self.source, folder)?,
            BuildContext::Remote(source) => {
                Arc::new(self.builder.fetch_files(self.attempt, source).await?)
            }
        };
        // Secret arguments would be a part of the names. Without them their defaults hold.
        let dockerfile = read_dockerfile(&files, work, work.build_args.clone()).await?;
        let images = dockerfile.images().iter().filter(|used| used.needed);
        let images = images.map(|used| NeededImage {
            image: used.image.clone(),
            role: match used.role {
                Role::Runtime => ImageRole::Runtime,
                Role::BuildTime | Role::Frontend => ImageRole::Buildtime,
            },
            step: step.id.clone(),
            dockerfile: Some(self.masked(&work.dockerfile)),
            platform: work.platform.clone(),
        });
        Ok(images.collect())
    }

    fn masked(self, text: &str) -> String {
        self.attempt.log.secrets().mask(text)
    }
}
