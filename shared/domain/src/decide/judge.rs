//! Asks one task every rule about one push. Pure: what is true now is handed in.

use super::planner::{self, RunDraft};
use super::{Rule, matcher};
use crate::event::Push;
use crate::fact::{Fact, FactKey};
use crate::id::{EventId, RunId};
use crate::task::Task;

/// What is known of the head of the branch that a push moved.
#[derive(Debug, Clone, PartialEq)]
pub enum Head {
    /// It is the value of this fact.
    Known {
        /// As it is from now on.
        fact: Fact,
        /// Whether this push is how we know.
        is_news: bool,
    },
    /// It could not be told, and is not asked for any more.
    Unknown {
        /// The fact.
        fact: FactKey,
        /// Why, and the remedy.
        why: String,
    },
    /// No task watches what moved, so nobody was asked.
    NotAsked,
}

impl Head {
    /// The key of the run that a task has for this head: there is one, however often the change is reported. `None` where
    /// no head is known.
    #[must_use]
    pub fn run_key(&self, task: &Task) -> Option<String> {
        match self {
            Self::Known { fact, .. } => {
                // A task that is made again under a former one's name has runs of its own.
                let (id, created) = (&task.id, task.created.as_millis());
                Some(format!("push/{id}@{created}/{}/{}", fact.key, fact.generation))
            }
            Self::Unknown { .. } | Self::NotAsked => None,
        }
    }
}

/// What a task has to do with an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It starts this run.
    Run(Box<RunDraft>),
    /// The first rule that said no.
    No(Rule),
}

/// Asks one task every rule, in the order of [`Rule`]. `started` is the run that it has for this head already, by
/// [`Head::run_key`].
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
    fn a_push_that_moved_the_head_starts_a_run_of_what_the_head_is() {
        let pushed = push("main").after;
        let head = head(pushed.clone(), true);
        let builds = format!("builds https://github.com/octo/hello.git#{}:app", pushed.unwrap());
        assert_eq!(verdict(&push("main"), &task(), &head, None), builds);
    }

    #[test]
    fn each_rule_says_no_in_its_turn() {
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
    fn what_moved_without_being_pushed_here_is_built_if_this_push_is_how_we_know() {
        let newer = head(Some(commit("e")), true);
        let said = verdict(&push("main"), &task(), &newer, None);
        assert!(said.starts_with("builds ") && said.contains(&"e".repeat(40)), "{said}");
    }

    #[test]
    fn a_task_has_one_run_key_for_each_generation_of_the_head() {
        let (known, mut task) = (head(Some(commit("e")), true), task());
        let says = "push/reg/web@0/branch:reg:github.com/octo/hello@main/1";
        assert_eq!(known.run_key(&task).as_deref(), Some(says));
        assert_eq!(Head::NotAsked.run_key(&task), None);
        task.created = Timestamp::from_millis(1);
        assert_ne!(known.run_key(&task).as_deref(), Some(says), "made again, it is another task");
    }
}
