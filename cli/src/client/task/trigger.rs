//! The options of `gantry task create` and `gantry task update` about what starts a task.

use gantry_api::{CommitRules, PathRules, PullRequestRules, SourceTrigger};

use crate::client::arguments::{duration_in_seconds, yes_or_no};

/// What starts the task.
///
/// A pattern of branches, tags, labels or paths: `*` is anything but `/`, `**` anything; with `!` before it, what it
/// matches is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Triggers")]
pub(crate) struct TriggerOptions {
    /// Whether a push to the context's branch starts it; it does, unless told otherwise
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = yes_or_no)]
    pub(super) commit_trigger_enabled: Option<bool>,
    /// Whether a pull request into the context's branch starts it; it does not, unless told otherwise
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = yes_or_no)]
    pull_request_trigger_enabled: Option<bool>,
    /// Branches whose pushes start it, instead of the context's, like `release/*`. May be given several times
    #[arg(long = "branch", value_name = "PATTERN")]
    branches: Vec<String>,
    /// Tags whose pushes start it, like `v*`. May be given several times
    #[arg(long = "tag", value_name = "PATTERN")]
    tags: Vec<String>,
    /// Changed files of which one must match, like `web/**`. May be given several times
    #[arg(long = "path", value_name = "PATTERN")]
    paths: Vec<String>,
    /// Changed files that do not count, like `**/*.md`. May be given several times
    #[arg(long = "ignore-path", value_name = "PATTERN")]
    ignored_paths: Vec<String>,
    /// Whether commits with `[skip ci]` or a similar mark in their message start nothing
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = yes_or_no)]
    skip_marks: Option<bool>,
    /// What a newer change does to runs of older ones: none, queued (cancels those that no worker has taken) or running
    /// (cancels all)
    #[arg(long, value_name = "CHOICE")]
    supersede: Option<String>,
    /// How often gantry itself looks for changes, like 1m; 0 to rely on webhooks
    #[arg(long, value_name = "TIME", value_parser = duration_in_seconds)]
    poll: Option<u32>,
    /// Base branches of pull requests, instead of the context's. May be given several times
    #[arg(long = "pull-request-branch", value_name = "PATTERN")]
    pull_request_branches: Vec<String>,
    /// Actions of pull requests that start it too: ready_for_review, labeled, unlabeled. May be given several times
    #[arg(long = "pull-request-action", value_name = "ACTION")]
    pull_request_actions: Vec<String>,
    /// Whether drafts of pull requests start it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = yes_or_no)]
    pull_request_drafts: Option<bool>,
    /// Labels of which a pull request must have one. May be given several times
    #[arg(long = "pull-request-label", value_name = "PATTERN")]
    pull_request_labels: Vec<String>,
    /// Whose pull requests start it, at least: stranger, contributor, collaborator, member or owner
    #[arg(long, value_name = "RELATION")]
    pull_request_authors: Option<String>,
    /// What is built of a pull request: merge or head
    #[arg(long, value_name = "CHOICE")]
    pull_request_builds: Option<String>,
    /// Pull requests of forks: hold (until somebody approves the commit), run (without secrets) or never
    #[arg(long, value_name = "CHOICE")]
    pull_request_forks: Option<String>,
    /// Whether runs of pull requests push; only tags that contain the run's id or the commit
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = yes_or_no)]
    pull_request_push: Option<bool>,
    /// Whether comments like `/gantry build` below pull requests are obeyed
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = yes_or_no)]
    pull_request_comments: Option<bool>,
}

impl TriggerOptions {
    /// Whether any of them was given.
    pub(super) fn is_given(&self) -> bool {
        *self != Self::default()
    }

    /// Whether something but a push to the context's branch is to start it.
    pub(super) fn starts_otherwise(&self) -> bool {
        let has_patterns = !self.branches.is_empty() || !self.tags.is_empty();
        self.pull_request_trigger_enabled == Some(true) || has_patterns
    }

    /// Whether something is asked for that only a git repository can do.
    pub(super) fn asks_for_starts(&self) -> bool {
        self.commit_trigger_enabled == Some(true) || self.starts_otherwise() || self.poll.is_some()
    }

    /// The trigger with the given options. Lists replace former ones.
    pub(super) fn apply(self, trigger: SourceTrigger) -> SourceTrigger {
        let SourceTrigger { name, branch, commit, pull_request, paths, .. } = trigger;
        SourceTrigger {
            name,
            branch,
            commit: CommitRules {
                status: status(self.commit_trigger_enabled, commit.status),
                branches: list(self.branches, commit.branches),
                tags: list(self.tags, commit.tags),
            },
            pull_request: PullRequestRules {
                status: status(self.pull_request_trigger_enabled, pull_request.status),
                branches: list(self.pull_request_branches, pull_request.branches),
                actions: list(self.pull_request_actions, pull_request.actions),
                drafts: self.pull_request_drafts.unwrap_or(pull_request.drafts),
                labels: list(self.pull_request_labels, pull_request.labels),
                authors: self.pull_request_authors.unwrap_or(pull_request.authors),
                builds: self.pull_request_builds.unwrap_or(pull_request.builds),
                forks: self.pull_request_forks.unwrap_or(pull_request.forks),
                push: self.pull_request_push.unwrap_or(pull_request.push),
                comments: self.pull_request_comments.unwrap_or(pull_request.comments),
            },
            paths: PathRules {
                included: list(self.paths, paths.included),
                ignored: list(self.ignored_paths, paths.ignored),
            },
            honors_skip_marks: self.skip_marks.unwrap_or(trigger.honors_skip_marks),
            supersede: self.supersede.unwrap_or(trigger.supersede),
            poll: match self.poll {
                Some(0) => None,
                Some(seconds) => Some(seconds),
                None => trigger.poll,
            },
        }
    }
}

pub(super) fn status(enabled: Option<bool>, before: String) -> String {
    match enabled {
        Some(true) => "Enabled".to_owned(),
        Some(false) => "Disabled".to_owned(),
        None => before,
    }
}

/// The given entries, or else the former ones. One empty entry stands for none.
pub(super) fn list(given: Vec<String>, before: Vec<String>) -> Vec<String> {
    match given.as_slice() {
        [] => before,
        [only] if only.is_empty() => Vec::new(),
        _ => given,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_stays() {
        let first = TriggerOptions {
            tags: vec!["v*".to_owned()],
            pull_request_trigger_enabled: Some(true),
            poll: Some(60),
            ..TriggerOptions::default()
        };
        let before = first.apply(SourceTrigger::default());
        assert_eq!(TriggerOptions::default().apply(before.clone()), before);
        let change = TriggerOptions {
            commit_trigger_enabled: Some(false),
            poll: Some(0),
            ..TriggerOptions::default()
        };
        let after = change.apply(before);
        assert_eq!((after.commit.status.as_str(), after.poll), ("Disabled", None));
        assert_eq!(after.commit.tags, ["v*"]);
        assert_eq!(after.pull_request.status, "Enabled");
    }
}
