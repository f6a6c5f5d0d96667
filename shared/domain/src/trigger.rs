//! Triggers: the rules by which changes of a repository start a task.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::InvalidText;
use crate::pattern::Patterns;
use crate::pull_request::Association;
use crate::source::RefName;
use crate::task::Status;
use crate::text::words;

/// Starts runs when the task's repository changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTrigger {
    /// The trigger's name in the task.
    pub name: String,
    /// The branch. If `None`, the branch of the task's source, or else the provider's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<RefName>,
    /// Which pushes start runs.
    pub commit: CommitRules,
    /// Which changes of pull requests start runs.
    pub pull_request: PullRequestRules,
    /// Which changed files matter, for pushes and pull requests.
    #[serde(default, skip_serializing_if = "PathRules::is_empty")]
    pub paths: PathRules,
    /// Whether a commit whose message contains `[skip ci]` or a similar mark starts nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub honors_skip_marks: bool,
    /// What a newer change does to runs of older ones.
    #[serde(default)]
    pub supersede: Supersede,
    /// How often gantry itself looks for changes; `None` if it relies on webhooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll: Option<PollInterval>,
}

impl SourceTrigger {
    /// Starts a run on each push to the branch of the task's source, as the original does by default.
    #[must_use]
    pub fn on_pushes(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            branch: None,
            commit: CommitRules::default(),
            pull_request: PullRequestRules::default(),
            paths: PathRules::default(),
            honors_skip_marks: false,
            supersede: Supersede::None,
            poll: None,
        }
    }
}

/// Which pushes start runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRules {
    /// Whether any does.
    pub status: Status,
    /// The branches, instead of the one branch of the trigger.
    #[serde(default, skip_serializing_if = "Patterns::is_empty")]
    pub branches: Patterns,
    /// The tags; none by default.
    #[serde(default, skip_serializing_if = "Patterns::is_empty")]
    pub tags: Patterns,
}

/// Which changes of pull requests start runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequestRules {
    /// Whether any does.
    pub status: Status,
    /// The base branches, instead of the one branch of the trigger.
    #[serde(default, skip_serializing_if = "Patterns::is_empty")]
    pub branches: Patterns,
    /// The actions, beside those that change the head or the base.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<PullRequestAction>,
    /// Whether drafts start runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drafts: bool,
    /// One of its labels must match; any pull request if empty.
    #[serde(default, skip_serializing_if = "Patterns::is_empty")]
    pub labels: Patterns,
    /// The least relation of its author to the repository.
    #[serde(default)]
    pub authors: Association,
    /// What is built.
    #[serde(default)]
    pub builds: PullRequestBuilds,
    /// What happens with pull requests of forks.
    #[serde(default)]
    pub forks: Forks,
    /// Whether runs push: only tags that contain the run's id, the pull request's number or the commit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub push: bool,
    /// Whether comments like `/gantry build` are obeyed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub comments: bool,
}

impl Default for PullRequestRules {
    /// The original's: pull requests start nothing.
    fn default() -> Self {
        Self {
            status: Status::Disabled,
            branches: Patterns::default(),
            actions: Vec::new(),
            drafts: false,
            labels: Patterns::default(),
            authors: Association::default(),
            builds: PullRequestBuilds::default(),
            forks: Forks::default(),
            push: false,
            comments: false,
        }
    }
}

/// Which changed files matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathRules {
    /// At least one changed file must be chosen; all are if empty.
    #[serde(default, skip_serializing_if = "Patterns::is_empty")]
    pub included: Patterns,
    /// Changed files that do not count.
    #[serde(default, skip_serializing_if = "Patterns::is_empty")]
    pub ignored: Patterns,
}

impl PathRules {
    /// Whether every change matters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.included.is_empty() && self.ignored.is_empty()
    }

    /// Whether a change of `path` matters.
    #[must_use]
    pub fn concern(&self, path: &str) -> bool {
        (self.included.is_empty() || self.included.choose(path)) && !self.ignored.choose(path)
    }
}

words!(
    /// What happened to a pull request.
    PullRequestAction, "action of a pull request",
    "`opened`, `synchronized`, `reopened`, `ready_for_review`, `labeled`, `unlabeled`, `edited` or `closed`", {
    /// It was opened.
    Opened = "opened",
    /// Its head moved.
    Synchronized = "synchronized",
    /// It was opened again.
    Reopened = "reopened",
    /// It is no draft any more.
    ReadyForReview = "ready_for_review",
    /// It got a label.
    Labeled = "labeled",
    /// It lost a label.
    Unlabeled = "unlabeled",
    /// Its title, text or base changed.
    Edited = "edited",
    /// It was merged or closed.
    Closed = "closed",
});

words!(
    /// What a run of a pull request builds.
    #[derive(Default)]
    PullRequestBuilds, "choice of what to build", "`merge` or `head`", {
    /// The provider's trial merge, if it is one of the current head; else the head.
    #[default]
    Merge = "merge",
    /// The head.
    Head = "head",
});

words!(
    /// What happens with pull requests of forks.
    #[derive(Default)]
    Forks, "choice for forks", "`hold`, `run` or `never`", {
    /// Their runs wait until somebody approves the commit.
    #[default]
    Hold = "hold",
    /// Their runs start like others, without secrets.
    Run = "run",
    /// They start nothing.
    Never = "never",
});

words!(
    /// What a newer change of a branch or pull request does to runs of older ones.
    #[derive(Default)]
    Supersede, "choice of what a newer change replaces", "`none`, `queued` or `running`", {
    /// Nothing: all of them run.
    #[default]
    None = "none",
    /// It cancels those that no worker has taken.
    Queued = "queued",
    /// It cancels those that run, too.
    Running = "running",
});

/// How often gantry looks for changes: 30 seconds to one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct PollInterval(u32);

impl PollInterval {
    /// As a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }

    /// In seconds.
    #[must_use]
    pub fn seconds(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for PollInterval {
    type Error = InvalidText;

    fn try_from(seconds: u32) -> Result<Self, Self::Error> {
        match seconds {
            30..=86_400 => Ok(Self(seconds)),
            _ => Err(InvalidText::new(
                "interval",
                &format!("{seconds} s"),
                "30 to 86400 seconds: a shorter one would load the host without being faster than a webhook",
            )),
        }
    }
}

impl From<PollInterval> for u32 {
    fn from(interval: PollInterval) -> Self {
        interval.0
    }
}

/// Whether a commit's message asks that nothing starts.
#[must_use]
pub fn asks_to_skip(message: &str) -> bool {
    /// The marks of GitHub, GitLab and Azure Pipelines.
    const MARKS: [&str; 8] = [
        "[skip ci]",
        "[ci skip]",
        "[no ci]",
        "[skip actions]",
        "[actions skip]",
        "[skip azurepipelines]",
        "[azurepipelines skip]",
        "***no_ci***",
    ];
    let message = message.to_ascii_lowercase();
    MARKS.iter().any(|mark| message.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_matters_if_it_is_included_and_not_ignored() {
        let patterns = |texts: &[&str]| {
            let patterns: Vec<_> = texts.iter().map(|text| text.parse().unwrap()).collect();
            Patterns::try_from(patterns).unwrap()
        };
        let rules = PathRules { included: patterns(&["web/**"]), ignored: patterns(&["**/*.md"]) };
        assert!(
            rules.concern("web/a.rs") && !rules.concern("api/a.rs") && !rules.concern("web/a.md")
        );
        let only_ignored = PathRules { included: Patterns::default(), ..rules };
        assert!(only_ignored.concern("api/a.rs") && !only_ignored.concern("README.md"));
        assert!(PathRules::default().concern("anything"));
    }

    #[test]
    fn every_word_is_in_its_parsers_error() {
        for word in [
            "opened",
            "synchronized",
            "reopened",
            "ready_for_review",
            "labeled",
            "unlabeled",
            "edited",
            "closed",
        ] {
            assert_eq!(word.parse::<PullRequestAction>().unwrap().to_string(), word);
            assert!("x".parse::<PullRequestAction>().unwrap_err().rule.contains(word));
        }
        for word in ["none", "queued", "running"] {
            assert_eq!(word.parse::<Supersede>().unwrap().to_string(), word);
        }
        for word in ["hold", "run", "never"] {
            assert_eq!(word.parse::<Forks>().unwrap().to_string(), word);
        }
        for word in ["merge", "head"] {
            assert_eq!(word.parse::<PullRequestBuilds>().unwrap().to_string(), word);
        }
    }

    #[test]
    fn marks_of_other_services_ask_to_skip() {
        for message in
            ["docs [skip ci]", "x\n\n[CI SKIP]", "a ***NO_CI***", "[skip azurepipelines] b"]
        {
            assert!(asks_to_skip(message), "{message}");
        }
        assert!(!asks_to_skip("skip ci"));
    }
}
