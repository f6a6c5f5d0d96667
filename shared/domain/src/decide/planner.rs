//! Plans runs for pushes and requests.
//!
//! Out: a [`RunDraft`], complete except for its id, which the store assigns. Used by the scheduler for events, and by
//! ingress for requests.

use crate::built_on::BuiltOn;
use crate::cause::{BuiltHead, Cause, MovedBase};
use crate::event::{PullRequestRefs, Push, TimerDue};
use crate::fact::Fact;
use crate::id::{EventId, GroupName, RegistryName, RunId, TokenId, WaveId};
use crate::lineage::BaseImage;
use crate::platform::Platform;
use crate::pull_request::{PullRequest, PullRequestVersion};
use crate::recipe::{PullRequestBuild, Recipe, RunTimeout, Work};
use crate::run::{LegOf, Legs, Purpose, Run, RunState, RunType, Split, TaskRevision, WaitReason};
use crate::sealed::Sealed;
use crate::source::{CommitId, RepositoryKey, Source};
use crate::task::Task;
use crate::template::Template;
use crate::timestamp::Timestamp;
use crate::trace::TraceParent;
use crate::trigger::{Forks, PullRequestBuilds, PullRequestRules};

/// A run without an id.
#[derive(Debug, Clone, PartialEq)]
pub struct RunDraft {
    /// The registry.
    pub registry: RegistryName,
    /// What it is for.
    pub purpose: Purpose,
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
    /// The concurrency group of the task.
    pub concurrency_group: Option<GroupName>,
    /// What it waits for before it may be admitted.
    pub held: Option<WaitReason>,
    /// The facts that it will be built on, if they are known before the source is fetched.
    pub built_on: BuiltOn,
    /// The W3C trace context of the cause.
    pub trace: Option<TraceParent>,
}

impl RunDraft {
    /// Whether it does all that a run of its task does.
    #[must_use]
    pub fn stands_for_task(&self) -> bool {
        self.purpose == Purpose::Execute
            && self.task.as_ref().is_some_and(|task| task.is_unchanged)
            && self.recipe.pull_request.is_none()
    }

    /// Creates the run, waiting for admission.
    #[must_use]
    pub fn create(self, id: RunId, now: Timestamp) -> Run {
        let reason = self.held.unwrap_or(WaitReason::Admission);
        Run {
            id,
            registry: self.registry,
            purpose: self.purpose,
            run_type: self.run_type,
            task: self.task,
            recipe: self.recipe,
            git_token: self.git_token,
            cause: self.cause,
            force_tags: self.force_tags,
            concurrency_group: self.concurrency_group,
            built_on: self.built_on,
            read: None,
            legs: None,
            created_for: None,
            is_settled: false,
            trace: self.trace,
            created: now,
            signature: None,
            reported: None,
            archived: false,
            approved: None,
            cancel: None,
            attempts: Vec::new(),
            state: RunState::Waiting { reason, since: now },
        }
    }
}

/// The head of a branch or tag that a push moved.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the fields explain themselves")]
pub struct MovedHead<'a> {
    pub event: &'a EventId,
    pub push: &'a Push,
    pub commit: &'a CommitId,
    /// The fact with this head.
    pub fact: &'a Fact,
}

impl MovedHead<'_> {
    fn cause(&self) -> Cause {
        let pushed_it = self.push.after.as_ref() == Some(self.commit);
        Cause::Push {
            event: self.event.clone(),
            repository: self.push.repository(),
            reference: self.push.reference.clone(),
            commit: self.commit.clone(),
            fact: self.fact.key.clone(),
            generation: self.fact.generation,
            pusher: self.push.pusher.clone().filter(|_| pushed_it),
        }
    }
}

/// The recipe at exactly this commit, even if the branch moves on.
fn pin(mut recipe: Recipe, commit: &CommitId) -> Recipe {
    if let Source::Git(git) = &mut recipe.source {
        git.reference = commit.as_str().parse().ok();
    }
    recipe
}

/// The legs of a run whose worker has asked for them: a run for each of its platforms, which builds the commit that the
/// worker has read, on the images that it has resolved. None if it did not ask.
#[must_use]
pub fn for_legs(whole: &Run) -> Vec<RunDraft> {
    let Some(Legs::Wanted(Split { bases, .. })) = &whole.legs else { return Vec::new() };
    let read = whole.read.as_ref();
    let of = whole.recipe.clone();
    // A pull request's recipe names its commits.
    let pinned = match read.filter(|_| of.pull_request.is_none()) {
        Some(read) => pin(of, &read.commit),
        None => of,
    };
    let spent = whole.attempts.last().map(|attempt| attempt.ended.since(attempt.since));
    let timeout = whole.recipe.timeout.after(spent.unwrap_or_default());
    let leg = |(place, platform): (usize, &Platform)| RunDraft {
        registry: whole.registry.clone(),
        purpose: Purpose::Leg(LegOf {
            run: whole.id,
            created: whole.created,
            platform: whole.recipe.platforms.first().clone(),
            place,
            branch: whole.branch().cloned(),
        }),
        run_type: whole.run_type,
        task: whole.task.clone().map(|task| TaskRevision { reports: false, ..task }),
        recipe: Recipe {
            platforms: platform.clone().into(),
            bases: bases.clone(),
            timeout,
            ..pinned.clone()
        },
        git_token: whole.git_token.clone(),
        cause: whole.cause.clone(),
        force_tags: false,
        concurrency_group: None,
        held: None,
        built_on: BuiltOn::Unknown,
        trace: whole.trace.clone(),
    };
    whole.recipe.platforms.iter().enumerate().map(leg).collect()
}

/// The head of a pull request.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct PullRequestNow<'a> {
    pub event: &'a EventId,
    pub repository: &'a RepositoryKey,
    pub pull_request: &'a PullRequest,
    pub refs: &'a PullRequestRefs,
    /// The current version.
    pub version: &'a PullRequestVersion,
    /// The fact with this version.
    pub fact: &'a Fact<PullRequestVersion>,
}

/// The run of a task for a pull request. It has no login for the registry in its steps, and tells nothing about the
/// task. A run of a fork gets no secrets at all.
#[must_use]
pub fn for_pull_request(
    task: &Task,
    rules: &PullRequestRules,
    now: PullRequestNow<'_>,
) -> RunDraft {
    let is_fork = now.pull_request.is_from_fork();
    let may_push = rules.push && !is_fork;
    let mut recipe = pin(task.recipe.clone(), &now.version.head);
    if is_fork {
        recipe.drop_secrets();
    }
    if let Work::Build(build) = &mut recipe.work {
        if may_push {
            build.images.retain(Template::is_of_one_run);
        }
        build.push &= may_push && !build.images.is_empty();
    }
    let merge = now.refs.merge.clone().filter(|_| rules.builds == PullRequestBuilds::Merge);
    recipe.pull_request = Some(PullRequestBuild {
        number: now.pull_request.number,
        head: now.version.head.clone(),
        refs: PullRequestRefs { head: now.refs.head.clone(), merge },
        base: now.version.base.clone(),
        is_fork,
        needs_approval: is_fork && rules.forks == Forks::Hold,
        may_push,
    });
    RunDraft {
        registry: task.id.registry.clone(),
        purpose: Purpose::Execute,
        run_type: RunType::triggered(&recipe.work),
        task: Some(TaskRevision { reports: task.reports, ..revision(task, false) }),
        recipe,
        git_token: task.git_token.clone(),
        cause: Cause::PullRequest {
            event: now.event.clone(),
            repository: now.repository.clone(),
            number: now.pull_request.number,
            commit: now.version.head.clone(),
            branch: now.pull_request.head.branch.clone(),
            base: now.version.base.clone(),
            is_fork,
            fact: now.fact.key.clone(),
            generation: now.fact.generation,
            author: now.pull_request.author.clone(),
        },
        force_tags: false,
        concurrency_group: task.concurrency_group.clone(),
        held: (is_fork && rules.forks == Forks::Hold).then_some(WaitReason::Approval),
        built_on: BuiltOn::fact(now.fact.key.clone(), now.fact.generation),
        trace: None,
    }
}

/// The run of a task for a moved branch. It builds exactly the head in the fact.
#[must_use]
pub fn for_push(task: &Task, head: MovedHead<'_>) -> RunDraft {
    let recipe = pin(task.recipe.clone().with_registry_login(), head.commit);
    RunDraft {
        registry: task.id.registry.clone(),
        purpose: Purpose::Execute,
        run_type: RunType::triggered(&recipe.work),
        task: Some(revision(task, true)),
        recipe,
        git_token: task.git_token.clone(),
        cause: head.cause(),
        force_tags: false,
        concurrency_group: task.concurrency_group.clone(),
        held: None,
        built_on: BuiltOn::fact(head.fact.key.clone(), head.fact.generation),
        trace: None,
    }
}

/// The scan of a task whose branch moved without starting a run. It reads exactly the head in the fact.
#[must_use]
pub fn for_scan_of_push(task: &Task, head: MovedHead<'_>) -> RunDraft {
    scan(task, pin(task.recipe.clone(), head.commit), head.cause())
}

/// The scan of a task that was saved. It reads the source as it is then.
#[must_use]
pub fn for_scan_of_saved(task: &Task, event: EventId) -> RunDraft {
    scan(task, task.recipe.clone(), Cause::Saved { event })
}

fn scan(task: &Task, recipe: Recipe, cause: Cause) -> RunDraft {
    let timeout = recipe.timeout.min(RunTimeout::OF_A_SCAN);
    RunDraft {
        registry: task.id.registry.clone(),
        purpose: Purpose::Scan,
        run_type: RunType::triggered(&recipe.work),
        task: Some(revision(task, true)),
        recipe: Recipe { timeout, ..recipe },
        git_token: task.git_token.clone(),
        cause,
        force_tags: false,
        concurrency_group: None,
        held: None,
        // It moves no tags, so nothing asks what it was built on.
        built_on: BuiltOn::Unread,
        trace: None,
    }
}

/// The run of a task whose timer is due. It builds the source as it is when the run begins. `queues` is set if it waits for
/// earlier runs of the timer.
#[must_use]
pub fn for_timer(task: &Task, event: &EventId, due: &TimerDue, queues: bool) -> RunDraft {
    let recipe = task.recipe.clone().with_registry_login();
    RunDraft {
        registry: task.id.registry.clone(),
        purpose: Purpose::Execute,
        run_type: RunType::triggered(&recipe.work),
        task: Some(revision(task, true)),
        recipe,
        git_token: task.git_token.clone(),
        cause: Cause::Timer {
            event: event.clone(),
            timer: due.timer.clone(),
            due: due.due,
            queues,
        },
        force_tags: false,
        concurrency_group: task.concurrency_group.clone(),
        held: None,
        built_on: BuiltOn::Unread,
        trace: None,
    }
}

/// What a wave knows about a task that it builds.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct WaveBuild {
    pub wave: WaveId,
    /// The event that the wave follows from.
    pub event: EventId,
    pub moved: Vec<MovedBase>,
    /// What the images of the task are now.
    pub bases: Vec<BaseImage>,
    /// The head of the task's source, if the facts have one.
    pub head: Option<BuiltHead>,
    pub trace: Option<TraceParent>,
}

/// The run of a task whose images have changed. It builds the head of its source as the facts have it, or else as it is when
/// the run begins.
#[must_use]
pub fn for_wave(task: &Task, build: WaveBuild) -> RunDraft {
    let WaveBuild { wave, event, moved, bases, head, trace } = build;
    let recipe = task.recipe.clone().with_registry_login();
    let (recipe, built_on) = match &head {
        Some(BuiltHead { commit, fact, .. }) => {
            (pin(recipe, commit), BuiltOn::fact(fact.fact.clone(), fact.generation))
        }
        None => (recipe, BuiltOn::Unread),
    };
    RunDraft {
        registry: task.id.registry.clone(),
        purpose: Purpose::Execute,
        run_type: RunType::triggered(&recipe.work),
        task: Some(revision(task, true)),
        recipe: Recipe { bases, ..recipe },
        git_token: task.git_token.clone(),
        cause: Cause::BaseImages { event, wave, moved, head },
        force_tags: false,
        concurrency_group: task.concurrency_group.clone(),
        held: None,
        built_on,
        trace,
    }
}

/// A requested run of a task.
#[must_use]
pub fn for_task_request(task: &Task, recipe: Recipe, event: EventId, by: TokenId) -> RunDraft {
    let is_unchanged = recipe == task.recipe;
    // Whoever changes a recipe may choose the code.
    let recipe = if is_unchanged { recipe.with_registry_login() } else { recipe };
    RunDraft {
        registry: task.id.registry.clone(),
        purpose: Purpose::Execute,
        run_type: RunType::requested(&recipe.work),
        task: Some(revision(task, is_unchanged)),
        recipe,
        git_token: task.git_token.clone(),
        cause: Cause::Request { event, by, rerun_of: None, asked: None, branch: None },
        force_tags: false,
        concurrency_group: task.concurrency_group.clone(),
        held: None,
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
        purpose: Purpose::Execute,
        run_type: RunType::requested(&recipe.work),
        task: None,
        recipe,
        git_token,
        cause: Cause::Request { event, by, rerun_of: None, asked: None, branch: None },
        force_tags: false,
        concurrency_group: None,
        held: None,
        built_on: BuiltOn::Unread,
        trace: None,
    }
}

/// The same recipe again, at the commit that the first run read. If the first run read none, the current state of its
/// context is built.
#[must_use]
pub fn for_rerun(run: &Run, event: EventId, by: TokenId) -> RunDraft {
    let mut recipe = run.recipe.again();
    let needs_approval = recipe.pull_request.as_ref().is_some_and(|of| of.needs_approval);
    // A pull request is merged again with its base. Its head stays the same.
    if let (Source::Git(git), Some(read), None) =
        (&mut recipe.source, &run.read, &recipe.pull_request)
    {
        git.reference = read.commit.as_str().parse().ok();
    }
    RunDraft {
        registry: run.registry.clone(),
        purpose: Purpose::Execute,
        run_type: RunType::requested(&recipe.work),
        // A rerun reads a former state of the source.
        task: run.task.clone().map(|task| TaskRevision { is_unchanged: false, ..task }),
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
        concurrency_group: run.concurrency_group.clone(),
        // To start it again is no approval.
        held: (needs_approval && run.approved.is_none()).then_some(WaitReason::Approval),
        built_on: run.built_on.clone(),
        trace: None,
    }
}

fn revision(task: &Task, is_unchanged: bool) -> TaskRevision {
    let (created, revision) = (task.created, task.revision);
    let reports = is_unchanged && task.reports;
    TaskRevision { name: task.id.name.clone(), created, revision, is_unchanged, reports }
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
        let (event, branch): (EventId, _) = ("d/0".parse().unwrap(), "main".parse().unwrap());
        let commit = push.after.clone().unwrap();
        let key = FactKey::branch(&task.id.registry, &push.repository(), &branch);
        let fact = advanced(None, &key, Some(commit.clone()), Timestamp::default());
        let head = MovedHead { event: &event, push: &push, commit: &commit, fact: &fact };
        let draft = for_push(&task, head);
        let pinned = format!("https://github.com/octo/hello.git#{commit}:app");
        assert_eq!(draft.recipe.source.to_string(), pinned);
        assert_eq!(draft.built_on, BuiltOn::fact(key, 1));
        assert_eq!(draft.task.unwrap().revision, 3);
        assert_eq!(for_scan_of_push(&task, head).recipe.source.to_string(), pinned);
    }

    #[test]
    fn a_scan_takes_ten_minutes_at_most() {
        let mut task = task();
        let event: EventId = "task:reg/web:0:3".parse().unwrap();
        let scan = for_scan_of_saved(&task, event.clone());
        assert_eq!(scan.recipe.timeout, RunTimeout::from_seconds(600).unwrap());
        assert_eq!(scan.recipe.source, task.recipe.source);
        task.recipe.timeout = RunTimeout::from_seconds(60).unwrap();
        assert_eq!(for_scan_of_saved(&task, event).recipe.timeout, task.recipe.timeout);
    }

    #[test]
    fn only_runs_of_a_task_as_it_is_saved_tell_which_images_it_needs() {
        let task = task();
        let (event, by): (EventId, TokenId) = ("request:1".parse().unwrap(), "t1".parse().unwrap());
        let create = |draft: RunDraft| draft.create("ca1".parse().unwrap(), Timestamp::default());
        let asked = |recipe| for_task_request(&task, recipe, event.clone(), by.clone());
        let as_saved = create(asked(task.recipe.clone()));
        assert!(as_saved.unchanged_task().is_some());
        assert!(create(for_rerun(&as_saved, event.clone(), by.clone())).unchanged_task().is_none());
        let mut other = task.recipe.clone();
        other.source = "https://github.com/octo/other.git".parse().unwrap();
        assert!(create(asked(other)).unchanged_task().is_none());
    }
}
