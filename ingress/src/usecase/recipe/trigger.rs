//! Checks the triggers of a task that changes start.

use gantry_api as types;
use gantry_domain::base_trigger::BaseImageTrigger;
use gantry_domain::pattern::{Pattern, Patterns};
use gantry_domain::task::Status;
use gantry_domain::tracked_image::{TagPolicies, TagPolicy};
use gantry_domain::trigger::{
    CommitRules, PathRules, PollInterval, PullRequestRules, SourceTrigger,
};

use super::{Checker, never_moves};

impl Checker<'_> {
    pub(crate) fn source_trigger(&mut self, given: &types::SourceTrigger) -> Option<SourceTrigger> {
        self.trigger_name("source_trigger.name", &given.name);
        let branch = given.branch.as_deref();
        let branch = branch.and_then(|branch| self.mistakes.parse("source_trigger.branch", branch));
        if let Some(branch) = &branch
            && let Some(what) = never_moves(branch)
        {
            let message = format!("`{branch}` names {what}, which no push moves: name a branch");
            self.mistakes.add("source_trigger.branch", message);
        }
        let commit = self.commit_rules(&given.commit);
        let pull_request = self.pull_request_rules(&given.pull_request);
        let included = self.patterns("source_trigger.paths.included", &given.paths.included);
        let ignored = self.patterns("source_trigger.paths.ignored", &given.paths.ignored);
        let supersede = self.mistakes.parse("source_trigger.supersede", &given.supersede);
        let poll = given.poll.map(|seconds| {
            self.mistakes.check("source_trigger.poll", PollInterval::try_from(seconds))
        });
        Some(SourceTrigger {
            name: given.name.clone(),
            branch,
            commit: commit?,
            pull_request: pull_request?,
            paths: PathRules { included: included?, ignored: ignored? },
            honors_skip_marks: given.honors_skip_marks,
            supersede: supersede?,
            poll: match poll {
                Some(poll) => Some(poll?),
                None => None,
            },
        })
    }

    pub(crate) fn base_image_trigger(
        &mut self,
        given: &types::BaseImageTrigger,
    ) -> Option<BaseImageTrigger> {
        self.trigger_name("base_image_trigger.name", &given.name);
        let status = self.status("base_image_trigger.status", &given.status);
        let kind = self.mistakes.parse("base_image_trigger.type", &given.kind);
        let images = self.patterns("base_image_trigger.images", &given.images);
        let name = given.name.clone();
        Some(BaseImageTrigger { name, status: status?, kind: kind?, images: images? })
    }

    pub(crate) fn base_image_follow(&mut self, texts: &[String]) -> Option<TagPolicies> {
        let target = "base_image_follow";
        let parsed: Vec<Option<TagPolicy>> =
            texts.iter().map(|text| self.mistakes.parse(target, text)).collect();
        let parsed: Vec<TagPolicy> = parsed.into_iter().collect::<Option<_>>()?;
        self.mistakes.check(target, TagPolicies::try_from(parsed))
    }

    fn trigger_name(&mut self, target: &str, name: &str) {
        if name.is_empty() || name.len() > 100 {
            let count = name.chars().count();
            let message = format!("a trigger's name has 1 to 100 characters, and this one {count}");
            self.mistakes.add(target, message);
        }
    }

    fn commit_rules(&mut self, given: &types::CommitRules) -> Option<CommitRules> {
        let status = self.status("source_trigger.commit.status", &given.status);
        let branches = self.patterns("source_trigger.commit.branches", &given.branches);
        let tags = self.patterns("source_trigger.commit.tags", &given.tags);
        Some(CommitRules { status: status?, branches: branches?, tags: tags? })
    }

    fn pull_request_rules(&mut self, given: &types::PullRequestRules) -> Option<PullRequestRules> {
        let at = |field: &str| format!("source_trigger.pull_request.{field}");
        let status = self.status(&at("status"), &given.status);
        let branches = self.patterns(&at("branches"), &given.branches);
        let actions: Vec<_> = given
            .actions
            .iter()
            .filter_map(|action| self.mistakes.parse(&at("actions"), action))
            .collect();
        let labels = self.patterns(&at("labels"), &given.labels);
        let authors = self.mistakes.parse(&at("authors"), &given.authors);
        let builds = self.mistakes.parse(&at("builds"), &given.builds);
        let forks = self.mistakes.parse(&at("forks"), &given.forks);
        Some(PullRequestRules {
            status: status?,
            branches: branches?,
            actions,
            drafts: given.drafts,
            labels: labels?,
            authors: authors?,
            builds: builds?,
            forks: forks?,
            push: given.push,
            comments: given.comments,
        })
    }

    fn patterns(&mut self, target: &str, texts: &[String]) -> Option<Patterns> {
        let parsed: Vec<Option<Pattern>> =
            texts.iter().map(|text| self.mistakes.parse(target, text)).collect();
        let parsed: Vec<Pattern> = parsed.into_iter().collect::<Option<_>>()?;
        self.mistakes.check(target, Patterns::try_from(parsed))
    }
}

/// Whether any change of the repository may start the task.
pub(crate) fn is_enabled(trigger: &SourceTrigger) -> bool {
    trigger.commit.status == Status::Enabled || trigger.pull_request.status == Status::Enabled
}
