//! Checks one change against all rules for one task. Pure: the current state is passed in.

use super::planner::{self, MovedHead, PullRequestNow, RunDraft};
use super::{Rule, matcher};
use crate::event::{Comment, PullRequestChange, Push};
use crate::fact::{Fact, FactKey};
use crate::id::{EventId, RunId};
use crate::pull_request::{ChangedFiles, PullRequestVersion};
use crate::source::{CommitId, RepositoryKey};
use crate::task::Task;
use crate::trigger::PathRules;

/// What is known about the head that a change reported.
#[derive(Debug, Clone, PartialEq)]
pub enum Head<V = CommitId> {
    /// The head is the value of this fact.
    Known {
        /// The fact, up to date.
        fact: Fact<V>,
        /// Whether this change was the first to report it.
        is_news: bool,
    },
    /// The head could not be determined, and is not asked for again.
    Unknown {
        /// The fact.
        fact: FactKey,
        /// The cause, and the remedy.
        why: String,
    },
    /// No task watches it, so it was not asked for.
    NotAsked,
}

impl<V> Head<V> {
    /// The run key of a task for this head: a change starts one run, however often it is reported. `None` if the head
    /// is not known.
    #[must_use]
    pub fn run_key(&self, task: &Task) -> Option<String> {
        self.key("push", task)
    }

    /// The run key of the task's scan of this head, if it starts no other run. `None` if the head is not known.
    #[must_use]
    pub fn scan_key(&self, task: &Task) -> Option<String> {
        self.key("scan", task)
    }

    fn key(&self, purpose: &str, task: &Task) -> Option<String> {
        match self {
            Self::Known { fact, .. } => {
                // Includes the time of creation, because a later task may have the same name.
                let (id, created) = (&task.id, task.created.as_millis());
                Some(format!("{purpose}/{id}@{created}/{}/{}", fact.key, fact.generation))
            }
            Self::Unknown { .. } | Self::NotAsked => None,
        }
    }
}

/// The result for a task and an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The task starts this run.
    Run {
        /// The run.
        draft: Box<RunDraft>,
        /// Why the changed files are not known, if the task has rules about them.
        files_unknown: Option<String>,
    },
    /// The rule said no, but the task's source moved, which this scan reads.
    Scan {
        /// The rule.
        rule: Rule,
        /// The scan.
        scan: Box<RunDraft>,
    },
    /// Only the changed files can tell. Judge again with [`Touched`].
    NeedsFiles,
    /// The first rule that said no.
    No(Rule),
}

/// What already exists for a task and a head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Started {
    /// The run, found by [`Head::run_key`].
    pub run: Option<RunId>,
    /// The scan, found by [`Head::scan_key`].
    pub scan: Option<RunId>,
}

/// What is known about a change and a task.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a, V = CommitId> {
    /// The event that reports the change.
    pub event: &'a EventId,
    /// The head.
    pub head: &'a Head<V>,
    /// The runs that exist.
    pub started: Started,
    /// What its changed files mean to the task; `None` if they were not asked for.
    pub files: Option<&'a Touched>,
}

/// What the changed files mean to a task with rules about paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// One of them matters.
    Yes,
    /// None of them matters.
    No {
        /// How many there are.
        files: usize,
    },
    /// They are not all known.
    Unknown {
        /// Why.
        why: String,
    },
}

impl Touched {
    /// Compares the files with the rules. The work is the product of both: for the largest of each, it takes seconds.
    #[must_use]
    pub fn by(files: &ChangedFiles, rules: &PathRules) -> Self {
        match files {
            ChangedFiles::All { paths } if paths.iter().any(|path| rules.concern(path)) => {
                Self::Yes
            }
            ChangedFiles::All { paths } => Self::No { files: paths.len() },
            ChangedFiles::Unknown { why } => Self::Unknown { why: why.clone() },
        }
    }
}

/// The rules of a task about paths, if it has some.
#[must_use]
pub fn path_rules(task: &Task) -> Option<&PathRules> {
    let rules = task.source_trigger.as_ref().map(|trigger| &trigger.paths);
    rules.filter(|rules| !rules.is_empty())
}

/// Checks all rules for a push and a task, in the order of [`Rule`].
#[must_use]
pub fn push(push: &Push, task: &Task, known: Known<'_>) -> Verdict {
    let disabled = match matcher::match_push(push, task) {
        Ok(()) => None,
        Err(rule @ Rule::TriggerDisabled) => match matcher::moved_source(push, task) {
            Ok(()) => Some(rule),
            Err(_) => return Verdict::No(rule),
        },
        Err(rule) => return Verdict::No(rule),
    };
    match (moved_head(push, known.event, known.head), disabled, known.started) {
        (Ok(head), Some(rule), Started { run: None, scan: None }) => {
            Verdict::Scan { rule, scan: Box::new(planner::for_scan_of_push(task, head)) }
        }
        (_, Some(rule), _) | (Err(rule), None, _) => Verdict::No(rule),
        (Ok(_), None, Started { run: Some(run), .. }) => Verdict::No(Rule::AlreadyStarted { run }),
        (Ok(head), None, Started { run: None, .. }) => {
            by_files(task, known.files, || planner::for_push(task, head))
        }
    }
}

/// Checks all rules for a change of a pull request and a task, in the order of [`Rule`].
#[must_use]
pub fn pull_request(
    change: &PullRequestChange,
    task: &Task,
    known: Known<'_, PullRequestVersion>,
) -> Verdict {
    if let Err(rule) = matcher::match_pull_requests(&change.repository(), task) {
        return Verdict::No(rule);
    }
    // Before the other rules: what was started before it was closed ends, whatever they say now.
    if let Head::Known { fact: Fact { value: None, .. }, .. } = known.head {
        return Verdict::No(Rule::PullRequestClosed { number: change.now.number });
    }
    if let Err(rule) = matcher::match_pull_request(change, task) {
        return Verdict::No(rule);
    }
    let (fact, version, is_news) = match open_version(change, known.head) {
        Ok(open) => open,
        Err(rule) => return Verdict::No(rule),
    };
    let number = change.now.number;
    let reported = change.now.version();
    if !is_news && reported.as_ref() != Some(version) {
        let head = version.head.clone();
        return Verdict::No(match reported {
            Some(reported) => Rule::Superseded { pushed: reported.head, head },
            None => Rule::PullRequestOpen { number },
        });
    }
    if let Some(run) = known.started.run {
        return Verdict::No(Rule::AlreadyStarted { run });
    }
    by_files(task, known.files, || build(change, task, known.event, version, fact))
}

/// Checks all rules for a pull request of which only the number was reported, and a task. `change` is what was found out
/// about it; `None` if there is none of this number, or it was closed, or nobody could tell.
#[must_use]
pub fn noticed_pull_request(
    repository: &RepositoryKey,
    number: u64,
    change: Option<&PullRequestChange>,
    task: &Task,
    known: Known<'_, PullRequestVersion>,
) -> Verdict {
    if let Some(change) = change {
        return pull_request(change, task, known);
    }
    if let Err(rule) = matcher::match_pull_requests(repository, task) {
        return Verdict::No(rule);
    }
    Verdict::No(match known.head {
        Head::Unknown { fact, why } => Rule::HeadUnknown { fact: fact.clone(), why: why.clone() },
        Head::NotAsked => Rule::NoTask { repository: repository.clone() },
        Head::Known { .. } => Rule::PullRequestClosed { number },
    })
}

/// Checks all rules for a comment that asks for a build, and a task. `change` is the pull request as it is now; `None` if
/// there is none.
#[must_use]
pub fn comment(
    comment: &Comment,
    change: Option<&PullRequestChange>,
    task: &Task,
    known: Known<'_, PullRequestVersion>,
) -> Verdict {
    let closed = Rule::PullRequestClosed { number: comment.number };
    let judged = matcher::match_comment(comment, task).and_then(|()| {
        // It is only asked for if somebody obeys.
        if let Head::Unknown { fact, why } = known.head {
            return Err(Rule::HeadUnknown { fact: fact.clone(), why: why.clone() });
        }
        let change = change.ok_or(closed)?;
        matcher::match_asked_pull_request(&change.now, task)?;
        let (fact, version, _) = open_version(change, known.head)?;
        match known.started.run {
            Some(run) => Err(Rule::AlreadyStarted { run }),
            None => Ok(build(change, task, known.event, version, fact)),
        }
    });
    match judged {
        Ok(draft) => Verdict::Run { draft: Box::new(draft), files_unknown: None },
        Err(rule) => Verdict::No(rule),
    }
}

/// The version of an open pull request, and whether it is news; or the first rule about heads that said no.
fn open_version<'a>(
    change: &PullRequestChange,
    head: &'a Head<PullRequestVersion>,
) -> Result<(&'a Fact<PullRequestVersion>, &'a PullRequestVersion, bool), Rule> {
    let (fact, is_news) = match head {
        Head::Known { fact, is_news } => (fact, *is_news),
        Head::Unknown { fact, why } => {
            return Err(Rule::HeadUnknown { fact: fact.clone(), why: why.clone() });
        }
        Head::NotAsked => return Err(Rule::NoTask { repository: change.repository() }),
    };
    let closed = Rule::PullRequestClosed { number: change.now.number };
    let version = fact.value.as_ref().ok_or(closed)?;
    Ok((fact, version, is_news))
}

/// The run of a task for a pull request, by the rules of the task's trigger.
fn build(
    change: &PullRequestChange,
    task: &Task,
    event: &EventId,
    version: &PullRequestVersion,
    fact: &Fact<PullRequestVersion>,
) -> RunDraft {
    let rules = task.source_trigger.as_ref().map(|trigger| trigger.pull_request.clone());
    let now = PullRequestNow {
        event,
        repository: &change.repository(),
        pull_request: &change.now,
        refs: &change.refs,
        version,
        fact,
    };
    planner::for_pull_request(task, &rules.unwrap_or_default(), now)
}

/// Starts a run unless none of the changed files matters. A change that may matter is never missed.
fn by_files(task: &Task, files: Option<&Touched>, run: impl FnOnce() -> RunDraft) -> Verdict {
    let files_unknown = match (path_rules(task), files) {
        (None, _) | (Some(_), Some(Touched::Yes)) => None,
        (Some(_), Some(Touched::Unknown { why })) => Some(why.clone()),
        (Some(_), Some(Touched::No { files })) => {
            return Verdict::No(Rule::NoPath { files: *files });
        }
        (Some(_), None) => return Verdict::NeedsFiles,
    };
    Verdict::Run { draft: Box::new(run()), files_unknown }
}

/// The head that the push moved its reference to, or the first rule about heads that said no.
fn moved_head<'a>(
    push: &'a Push,
    event: &'a EventId,
    head: &'a Head,
) -> Result<MovedHead<'a>, Rule> {
    let (fact, is_news) = match head {
        Head::Known { fact, is_news } => (fact, *is_news),
        Head::Unknown { fact, why } => {
            return Err(Rule::HeadUnknown { fact: fact.clone(), why: why.clone() });
        }
        Head::NotAsked => return Err(Rule::NoTask { repository: push.repository() }),
    };
    let reference = push.reference.clone();
    let Some(commit) = &fact.value else {
        return Err(Rule::ReferenceDeleted { reference });
    };
    if !is_news && push.after.as_ref() != Some(commit) {
        let head = commit.clone();
        return Err(match push.after.clone() {
            Some(pushed) => Rule::Superseded { pushed, head },
            None => Rule::ReferenceExists { reference, head },
        });
    }
    Ok(MovedHead { event, push, commit, fact })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::samples::{push, task};
    use crate::fact::advanced;
    use crate::source::CommitId;
    use crate::task::Status;
    use crate::timestamp::Timestamp;

    fn commit(letter: &str) -> CommitId {
        letter.repeat(40).parse().unwrap()
    }

    fn head(value: Option<CommitId>, is_news: bool) -> Head {
        let (task, push) = (task(), push("main"));
        let key = FactKey::branch(&task.id.registry, &push.repository(), &"main".parse().unwrap());
        Head::Known { fact: advanced(None, &key, value, Timestamp::default()), is_news }
    }

    fn verdict(push: &Push, task: &Task, head: &Head, run: Option<RunId>) -> String {
        let started = Started { run, scan: None };
        let event = "d/0".parse().unwrap();
        let known = Known { event: &event, head, started, files: None };
        match super::push(push, task, known) {
            Verdict::Run { draft, .. } => format!("builds {}", draft.recipe.source),
            Verdict::NeedsFiles => "needs the changed files".to_owned(),
            Verdict::Scan { rule, scan } => format!("scans {}: {rule}", scan.recipe.source),
            Verdict::No(rule) => rule.to_string(),
        }
    }

    #[test]
    fn a_push_starts_a_run_of_the_current_head() {
        let pushed = push("main").after;
        let head = head(pushed.clone(), true);
        let builds = format!("builds https://github.com/octo/hello.git#{}:app", pushed.unwrap());
        assert_eq!(verdict(&push("main"), &task(), &head, None), builds);
    }

    #[test]
    fn rules_are_checked_in_order() {
        let (run, push) = (Some("ca7".parse().unwrap()), push("main"));
        let mut deletion = push.clone();
        deletion.after = None;
        let mut disabled = task();
        disabled.status = Status::Disabled;
        let pushed = head(push.after.clone(), true);
        let moved_on = head(Some(commit("e")), false);
        let gone = head(None, true);
        let key = "branch:reg:github.com/octo/hello@main".parse().unwrap();
        let unknown = Head::Unknown { fact: key, why: "nobody is let in".to_owned() };
        for (push, task, head, says) in [
            (&push, &disabled, &pushed, "the task is disabled"),
            (&push, &task(), &Head::NotAsked, "no task of this registry"),
            (&push, &task(), &unknown, "branch:reg:github.com/octo/hello@main could not be asked"),
            (&deletion, &task(), &gone, "branch main was deleted"),
            (&push, &task(), &moved_on, "is not the head any more: that is eeeeeee"),
            (&deletion, &task(), &moved_on, "branch main exists again, at eeeeeee"),
            (&push, &task(), &pushed, "run ca7 was started for this change"),
        ] {
            let said = verdict(push, task, head, run);
            assert!(said.contains(says), "{said}, not {says}");
        }
    }

    #[test]
    fn a_head_that_starts_no_run_because_the_trigger_is_disabled_is_scanned_once() {
        let (push, mut task) = (push("main"), task());
        task.source_trigger.as_mut().unwrap().commit.status = Status::Disabled;
        let moved = head(push.after.clone(), true);
        let said = verdict(&push, &task, &moved, None);
        let scans = format!("scans https://github.com/octo/hello.git#{}:app", "b".repeat(40));
        assert!(said.starts_with(&scans) && said.contains("trigger is disabled"), "{said}");

        let (gone, late) = (head(None, true), head(Some(commit("e")), false));
        let run = Some("ca7".parse().unwrap());
        for (head, run) in [(&gone, None), (&late, None), (&Head::NotAsked, None), (&moved, run)] {
            let said = verdict(&push, &task, head, run);
            assert!(said.starts_with("its source trigger is disabled"), "{said}");
        }
        let scanned = Started { run: None, scan: Some("ca-7".parse().unwrap()) };
        let event = "d/0".parse().unwrap();
        let known = Known { event: &event, head: &moved, started: scanned, files: None };
        let again = super::push(&push, &task, known);
        assert_eq!(again, Verdict::No(Rule::TriggerDisabled));
    }

    #[test]
    fn a_head_first_learned_from_a_push_is_built() {
        let newer = head(Some(commit("e")), true);
        let said = verdict(&push("main"), &task(), &newer, None);
        assert!(said.starts_with("builds ") && said.contains(&"e".repeat(40)), "{said}");
    }

    #[test]
    fn a_run_key_is_unique_to_a_generation() {
        let (known, mut task) = (head(Some(commit("e")), true), task());
        let says = "push/reg/web@0/branch:reg:github.com/octo/hello@main/1";
        assert_eq!(known.run_key(&task).as_deref(), Some(says));
        assert_eq!(Head::<CommitId>::NotAsked.run_key(&task), None);
        task.created = Timestamp::from_millis(1);
        assert_ne!(known.run_key(&task).as_deref(), Some(says), "made again, it is another task");
    }
}
