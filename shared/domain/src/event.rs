//! Events: the meaning of deliveries and requests.

use serde::{Deserialize, Serialize};

use crate::id::{EventId, HookId, RegistryName, RunId, RunPrefix, TaskId, TokenId};
use crate::image::{Digest, ImageReference};
use crate::source::{CommitId, GitUrl, RefName, RepositoryKey};
use crate::timestamp::Timestamp;
use crate::trace::TraceParent;

/// Something that happened or was requested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The delivery and the position in it, or the request.
    pub id: EventId,
    /// The registry whose tasks it may start.
    pub registry: RegistryName,
    /// The registry's prefix, which distinguishes it from others of the same name.
    pub prefix: RunPrefix,
    /// When it was accepted.
    pub received: Timestamp,
    /// The W3C trace context of its acceptance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
    /// The kind of event, with its data.
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum EventKind {
    /// A provider reported that a branch or tag moved.
    Push(Push),
    /// A registry reported that a tag points to a manifest.
    ImagePushed(ImagePushed),
    /// A task was saved, so the images that it needs are to be read from its source.
    TaskSaved {
        /// The task.
        task: TaskId,
        /// The time of creation, which distinguishes the task from others of the same name.
        created: Timestamp,
        /// Whether its source trigger watches something else than before, so that the head of its branch is to be
        /// resolved.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        watches_anew: bool,
    },
    /// A person or program requested a run. Decided when it was accepted.
    Requested {
        /// The token of the request.
        by: TokenId,
        /// The task; `None` for a quick build.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<TaskId>,
        /// The run that is repeated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rerun_of: Option<RunId>,
    },
}

/// A move of a branch or tag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Push {
    /// The hook that reported it. `None` for what a run read from the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<HookId>,
    /// The repository's URL from the provider.
    pub url: GitUrl,
    /// What moved.
    pub reference: PushedRef,
    /// The commit before; `None` if the reference is new.
    pub before: Option<CommitId>,
    /// The commit after; `None` if the reference was deleted.
    pub after: Option<CommitId>,
    /// The provider's default branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_branch: Option<RefName>,
    /// Who pushed, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pusher: Option<String>,
}

impl Push {
    /// The key of the repository.
    #[must_use]
    pub fn repository(&self) -> RepositoryKey {
        self.url.key()
    }
}

/// The reference that a push moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushedRef {
    /// `refs/heads/…`.
    Branch(RefName),
    /// `refs/tags/…`.
    Tag(RefName),
}

/// A tag that points to a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImagePushed {
    /// The hook that reported it.
    pub hook: HookId,
    /// The registry, repository and tag; no tag if it was pushed by digest.
    pub image: ImageReference,
    /// The digest of the manifest.
    pub digest: Digest,
    /// The media type of the manifest.
    pub media_type: String,
}
