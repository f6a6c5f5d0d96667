//! Waves: what follows from a change of a base image.
//!
//! A wave is the label of a cause. It has a node for each task that the change may reach through the images that tasks
//! push. A task has at most one open node, however many waves want it: when no task before it has an open node, what the
//! task was last built on is compared with what its images are now, and it is built if they differ.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::InvalidText;
use crate::id::{EventId, RegistryName, RunId, RunPrefix, TaskId, WaveId};
use crate::image::{Digest, ImageReference};
use crate::platform::Platform;
use crate::task::Task;
use crate::timestamp::Timestamp;
use crate::tracked_image::TrackedImage;

/// A wave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct Wave {
    pub id: WaveId,
    pub registry: RegistryName,
    pub cause: WaveCause,
    pub created: Timestamp,
    pub state: WaveState,
    /// How many of its tasks must succeed before the others begin.
    #[serde(default)]
    pub canary: u32,
}

/// The change that a wave follows from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct WaveCause {
    /// The event that reports it.
    pub event: EventId,
    pub image: TrackedImage,
    pub platform: Platform,
    pub from: Digest,
    pub to: Digest,
    /// The run that pushed it, if a run of gantry did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

/// The state of a wave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum WaveState {
    /// Its nodes are being found. None of them begins.
    Planning {
        /// The events from which they follow.
        events: Vec<EventId>,
    },
    /// Its nodes begin in their order.
    Open,
    /// A canary failed: none of its nodes begins until somebody resumes or drops it.
    Frozen {
        /// The canary's run.
        run: RunId,
    },
    /// Every node has ended.
    Done {
        /// When.
        at: Timestamp,
    },
    /// Somebody dropped it. Its nodes end without a build.
    Dropped {
        /// When.
        at: Timestamp,
    },
}

impl WaveState {
    /// Whether nodes may begin, as far as this wave is concerned.
    #[must_use]
    pub fn lets_begin(&self) -> bool {
        match self {
            Self::Planning { .. } | Self::Frozen { .. } => false,
            Self::Open | Self::Done { .. } | Self::Dropped { .. } => true,
        }
    }

    /// Whether nothing follows from it any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Dropped { .. })
    }

    /// The word for people.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Planning { .. } => "Planning",
            Self::Open => "Open",
            Self::Frozen { .. } => "Frozen",
            Self::Done { .. } => "Done",
            Self::Dropped { .. } => "Dropped",
        }
    }
}

/// The task of a node: a name alone may be that of a later task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeTask {
    /// The prefix of the task's registry.
    pub prefix: RunPrefix,
    /// The task.
    pub task: TaskId,
    /// When it was created.
    pub created: Timestamp,
}

impl fmt::Display for NodeTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, task, created } = self;
        write!(f, "{prefix}/{task}@{}", created.as_millis())
    }
}

impl FromStr for NodeTask {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || InvalidText::new("task of a node", text, "`prefix/registry/task@created`");
        let (prefix, rest) = text.split_once('/').ok_or_else(refused)?;
        let (task, created) = rest.rsplit_once('@').ok_or_else(refused)?;
        Ok(Self {
            prefix: prefix.parse()?,
            task: task.parse()?,
            created: Timestamp::from_millis(created.parse().map_err(|_| refused())?),
        })
    }
}

impl NodeTask {
    /// The node's task of a task.
    #[must_use]
    pub fn of(task: &Task) -> Self {
        Self { prefix: task.prefix, task: task.id.clone(), created: task.created }
    }

    /// Whether it is this task, and not an earlier or later one of the same name.
    #[must_use]
    pub fn is(&self, task: &Task) -> bool {
        *self == Self::of(task)
    }
}

/// A task that waves have reached, and that is not up to date yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The task.
    pub task: NodeTask,
    /// The waves, oldest first; at least one.
    pub waves: Vec<WaveId>,
    /// Images of the task that have changed since it was last up to date.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<TrackedImage>,
    /// Where it stands.
    pub state: NodeState,
    /// How many runs it has started.
    #[serde(default)]
    pub started: u32,
    /// When it was reached.
    pub since: Timestamp,
}

impl Node {
    /// The wave that a run of a push waits for, if the node waits.
    #[must_use]
    pub fn waits(&self) -> Option<WaveId> {
        match self.state {
            NodeState::Waiting { .. } => self.waves.first().copied(),
            NodeState::Building { .. } => None,
        }
    }
}

/// Where a node stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum NodeState {
    /// It waits for the nodes of other tasks. Runs that pushes started meanwhile wait with it, and take its place.
    Waiting {
        /// Those runs.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pushed: Vec<RunId>,
    },
    /// It waits for this run of its task, which it or something else started.
    Building {
        /// The run.
        run: RunId,
    },
}

/// A task in a wave, kept with the wave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct WaveTask {
    pub wave: WaveId,
    pub task: NodeTask,
    /// The image through which it was reached.
    pub through: TrackedImage,
    /// How it ended; `None` while it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<NodeEnd>,
    pub at: Timestamp,
}

/// How a node ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "end")]
pub enum NodeEnd {
    /// A run of the wave built it.
    Built {
        /// The run.
        run: RunId,
    },
    /// A run that something else started used what the images are now.
    UsedBy {
        /// The run.
        run: RunId,
    },
    /// What it was built on has not changed, or has changed back.
    Unchanged,
    /// The wave's run did not succeed.
    Failed {
        /// The run.
        run: RunId,
    },
    /// No run was started.
    NotBuilt {
        /// Why, and the remedy.
        why: String,
    },
}

impl fmt::Display for NodeEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Built { run } => write!(f, "built by run {run}"),
            Self::UsedBy { run } => write!(f, "up to date: run {run} used the new images"),
            Self::Unchanged => f.write_str("up to date: its images are what it was built on"),
            Self::Failed { run } => write!(f, "run {run} failed"),
            Self::NotBuilt { why } => write!(f, "not built: {why}"),
        }
    }
}

/// What the last successful run of a task used and made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct LastBuild {
    pub run: RunId,
    /// The images that it used.
    pub used: Vec<UsedImage>,
    /// The tags that it moved.
    pub made: Vec<ImageReference>,
    /// How long it took from its lease to its end, in milliseconds.
    pub took: u64,
    pub at: Timestamp,
}

/// An image that a run used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedImage {
    /// What is tracked of it.
    pub image: TrackedImage,
    /// The platform that it was used for.
    pub platform: Platform,
    /// What the tag had when the run resolved it.
    pub digest: Digest,
    /// What that consists of for the platform; `None` if the registry could not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<crate::image_version::ContentKey>,
}

impl LastBuild {
    /// Whether it made what an image may be.
    #[must_use]
    pub fn makes(&self, image: &TrackedImage) -> bool {
        self.made.iter().any(|made| image.may_be(made))
    }

    /// What it used of an image.
    #[must_use]
    pub fn used(&self, image: &TrackedImage, platform: &Platform) -> Option<&UsedImage> {
        self.used.iter().find(|used| used.image == *image && used.platform == *platform)
    }
}
