//! What a message says, as it was when it happened.

use serde::{Deserialize, Serialize};

use super::RunEvent;
use crate::id::{RegistryName, RunId, StepId, TaskName};
use crate::lineage::ChildImage;
use crate::run::{ErrorCode, Run, RunState};
use crate::source::{CommitId, RefName, RepositoryKey};
use crate::timestamp::Timestamp;

/// How many images a message names.
const MOST_IMAGES: usize = 20;

/// The most characters of a failure's text.
const LONGEST_TEXT: usize = 1000;

/// An event of a run, with what people and programs want to know then. Names nothing but what the API shows of the run:
/// no secret, and no output of its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// What happened.
    pub event: RunEvent,
    /// When it happened.
    pub at: Timestamp,
    /// The run.
    pub run: RunId,
    /// Its registry.
    pub registry: RegistryName,
    /// Its task; `None` for a quick build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskName>,
    /// What started it, in words.
    pub cause: String,
    /// The repository that it builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryKey>,
    /// The commit, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// The branch, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<RefName>,
    /// The number of the pull request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<u64>,
    /// The images that it pushed, the first ones of many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
    /// When it was created.
    pub created: Timestamp,
    /// When its last attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Timestamp>,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The URL of the installation.
    pub installation: String,
}

/// An image that a run pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its name with the tag.
    pub name: String,
    /// Its digest.
    pub digest: String,
    /// The images that an index consists of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ChildImage>,
}

/// Why a run did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The code, for programs.
    pub code: ErrorCode,
    /// The step, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
    /// The exit code of the step's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// What failed, and the remedy. Masked.
    pub message: String,
}

impl News {
    /// What last happened to a run; `None` if that is nothing to tell of. `installation` is the URL of the installation.
    #[must_use]
    pub fn of(run: &Run, installation: &str) -> Option<Self> {
        let event = RunEvent::of(run)?;
        let (at, started, finished) = match &run.state {
            RunState::Waiting { since, .. } | RunState::Ready { since, .. } => (*since, None, None),
            RunState::Started { lease } | RunState::Running { lease, .. } => {
                (lease.since, Some(lease.since), None)
            }
            RunState::Done(done) => (done.at, done.started, Some(done.at)),
        };
        let done = run.state.done();
        let outputs = done.and_then(|done| done.outcome.product()).map(|made| &made.outputs);
        let repository = run.recipe.source.git().map(|git| git.url.key());
        Some(Self {
            event,
            at,
            run: run.id,
            registry: run.registry.clone(),
            task: run.task.as_ref().map(|task| task.name.clone()),
            cause: bounded(&run.cause.to_string(), LONGEST_TEXT),
            repository,
            commit: run.pull_request_head().cloned().or_else(|| run.commit()),
            branch: run.branch().cloned(),
            pull_request: run.recipe.pull_request.as_ref().map(|of| of.number),
            images: outputs
                .into_iter()
                .flatten()
                .take(MOST_IMAGES)
                .map(|output| Image {
                    name: output.image.to_string(),
                    digest: output.digest.to_string(),
                    children: output.children.clone(),
                })
                .collect(),
            created: run.created,
            started,
            finished,
            failure: done.and_then(|done| done.outcome.error()).map(|error| Failure {
                code: error.code,
                step: error.step.clone(),
                exit_code: error.exit_code,
                message: bounded(&error.message, LONGEST_TEXT),
            }),
            installation: installation.trim_end_matches('/').to_owned(),
        })
    }

    /// The address of the run, for people.
    #[must_use]
    pub fn link(&self) -> String {
        format!("{}/runs/{}", self.installation, self.run)
    }

    /// The event and the run in a few words.
    pub(super) fn headline(&self) -> String {
        let happened = match self.event {
            RunEvent::Held => "waits for an approval",
            RunEvent::Started => "started",
            RunEvent::Succeeded => "succeeded",
            RunEvent::Failed => "failed",
            RunEvent::Error => "ended with an error of the infrastructure",
            RunEvent::Timeout => "took too long",
            RunEvent::Canceled => "was canceled",
        };
        match &self.task {
            Some(task) => format!("{task}: run {} {happened}", self.run),
            None => format!("run {} {happened}", self.run),
        }
    }

    /// A sign that people recognize at a glance.
    pub(super) fn sign(&self) -> &'static str {
        match self.event {
            RunEvent::Held => "⏸",
            RunEvent::Started => "▶",
            RunEvent::Succeeded => "✅",
            RunEvent::Failed | RunEvent::Error | RunEvent::Timeout => "❌",
            RunEvent::Canceled => "⏹",
        }
    }

    /// What people want to know beside the headline, each with its name. Values are bounded to `longest` characters.
    pub(super) fn details(&self, longest: usize) -> Vec<(&'static str, String)> {
        let short = |commit: &CommitId| commit.as_str().chars().take(7).collect::<String>();
        let images: Vec<&str> = self.images.iter().map(|image| image.name.as_str()).collect();
        let took = self.started.zip(self.finished).map(|(from, to)| took(to.since(from).as_secs()));
        let details = [
            ("Repository", self.repository.as_ref().map(ToString::to_string)),
            ("Branch", self.branch.as_ref().map(ToString::to_string)),
            ("Commit", self.commit.as_ref().map(short)),
            ("Cause", Some(self.cause.clone())),
            ("Images", (!images.is_empty()).then(|| images.join("\n"))),
            ("Took", took),
        ];
        let known = details.into_iter().filter_map(|(name, value)| Some((name, value?)));
        known.map(|(name, value)| (name, bounded(&value, longest))).collect()
    }

    /// Why the run did not succeed, for people.
    pub(super) fn reason(&self) -> Option<String> {
        let failure = self.failure.as_ref()?;
        Some(match &failure.step {
            Some(step) => format!("Step {step}: {}", failure.message),
            None => failure.message.clone(),
        })
    }
}

fn took(seconds: u64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

/// A text without control characters but line breaks, cut to `longest` characters.
pub(super) fn bounded(text: &str, longest: usize) -> String {
    let text: String = text.trim().chars().filter(|c| *c == '\n' || !c.is_control()).collect();
    match text.char_indices().nth(longest) {
        None => text,
        Some(_) => text.chars().take(longest - 1).chain(['…']).collect(),
    }
}
