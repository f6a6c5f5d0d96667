//! Checks one push against all rules for one task. Pure: the current state is passed in.

use super::planner::{self, RunDraft};
use super::{Rule, matcher};
use crate::event::Push;
use crate::fact::{Fact, FactKey};
use crate::id::{EventId, RunId};
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
        match self {
            Self::Known { fact, .. } => {
                // Includes the time of creation, because a later task may have the same name.
                let (id, created) = (&task.id, task.created.as_millis());
                Some(format!("push/{id}@{created}/{}/{}", fact.key, fact.generation))
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
    /// The first rule that said no.
    No(Rule),
}

/// Checks all rules for one task, in the order of [`Rule`]. `started` is the run that already exists for this head,
/// found by [`Head::run_key`].
#[must_use]
pub fn judge(
    event: &EventId,
    push: &Push,
    task: &Task,
    head: &Head,
    started: Option<RunId>,
) -> Verdict {
    let branch = match matcher::match_push(push, task) {
        Ok(branch) => branch,
        Err(rule) => return Verdict::No(rule),
    };
    let (fact, is_news) = match head {
        Head::Known { fact, is_news } => (fact, *is_news),
        Head::Unknown { fact, why } => {
            return Verdict::No(Rule::HeadUnknown { fact: fact.clone(), why: why.clone() });
        }
        Head::NotAsked => return Verdict::No(Rule::NoTask { repository: push.repository() }),
    };
    let Some(head) = &fact.value else {
        return Verdict::No(Rule::BranchDeleted { branch: branch.clone() });
    };
    if !is_news && push.after.as_ref() != Some(head) {
        let head = head.clone();
        return Verdict::No(match push.after.clone() {
            Some(pushed) => Rule::Superseded { pushed, head },
            None => Rule::BranchExists { branch: branch.clone(), head },
        });
    }
    match started {
        Some(run) => Verdict::No(Rule::AlreadyStarted { run }),
        None => Verdict::Run(Box::new(planner::for_push(task, event, push, branch, head, fact))),
    }
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

    fn verdict(push: &Push, task: &Task, head: &Head, started: Option<RunId>) -> String {
        match judge(&"d/0".parse().unwrap(), push, task, head, started) {
            Verdict::Run(draft) => format!("builds {}", draft.recipe.source),
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
