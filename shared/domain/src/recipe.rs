//! What a run executes: a source, what is done with it, where, and for how long at most.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::InvalidText;
use crate::lineage::BaseImage;
use crate::platform::Platform;
use crate::sealed::Sealed;
use crate::source::{Source, SourcePath};
use crate::template::{ArgValue, Template};
use crate::text::text_type;

text_type!(
    /// The name of a build argument: `[A-Za-z_][A-Za-z0-9_]*`.
    ArgName,
    "build argument's name",
    "letters, digits and `_`, not beginning with a digit, at most 200 characters",
    |text| {
        (1..=200).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !text.starts_with(|c: char| c.is_ascii_digit())
    }
);

/// Build arguments that would undo what gantry does, and what to do instead.
const RESERVED_ARGS: [(&str, &str); 2] = [
    // Newer engines take it over the attribute `hostname`, which keeps builds apart.
    ("BUILDKIT_SANDBOX_HOSTNAME", "leave it out"),
    // It names an image that nobody has resolved and pinned.
    ("BUILDKIT_SYNTAX", "write `# syntax=IMAGE` as the first line of the Dockerfile"),
];

impl ArgName {
    /// What to do instead, if gantry gives the engine an argument of this name itself.
    #[must_use]
    pub fn is_reserved(&self) -> Option<&'static str> {
        RESERVED_ARGS.iter().find(|(name, _)| *name == self.0).map(|(_, remedy)| *remedy)
    }
}

text_type!(
    /// A stage of a Dockerfile: its name, or its number.
    StageName,
    "stage",
    "the name of a stage, like in `FROM image AS name`, or its number: a letter, then letters, digits or `-_.`, at most 128 \
     characters",
    |text| (1..=128).contains(&text.len())
        && (text.bytes().all(|b| b.is_ascii_digit())
            || text.starts_with(|c: char| c.is_ascii_alphabetic())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)))
);

/// What a run executes, complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Where it reads from.
    pub source: Source,
    /// The platform of the workers that execute it.
    pub platform: Platform,
    /// How long the whole run may take once it is leased.
    pub timeout: RunTimeout,
    /// What it does with the source.
    pub work: Work,
}

/// What a run does with its source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Builds one image, and pushes it.
    Build(ImageBuild),
}

/// One image from one Dockerfile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageBuild {
    /// The Dockerfile, relative to the context's root.
    pub dockerfile: SourcePath,
    /// The image's names; those without host belong to the registry of the run.
    pub images: Vec<Template>,
    /// Build arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub build_args: BTreeMap<ArgName, ArgValue>,
    /// Secret build arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_build_args: BTreeMap<ArgName, Sealed>,
    /// The stage to build; the last if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<StageName>,
    /// Whether the image is pushed.
    pub push: bool,
    /// Whether each step runs anew.
    #[serde(default)]
    pub no_cache: bool,
    /// Bases that keep the digest of an earlier run, whatever their tags point to now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<BaseImage>,
}

impl Recipe {
    /// Every secret in it, in an order of its own that never changes: what is sealed anew, and what a signature covers.
    pub fn sealed(&self) -> impl Iterator<Item = &Sealed> {
        let Work::Build(build) = &self.work;
        build.secret_build_args.values().chain(self.source.query())
    }

    /// The same, to be changed.
    pub fn sealed_mut(&mut self) -> impl Iterator<Item = &mut Sealed> {
        let Work::Build(build) = &mut self.work;
        build.secret_build_args.values_mut().chain(self.source.query_mut())
    }

    /// The same once more: with bases resolved anew, also where this one kept those of another run.
    #[must_use]
    pub fn again(&self) -> Self {
        let mut again = self.clone();
        let Work::Build(build) = &mut again.work;
        build.bases.clear();
        again
    }
}

/// How long a run may take: 300 to 28 800 seconds in the original, from 1 second here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct RunTimeout(u32);

impl RunTimeout {
    /// From seconds, 1 to 28 800.
    ///
    /// # Errors
    /// [`InvalidText`] for any other number.
    pub fn from_seconds(seconds: u32) -> Result<Self, InvalidText> {
        if (1..=28_800).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(InvalidText::new("timeout", &seconds.to_string(), "1 to 28800 seconds"))
        }
    }

    /// As a duration.
    #[must_use]
    pub fn as_duration(self) -> Duration {
        Duration::from_secs(u64::from(self.0))
    }
}

impl Default for RunTimeout {
    /// An hour, as the original.
    fn default() -> Self {
        Self(3600)
    }
}

impl TryFrom<u32> for RunTimeout {
    type Error = InvalidText;

    fn try_from(seconds: u32) -> Result<Self, Self::Error> {
        Self::from_seconds(seconds)
    }
}

impl From<RunTimeout> for u32 {
    fn from(timeout: RunTimeout) -> Self {
        timeout.0
    }
}
