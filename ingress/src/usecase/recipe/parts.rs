//! The checked fields of a recipe, whatever its work is.

use std::collections::BTreeMap;

use gantry_api::{LoginCreate, TaskFileCreate};
use gantry_domain::image::RegistryHost;
use gantry_domain::login::Login;
use gantry_domain::platforms::Platforms;
use gantry_domain::recipe::{FileWork, Recipe, RunTimeout, TaskFile, Work};
use gantry_domain::source::Source;
use gantry_domain::template::Template;
use gantry_domain::tracked_image::TagPolicies;
use gantry_ops::secret::SecretError;

use super::Checker;
use super::build::{BuildParts, BuildTexts};

/// A recipe in the making. A wrong field is `None`, and its mistake is recorded.
pub(crate) struct RecipeParts {
    pub(crate) source: Option<Source>,
    platforms: Option<Platforms>,
    timeout: Option<RunTimeout>,
    work: WorkParts,
    logins: BTreeMap<RegistryHost, Login>,
}

enum WorkParts {
    Build(Box<BuildParts>),
    File(Option<FileWork>),
}

impl RecipeParts {
    /// The names of the images; `None` if they are known to be wrong.
    pub(crate) fn images(&self) -> Option<&[Template]> {
        match &self.work {
            WorkParts::Build(build) => build.images.as_deref(),
            WorkParts::File(_) => Some(&[]),
        }
    }

    /// Whether the recipe itself pushes its images. Steps of a task file push.
    pub(crate) fn pushes(&self) -> bool {
        match &self.work {
            WorkParts::Build(build) => build.push,
            WorkParts::File(_) => false,
        }
    }

    /// Whether it reads a file of its source first.
    pub(crate) fn needs_files(&self) -> bool {
        match &self.work {
            WorkParts::Build(_) => true,
            WorkParts::File(file) => file.as_ref().is_some_and(file_needs_files),
        }
    }

    /// The recipe; `None` if a required field is wrong.
    pub(crate) fn whole(self) -> Option<Recipe> {
        Some(Recipe {
            source: self.source?,
            platforms: self.platforms?,
            timeout: self.timeout?,
            work: match self.work {
                WorkParts::Build(build) => build.whole()?,
                WorkParts::File(file) => Work::File(file?),
            },
            logins: self.logins,
            follows: TagPolicies::default(),
            bases: Vec::new(),
            pull_request: None,
        })
    }
}

/// Whether a recipe's work reads a file of its source first.
pub(crate) fn needs_files(work: &Work) -> bool {
    match work {
        Work::Build(_) => true,
        Work::File(file) => file_needs_files(file),
    }
}

fn file_needs_files(file: &FileWork) -> bool {
    matches!(file.file, TaskFile::Path(_)) || file.values_file.is_some()
}

impl Checker<'_> {
    /// A recipe that builds a Dockerfile, or runs a task file if there is one.
    pub(crate) fn recipe(
        &mut self,
        source: Option<Source>,
        texts: &BuildTexts<'_>,
        file: Option<&TaskFileCreate>,
    ) -> Result<RecipeParts, SecretError> {
        let work = match file {
            None => WorkParts::Build(Box::new(self.build(texts)?)),
            Some(file) => {
                for name in texts.given() {
                    self.mistakes.add(
                        name,
                        "it belongs to the build of a Dockerfile, and a task file says itself what it builds: leave it out",
                    );
                }
                WorkParts::File(self.task_file(file)?)
            }
        };
        self.parts(source, texts.platform, texts.timeout, work, texts.credentials)
    }

    /// A recipe that runs a task file.
    pub(crate) fn file_recipe(
        &mut self,
        source: Option<Source>,
        platform: Option<&str>,
        timeout: Option<u32>,
        file: &TaskFileCreate,
        credentials: &BTreeMap<String, LoginCreate>,
    ) -> Result<RecipeParts, SecretError> {
        let work = WorkParts::File(self.task_file(file)?);
        self.parts(source, platform, timeout, work, credentials)
    }

    fn parts(
        &mut self,
        source: Option<Source>,
        platform: Option<&str>,
        timeout: Option<u32>,
        work: WorkParts,
        credentials: &BTreeMap<String, LoginCreate>,
    ) -> Result<RecipeParts, SecretError> {
        Ok(RecipeParts {
            source,
            platforms: match platform {
                Some(platform) => self.platforms(platform),
                None => Some(Platforms::default()),
            },
            timeout: match timeout {
                Some(seconds) => self.timeout(seconds),
                None => Some(RunTimeout::default()),
            },
            work,
            logins: self.logins(credentials)?,
        })
    }
}
