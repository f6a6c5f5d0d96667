//! The fields of a Dockerfile's build, which a new task and a quick build share.

use std::collections::BTreeMap;

use gantry_api::{BuildCreate, LoginCreate, TaskCreate};
use gantry_domain::recipe::{ArgName, ImageBuild, StageName, Work};
use gantry_domain::sealed::Sealed;
use gantry_domain::source::SourcePath;
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
    pub(super) platform: Option<&'a str>,
    pub(super) timeout: Option<u32>,
    pub(super) credentials: &'a BTreeMap<String, LoginCreate>,
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
                    credentials: &new.credentials,
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
    pub(super) images: Option<Vec<Template>>,
    pub(super) push: bool,
    dockerfile: Option<SourcePath>,
    build_args: Option<BTreeMap<ArgName, ArgValue>>,
    secret_build_args: Option<BTreeMap<ArgName, Sealed>>,
    target: Option<StageName>,
    no_cache: bool,
}

impl BuildParts {
    /// The build; `None` if a required field is wrong.
    pub(super) fn whole(self) -> Option<Work> {
        Some(Work::Build(ImageBuild {
            dockerfile: self.dockerfile?,
            images: self.images?,
            build_args: self.build_args?,
            secret_build_args: self.secret_build_args?,
            target: self.target,
            push: self.push,
            no_cache: self.no_cache,
        }))
    }
}

impl BuildTexts<'_> {
    /// The fields that were given, by name.
    pub(super) fn given(&self) -> impl Iterator<Item = &'static str> {
        // Destructures all fields, so that adding one requires a decision here.
        let Self {
            dockerfile,
            images,
            build_args,
            secret_build_args,
            target,
            platform: _,
            timeout: _,
            credentials: _,
            push: _,
            no_cache,
        } = self;
        [
            ("dockerfile", dockerfile.is_some()),
            ("images", !images.is_empty()),
            ("build_args", !build_args.is_empty()),
            ("secret_build_args", !secret_build_args.is_empty()),
            ("target", target.is_some()),
            ("no_cache", *no_cache),
        ]
        .into_iter()
        .filter_map(|(name, is_given)| is_given.then_some(name))
    }
}

impl Checker<'_> {
    pub(super) fn build(&mut self, texts: &BuildTexts<'_>) -> Result<BuildParts, SecretError> {
        Ok(BuildParts {
            dockerfile: self.dockerfile(texts.dockerfile.unwrap_or("Dockerfile")),
            images: self.images(texts.images),
            build_args: self.build_args(texts.build_args),
            secret_build_args: self.secret_build_args(texts.secret_build_args)?,
            target: texts.target.and_then(|target| self.mistakes.parse("target", target)),
            push: texts.push,
            no_cache: texts.no_cache,
        })
    }
}
