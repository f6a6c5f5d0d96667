//! What a code host is told about the runs of a commit.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::id::{RegistryName, TaskName};
use crate::pull_request::ProviderRepository;
use crate::recipe::Work;
use crate::run::{Outcome, Product, Run, RunError, RunState};
use crate::source::{CommitId, GitUrl};
use crate::text::text_type;
use crate::timestamp::Timestamp;

/// The most characters of a description: what the strictest provider takes.
const LONGEST: usize = 140;

/// The most characters of the details.
const LONGEST_DETAILS: usize = 4000;

/// How many digits of a digest are shown.
const DIGEST_DIGITS: usize = 12;

text_type!(
    /// The name under which a task's states appear at a code host: `gantry/<task>`. Rules of branches refer to it, so
    /// it never contains a run's id.
    ReportContext,
    "name of a commit status",
    "1 to 200 printable characters",
    |text| (1..=200).contains(&text.len()) && !text.chars().any(char::is_control)
);

impl ReportContext {
    /// The name for the runs of a task: `gantry/<task>`, with the registry before the task if it is given, and `/pr`
    /// after it at a pull request.
    #[must_use]
    pub fn of_task(
        registry: Option<&RegistryName>,
        task: &TaskName,
        target: &ReportTarget,
    ) -> Self {
        let registry = registry.map(|registry| format!("{registry}/")).unwrap_or_default();
        let pull_request = if target.pull_request.is_some() { "/pr" } else { "" };
        Self(format!("gantry/{registry}{task}{pull_request}"))
    }
}

/// The state of a run, as code hosts show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportState {
    /// It waits for a worker.
    Pending,
    /// It waits for somebody to approve it.
    Held,
    /// A worker has it.
    Running,
    /// It succeeded.
    Succeeded,
    /// A step failed.
    Failed,
    /// It took too long.
    TimedOut,
    /// gantry or something that it needs failed.
    Errored,
    /// Somebody cancelled it, or a newer commit replaced it.
    Canceled,
}

impl ReportState {
    /// How code hosts show this state of a run.
    #[must_use]
    pub fn of(state: &RunState) -> Self {
        match state {
            state if state.is_held() => Self::Held,
            RunState::Waiting { .. } | RunState::Ready { .. } => Self::Pending,
            RunState::Started { .. } | RunState::Running { .. } => Self::Running,
            RunState::Done(done) => match done.outcome {
                Outcome::Succeeded(_) => Self::Succeeded,
                Outcome::Failed { .. } => Self::Failed,
                Outcome::Timeout { .. } => Self::TimedOut,
                Outcome::Error { .. } => Self::Errored,
                Outcome::Canceled { .. } => Self::Canceled,
            },
        }
    }
}

/// What a commit status is attached to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReportTarget {
    /// The commit.
    pub commit: CommitId,
    /// The pull request with that head. Providers with statuses of pull requests show it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<u64>,
    /// The repository that has the commit, if that is not the one of the task's URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<ProviderRepository>,
}

/// The state of a run for one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// What it is attached to.
    pub target: ReportTarget,
    /// The name.
    pub context: ReportContext,
    /// The state.
    pub state: ReportState,
    /// One sentence for people. Longer ones are cut to what the provider takes.
    pub description: String,
    /// What failed, in full: several lines for people, where the provider shows them. Empty if nothing did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
    /// When its last attempt began, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// The address of the run.
    pub link: String,
}

/// GitHub's id of the check run under which it shows the states of a task's runs at a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CheckRunId(pub u64);

/// What was last passed on about a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// The commit.
    pub commit: CommitId,
    /// The name, which stays the same until the run has ended.
    pub context: ReportContext,
    /// The state.
    pub state: ReportState,
    /// Why the code host does not show it, and the remedy, once gantry has given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Run {
    /// The repository and the place in it where a code host shows the run's states; `None` if none does, or the commit
    /// is not known yet.
    #[must_use]
    pub fn reports_to(&self) -> Option<(&GitUrl, ReportTarget)> {
        let reports = self.task.as_ref().is_some_and(|task| task.reports);
        let git = self.recipe.source.git()?;
        if !reports || self.is_hidden() {
            return None;
        }
        let of = self.recipe.pull_request.as_ref();
        // A trial merge is nobody's commit: the head is what people see.
        let commit = of.map(|of| of.head.clone()).or_else(|| self.commit())?;
        let pull_request = of.map(|of| of.number);
        let target = ReportTarget { commit, pull_request, repository: None };
        Some((&git.url, target))
    }

    /// Whether its state was not passed on to its code host yet.
    #[must_use]
    pub fn is_unreported(&self) -> bool {
        let Some((_, target)) = self.reports_to() else { return false };
        let state = ReportState::of(&self.state);
        !self
            .reported
            .as_ref()
            .is_some_and(|reported| reported.state == state && reported.commit == target.commit)
    }

    /// The report of its state. Another one precedes it if a former attempt built another commit, where the last state
    /// would otherwise stay for ever.
    #[must_use]
    pub fn report(
        &self,
        target: &ReportTarget,
        context: &ReportContext,
        link: &str,
    ) -> Vec<StatusReport> {
        let report = |commit: &CommitId, state, description| StatusReport {
            target: ReportTarget { commit: commit.clone(), ..target.clone() },
            context: context.clone(),
            state,
            description,
            details: String::new(),
            started: None,
            link: link.to_owned(),
        };
        let former = self.reported.as_ref().filter(|reported| reported.commit != target.commit);
        let former = former.map(|reported| {
            let description = format!("Another attempt builds commit {}", short(&target.commit));
            report(&reported.commit, ReportState::Canceled, description)
        });
        let now = StatusReport {
            details: details(self),
            started: self.state.started(),
            ..report(&target.commit, ReportState::of(&self.state), describe(self))
        };
        former.into_iter().chain([now]).collect()
    }
}

fn short(commit: &CommitId) -> &str {
    commit.as_str().get(..7).unwrap_or_default()
}

/// The state of a run in one sentence. It is public wherever the repository is, so it names nothing but what the run's
/// masked error does.
fn describe(run: &Run) -> String {
    let text = match &run.state {
        state if state.is_held() => "Waits for an approval".to_owned(),
        RunState::Waiting { .. } | RunState::Ready { .. } if run.attempts.is_empty() => {
            "Waits for a worker".to_owned()
        }
        RunState::Waiting { .. } | RunState::Ready { .. } => "Waits for another attempt".to_owned(),
        RunState::Started { .. } | RunState::Running { .. } => match run.recipe.work {
            Work::Build(_) => "Building".to_owned(),
            Work::File(_) => "Running".to_owned(),
        },
        RunState::Done(done) => match &done.outcome {
            Outcome::Succeeded(product) => pushed(product),
            Outcome::Failed { error } => failed(error),
            Outcome::Timeout { error } => format!("Took too long: {error}"),
            Outcome::Error { error } => format!("gantry could not run it: {error}"),
            Outcome::Canceled { .. } => "Canceled".to_owned(),
        },
    };
    one_line(&text)
}

/// What failed, as the run's masked error says it.
fn details(run: &Run) -> String {
    let error = run.state.done().and_then(|done| done.outcome.error());
    let text = error.map(ToString::to_string).unwrap_or_default();
    let text: String = text.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
    cut(text, LONGEST_DETAILS)
}

fn pushed(product: &Product) -> String {
    let images: BTreeSet<(&str, &str)> = product
        .outputs
        .iter()
        .map(|output| (output.image.repository().as_str(), output.digest.as_str()))
        .collect();
    let Some((repository, digest)) = images.first() else { return "Succeeded".to_owned() };
    let digest = digest.get(.."sha256:".len() + DIGEST_DIGITS).unwrap_or(digest);
    match images.len() - 1 {
        0 => format!("Pushed {repository}@{digest}"),
        others => format!("Pushed {repository}@{digest} and {others} more"),
    }
}

fn failed(error: &RunError) -> String {
    match (&error.step, error.exit_code) {
        (Some(step), Some(code)) => format!("Step {step} failed with exit code {code}"),
        _ => error.to_string(),
    }
}

/// The first line, without control characters and not longer than [`LONGEST`].
fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    cut(line, LONGEST)
}

fn cut(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text,
        Some(_) => text.chars().take(most - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::built_on::SourceRead;
    use crate::decide::planner;
    use crate::decide::samples::task;
    use crate::id::{RunId, RunPrefix};
    use crate::run::{CanceledBy, Done, ErrorCode, Progress, WaitReason};
    use crate::source::Source;
    use crate::timestamp::Timestamp;

    fn commit(digit: &str) -> CommitId {
        digit.repeat(40).parse().unwrap()
    }

    fn run() -> Run {
        let task = task();
        let (event, by) = ("request/r1".parse().unwrap(), "t1".parse().unwrap());
        let draft = planner::for_task_request(&task, task.recipe.clone(), event, by);
        draft.create(RunId::new(RunPrefix::nth(0), 1), Timestamp::default())
    }

    fn at(run: Run, digit: &str) -> Run {
        let repository = "git.test/octo/web".parse().unwrap();
        let read = SourceRead { repository, branch: None, commit: commit(digit) };
        Run { read: Some(read), ..run }
    }

    fn ended(outcome: Outcome) -> Run {
        let state = RunState::Done(Done { outcome, started: None, at: Timestamp::default() });
        Run { state, ..at(run(), "a") }
    }

    fn error(step: Option<&str>, exit_code: Option<i64>, message: &str) -> RunError {
        let step = step.map(|step| step.parse().unwrap());
        RunError { code: ErrorCode::StepFailed, step, exit_code, message: message.to_owned() }
    }

    fn reported(run: &Run) -> Reported {
        let (_, target) = run.reports_to().unwrap();
        let state = ReportState::of(&run.state);
        let context = "gantry/web".parse().unwrap();
        Reported { commit: target.commit, context, state, problem: None }
    }

    #[test]
    fn a_context_names_the_task_and_never_the_run() {
        let (registry, task) = ("demo".parse().unwrap(), "web".parse().unwrap());
        let target = ReportTarget { commit: commit("a"), pull_request: None, repository: None };
        let pull_request = ReportTarget { pull_request: Some(7), ..target.clone() };
        let of = |registry, target| ReportContext::of_task(registry, &task, target).to_string();
        assert_eq!(of(None, &target), "gantry/web");
        assert_eq!(of(Some(&registry), &target), "gantry/demo/web");
        assert_eq!(of(None, &pull_request), "gantry/web/pr");
        assert_eq!(of(Some(&registry), &pull_request), "gantry/demo/web/pr");
    }

    #[test]
    fn a_run_reports_once_its_commit_is_known() {
        assert_eq!(run().reports_to(), None);
        assert!(!run().is_unreported());
        let read = at(run(), "a");
        assert_eq!(read.reports_to().unwrap().1.commit, commit("a"));
        assert!(read.is_unreported());
        let known = Run { reported: Some(reported(&read)), ..read };
        assert!(!known.is_unreported());
        assert!(at(known, "b").is_unreported(), "another commit is another place");
    }

    #[test]
    fn only_a_shown_run_of_an_unchanged_task_with_reports_on_reports() {
        let mut silent = at(run(), "a");
        silent.task.as_mut().unwrap().reports = false;
        assert_eq!(silent.reports_to(), None);
        let quick = Run { task: None, ..at(run(), "a") };
        assert_eq!(quick.reports_to(), None);
        let hidden = Run { id: RunId::hidden(RunPrefix::nth(0), 1), ..at(run(), "a") };
        assert_eq!(hidden.reports_to(), None);
        let mut no_git = at(run(), "a");
        no_git.recipe.source = Source::Nothing;
        assert_eq!(no_git.reports_to(), None);

        let mut task = task();
        let (event, by) =
            ("request/r1".parse().unwrap(), "t1".parse::<crate::id::TokenId>().unwrap());
        let mut recipe = task.recipe.clone();
        recipe.platforms = "linux/arm64".parse().unwrap();
        let overridden = planner::for_task_request(&task, recipe, event, by.clone());
        assert!(!overridden.task.unwrap().reports, "an override may have changed what is tested");
        task.reports = false;
        let event = "request/r2".parse().unwrap();
        let off = planner::for_task_request(&task, task.recipe.clone(), event, by);
        assert!(!off.task.unwrap().reports);
    }

    #[test]
    fn a_rerun_reports_at_the_commit_of_the_first_run_before_it_is_fetched() {
        let first = at(run(), "a");
        let (event, by) = ("request/r2".parse().unwrap(), "t1".parse().unwrap());
        let rerun = planner::for_rerun(&first, event, by);
        let rerun = rerun.create(RunId::new(RunPrefix::nth(0), 2), Timestamp::default());
        assert_eq!(rerun.reports_to().unwrap().1.commit, commit("a"));
    }

    #[test]
    fn an_attempt_that_builds_another_commit_ends_what_the_former_one_showed() {
        let first = at(run(), "a");
        let moved = at(Run { reported: Some(reported(&first)), ..first }, "b");
        let (_, target) = moved.reports_to().unwrap();
        let context = "gantry/web".parse().unwrap();
        let reports = moved.report(&target, &context, "http://gantry.test/runs/ca1");
        let shown: Vec<_> = reports
            .iter()
            .map(|report| (&report.target.commit, report.state, report.description.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                (&commit("a"), ReportState::Canceled, "Another attempt builds commit bbbbbbb"),
                (&commit("b"), ReportState::Pending, "Waits for a worker"),
            ]
        );
    }

    #[test]
    fn descriptions_say_in_one_short_line_how_a_run_stands() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        let outputs = ["registry.test/web:1", "registry.test/web:latest", "registry.test/api:1"];
        let outputs = outputs.map(|image| crate::lineage::OutputImage {
            image: image.parse().unwrap(),
            digest: digest.parse().unwrap(),
            children: Vec::new(),
        });
        let product = |count: usize| {
            let outputs = outputs.iter().take(count).cloned().collect();
            Outcome::Succeeded(Product { outputs, ..Product::default() })
        };
        let failed = |error| Outcome::Failed { error };
        let waiting = at(run(), "a");
        let held = Progress::Held { reason: WaitReason::Admission };
        let held = Run {
            state: waiting.state.clone().apply(held, Timestamp::default()).unwrap(),
            ..waiting
        };
        for (run, expected) in [
            (held, "Waits for a worker"),
            (ended(product(0)), "Succeeded"),
            (ended(product(2)), "Pushed web@sha256:0123456789ab"),
            (ended(product(3)), "Pushed api@sha256:0123456789ab and 1 more"),
            (
                ended(failed(error(Some("build"), Some(2), "long\noutput"))),
                "Step build failed with exit code 2",
            ),
            (ended(failed(error(None, None, "no \u{1b}file\nmore"))), "no file"),
            (
                ended(Outcome::Error { error: error(None, None, "worker lost") }),
                "gantry could not run it: worker lost",
            ),
            (
                ended(Outcome::Timeout { error: error(None, None, "over 60 s") }),
                "Took too long: over 60 s",
            ),
            (
                ended(Outcome::Canceled { by: CanceledBy::PullRequestClosed { number: 7 } }),
                "Canceled",
            ),
        ] {
            assert_eq!(describe(&run), expected);
        }
        let long = describe(&ended(failed(error(None, None, &"ä".repeat(500)))));
        assert_eq!(long.chars().count(), LONGEST);
        assert!(long.ends_with('…'));
    }
}
