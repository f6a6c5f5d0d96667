//! Checks one push against all rules for one task. Pure: the current state is passed in.

use super::planner::{self, MovedHead, RunDraft};
use super::{Rule, matcher};
use crate::event::Push;
use crate::fact::{Fact, FactKey};
use crate::id::{EventId, RunId};
use crate::source::RefName;
use crate::task::Task;

/// What is known about the head of the branch that a push moved.
#[derive(Debug, Clone, PartialEq)]
pub enum Head {
    /// The head is the value of this fact.
    Known {
        /// The fact, up to date.
        fact: Fact,
        /// Whether this push was the first to report it.
        is_news: bool,
    },
    /// The head could not be determined, and is not asked for again.
    Unknown {
        /// The fact.
        fact: FactKey,
        /// The cause, and the remedy.
        why: String,
    },
    /// No task watches the branch, so its head was not asked for.
    NotAsked,
}

impl Head {
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
    Run(Box<RunDraft>),
    /// The rule said no, but the task's source moved, which this scan reads.
    Scan {
        /// The rule.
        rule: Rule,
        /// The scan.
        scan: Box<RunDraft>,
    },
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

/// Checks all rules for one task, in the order of [`Rule`].
#[must_use]
pub fn judge(event: &EventId, push: &Push, task: &Task, head: &Head, started: Started) -> Verdict {
    let (branch, disabled) = match matcher::match_push(push, task) {
        Ok(branch) => (branch, None),
        Err(rule @ Rule::TriggerDisabled) => match matcher::moved_source(push, task) {
            Ok(branch) => (branch, Some(rule)),
            Err(_) => return Verdict::No(rule),
        },
        Err(rule) => return Verdict::No(rule),
    };
    match (moved_head(event, push, branch, head), disabled, started) {
        (Ok(head), Some(rule), Started { run: None, scan: None }) => {
            Verdict::Scan { rule, scan: Box::new(planner::for_scan_of_push(task, head)) }
        }
        (_, Some(rule), _) | (Err(rule), None, _) => Verdict::No(rule),
        (Ok(_), None, Started { run: Some(run), .. }) => Verdict::No(Rule::AlreadyStarted { run }),
        (Ok(head), None, Started { run: None, .. }) => {
            Verdict::Run(Box::new(planner::for_push(task, head)))
        }
    }
}

/// The head that the push moved its branch to, or the first rule about heads that said no.
fn moved_head<'a>(
    event: &'a EventId,
    push: &'a Push,
    branch: &'a RefName,
    head: &'a Head,
) -> Result<MovedHead<'a>, Rule> {
    let (fact, is_news) = match head {
        Head::Known { fact, is_news } => (fact, *is_news),
        Head::Unknown { fact, why } => {
            return Err(Rule::HeadUnknown { fact: fact.clone(), why: why.clone() });
        }
        Head::NotAsked => return Err(Rule::NoTask { repository: push.repository() }),
    };
    let Some(commit) = &fact.value else {
        return Err(Rule::BranchDeleted { branch: branch.clone() });
    };
    if !is_news && push.after.as_ref() != Some(commit) {
        let head = commit.clone();
        return Err(match push.after.clone() {
            Some(pushed) => Rule::Superseded { pushed, head },
            None => Rule::BranchExists { branch: branch.clone(), head },
        });
    }
    Ok(MovedHead { event, push, branch, commit, fact })
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
        match judge(&"d/0".parse().unwrap(), push, task, head, started) {
            Verdict::Run(draft) => format!("builds {}", draft.recipe.source),
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
            (&push, &task(), &moved_on, "is not the head of the branch any more: that is eeeeeee"),
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
        task.source_trigger.as_mut().unwrap().status = Status::Disabled;
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
        let again = judge(&"d/0".parse().unwrap(), &push, &task, &moved, scanned);
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
        assert_eq!(Head::NotAsked.run_key(&task), None);
        task.created = Timestamp::from_millis(1);
        assert_ne!(known.run_key(&task).as_deref(), Some(says), "made again, it is another task");
    }
}
