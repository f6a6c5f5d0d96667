//! What a delivery, or a request, means to us.

use serde::{Deserialize, Serialize};

use crate::id::{EventId, HookId, RegistryName, RunId, RunPrefix, TaskId, TokenId};
use crate::image::{Digest, ImageReference};
use crate::source::{CommitId, GitUrl, RefName, RepositoryKey};
use crate::timestamp::Timestamp;
use crate::trace::TraceParent;

/// Something that happened, or that somebody asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The delivery and its place in it, or the request.
    pub id: EventId,
    /// Whose tasks it may start: of no other registry.
    pub registry: RegistryName,
    /// The registry's, which tells it from others of its name.
    pub prefix: RunPrefix,
    /// When it was accepted.
    pub received: Timestamp,
    /// W3C trace context of its acceptance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
    /// What it is.
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum EventKind {
    /// A branch or tag moved, a provider says.
    Push(Push),
    /// A tag of a registry points to a manifest, a registry says.
    ImagePushed(ImagePushed),
    /// A task with a source trigger was saved: its branch's head becomes known.
    TaskSaved {
        /// The task.
        task: TaskId,
        /// When it was created, which tells it from others of its name.
        created: Timestamp,
    },
    /// A person or program asked for a run; decided where it was accepted.
    Requested {
        /// With which token.
        by: TokenId,
        /// The task, unless it is a quick build.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<TaskId>,
        /// The run that is run again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rerun_of: Option<RunId>,
    },
}

/// A branch or tag moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Push {
    /// The hook that said so: it speaks only for its repositories. `None` for what a run read of the repository itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<HookId>,
    /// The repository as the provider names it.
    pub url: GitUrl,
    /// What moved.
    pub reference: PushedRef,
    /// Where it was; `None` if it is new.
    pub before: Option<CommitId>,
    /// Where it is; `None` if it is gone.
    pub after: Option<CommitId>,
    /// The branch that the provider calls default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_branch: Option<RefName>,
    /// Who pushed, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pusher: Option<String>,
}

impl Push {
    /// The repository, as tasks name it too.
    #[must_use]
    pub fn repository(&self) -> RepositoryKey {
        self.url.key()
    }
}

/// What a push moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushedRef {
    /// `refs/heads/…`.
    Branch(RefName),
    /// `refs/tags/…`.
    Tag(RefName),
}

/// A tag points to a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImagePushed {
    /// The hook that said so.
    pub hook: HookId,
    /// Registry, repository and, unless it was pushed by digest, tag.
    pub image: ImageReference,
    /// The manifest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
}
