//! Why a run exists.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::built_on::FactVersion;
use crate::event::PushedRef;
use crate::fact::FactKey;
use crate::id::{EventId, RunId, TokenId, WaveId};
use crate::image::Digest;
use crate::signature::RunSignature;
use crate::source::{CommitId, RefName, RepositoryKey};
use crate::timer::TimerName;
use crate::timestamp::Timestamp;
use crate::tracked_image::TrackedImage;

/// What started a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum Cause {
    /// A branch or tag moved.
    Push {
        /// The event that reported it first.
        event: EventId,
        /// The repository.
        repository: RepositoryKey,
        /// The branch or tag.
        reference: PushedRef,
        /// The head.
        commit: CommitId,
        /// The fact that advanced.
        fact: FactKey,
        /// The new generation. A run of an older generation never moves a tag that a newer one has moved.
        generation: u64,
        /// Who pushed, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pusher: Option<String>,
    },
    /// A pull request changed, or somebody asked for a build of it in a comment.
    PullRequest {
        /// The event that reported it first.
        event: EventId,
        /// The repository that it wants to merge into.
        repository: RepositoryKey,
        /// Its number.
        number: u64,
        /// The head.
        commit: CommitId,
        /// The branch of the head, if that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        branch: Option<RefName>,
        /// The branch that it wants to merge into.
        base: RefName,
        /// Whether its head is in another repository, so that its content is a stranger's.
        is_fork: bool,
        /// The fact that advanced.
        fact: FactKey,
        /// The new generation.
        generation: u64,
        /// Who opened it, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        author: Option<String>,
    },
    /// A task was saved.
    Saved {
        /// The event that records it.
        event: EventId,
    },
    /// A timer was due.
    Timer {
        /// The event that records it.
        event: EventId,
        /// The timer of the task.
        timer: TimerName,
        /// The instant at which it was due.
        due: Timestamp,
        /// Whether it waits for earlier runs of the timer to end.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        queues: bool,
    },
    /// Images that its task uses have changed.
    BaseImages {
        /// The event that reported the first of the changes.
        event: EventId,
        /// The wave.
        wave: WaveId,
        /// The images that changed since the task's last build.
        moved: Vec<MovedBase>,
        /// The head of the source that is built, if the facts have one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        head: Option<BuiltHead>,
    },
    /// A person or program requested it.
    Request {
        /// The event that records it.
        event: EventId,
        /// The token of the request.
        by: TokenId,
        /// The run that is repeated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rerun_of: Option<RunId>,
        /// The service's signature of the request's content, if the request had an idempotency key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<RunSignature>,
        /// The branch of the repeated run, which cannot be derived from its commit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        branch: Option<RefName>,
    },
}

/// An image that changed since a task was built on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedBase {
    /// The image.
    pub image: TrackedImage,
    /// What the last build used; `None` if it used another image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Digest>,
    /// What is built on now.
    pub to: Digest,
}

/// The head of a source, as a fact has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltHead {
    /// The branch.
    pub branch: RefName,
    /// The commit.
    pub commit: CommitId,
    /// The fact.
    pub fact: FactVersion,
}

impl Cause {
    /// The event that the run's decision is stored under.
    #[must_use]
    pub fn event(&self) -> &EventId {
        match self {
            Self::Push { event, .. }
            | Self::PullRequest { event, .. }
            | Self::Saved { event }
            | Self::Timer { event, .. }
            | Self::BaseImages { event, .. }
            | Self::Request { event, .. } => event,
        }
    }

    /// The token of the request; `None` if nobody requested it.
    #[must_use]
    pub fn by(&self) -> Option<&TokenId> {
        match self {
            Self::Push { .. }
            | Self::PullRequest { .. }
            | Self::Saved { .. }
            | Self::Timer { .. }
            | Self::BaseImages { .. } => None,
            Self::Request { by, .. } => Some(by),
        }
    }

    /// The change that started the run: a fact at one generation. `None` if no change did.
    #[must_use]
    pub fn change(&self) -> Option<FactVersion> {
        match self {
            Self::Push { fact, generation, .. } | Self::PullRequest { fact, generation, .. } => {
                Some(FactVersion { fact: fact.clone(), generation: *generation })
            }
            Self::Saved { .. }
            | Self::Timer { .. }
            | Self::BaseImages { .. }
            | Self::Request { .. } => None,
        }
    }

    /// The head of the source that is built, if the cause tells: a fact at one generation.
    #[must_use]
    pub fn head(&self) -> Option<FactVersion> {
        match self {
            Self::BaseImages { head, .. } => head.as_ref().map(|head| head.fact.clone()),
            Self::Push { .. }
            | Self::PullRequest { .. }
            | Self::Saved { .. }
            | Self::Timer { .. }
            | Self::Request { .. } => self.change(),
        }
    }

    /// The wave that the run belongs to, if there is one.
    #[must_use]
    pub fn wave(&self) -> Option<WaveId> {
        match self {
            Self::BaseImages { wave, .. } => Some(*wave),
            Self::Push { .. }
            | Self::PullRequest { .. }
            | Self::Saved { .. }
            | Self::Timer { .. }
            | Self::Request { .. } => None,
        }
    }

    /// The commit that the cause names, if it names one.
    #[must_use]
    pub fn commit(&self) -> Option<&CommitId> {
        match self {
            Self::Push { commit, .. } | Self::PullRequest { commit, .. } => Some(commit),
            Self::BaseImages { head, .. } => head.as_ref().map(|head| &head.commit),
            Self::Saved { .. } | Self::Timer { .. } | Self::Request { .. } => None,
        }
    }

    /// The timer and the instant at which it was due, if a timer started the run.
    #[must_use]
    pub fn timer(&self) -> Option<(&TimerName, Timestamp)> {
        match self {
            Self::Timer { timer, due, .. } => Some((timer, *due)),
            Self::Push { .. }
            | Self::PullRequest { .. }
            | Self::Saved { .. }
            | Self::BaseImages { .. }
            | Self::Request { .. } => None,
        }
    }

    /// The branch that is built, if the cause tells; the tag of a push to a tag.
    #[must_use]
    pub fn branch(&self) -> Option<&RefName> {
        match self {
            Self::Push { reference: PushedRef::Branch(name) | PushedRef::Tag(name), .. } => {
                Some(name)
            }
            Self::PullRequest { branch, .. } | Self::Request { branch, .. } => branch.as_ref(),
            Self::BaseImages { head, .. } => head.as_ref().map(|head| &head.branch),
            Self::Saved { .. } | Self::Timer { .. } => None,
        }
    }

    /// The value of the original's TRIGGER column.
    #[must_use]
    pub fn trigger(&self) -> &'static str {
        match self {
            Self::Push { .. } => "Commit",
            Self::PullRequest { .. } => "Pull Request",
            Self::Saved { .. } => "Saved",
            Self::Timer { .. } => "Timer",
            Self::BaseImages { .. } => "Image Update",
            Self::Request { .. } => "Manual",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Push { reference, commit, .. } => {
                let at = commit.as_str().get(..7).unwrap_or_default();
                match reference {
                    PushedRef::Branch(branch) => write!(f, "push to {branch} at {at}"),
                    PushedRef::Tag(tag) => write!(f, "tag {tag} at {at}"),
                }
            }
            Self::PullRequest { number, commit, is_fork, .. } => {
                let at = commit.as_str().get(..7).unwrap_or_default();
                let of = if *is_fork { " of a fork" } else { "" };
                write!(f, "pull request {number}{of} at {at}")
            }
            Self::Saved { .. } => f.write_str("the task was saved"),
            Self::Timer { timer, due, .. } => write!(f, "timer {timer} due {}", due.to_minute()),
            Self::BaseImages { wave, moved, .. } => {
                let images: Vec<String> = moved.iter().map(|it| it.image.to_string()).collect();
                write!(f, "{} changed (wave {wave})", images.join(", "))
            }
            Self::Request { rerun_of: Some(run), .. } => write!(f, "rerun of {run}"),
            Self::Request { by, rerun_of: None, .. } => write!(f, "asked for with token {by}"),
        }
    }
}
