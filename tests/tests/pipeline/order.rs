//! Which of two runs is newer, in whatever order their pushes are reported and whoever started them. This decides what
//! a tag points to.

use std::time::Duration;

use gantry_domain::built_on::BuiltOn;
use gantry_domain::decide::planner::{self, RunDraft};
use gantry_domain::id::EventId;
use gantry_domain::run::{KeptBecause, Run, RunStatus};
use gantry_domain::step::Steps;
use gantry_domain::task::Task;
use gantry_seams::requests::AcceptedRequest;
use gantry_seams::runs::{self, Limits, TakenRun};
use gantry_seams::store::Batch;
use gantry_seams::tags::Permit;
use gantry_tests::git_server::TestRepository;
use gantry_tests::pipeline::{DOCKERFILE, LEASE, TestPipeline};
use gantry_worker::engine::scripted::{Action, Gate};

/// A branch with the commits `a` and `b`, where `a` is its known head, and a task that pushes one tag.
struct Branch {
    gantry: TestPipeline,
    hello: TestRepository,
    a: String,
    b: String,
}

impl Branch {
    async fn that_went_back() -> Self {
        let gantry = super::start().await;
        let hello = gantry.git.repository("hello").unwrap();
        let a = hello.commit("main", DOCKERFILE).unwrap();
        gantry.task("hello", "hello:latest").await;
        gantry.settle().await;
        // As if `a` had been pushed: it is built, and the tag points to it.
        gantry.deliver("first", "hello", None, Some(&a)).await;
        gantry.settle().await;
        let b = hello.commit("main", &[("file", "b")]).unwrap();
        reset(&hello, &a);
        Self { gantry, hello, a, b }
    }

    async fn forth(&self, delivery: &str) {
        self.gantry.deliver(delivery, "hello", Some(&self.a), Some(&self.b)).await;
        self.gantry.settle().await;
    }

    async fn back(&self, delivery: &str) {
        self.gantry.deliver(delivery, "hello", Some(&self.b), Some(&self.a)).await;
        self.gantry.settle().await;
    }

    async fn assert_rests_at(&self, commit: &str) {
        assert_eq!(resting_commit(&self.gantry, "latest").await, commit);
    }
}

/// Waits for some minutes, during which a push that disagrees with its host is checked again.
async fn settle_later(gantry: &TestPipeline) {
    for _ in 0..12 {
        gantry.settle().await;
        gantry.clock.advance(Duration::from_secs(60));
    }
    gantry.settle().await;
}

/// Moves `main` on the host to a commit, forward or back. The next commit is based on it.
fn reset(repository: &TestRepository, commit: &str) {
    repository.git(&["reset", "-q", "--hard", commit]).unwrap();
    let refspec = format!("{commit}:refs/heads/main");
    repository.git(&["push", "-q", "-f", "origin", &refspec]).unwrap();
}

/// The commit of the image that a tag points to.
async fn resting_commit(gantry: &TestPipeline, tag: &str) -> String {
    let digest = gantry.registries.tag(&format!("registry.test/hello:{tag}")).expect("a tag");
    let lineage = gantry_seams::lineages::find(gantry.store.as_ref(), &digest).await.unwrap();
    lineage.unwrap().commit.unwrap().to_string()
}

/// Requests a run of the task with another reference of the source.
async fn ask(gantry: &TestPipeline, task: &Task, reference: &str, force_tags: bool) -> Run {
    let mut build = task.recipe.clone();
    build.source = format!("{}#{reference}", gantry.git.url("hello")).parse().unwrap();
    start(gantry, |event| {
        let by = TestPipeline::somebody();
        RunDraft { force_tags, ..planner::for_task_request(task, build, event, by) }
    })
    .await
}

async fn rerun(gantry: &TestPipeline, run: &Run) -> Run {
    start(gantry, |event| planner::for_rerun(run, event, TestPipeline::somebody())).await
}

async fn start(gantry: &TestPipeline, draft: impl FnOnce(EventId) -> RunDraft) -> Run {
    let AcceptedRequest::Started(run) = gantry.request(draft, None).await else {
        panic!("it is new")
    };
    *run
}

#[tokio::test]
async fn a_branch_that_goes_back_rests_at_its_head_though_its_hooks_come_in_the_other_order() {
    let branch = Branch::that_went_back().await;
    branch.back("back").await;
    branch.forth("forth").await;
    branch.assert_rests_at(&branch.a).await;
    let runs = branch.gantry.transcript().await;
    assert_eq!(runs.lines().count(), 1, "nobody asked for another run: {runs}");
}

#[tokio::test]
async fn a_reset_branch_is_built_again_despite_late_repeats() {
    let branch = Branch::that_went_back().await;
    reset(&branch.hello, &branch.b);
    branch.forth("forth").await;
    branch.assert_rests_at(&branch.b).await;
    reset(&branch.hello, &branch.a);
    branch.back("back").await;
    branch.assert_rests_at(&branch.a).await;
    assert_eq!(branch.gantry.transcript().await.lines().count(), 3);
    // Replayed, and reported by a second hook.
    branch.forth("forth-again").await;
    branch.back("back-again").await;
    branch.forth("forth-once-more").await;
    branch.assert_rests_at(&branch.a).await;
    assert_eq!(branch.gantry.transcript().await.lines().count(), 3);
}

#[tokio::test]
async fn a_late_push_of_a_deleted_branch_builds_nothing() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let a = hello.commit("topic", DOCKERFILE).unwrap();
    gantry
        .task_with("hello", "hello:latest", |task| {
            task.recipe.source = format!("{}#topic", gantry.git.url("hello")).parse().unwrap();
        })
        .await;
    gantry.settle().await;
    let b = hello.commit("topic", &[("file", "b")]).unwrap();
    hello.git(&["push", "-q", "origin", ":refs/heads/topic"]).unwrap();
    let (deleted, _) = gantry.deliver_branch("deleted", "hello", "topic", Some(&b), None).await;
    settle_later(&gantry).await;
    assert_eq!(gantry.decision(&deleted).await, "reg/hello: branch topic was deleted");
    let (late, _) = gantry.deliver_branch("late", "hello", "topic", Some(&a), Some(&b)).await;
    settle_later(&gantry).await;
    assert_eq!(gantry.decision(&late).await, "reg/hello: branch topic was deleted");
    assert_eq!(gantry.transcript().await, "");

    hello.git(&["push", "-q", "origin", &format!("{b}:refs/heads/topic")]).unwrap();
    gantry.deliver_branch("made-again", "hello", "topic", None, Some(&b)).await;
    gantry.settle().await;
    assert_eq!(resting_commit(&gantry, "latest").await, b, "it is built once it exists again");
    let (late, _) = gantry.deliver_branch("deleted-again", "hello", "topic", Some(&b), None).await;
    settle_later(&gantry).await;
    let decision = gantry.decision(&late).await;
    assert!(decision.contains("branch topic exists again"), "{decision}");
}

#[tokio::test]
async fn a_person_s_run_of_an_older_commit_leaves_the_tag_of_a_newer_push_unless_it_is_forced() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let old = hello.commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:latest").await;
    gantry.settle().await;
    gantry.deliver("d1", "hello", None, Some(&old)).await;
    gantry.settle().await;
    let new = hello.commit("main", &[("file", "new")]).unwrap();
    gantry.deliver("d2", "hello", Some(&old), Some(&new)).await;
    gantry.settle().await;
    let newest = gantry.run("ca2").await;

    let by_commit = ask(&gantry, &task, &old, false).await;
    let again = rerun(&gantry, &gantry.run("ca1").await).await;
    gantry.settle().await;
    for run in [by_commit, again] {
        let run = gantry.run(&run.id.to_string()).await;
        let product = run.state.done().unwrap().outcome.product().expect("it succeeded").clone();
        assert_eq!(product.outputs, [], "{run:?}");
        assert_eq!(product.superseded[0].by, newest.id);
        assert_eq!(product.superseded[0].because, KeptBecause::NewerChange);
        let log = gantry.log(&run.id.to_string(), 1).await;
        assert!(
            log.contains("hello:latest stays with run ca2, which built a newer change"),
            "{log}"
        );
    }
    assert_eq!(resting_commit(&gantry, "latest").await, new);

    ask(&gantry, &task, &old, true).await;
    gantry.settle().await;
    assert_eq!(resting_commit(&gantry, "latest").await, old, "--force-tags");
}

#[tokio::test]
async fn a_requested_run_of_an_older_head_leaves_the_tag_of_a_push() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    hello.commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:latest").await;
    gantry.settle().await;
    let old = hello.commit("main", &[("file", "old")]).unwrap();
    let asked = ask(&gantry, &task, "main", false).await;
    gantry.schedule().await;
    let gate = Gate::closed();
    gantry.engine.script(&TestPipeline::repository("hello"), [Action::Wait(gate.clone())]);
    let (one, other) = (gantry.worker("worker-1"), gantry.worker("worker-2"));
    let scheduler = gantry.scheduler();
    let newer = async {
        gate.reached().await;
        let new = hello.commit("main", &[("file", "new")]).unwrap();
        gantry.deliver("d1", "hello", Some(&old), Some(&new)).await;
        // The run read a head that no hook had reported, so the host is asked, and returns the newer one.
        while scheduler.tick().await.unwrap() {}
        while other.turn(&gantry.stop).await.unwrap() {}
        gate.open();
        new
    };
    let (_, new) = tokio::join!(one.turn(&gantry.stop), newer);
    gantry.settle().await;
    assert_eq!(resting_commit(&gantry, "latest").await, new);
    let run = gantry.run(&asked.id.to_string()).await;
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(run.state.done().unwrap().outcome.product().unwrap().outputs, []);
}

#[tokio::test]
async fn a_requested_run_before_the_hook_of_its_push_moves_the_tag() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:latest").await;
    gantry.settle().await;
    gantry.deliver("d1", "hello", None, Some(&first)).await;
    gantry.settle().await;
    let second = hello.commit("main", &[("file", "2")]).unwrap();
    ask(&gantry, &task, "main", false).await;
    gantry.settle().await;
    assert_eq!(resting_commit(&gantry, "latest").await, second, "the host was asked");
    let before = gantry.transcript().await.lines().count();
    gantry.deliver("d2", "hello", Some(&first), Some(&second)).await;
    gantry.settle().await;
    assert_eq!(gantry.transcript().await.lines().count(), before, "its hook starts no second run");
}

#[tokio::test]
async fn a_second_attempt_has_the_generation_of_the_commit_it_read() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let old = hello.commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:latest").await;
    gantry.settle().await;
    gantry.deliver("d1", "hello", None, Some(&old)).await;
    gantry.settle().await;
    // The first attempt reads the old commit and fails; then the branch moves.
    gantry.engine.script(&TestPipeline::repository("hello"), [Action::FillDisk]);
    let asked = ask(&gantry, &task, "main", false).await;
    gantry.schedule().await;
    assert!(gantry.worker("worker-1").turn(&gantry.stop).await.unwrap());
    let new = hello.commit("main", &[("file", "new")]).unwrap();
    gantry.deliver("d2", "hello", Some(&old), Some(&new)).await;
    gantry.settle().await;
    let run = gantry.run(&asked.id.to_string()).await;
    assert_eq!(run.attempts.len(), 2, "{run:?}");
    let product = run.state.done().unwrap().outcome.product().unwrap();
    assert_eq!(product.commit.as_ref().unwrap().as_str(), new);
    assert_eq!(product.superseded, [], "it built what the newest push built");
    assert_eq!(resting_commit(&gantry, "latest").await, new);
}

/// A leased run of a push to one of many branches.
async fn leased_run(
    gantry: &TestPipeline,
    task: &Task,
    branch: usize,
    generation: u64,
) -> TakenRun {
    let store = gantry.store.as_ref();
    let fact = format!("branch:reg:git.test/hello@b{branch}").parse().unwrap();
    let (event, by) = ("request/1".parse().unwrap(), TestPipeline::somebody());
    let mut draft = planner::for_task_request(task, task.recipe.clone(), event, by);
    draft.built_on = BuiltOn::fact(fact, generation);
    let (prefix, now) = ("ca".parse().unwrap(), gantry.clock.now());
    let signer = gantry.keyring.as_ref();
    let creation = runs::Creation::begin(store, Batch::default(), prefix, signer, now);
    let mut creation = creation.await.unwrap();
    let run = creation.add(draft, None).unwrap();
    store.commit(creation.finish()).await.unwrap();
    let limits = Limits { registry: 1000, task: None };
    runs::ready(store, run.id, &"linux-amd64".parse().unwrap(), None, limits).await.unwrap();
    let nonce = format!("{:032x}", branch * 2 + usize::try_from(generation).unwrap());
    let (pool, worker) = (run.pool(), "worker-1".parse().unwrap());
    let taken = runs::take(store, &pool, &worker, &nonce.parse().unwrap(), LEASE).await.unwrap();
    let taken = taken.expect("it is ready");
    runs::began(store, taken.run.id, &taken.holder, None, &Steps::default()).await.unwrap();
    taken
}

#[tokio::test]
async fn older_runs_of_many_branches_never_move_a_shared_tag_back() {
    let gantry = super::start().await;
    let task = gantry.task("hello", "hello:latest").await;
    let tag = ["registry.test/hello:latest".parse().unwrap()];
    let ask = async |taken: &TakenRun| {
        let (run, holder) = (taken.run.id, &taken.holder);
        runs::tagging(gantry.store.as_ref(), run, holder, &"push".parse().unwrap(), &tag, LEASE)
            .await
            .unwrap()
    };
    let old = leased_run(&gantry, &task, 0, 1).await;
    let new = leased_run(&gantry, &task, 0, 2).await;
    let moves = Permit::Given { images: tag.to_vec(), superseded: Vec::new() };
    assert_eq!(ask(&new).await, moves);
    for branch in 1..100 {
        assert_eq!(ask(&leased_run(&gantry, &task, branch, 1).await).await, moves);
    }
    let Permit::Given { images, superseded } = ask(&old).await else { panic!("it is decided") };
    assert_eq!(images, [], "the newer run of its own branch is remembered");
    assert_eq!((superseded[0].by, superseded[0].because), (new.run.id, KeptBecause::NewerChange));
}
