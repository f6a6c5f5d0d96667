//! A saved recipe: what to build, and what starts it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::InvalidText;
use crate::id::TaskId;
use crate::lineage::BaseImage;
use crate::platform::Platform;
use crate::sealed::Sealed;
use crate::source::{RefName, Source, SourcePath};
use crate::template::{ArgValue, Template};
use crate::text::text_type;
use crate::timestamp::Timestamp;

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

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its registry and name.
    pub id: TaskId,
    /// Counts from 1 with each change.
    pub revision: u64,
    /// Whether triggers may start it.
    pub status: Status,
    /// What a run does.
    pub build: BuildSpec,
    /// Starts a run when a branch moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_trigger: Option<SourceTrigger>,
    /// The token that reads its git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_token: Option<Sealed>,
    /// How many of its runs may be ready or leased at once; the registry's limit alone if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_limit: Option<NonZeroU32>,
    /// When it was created.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

/// Whether something may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It may.
    #[default]
    Enabled,
    /// It may not.
    Disabled,
}

/// Starts a run when one branch of the task's repository moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTrigger {
    /// Its name in the task.
    pub name: String,
    /// The branch; as in the task's source, or the one that the provider calls default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<RefName>,
    /// Whether it may start runs.
    pub status: Status,
}

/// What a run builds: one image from one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildSpec {
    /// Where it reads from.
    pub source: Source,
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
    /// The platform to build for.
    pub platform: Platform,
    /// How long the whole run may take once it is leased.
    pub timeout: RunTimeout,
    /// Whether the image is pushed.
    pub push: bool,
    /// Whether each step runs anew.
    #[serde(default)]
    pub no_cache: bool,
    /// Bases that keep the digest of an earlier run, whatever their tags point to now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<BaseImage>,
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
