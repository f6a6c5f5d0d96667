//! Events: the meaning of deliveries and requests.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::code_host::HostKind;
use crate::fact::FactKey;
use crate::id::{EventId, HookId, RegistryName, RunId, RunPrefix, TaskId, TokenId, WaveId};
use crate::image::{Digest, ImageReference};
use crate::image_version::ImageVersion;
use crate::platform::Platform;
use crate::pull_request::{
    Association, ChangedFiles, ProviderRepository, PullRequest, PullRequestVersion,
};
use crate::source::{CommitId, CommitPrefix, GitUrl, RefName, RepositoryKey};
use crate::timer::TimerName;
use crate::timestamp::Timestamp;
use crate::trace::TraceParent;
use crate::tracked_image::TrackedImage;
use crate::trigger::PullRequestAction;

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

impl EventKind {
    /// The repository in which something changed, if it is about one.
    #[must_use]
    pub fn repository(&self) -> Option<RepositoryKey> {
        match self {
            Self::Push(push) => Some(push.repository()),
            Self::PullRequest(change) => Some(change.repository()),
            Self::PullRequestNotice(notice) => Some(notice.url.key()),
            Self::Comment(comment) => Some(comment.url.key()),
            Self::ImagePushed(_)
            | Self::ImageMoved(_)
            | Self::TaskSaved { .. }
            | Self::TimerDue(_)
            | Self::Requested { .. } => None,
        }
    }

    /// The same without the hook that reported it, which is then not asked whether it may.
    #[must_use]
    pub fn without_hook(mut self) -> Self {
        match &mut self {
            Self::Push(push) => push.hook = None,
            Self::PullRequest(change) => change.hook = None,
            Self::PullRequestNotice(notice) => notice.hook = None,
            Self::Comment(comment) => comment.hook = None,
            Self::ImagePushed(pushed) => pushed.hook = None,
            Self::ImageMoved(_)
            | Self::TaskSaved { .. }
            | Self::TimerDue(_)
            | Self::Requested { .. } => {}
        }
        self
    }
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum EventKind {
    /// A provider reported that a branch or tag moved.
    Push(Push),
    /// A provider reported that a pull request changed.
    PullRequest(PullRequestChange),
    /// A provider reported that a pull request changed, but not all of what it is now.
    PullRequestNotice(PullRequestNotice),
    /// Somebody wrote a command below a pull request.
    Comment(Comment),
    /// Somebody reported that an image was pushed.
    ImagePushed(ImagePushed),
    /// gantry found that a tag has another image than before.
    ImageMoved(ImageMoved),
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
    /// A timer of a task is due.
    TimerDue(TimerDue),
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

/// One due instant of a timer: at most one event exists for it, whoever fires it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerDue {
    /// The task.
    pub task: TaskId,
    /// The time of creation, which distinguishes the task from others of the same name.
    pub created: Timestamp,
    /// The timer.
    pub timer: TimerName,
    /// The instant.
    pub due: Timestamp,
}

impl TimerDue {
    /// The id of the event.
    #[must_use]
    pub fn event_id(&self) -> EventId {
        let Self { task, created, timer, due } = self;
        let (created, due) = (created.as_millis(), due.as_millis());
        match format!("timer:{task}:{created}:{timer}:{due}").parse() {
            Ok(id) => id,
            Err(_) => unreachable!("names and numbers are short and of an event id's characters"),
        }
    }
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
    /// The files that differ between the two commits.
    #[serde(default)]
    pub changed: ChangedFiles,
    /// Whether the message of the commit after asks that nothing starts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asks_to_skip: bool,
}

impl Push {
    /// The key of the repository.
    #[must_use]
    pub fn repository(&self) -> RepositoryKey {
        self.url.key()
    }
}

/// A change of a pull request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PullRequestChange {
    /// The hook that reported it. `None` for what gantry found itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<HookId>,
    /// The URL of the repository that it wants to merge into, from the provider.
    pub url: GitUrl,
    /// What happened; `None` if the provider does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<PullRequestAction>,
    /// The head before, if the provider tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<CommitId>,
    /// The pull request after it.
    pub now: PullRequest,
    /// Whether the message of the head asks that nothing starts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asks_to_skip: bool,
    /// The provider's references to its commits.
    pub refs: PullRequestRefs,
}

impl PullRequestChange {
    /// The key of the repository that it wants to merge into.
    #[must_use]
    pub fn repository(&self) -> RepositoryKey {
        self.url.key()
    }

    /// The fact about it, from the perspective of one registry.
    #[must_use]
    pub fn fact_key(&self, registry: &RegistryName) -> FactKey {
        let (repository, number) = (&self.now.base.repository, self.now.number);
        FactKey::pull_request(registry, &self.repository(), repository, number)
    }
}

/// A change of a pull request from a provider that shortens commits. What the pull request is now is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PullRequestNotice {
    /// The hook that reported it. `None` in a simulation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<HookId>,
    /// The URL of the repository that it wants to merge into, from the provider.
    pub url: GitUrl,
    /// The id of that repository.
    pub repository: ProviderRepository,
    /// Its number.
    pub number: u64,
    /// What happened; `None` if the provider does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<PullRequestAction>,
    /// Whether it could still be merged.
    pub is_open: bool,
    /// The first digits of its head.
    pub head: CommitPrefix,
    /// Its base.
    pub base: RefName,
    /// The provider's references to its commits.
    pub refs: PullRequestRefs,
}

impl PullRequestNotice {
    /// The fact about it, from the perspective of one registry.
    #[must_use]
    pub fn fact_key(&self, registry: &RegistryName) -> FactKey {
        FactKey::pull_request(registry, &self.url.key(), &self.repository, self.number)
    }

    /// Whether it reports this version; `None` is that of a closed pull request.
    #[must_use]
    pub fn reports(&self, version: Option<&PullRequestVersion>) -> bool {
        match version {
            Some(version) => {
                self.is_open && self.head.begins(&version.head) && self.base == version.base
            }
            None => !self.is_open,
        }
    }

    /// The change, once the provider told what the pull request is now.
    #[must_use]
    pub fn as_change(&self, now: PullRequest) -> PullRequestChange {
        PullRequestChange {
            hook: self.hook.clone(),
            url: self.url.clone(),
            action: self.action,
            before: None,
            now,
            asks_to_skip: false,
            refs: self.refs.clone(),
        }
    }
}

/// Where a repository has the commits of its pull requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequestRefs {
    /// The reference to the head, like `pull/7/head`; `None` if the provider has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<RefName>,
    /// The reference to the trial merge, like `pull/7/merge`; `None` if the provider has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<RefName>,
}

impl PullRequestRefs {
    /// The references that a code host of this kind has to a pull request.
    #[must_use]
    pub fn at(kind: HostKind, pull_request: &PullRequest) -> Self {
        let number = pull_request.number;
        // The source branch of a fork is in another repository.
        let own = pull_request.head.branch.as_ref().filter(|_| !pull_request.is_from_fork());
        let source = || own.and_then(|branch| format!("heads/{branch}").parse().ok());
        match kind {
            HostKind::GitHub => Self::at_github(number),
            HostKind::AzureDevOps => {
                Self { head: source(), merge: reference("pull", number, "merge") }
            }
            HostKind::GitLab => Self {
                head: reference("merge-requests", number, "head"),
                merge: reference("merge-requests", number, "merge"),
            },
            HostKind::Gitea => Self { head: reference("pull", number, "head"), merge: None },
            HostKind::Bitbucket => Self { head: source(), merge: None },
        }
    }

    /// Those of GitHub, for which the number is enough: its comments tell no more.
    #[must_use]
    pub fn at_github(number: u64) -> Self {
        Self { head: reference("pull", number, "head"), merge: reference("pull", number, "merge") }
    }
}

fn reference(kind: &str, number: u64, side: &str) -> Option<RefName> {
    format!("{kind}/{number}/{side}").parse().ok()
}

/// A command in a comment below a pull request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comment {
    /// The hook that reported it. `None` in a simulation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<HookId>,
    /// The URL of the repository, from the provider.
    pub url: GitUrl,
    /// The repository's id.
    pub repository: ProviderRepository,
    /// The number of the pull request.
    pub number: u64,
    /// The command.
    pub command: Command,
    /// Who wrote it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The relation of who wrote it to the repository.
    pub association: Association,
    /// The provider's references to the commits of the pull request.
    pub refs: PullRequestRefs,
}

/// What a comment asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command")]
pub enum Command {
    /// `/gantry build`: a run of the current head, even if it had one.
    Build,
    /// `/gantry cancel`: the end of all its runs.
    Cancel,
    /// `/gantry approve COMMIT`: its held runs of exactly this commit may start.
    Approve {
        /// The commit.
        commit: CommitId,
    },
}

impl Command {
    /// The command in a comment: the first line that begins with `/gantry`. `None` if there is none, or no valid one.
    #[must_use]
    pub fn in_comment(text: &str) -> Option<Self> {
        let line = text.lines().map(str::trim).find(|line| line.starts_with("/gantry"))?;
        let mut words = line.split_whitespace();
        match (words.next()?, words.next()?, words.next(), words.next()) {
            ("/gantry", "build", None, None) => Some(Self::Build),
            ("/gantry", "cancel", None, None) => Some(Self::Cancel),
            // A shortened commit could be one that somebody else makes.
            ("/gantry", "approve", Some(commit), None) => {
                Some(Self::Approve { commit: commit.parse().ok()? })
            }
            _ => None,
        }
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

impl fmt::Display for PushedRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Branch(branch) => write!(f, "branch {branch}"),
            Self::Tag(tag) => write!(f, "tag {tag}"),
        }
    }
}

/// A tag that has another image than before, for one platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageMoved {
    /// The tag, or the policy that chooses one.
    pub image: TrackedImage,
    /// The platform.
    pub platform: Platform,
    /// What the tag had before.
    pub before: ImageVersion,
    /// What it has now.
    pub after: ImageVersion,
    /// The fact that advanced.
    pub fact: FactKey,
    /// Its new generation.
    pub generation: u64,
    /// The wave whose run pushed it; `None` if no wave did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<WaveId>,
    /// The run that pushed it, if a run of gantry did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

/// A report that an image was pushed. It is a hint: only the registry knows what its tags point to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImagePushed {
    /// The hook that received it. `None` in a simulation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<HookId>,
    /// The registry, repository and tag; no tag if it was pushed by digest.
    pub image: ImageReference,
    /// The digest of the manifest, if the sender tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The media type of the manifest, if the sender tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Whether the sender proved that it knows the hook's secret. Others know only the hook's address, and cannot make
    /// gantry ask the registry more often than its polls may.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_proven: bool,
}

impl fmt::Display for ImagePushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.digest {
            Some(digest) if self.image.digest().is_none() => write!(f, "{}@{digest}", self.image),
            Some(_) | None => write!(f, "{}", self.image),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pull_request::{PullRequestBase, PullRequestHead};

    #[test]
    fn a_code_host_has_the_commits_of_a_pull_request_at_its_own_references() {
        let mut pull_request = PullRequest {
            number: 7,
            is_open: true,
            head: PullRequestHead {
                commit: "b".repeat(40).parse().unwrap(),
                branch: "fix/it".parse().ok(),
                repository: "1".parse().ok(),
            },
            base: PullRequestBase {
                branch: "main".parse().unwrap(),
                repository: "1".parse().unwrap(),
            },
            merge: None,
            is_draft: false,
            labels: Vec::new(),
            author: None,
            association: Association::Stranger,
        };
        let refs = |pull_request: &PullRequest| {
            HostKind::ALL.map(|kind| {
                let PullRequestRefs { head, merge } = PullRequestRefs::at(kind, pull_request);
                [head, merge].map(|it| it.map_or_else(|| "-".to_owned(), |it| it.to_string()))
            })
        };
        let [github, gitlab, gitea] = [
            ["pull/7/head", "pull/7/merge"],
            ["merge-requests/7/head", "merge-requests/7/merge"],
            ["pull/7/head", "-"],
        ];
        let (azure, bitbucket) = (["heads/fix/it", "pull/7/merge"], ["heads/fix/it", "-"]);
        assert_eq!(refs(&pull_request), [github, azure, gitlab, gitea, bitbucket]);
        pull_request.head.repository = None;
        let (azure, bitbucket) = (["-", "pull/7/merge"], ["-", "-"]);
        assert_eq!(refs(&pull_request), [github, azure, gitlab, gitea, bitbucket]);
    }

    #[test]
    fn a_command_is_a_line_of_its_own_and_an_approval_names_the_whole_commit() {
        let commit = "a".repeat(40);
        assert_eq!(Command::in_comment("/gantry build"), Some(Command::Build));
        assert_eq!(Command::in_comment("please\r\n  /gantry cancel \r\n"), Some(Command::Cancel));
        let approved = Command::Approve { commit: commit.parse().unwrap() };
        assert_eq!(Command::in_comment(&format!("/gantry approve {commit}")), Some(approved));
        for text in [
            "",
            "build",
            "say /gantry build",
            "/gantry",
            "/gantry build now",
            "/gantrybuild",
            "/gantry approve",
            "/gantry approve aaaaaaa",
        ] {
            assert_eq!(Command::in_comment(text), None, "{text}");
        }
    }
}
