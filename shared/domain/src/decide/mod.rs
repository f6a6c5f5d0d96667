//! Decides which runs an event starts, or the first rule that said no. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::{Command, PushedRef};
use crate::fact::FactKey;
use crate::id::{EventId, HookId, RegistryName, RunId, TaskId, WaveId};
use crate::pull_request::Association;
use crate::source::{CommitId, GitUrl, RefName, RepositoryKey};
use crate::timer::TimerName;
use crate::timestamp::Timestamp;
use crate::tracked_image::TrackedImage;
use crate::trigger::PullRequestAction;

pub mod bases;
pub mod forecast;
pub mod impact;
pub mod judge;
pub mod matcher;
pub mod order;
pub mod planner;
#[cfg(test)]
pub(crate) mod samples;
pub mod timers;

/// The final decision on one event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct Decision {
    /// The event.
    pub event: EventId,
    pub at: Timestamp,
    /// All candidate tasks, ordered by name.
    pub candidates: Vec<Candidate>,
    /// Why there is no candidate, if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nothing: Option<Rule>,
}

/// A task that an event may start, and the decision on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The task; `None` for a quick build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// The decision.
    pub choice: Choice,
    /// Set if the push and the task have different URLs for the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_address: Option<OtherAddress>,
    /// Why a run was started although the changed files are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_unknown: Option<String>,
}

impl Candidate {
    /// What people should know about the decision besides the rule.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        let address = self.other_address.as_ref().map(ToString::to_string);
        let files = self.files_unknown.as_ref().map(|why| {
            format!("started although the changed files are not known, so that no change is missed: {why}")
        });
        let notes: Vec<String> = address.into_iter().chain(files).collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }
}

/// The URLs of a repository in a push and in a task, which differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherAddress {
    /// The URL in the push. It is never contacted.
    pub pushed: GitUrl,
    /// The URL in the task.
    pub task: GitUrl,
}

impl fmt::Display for OtherAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the push names {}, and the task {}: only the task's address is asked, and only it gets the task's token",
            self.pushed, self.task
        )
    }
}

/// The decision on one candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "choice")]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum Choice {
    /// The run was started.
    Run {
        /// Its id.
        run: RunId,
    },
    /// A wave has reached the task, and builds it in its order.
    Wave {
        /// Its id.
        wave: WaveId,
    },
    /// The run would be started, if the event were not only simulated.
    WouldRun,
    /// The rule said no.
    No { rule: Rule },
}

/// The rules that may say no, in the order in which they are checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "rule")]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum Rule {
    /// The registry was deleted before the event was decided.
    NoRegistry { registry: RegistryName },
    /// No task watches this repository.
    NoTask {
        /// The repository.
        repository: RepositoryKey,
    },
    /// The hook is limited to other repositories.
    HookNotForRepository {
        /// The hook.
        hook: HookId,
        /// The repository.
        repository: RepositoryKey,
    },
    /// The event was recorded. Events of its kind start nothing yet.
    RecordedOnly {
        /// What was recorded.
        what: String,
    },
    /// The task is disabled.
    TaskDisabled,
    /// The task's source trigger starts nothing on pushes.
    TriggerDisabled,
    /// The task's source trigger starts nothing on pull requests.
    PullRequestsDisabled,
    /// The timer is disabled.
    TimerDisabled { timer: TimerName },
    /// An earlier run of the timer has not ended, and the timer skips instants then.
    Overlaps {
        /// The run.
        run: RunId,
    },
    /// Too many runs of the timer wait for earlier ones.
    QueueFull {
        /// How many there are.
        runs: usize,
    },
    /// The pull request was closed.
    PullRequestClosed { number: u64 },
    /// A tag moved that the trigger does not watch.
    OtherTag {
        /// The tag.
        tag: RefName,
        /// The patterns of the tags that it watches; empty if there are none.
        watched: String,
    },
    /// Another branch moved.
    OtherBranch {
        /// The branch that moved.
        pushed: RefName,
        /// The branch that the task watches, or the patterns of several.
        watched: String,
    },
    /// The pull request is for another branch.
    OtherBase {
        /// The branch that it wants to merge into.
        base: RefName,
        /// The branch that the task watches, or the patterns of several.
        watched: String,
    },
    /// The pull request is a draft.
    Draft,
    /// The pull request has none of the labels.
    NoLabel {
        /// The patterns of the labels.
        wanted: String,
    },
    /// The author of the pull request is not close enough to the repository.
    Author {
        /// The author's relation.
        is: Association,
        /// The least one.
        least: Association,
    },
    /// The pull request is from a fork.
    FromFork,
    /// What happened to the pull request does not start the task.
    OtherAction { action: PullRequestAction },
    /// The commit's message asks that nothing starts.
    AskedToSkip,
    /// The trigger does not obey comments.
    CommentsIgnored,
    /// Who wrote the comment may not command.
    MayNotCommand {
        /// The author's relation to the repository.
        is: Association,
    },
    /// The comment's command was obeyed, on these runs.
    Obeyed { command: Command, runs: Vec<RunId> },
    /// The task watches the default branch, which is not known.
    DefaultBranchUnknown {
        /// The repository.
        repository: RepositoryKey,
    },
    /// The branch or tag was deleted.
    ReferenceDeleted { reference: PushedRef },
    /// The head is already a newer commit, which is built instead.
    Superseded {
        /// The pushed commit.
        pushed: CommitId,
        /// The current head.
        head: CommitId,
    },
    /// The branch or tag was deleted and exists again. The push that recreated it starts its run.
    ReferenceExists {
        reference: PushedRef,
        /// The current head.
        head: CommitId,
    },
    /// The pull request was closed and is open again. The change that opened it starts its run.
    PullRequestOpen { number: u64 },
    /// A run for this change was already started.
    AlreadyStarted {
        /// The run.
        run: RunId,
    },
    /// None of the changed files matters.
    NoPath {
        /// How many files changed.
        files: usize,
    },
    /// The task starts nothing when images change.
    BaseImagesOff,
    /// The task names the image by its digest.
    PinnedImage,
    /// The image is no base of an image that the task builds, and its trigger counts only these.
    OnlyBuildtime,
    /// The base image trigger does not name the image.
    OtherImage {
        /// The patterns of the images that count.
        watched: String,
    },
    /// The report was taken as a hint: the registry is asked what the tag has.
    RegistryAsked {
        /// The tag.
        image: TrackedImage,
    },
    /// No task of the registry uses the image.
    NoUser {
        /// The image.
        image: TrackedImage,
    },
    /// The image was pushed by a run of a wave that somebody dropped.
    WaveDropped {
        /// The wave.
        wave: WaveId,
    },
    /// The task makes the image itself.
    OwnImage,
    /// The task was built on this content.
    UpToDate {
        /// The run.
        run: RunId,
    },
    /// Asking for the head failed repeatedly.
    HeadUnknown {
        /// The fact.
        fact: FactKey,
        /// The cause, and the remedy.
        why: String,
    },
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRegistry { registry } => write!(f, "registry {registry} was deleted"),
            Self::NoTask { repository } => write!(
                f,
                "no task of this registry has a source trigger on {repository}: see `gantry task list`"
            ),
            Self::HookNotForRepository { hook, repository } => write!(
                f,
                "hook {hook} may not speak for {repository}: create a hook that names it"
            ),
            Self::RecordedOnly { what } => write!(f, "{what} was recorded; it starts nothing"),
            Self::TaskDisabled => f.write_str("the task is disabled: `gantry task update --status Enabled`"),
            Self::TriggerDisabled => f.write_str(
                "its source trigger is disabled: `gantry task update --commit-trigger-enabled true`",
            ),
            Self::TimerDisabled { timer } => write!(
                f,
                "timer {timer} is disabled: `gantry task timer update --timer-name {timer} --enabled true`"
            ),
            Self::Overlaps { run } => {
                write!(f, "run {run} of this timer has not ended, and the timer skips instants then")
            }
            Self::QueueFull { runs } => {
                write!(f, "{runs} runs of this timer have not ended: no more wait for them")
            }
            Self::PullRequestsDisabled => f.write_str(
                "its source trigger starts nothing on pull requests: `gantry task update --pull-request-trigger-enabled true`",
            ),
            Self::OtherTag { tag, watched } if watched.is_empty() => {
                write!(f, "tag {tag} moved; the source trigger watches no tags")
            }
            Self::OtherTag { tag, watched } => {
                write!(f, "tag {tag} moved; the source trigger watches {watched}")
            }
            Self::OtherBase { base, watched } => {
                write!(f, "the pull request is for {base}; the source trigger watches {watched}")
            }
            Self::Draft => f.write_str("the pull request is a draft"),
            Self::NoLabel { wanted } => {
                write!(f, "the pull request has no label like {wanted}")
            }
            Self::Author { is, least } => write!(
                f,
                "the author of the pull request is a {is} of the repository; the source trigger wants at least a {least}"
            ),
            Self::FromFork => f.write_str(
                "the pull request is from a fork, and the source trigger starts nothing for forks",
            ),
            Self::OtherAction { action } => {
                write!(f, "the pull request was {action}, which does not start this task")
            }
            Self::CommentsIgnored => f.write_str(
                "its source trigger obeys no comments: `gantry task update --pull-request-comments true`",
            ),
            Self::MayNotCommand { is } => write!(
                f,
                "who wrote the comment is a {is} of the repository; at least a {} may command",
                Association::Collaborator
            ),
            Self::Obeyed { command, runs } => {
                let what = match command {
                    Command::Approve { .. } => "approved",
                    Command::Cancel => "cancelled",
                    Command::Build => "started",
                };
                match runs.as_slice() {
                    [] => write!(f, "there was no run to be {what}"),
                    runs => {
                        let runs: Vec<String> = runs.iter().map(ToString::to_string).collect();
                        write!(f, "{what}: {}", runs.join(", "))
                    }
                }
            }
            Self::AskedToSkip => f.write_str("the commit's message asks to skip it"),
            Self::PullRequestClosed { number } => write!(f, "pull request {number} is closed"),
            Self::PullRequestOpen { number } => write!(
                f,
                "pull request {number} is open again: the change that opened it starts its run"
            ),
            Self::NoPath { files } => write!(
                f,
                "none of the changed files ({files}) is one of the paths that the source trigger names"
            ),
            Self::OtherBranch { pushed, watched } => {
                write!(f, "branch {pushed} moved; the source trigger watches {watched}")
            }
            Self::DefaultBranchUnknown { repository } => write!(
                f,
                "the default branch of {repository} is not known: name a branch in the task's context, like `URL#main`"
            ),
            Self::ReferenceDeleted { reference } => write!(f, "{reference} was deleted"),
            Self::ReferenceExists { reference, head } => write!(
                f,
                "{reference} exists again, at {}: the push that made it starts its run",
                short(head)
            ),
            Self::Superseded { pushed, head } => write!(
                f,
                "{} is not the head any more: that is {}, which is built instead",
                short(pushed),
                short(head)
            ),
            Self::AlreadyStarted { run } => write!(f, "run {run} was started for this change"),
            Self::BaseImagesOff => f.write_str(
                "its base image trigger is disabled: `gantry task update --base-image-trigger-enabled true`",
            ),
            Self::PinnedImage => f.write_str(
                "the task names the image by its digest, so it builds with the same one again: name only the tag",
            ),
            Self::OnlyBuildtime => f.write_str(
                "the image is no base of an image that the task builds: `gantry task update --base-image-trigger-type All` \
                 counts the others, too",
            ),
            Self::OtherImage { watched } => write!(
                f,
                "its base image trigger counts only {watched}: `gantry task update --base-image` names others"
            ),
            Self::RegistryAsked { image } => {
                write!(f, "the registry is asked what {image} has now: see `gantry image show {image}`")
            }
            Self::NoUser { image } => {
                write!(f, "no task of this registry uses {image}: see `gantry impact --base {image}`")
            }
            Self::WaveDropped { wave } => {
                write!(f, "it was pushed by a run of wave {wave}, which was dropped")
            }
            Self::OwnImage => f.write_str("the task makes this image itself"),
            Self::UpToDate { run } => write!(f, "run {run} was built on what the image is now"),
            Self::HeadUnknown { fact, why } => write!(f, "{fact} could not be asked for: {why}"),
        }
    }
}

fn short(commit: &CommitId) -> &str {
    commit.as_str().get(..7).unwrap_or_default()
}
