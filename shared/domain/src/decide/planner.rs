//! Plans runs for pushes and requests.
//!
//! Out: a [`RunDraft`], complete except for its id, which the store assigns. Used by the scheduler for events, and by
//! ingress for requests.

use crate::built_on::BuiltOn;
use crate::cause::Cause;
use crate::event::Push;
use crate::fact::Fact;
use crate::id::{EventId, RegistryName, RunId, TokenId};
use crate::recipe::Recipe;
use crate::run::{Run, RunState, RunType, TaskRevision, WaitReason};
use crate::sealed::Sealed;
use crate::source::{CommitId, RefName, Source};
use crate::task::Task;
use crate::timestamp::Timestamp;
use crate::trace::TraceParent;

/// A run without an id.
#[derive(Debug, Clone, PartialEq)]
pub struct RunDraft {
    /// The registry.
    pub registry: RegistryName,
    /// The type of run.
    pub run_type: RunType,
    /// The task and its revision; `None` for a quick build.
    pub task: Option<TaskRevision>,
    /// The recipe to execute.
    pub recipe: Recipe,
    /// The token for the git repository.
    pub git_token: Option<Sealed>,
    /// What started the run.
    pub cause: Cause,
    /// Whether it may move tags that a newer change has moved.
    pub force_tags: bool,
    /// The facts that it will be built on, if they are known before the source is fetched.
    pub built_on: BuiltOn,
    /// The W3C trace context of the cause.
    pub trace: Option<TraceParent>,
}

impl RunDraft {
    /// Creates the run, waiting for admission.
    #[must_use]
    pub fn create(self, id: RunId, now: Timestamp) -> Run {
        Run {
            id,
            registry: self.registry,
            run_type: self.run_type,
            task: self.task,
            recipe: self.recipe,
            git_token: self.git_token,
            cause: self.cause,
            force_tags: self.force_tags,
            built_on: self.built_on,
            read: None,
            created_for: None,
            trace: self.trace,
            created: now,
            signature: None,
            archived: false,
            cancel: None,
            attempts: Vec::new(),
            state: RunState::Waiting { reason: WaitReason::Admission, since: now },
        }
    }
}

/// The run of a task for a moved branch. It builds exactly the head in the fact.
#[must_use]
pub fn for_push(
    task: &Task,
    event: &EventId,
    push: &Push,
    branch: &RefName,
    head: &CommitId,
    fact: &Fact,
) -> RunDraft {
    let mut recipe = task.recipe.clone().with_registry_login();
    if let Source::Git(git) = &mut recipe.source {
        // Pinned to the commit of the fact, even if the branch moves on.
        git.reference = head.as_str().parse().ok();
    }
    let pushed_it = push.after.as_ref() == Some(head);
    RunDraft {
        registry: task.id.registry.clone(),
        run_type: RunType::triggered(&recipe.work),
        task: Some(revision(task)),
        recipe,
        git_token: task.git_token.clone(),
        cause: Cause::Push {
            event: event.clone(),
            repository: push.repository(),
            branch: branch.clone(),
            commit: head.clone(),
            fact: fact.key.clone(),
            generation: fact.generation,
            pusher: push.pusher.clone().filter(|_| pushed_it),
        },
        force_tags: false,
        built_on: BuiltOn::fact(fact.key.clone(), fact.generation),
        trace: None,
    }
}

/// A requested run of a task.
#[must_use]
pub fn for_task_request(task: &Task, recipe: Recipe, event: EventId, by: TokenId) -> RunDraft {
    // Whoever changes a recipe may choose the code.
    let recipe = if recipe == task.recipe { recipe.with_registry_login() } else { recipe };
    RunDraft {
        registry: task.id.registry.clone(),
        run_type: RunType::requested(&recipe.work),
        task: Some(revision(task)),
        recipe,
        git_token: task.git_token.clone(),
        cause: Cause::Request { event, by, rerun_of: None, asked: None, branch: None },
        force_tags: false,
        built_on: BuiltOn::Unread,
        trace: None,
    }
}

/// A run without a task.
#[must_use]
pub fn for_quick_run(
    registry: RegistryName,
    recipe: Recipe,
    git_token: Option<Sealed>,
    event: EventId,
    by: TokenId,
) -> RunDraft {
    RunDraft {
        registry,
        run_type: RunType::requested(&recipe.work),
        task: None,
        recipe,
        git_token,
        cause: Cause::Request { event, by, rerun_of: None, asked: None, branch: None },
        force_tags: false,
        built_on: BuiltOn::Unread,
        trace: None,
    }
}

/// The same recipe again, at the commit that the first run read. If the first run read none, the current state of its
/// context is built.
#[must_use]
pub fn for_rerun(run: &Run, event: EventId, by: TokenId) -> RunDraft {
    let mut recipe = run.recipe.again();
    if let (Source::Git(git), Some(read)) = (&mut recipe.source, &run.read) {
        git.reference = read.commit.as_str().parse().ok();
    }
    RunDraft {
        registry: run.registry.clone(),
        run_type: RunType::requested(&recipe.work),
        task: run.task.clone(),
        recipe,
        git_token: run.git_token.clone(),
        cause: Cause::Request {
            event,
            by,
            rerun_of: Some(run.id),
            asked: None,
            branch: run.branch().cloned(),
        },
        force_tags: false,
        built_on: run.built_on.clone(),
        trace: None,
    }
}

fn revision(task: &Task) -> TaskRevision {
    TaskRevision { name: task.id.name.clone(), revision: task.revision }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::built_on::SourceRead;
    use crate::decide::samples::{push, task};
    use crate::fact::{FactKey, advanced};

    #[test]
    fn a_rerun_builds_the_commit_and_branch_that_the_first_run_read() {
        let task = task();
        let (event, by): (EventId, TokenId) = ("request:1".parse().unwrap(), "t1".parse().unwrap());
        let asked = for_task_request(&task, task.recipe.clone(), event.clone(), by.clone());
        let mut first = asked.create("ca1".parse().unwrap(), Timestamp::default());
        let unread = for_rerun(&first, event.clone(), by.clone());
        assert_eq!(
            unread.recipe.source, first.recipe.source,
            "no commit is known: as the context says"
        );

        first.read = Some(SourceRead {
            repository: "github.com/octo/hello".parse().unwrap(),
            branch: Some("main".parse().unwrap()),
            commit: "b".repeat(40).parse().unwrap(),
        });
        let second = for_rerun(&first, event.clone(), by.clone());
        let pinned = format!("https://github.com/octo/hello.git#{}:app", "b".repeat(40));
        assert_eq!(second.recipe.source.to_string(), pinned);
        let second = second.create("ca2".parse().unwrap(), Timestamp::default());
        assert_eq!(second.branch().unwrap().as_str(), "main");
        let third = for_rerun(&second, event, by);
        assert_eq!(third.recipe.source.to_string(), pinned, "also of a rerun");
        let third = third.create("ca3".parse().unwrap(), Timestamp::default());
        assert_eq!(third.branch().unwrap().as_str(), "main");
    }

    #[test]
    fn a_triggered_run_builds_the_facts_commit_in_the_tasks_folder() {
        let (task, push) = (task(), push("main"));
        let head = push.after.clone().unwrap();
        let branch = "main".parse().unwrap();
        let key = FactKey::branch(&task.id.registry, &push.repository(), &branch);
        let fact = advanced(None, &key, Some(head.clone()), Timestamp::default());
        let draft = for_push(&task, &"d/0".parse().unwrap(), &push, &branch, &head, &fact);
        assert_eq!(
            draft.recipe.source.to_string(),
            format!("https://github.com/octo/hello.git#{head}:app")
        );
        assert_eq!(draft.built_on, BuiltOn::fact(key, 1));
        assert_eq!(draft.task.unwrap().revision, 3);
    }
}
