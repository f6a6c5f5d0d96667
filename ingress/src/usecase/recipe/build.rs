//! The fields of a build, which a new task and a quick build share.

use std::collections::BTreeMap;

use gantry_api::{BuildCreate, TaskCreate};
use gantry_domain::platform::Platform;
use gantry_domain::recipe::{ArgName, ImageBuild, Recipe, RunTimeout, StageName, Work};
use gantry_domain::sealed::Sealed;
use gantry_domain::source::{Source, SourcePath};
use gantry_domain::template::{ArgValue, Template};
use gantry_ops::secret::SecretError;

use super::Checker;

/// The fields of a build in a request, except its source.
pub(crate) struct BuildTexts<'a> {
    dockerfile: Option<&'a str>,
    images: &'a [String],
    build_args: &'a BTreeMap<String, String>,
    secret_build_args: &'a BTreeMap<String, String>,
    target: Option<&'a str>,
    platform: Option<&'a str>,
    timeout: Option<u32>,
    push: bool,
    no_cache: bool,
}

/// Both request types list these fields and share no type for them, because serde does not support `flatten` in a type
/// with `deny_unknown_fields`.
macro_rules! has_build_texts {
    ($($body:ty),*) => {$(
        impl<'a> From<&'a $body> for BuildTexts<'a> {
            fn from(new: &'a $body) -> Self {
                Self {
                    dockerfile: new.dockerfile.as_deref(),
                    images: &new.images,
                    build_args: &new.build_args,
                    secret_build_args: &new.secret_build_args,
                    target: new.target.as_deref(),
                    platform: new.platform.as_deref(),
                    timeout: new.timeout,
                    push: new.push,
                    no_cache: new.no_cache,
                }
            }
        }
    )*};
}
has_build_texts!(TaskCreate, BuildCreate);

/// The checked fields of a build. A wrong one is `None`, and its mistake is recorded.
pub(crate) struct BuildParts {
    pub(crate) source: Option<Source>,
    pub(crate) images: Option<Vec<Template>>,
    pub(crate) push: bool,
    dockerfile: Option<SourcePath>,
    build_args: Option<BTreeMap<ArgName, ArgValue>>,
    secret_build_args: Option<BTreeMap<ArgName, Sealed>>,
    target: Option<StageName>,
    platform: Option<Platform>,
    timeout: Option<RunTimeout>,
    no_cache: bool,
}

impl BuildParts {
    /// The build; `None` if a required field is wrong.
    pub(crate) fn whole(self) -> Option<Recipe> {
        Some(Recipe {
            source: self.source?,
            platform: self.platform?,
            timeout: self.timeout?,
            work: Work::Build(ImageBuild {
                dockerfile: self.dockerfile?,
                images: self.images?,
                build_args: self.build_args?,
                secret_build_args: self.secret_build_args?,
                target: self.target,
                push: self.push,
                no_cache: self.no_cache,
                bases: Vec::new(),
            }),
        })
    }
}

impl Checker<'_> {
    pub(crate) fn build(
        &mut self,
        source: Option<Source>,
        texts: &BuildTexts<'_>,
    ) -> Result<BuildParts, SecretError> {
        Ok(BuildParts {
            source,
            dockerfile: self.dockerfile(texts.dockerfile.unwrap_or("Dockerfile")),
            images: self.images(texts.images),
            build_args: self.build_args(texts.build_args),
            secret_build_args: self.secret_build_args(texts.secret_build_args)?,
            target: texts.target.and_then(|target| self.mistakes.parse("target", target)),
            platform: match texts.platform {
                Some(platform) => self.platform(platform),
                None => Some(Platform::default()),
            },
            timeout: match texts.timeout {
                Some(seconds) => self.timeout(seconds),
                None => Some(RunTimeout::default()),
            },
            push: texts.push,
            no_cache: texts.no_cache,
        })
    }
}
