//! Which images a task needs, as a scan or a run read it from the task's source.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::built_on::FactVersion;
use crate::id::{RunId, StepId};
use crate::image::ImageReference;
use crate::platform::Platform;
use crate::run::{Run, RunError, TaskRevision};
use crate::source::CommitId;
use crate::text::words;
use crate::timestamp::Timestamp;

/// The most images that are recorded of one task, and the most builds that could not be read. A commit that replaces all of
/// them changes five entries of indexes for each, and has to stay small enough for a store.
pub const MOST_IMAGES: usize = 200;

/// An image that a step needs, and that no step of the same task builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeededImage {
    /// The image, with defaults filled in.
    pub image: ImageReference,
    /// What it is needed for.
    pub role: ImageRole,
    /// The step that needs it.
    pub step: StepId,
    /// The Dockerfile that names it, relative to the build's context; `None` for a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// The platform that it is needed for.
    pub platform: Platform,
}

words!(
    /// What an image is needed for, the closest to the result first.
    ImageRole, "role of an image", "`runtime`, `buildtime` or `step`", {
    /// The base of a built image.
    Runtime = "runtime",
    /// Any other image that a build reads.
    Buildtime = "buildtime",
    /// A command runs in it.
    Step = "step",
});

/// A step whose images are known only once it is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadStep {
    /// The step.
    pub step: StepId,
    /// Why its images are not known.
    pub why: String,
}

/// The images that the steps of a task need.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeededImages {
    images: Vec<NeededImage>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unread: Vec<UnreadStep>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_cut: bool,
}

impl NeededImages {
    /// The images, in the order of the steps.
    #[must_use]
    pub fn images(&self) -> &[NeededImage] {
        &self.images
    }

    /// The steps whose images are not known.
    #[must_use]
    pub fn unread(&self) -> &[UnreadStep] {
        &self.unread
    }

    /// Whether there are more than are recorded.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Adds an image. A step has an image once: as the base of its result, if it is that.
    pub fn add(&mut self, new: NeededImage) {
        let is_same = |known: &&mut NeededImage| known.step == new.step && known.image == new.image;
        if let Some(known) = self.images.iter_mut().find(is_same) {
            known.role = known.role.min(new.role);
        } else if self.images.len() < MOST_IMAGES {
            self.images.push(new);
        } else {
            self.is_cut = true;
        }
    }

    /// Adds a step whose images are not known.
    pub fn leave_unread(&mut self, step: UnreadStep) {
        if self.unread.len() < MOST_IMAGES {
            self.unread.push(step);
        } else {
            self.is_cut = true;
        }
    }
}

/// What a scan or run found in a task's source.
#[derive(Debug, Clone, PartialEq)]
pub enum Scanned {
    /// These images, at this commit if the source is a git repository.
    Read {
        /// The commit.
        commit: Option<CommitId>,
        /// The images.
        images: NeededImages,
    },
    /// It could not be read.
    Failed {
        /// What failed and where, and the remedy. Masked.
        error: RunError,
    },
}

/// Which state of a task was read, and by which run. Of two readings of a task, one may be older.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The revision of the task.
    pub revision: u64,
    /// The scan or run.
    pub run: RunId,
    /// The head that a push moved the branch to, if a push started the run. Any other run reads the source as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<FactVersion>,
    /// The source was read no earlier than this, or moved to the head then.
    pub as_of: Timestamp,
    /// When it was recorded.
    pub at: Timestamp,
}

impl Reading {
    /// The reading of a task's revision by a run.
    #[must_use]
    pub fn by(run: &Run, task: &TaskRevision, at: Timestamp) -> Self {
        let leased = run.state.lease().map(|lease| lease.since);
        let leased = leased.or(run.attempts.last().map(|ended| ended.since));
        let head = run.cause.head();
        let as_of = match &head {
            Some(_) => run.created,
            None => leased.unwrap_or(run.created),
        };
        Self { revision: task.revision, run: run.id, head, as_of, at }
    }

    /// Whether `other` read a newer state of the task.
    fn is_older_than(&self, other: &Self) -> bool {
        let by_source = match (&self.head, &other.head) {
            (Some(one), Some(another)) if one.fact == another.fact => {
                one.generation.cmp(&another.generation)
            }
            _ => self.as_of.cmp(&other.as_of),
        };
        self.revision.cmp(&other.revision).then(by_source) == Ordering::Less
    }
}

/// The images that a task needs, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskImages {
    /// The last state of the task that could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<ReadImages>,
    /// A newer state that could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedScan>,
}

/// The images in one state of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReadImages {
    /// What was read.
    pub reading: Reading,
    /// The commit, if the source is a git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// The images.
    pub needed: NeededImages,
}

/// Why one state of a task could not be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailedScan {
    /// What was to be read.
    pub reading: Reading,
    /// What failed and where, and the remedy.
    pub error: RunError,
}

impl TaskImages {
    /// Takes in what was found. An older state never replaces a newer one, and a failure no images.
    pub fn take_in(&mut self, reading: Reading, found: Scanned) {
        let is_older = |than: &Reading| reading.is_older_than(than);
        let is_older_than_images = self.read.as_ref().is_some_and(|read| is_older(&read.reading));
        let is_older_than_failure =
            self.failed.as_ref().is_some_and(|failed| is_older(&failed.reading));
        if is_older_than_images {
            return;
        }
        match found {
            Scanned::Read { commit, images: needed } => {
                self.read = Some(ReadImages { reading, commit, needed });
                if !is_older_than_failure {
                    self.failed = None;
                }
            }
            Scanned::Failed { error } if !is_older_than_failure => {
                self.failed = Some(FailedScan { reading, error });
            }
            Scanned::Failed { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::ErrorCode;

    fn reading(revision: u64, generation: Option<u64>, as_of: i64) -> Reading {
        let fact: crate::fact::FactKey = "branch:reg:github.com/octo/hello@main".parse().unwrap();
        Reading {
            revision,
            run: "ca-1".parse().unwrap(),
            head: generation.map(|generation| FactVersion { fact, generation }),
            as_of: Timestamp::from_millis(as_of),
            at: Timestamp::from_millis(as_of),
        }
    }

    fn image(name: &str, role: ImageRole) -> NeededImage {
        NeededImage {
            image: name.parse().unwrap(),
            role,
            step: "build".parse().unwrap(),
            dockerfile: Some("Dockerfile".to_owned()),
            platform: Platform::default(),
        }
    }

    fn read(name: &str) -> Scanned {
        let mut images = NeededImages::default();
        images.add(image(name, ImageRole::Runtime));
        Scanned::Read { commit: None, images }
    }

    fn failed() -> Scanned {
        let message = "there is no `Dockerfile`".to_owned();
        let code = ErrorCode::DockerfileNotFound;
        Scanned::Failed { error: RunError { code, step: None, exit_code: None, message } }
    }

    fn known(images: &TaskImages) -> (Option<String>, bool) {
        let first = images.read.as_ref().map(|read| read.needed.images()[0].image.to_string());
        let first = first.map(|image| image.replace("docker.io/library/", ""));
        (first, images.failed.is_some())
    }

    #[test]
    fn an_older_state_never_replaces_a_newer_one() {
        for (newer, older) in [
            (reading(2, None, 1), reading(1, None, 9)),
            (reading(1, Some(7), 1), reading(1, Some(6), 9)),
            (reading(1, None, 9), reading(1, Some(6), 8)),
            (reading(1, Some(6), 9), reading(1, None, 8)),
        ] {
            let mut images = TaskImages::default();
            images.take_in(newer.clone(), read("newer"));
            images.take_in(older.clone(), read("older"));
            images.take_in(older.clone(), failed());
            assert_eq!(known(&images), (Some("newer:latest".to_owned()), false), "{older:?}");

            let mut images = TaskImages::default();
            images.take_in(older, read("older"));
            images.take_in(newer.clone(), read("newer"));
            assert_eq!(known(&images), (Some("newer:latest".to_owned()), false), "{newer:?}");
        }
    }

    #[test]
    fn a_failure_keeps_the_images_and_goes_with_the_next_that_are_read() {
        let mut images = TaskImages::default();
        images.take_in(reading(1, None, 1), read("first"));
        images.take_in(reading(2, None, 2), failed());
        assert_eq!(known(&images), (Some("first:latest".to_owned()), true));
        images.take_in(reading(1, None, 3), failed());
        images.take_in(reading(1, None, 3), read("late"));
        assert_eq!(known(&images), (Some("late:latest".to_owned()), true), "of the old revision");
        assert_eq!(images.failed.as_ref().unwrap().reading.revision, 2);
        images.take_in(reading(2, None, 4), read("second"));
        assert_eq!(known(&images), (Some("second:latest".to_owned()), false));
    }

    #[test]
    fn a_step_has_an_image_once_and_their_number_is_bounded() {
        let mut needed = NeededImages::default();
        for role in [ImageRole::Buildtime, ImageRole::Runtime, ImageRole::Buildtime] {
            needed.add(image("alpine", role));
        }
        assert_eq!(needed.images(), [image("alpine", ImageRole::Runtime)]);
        for number in 1..MOST_IMAGES {
            needed.add(image(&format!("image-{number}"), ImageRole::Buildtime));
        }
        assert!(!needed.is_cut());
        needed.add(image("one-more", ImageRole::Buildtime));
        assert!(needed.is_cut());
        assert_eq!(needed.images().len(), MOST_IMAGES);
    }
}
