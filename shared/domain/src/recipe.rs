//! Recipes: what a run executes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::InvalidText;
use crate::event::PullRequestRefs;
use crate::id::RunId;
use crate::image::{ImageReference, RegistryHost};
use crate::lineage::BaseImage;
use crate::login::Login;
use crate::platforms::Platforms;
use crate::sealed::Sealed;
use crate::secret::{SecretId, SecretSource};
use crate::source::{CommitId, RefName, Source, SourcePath};
use crate::template::{ArgValue, Template};
use crate::text::text_type;
use crate::tracked_image::{TagPolicies, TrackedImage};

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

/// Build arguments that would break gantry's guarantees, with an alternative.
const RESERVED_ARGS: [(&str, &str); 2] = [
    // Newer engines prefer it over the attribute `hostname`, which isolates builds.
    ("BUILDKIT_SANDBOX_HOSTNAME", "leave it out"),
    // It names an image that is not resolved and pinned.
    ("BUILDKIT_SYNTAX", "write `# syntax=IMAGE` as the first line of the Dockerfile"),
];

impl ArgName {
    /// The alternative, if gantry reserves an argument of this name.
    #[must_use]
    pub fn is_reserved(&self) -> Option<&'static str> {
        RESERVED_ARGS.iter().find(|(name, _)| *name == self.0).map(|(_, remedy)| *remedy)
    }
}

text_type!(
    /// A stage of a Dockerfile: its name or number.
    StageName,
    "stage",
    "the name of a stage, like in `FROM image AS name`, or its number: a letter, then letters, digits or `-_.`, at most 128 \
     characters",
    |text| (1..=128).contains(&text.len())
        && (text.bytes().all(|b| b.is_ascii_digit())
            || text.starts_with(|c: char| c.is_ascii_alphabetic())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)))
);

/// A complete recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// The source.
    pub source: Source,
    /// The platforms of its image, which determine the pool.
    pub platforms: Platforms,
    /// The time limit of the whole run, from its first lease.
    pub timeout: RunTimeout,
    /// The work on the source.
    pub work: Work,
    /// The credentials for other registries than the recipe's own, and for its own if they are others: for images that it
    /// reads, and for those that it pushes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub logins: BTreeMap<RegistryHost, Login>,
    /// The images of which the newest tag is used, and not the one in the source.
    #[serde(default, skip_serializing_if = "TagPolicies::is_empty")]
    pub follows: TagPolicies,
    /// Bases pinned to a digest, even if their tags have moved: those of an earlier run, or those that a change of base
    /// images is about or that policies chose. Never in a task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<BaseImage>,
    /// The pull request whose commit the source names. Never in a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<PullRequestBuild>,
}

/// How a run of a pull request differs from one of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequestBuild {
    /// Its number.
    pub number: u64,
    /// The head, which the source names.
    pub head: CommitId,
    /// Where the repository has the head, and the trial merge if that is to be built.
    pub refs: PullRequestRefs,
    /// The branch that it wants to merge into. The task file of a fork's run is read there.
    pub base: RefName,
    /// Whether its content is a stranger's.
    pub is_fork: bool,
    /// Whether somebody must approve the head before it runs.
    pub needs_approval: bool,
    /// Whether tags that contain the run's id or commit are pushed. Others never are.
    pub may_push: bool,
}

impl PullRequestBuild {
    /// Whether a run may push this tag: only if it names the run, the pull request as `pr-7`, or one of these commits.
    #[must_use]
    pub fn may_push_tag(&self, tag: &str, run: RunId, commits: &[&CommitId]) -> bool {
        let (run, number) = (run.to_string(), format!("pr{}", self.number));
        let names = |word: &str| {
            let is_commit =
                word.len() >= 7 && commits.iter().any(|it| it.as_str().starts_with(word));
            word == run || word == number || is_commit
        };
        let of_number = format!("pr-{}", self.number);
        let follows = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_digit());
        let is_numbered = tag.match_indices(&of_number).any(|(at, found)| {
            let (before, rest) = (&tag[..at], &tag[at + found.len()..]);
            follows(rest) && !before.ends_with(|c: char| c.is_ascii_alphanumeric())
        });
        self.may_push && (is_numbered || tag.split(['-', '_', '.']).any(names))
    }
}

/// The work of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Builds one image, and pushes it if `push` is set.
    Build(ImageBuild),
    /// Executes the steps of a task file.
    File(FileWork),
}

text_type!(
    /// The name of a value of a task file: `.Values.NAME` in its templates.
    ValueName,
    "value's name",
    "1 to 200 characters without spaces, control characters and `=`",
    |text| {
        (1..=200).contains(&text.len())
            && !text.chars().any(|c| c == '=' || c.is_whitespace() || c.is_control())
    }
);

/// A task file with its values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileWork {
    /// The file.
    pub file: TaskFile,
    /// A file of values in the source. The values below replace those in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values_file: Option<SourcePath>,
    /// Values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<ValueName, FileValue>,
    /// Secret values. They replace the others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_values: BTreeMap<ValueName, Sealed>,
    /// The secrets that the file may name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<SecretId, SecretSource>,
    /// Whether the steps may use the run's credentials for registries: in runs of a saved task as it is, whose code its owner
    /// chose. Never in the task itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_registry_login: bool,
}

/// Where a task file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskFile {
    /// In the recipe itself.
    Text(String),
    /// In the source.
    Path(SourcePath),
}

/// A value of a task file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileValue {
    /// The value.
    pub text: String,
    /// Whether it was given for one run. Only a value that was saved with the task may be split into words.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_given: bool,
}

/// A build of one image from one Dockerfile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageBuild {
    /// The Dockerfile, relative to the context's root.
    pub dockerfile: SourcePath,
    /// The image's names. Those without a host belong to the run's registry.
    pub images: Vec<Template>,
    /// Build arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub build_args: BTreeMap<ArgName, ArgValue>,
    /// Secret build arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_build_args: BTreeMap<ArgName, Sealed>,
    /// The stage to build; the last one if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<StageName>,
    /// Whether the image is pushed.
    pub push: bool,
    /// Whether every step is executed again.
    #[serde(default)]
    pub no_cache: bool,
}

impl Recipe {
    /// The pin of an image that the source names: its own, or that of the policy that covers it.
    #[must_use]
    pub fn pin_of(&self, image: &ImageReference) -> Option<&BaseImage> {
        let is_chosen = |base: &&BaseImage, policy: &TrackedImage| {
            base.follows.as_ref().is_some_and(|followed| followed.policy == *policy)
        };
        self.bases.iter().find(|base| base.image == *image).or_else(|| {
            let policy = self.follows.of(image)?;
            self.bases.iter().find(|base| is_chosen(base, policy))
        })
    }

    /// All secrets, in a fixed order that resealing and signatures rely on.
    pub fn sealed(&self) -> impl Iterator<Item = &Sealed> {
        let (build, file) = match &self.work {
            Work::Build(build) => (Some(build.secret_build_args.values()), None),
            Work::File(file) => (None, Some(file.secret_values.values())),
        };
        let work = build.into_iter().flatten().chain(file.into_iter().flatten());
        work.chain(self.source.query()).chain(self.logins.values().filter_map(Login::sealed))
    }

    /// All secrets, to be changed.
    pub fn sealed_mut(&mut self) -> impl Iterator<Item = &mut Sealed> {
        let (build, file) = match &mut self.work {
            Work::Build(build) => (Some(build.secret_build_args.values_mut()), None),
            Work::File(file) => (None, Some(file.secret_values.values_mut())),
        };
        let work = build.into_iter().flatten().chain(file.into_iter().flatten());
        let logins = self.logins.values_mut().filter_map(Login::sealed_mut);
        work.chain(self.source.query_mut()).chain(logins)
    }

    /// Removes all secrets, declared ones and logins too: for runs whose content is a stranger's.
    pub(crate) fn drop_secrets(&mut self) {
        self.logins.clear();
        match &mut self.work {
            Work::Build(build) => build.secret_build_args.clear(),
            Work::File(file) => {
                file.secret_values.clear();
                file.secrets.clear();
                file.has_registry_login = false;
            }
        }
    }

    /// Lets the steps of a run use its credentials for registries, if they are those of a task file.
    pub(crate) fn with_registry_login(mut self) -> Self {
        if let Work::File(file) = &mut self.work {
            file.has_registry_login = true;
        }
        self
    }

    /// The same recipe for another run, with bases resolved again, even if this one pinned them.
    #[must_use]
    pub fn again(&self) -> Self {
        Self { bases: Vec::new(), ..self.clone() }
    }
}

/// The time limit of a run: 1 to 28 800 seconds. The original's minimum is 300.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct RunTimeout(u32);

impl RunTimeout {
    /// The longest of a scan, which executes nothing.
    pub const OF_A_SCAN: Self = Self(600);

    /// 1 to 28 800 seconds.
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

    /// What is left of it after this time, at least a second.
    #[must_use]
    pub fn after(self, spent: Duration) -> Self {
        let spent = u32::try_from(spent.as_secs()).unwrap_or(u32::MAX);
        Self(self.0.saturating_sub(spent).max(1))
    }

    /// The limit as a duration.
    #[must_use]
    pub fn as_duration(self) -> Duration {
        Duration::from_secs(u64::from(self.0))
    }
}

impl Default for RunTimeout {
    /// One hour, like the original.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_request_pushes_only_tags_that_are_its_own() {
        let head: CommitId = "abcdef0123".repeat(4).parse().unwrap();
        let mut of = PullRequestBuild {
            number: 7,
            head: head.clone(),
            refs: PullRequestRefs::default(),
            base: "main".parse().unwrap(),
            is_fork: false,
            needs_approval: false,
            may_push: true,
        };
        let run: RunId = "ca1".parse().unwrap();
        let pushes = |of: &PullRequestBuild, tag: &str| of.may_push_tag(tag, run, &[&head]);
        for tag in ["ca1", "main-ca1", "pr-7", "web.pr-7", "pr7", "abcdef0", head.as_str()] {
            assert!(pushes(&of, tag), "{tag}");
        }
        for tag in ["latest", "ca12", "v7", "7", "pr-71", "pr71", "xpr-7", "abcdef", "main"] {
            assert!(!pushes(&of, tag), "{tag}");
        }
        of.may_push = false;
        assert!(!pushes(&of, "ca1"));
    }
}
