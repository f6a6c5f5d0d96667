//! Which of many waiting runs comes next: the best class, each registry and each task in turn, and everything in the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gantry_domain::built_on::BuiltOn;
use gantry_domain::cause::Cause;
use gantry_domain::decide::order::Class;
use gantry_domain::decide::planner::RunDraft;
use gantry_domain::id::{RunId, RunPrefix};
use gantry_domain::platform::Platform;
use gantry_domain::platforms::Platforms;
use gantry_domain::recipe::{ImageBuild, Recipe, RunTimeout, Work};
use gantry_domain::run::{Outcome, Purpose, Run, RunState, RunType, TaskRevision, WaitReason};
use gantry_domain::step::Steps;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::worker::{EngineHealth, Worker as WorkerRecord};
use gantry_seams::runs::{self, Finish, TakenRun};
use gantry_seams::store::{Batch, Key};
use gantry_seams::workers;
use gantry_tests::doubles::store::{CommitHook, HookedStore};
use gantry_tests::pipeline::{LEASE, TestPipeline, create_registry};

use super::CROWD;

/// As many runs as one commit can create.
pub(super) const AT_ONCE: usize = 50;

/// A run of a class, of a task or of none.
pub(super) fn draft(registry: &str, class: Class, task: Option<&str>) -> RunDraft {
    let event = "request/r1".parse().unwrap();
    let cause = match class {
        Class::Person => Cause::Request {
            event,
            by: TestPipeline::somebody(),
            rerun_of: None,
            asked: None,
            branch: None,
        },
        Class::Timer => Cause::Timer {
            event,
            timer: "nightly".parse().unwrap(),
            due: Timestamp::default(),
            queues: false,
        },
        Class::Wave => Cause::BaseImages {
            event,
            wave: "ca-w1".parse().unwrap(),
            moved: Vec::new(),
            head: None,
        },
        Class::Push | Class::Scan => Cause::Saved { event },
    };
    let run_type = match class {
        Class::Person => RunType::QuickBuild,
        Class::Push | Class::Timer | Class::Wave | Class::Scan => RunType::AutoBuild,
    };
    RunDraft {
        registry: registry.parse().unwrap(),
        purpose: Purpose::Execute,
        run_type,
        task: task.map(|name| TaskRevision {
            name: name.parse().unwrap(),
            created: Timestamp::default(),
            revision: 1,
            is_unchanged: false,
            reports: false,
        }),
        recipe: Recipe {
            source: "https://github.com/octo/hello.git#main".parse().unwrap(),
            platforms: Platforms::default(),
            timeout: RunTimeout::default(),
            logins: BTreeMap::new(),
            follows: gantry_domain::tracked_image::TagPolicies::default(),
            bases: Vec::new(),
            pull_request: None,
            work: Work::Build(ImageBuild {
                dockerfile: "Dockerfile".parse().unwrap(),
                images: Vec::new(),
                build_args: BTreeMap::new(),
                secret_build_args: BTreeMap::new(),
                target: None,
                push: false,
                no_cache: false,
            }),
        },
        git_token: None,
        force_tags: false,
        concurrency_group: None,
        held: None,
        built_on: BuiltOn::Unread,
        cause,
        trace: None,
    }
}

/// An installation with one worker that reports its slots.
struct Installation {
    gantry: TestPipeline,
    registries: BTreeMap<&'static str, RunPrefix>,
}

impl Installation {
    /// With registries that have so many places.
    async fn with(slots: u32, registries: &[(&'static str, u32)]) -> Self {
        let gantry = super::start().await;
        let mut prefixes = BTreeMap::new();
        for (name, limit) in registries {
            let host = format!("{name}.test");
            let registry = create_registry(gantry.store.as_ref(), name, &host, *limit).await;
            prefixes.insert(*name, registry.prefix);
        }
        let record = WorkerRecord {
            id: "worker-1".parse().unwrap(),
            has_fixed_name: true,
            pool: Platform::default().pool(),
            platforms: vec![Platform::default()],
            slots,
            runs: Vec::new(),
            version: "1".to_owned(),
            engine: EngineHealth::Ready { name: "an engine".to_owned() },
            free_disk: None,
            idle_because: None,
            last_seen: gantry.clock.now(),
        };
        workers::record_seen(gantry.store.as_ref(), &record).await.unwrap();
        Self { gantry, registries: prefixes }
    }

    /// Creates waiting runs.
    async fn waiting(&self, draft: &RunDraft, count: usize) {
        let (store, signer) = (self.gantry.store.as_ref(), self.gantry.keyring.as_ref());
        let prefix = self.registries[draft.registry.as_str()];
        for first in (0..count).step_by(AT_ONCE) {
            let now = store.now().await.unwrap();
            let creation = runs::Creation::begin(store, Batch::default(), prefix, signer, now);
            let mut creation = creation.await.unwrap();
            for _ in first..count.min(first + AT_ONCE) {
                creation.add(draft.clone(), None).unwrap();
            }
            store.commit(creation.finish()).await.unwrap();
        }
    }

    async fn tick(&self) {
        self.gantry.scheduler().tick().await.unwrap();
    }

    /// A slot takes the best ready run.
    async fn take(&self) -> Option<TakenRun> {
        let (pool, nonce) = (Platform::default().pool(), "1".repeat(32).parse().unwrap());
        let (store, worker) = (self.gantry.store.as_ref(), "worker-1".parse().unwrap());
        runs::take_beside_others(store, &pool, &worker, &nonce, LEASE).await.unwrap()
    }

    async fn end(&self, taken: TakenRun) {
        let outcome = Finish::Outcome(Outcome::Canceled { by: TestPipeline::canceler() });
        let store = self.gantry.store.as_ref();
        runs::finish(store, taken.run.id, &taken.holder, outcome, &Steps::default()).await.unwrap();
    }

    /// Admits, takes and ends `count` runs one after another.
    async fn next(&self, count: usize) -> Vec<Run> {
        let mut taken = Vec::new();
        for _ in 0..count {
            self.tick().await;
            let next = self.take().await.expect("a ready run");
            taken.push(next.run.clone());
            self.end(next).await;
        }
        taken
    }

    /// How many runs of a class are taken before the first of another, while that class never runs dry.
    async fn passed_before(&self, class: Class, busy: &RunDraft) -> usize {
        for passed in 0..500 {
            self.waiting(busy, 1).await;
            if self.next(1).await[0].class() == class {
                return passed;
            }
        }
        panic!("{class:?} starves");
    }
}

fn registries(runs: &[Run]) -> Vec<&str> {
    runs.iter().map(|run| run.registry.as_str()).collect()
}

#[tokio::test]
async fn a_crowd_of_rebuilds_delays_a_quick_build_by_the_run_in_its_slot_alone() {
    let at = Installation::with(1, &[("reg0", 10)]).await;
    at.waiting(&draft("reg0", Class::Wave, None), CROWD).await;
    // In the middle of the crowd as well as at its begin.
    for _ in 0..40 {
        at.next(1).await;
        at.tick().await;
        let busy = at.take().await.expect("a rebuild");
        assert_eq!(busy.run.class(), Class::Wave);
        at.tick().await;
        at.waiting(&draft("reg0", Class::Person, None), 1).await;
        at.tick().await;
        at.end(busy).await;
        let next = at.take().await.expect("the quick build");
        assert_eq!(next.run.class(), Class::Person);
        at.end(next).await;
    }
}

#[tokio::test]
async fn a_person_comes_before_a_push_a_timer_and_a_wave_however_long_they_have_waited() {
    let at = Installation::with(1, &[("reg0", 1)]).await;
    for class in [Class::Wave, Class::Timer, Class::Push, Class::Person] {
        at.waiting(&draft("reg0", class, None), 2).await;
        at.gantry.clock.advance(std::time::Duration::from_secs(3600));
    }
    let taken: Vec<Class> = at.next(8).await.iter().map(Run::class).collect();
    let in_order = [Class::Person, Class::Push, Class::Timer, Class::Wave];
    assert_eq!(taken, in_order.iter().flat_map(|class| [*class, *class]).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_registry_with_one_run_does_not_wait_for_the_crowd_of_another() {
    let at = Installation::with(1, &[("reg0", 1000), ("reg1", 1000)]).await;
    at.waiting(&draft("reg0", Class::Wave, None), CROWD).await;
    at.next(3).await;
    at.waiting(&draft("reg1", Class::Wave, None), 1).await;
    at.tick().await;
    let taken = at.next(2).await;
    assert!(registries(&taken).contains(&"reg1"), "{:?}", registries(&taken));
}

#[tokio::test]
async fn registries_are_served_in_turn() {
    let at = Installation::with(1, &[("reg0", 10), ("reg1", 10), ("reg2", 10)]).await;
    for registry in ["reg0", "reg1", "reg2"] {
        at.waiting(&draft(registry, Class::Push, None), 4).await;
    }
    let taken = at.next(12).await;
    let mut expected = registries(&taken[..3]);
    expected.sort_unstable();
    assert_eq!(expected, ["reg0", "reg1", "reg2"]);
    for round in taken.chunks(3) {
        assert_eq!(registries(round), registries(&taken[..3]));
    }
}

#[tokio::test]
async fn tasks_of_a_registry_are_served_in_turn() {
    let at = Installation::with(1, &[("reg0", 10)]).await;
    at.waiting(&draft("reg0", Class::Wave, Some("many")), 100).await;
    at.waiting(&draft("reg0", Class::Wave, Some("one")), 1).await;
    at.waiting(&draft("reg0", Class::Wave, None), 1).await;
    let taken = at.next(4).await;
    let tasks: Vec<_> =
        taken.iter().map(|run| run.task.as_ref().map(|task| task.name.as_str())).collect();
    assert!(tasks.contains(&Some("one")) && tasks.contains(&None), "{tasks:?}");
}

#[tokio::test]
async fn a_wave_gets_a_slot_though_people_s_runs_never_run_dry() {
    let at = Installation::with(1, &[("reg0", 10)]).await;
    let (busy, wave) = (draft("reg0", Class::Person, None), draft("reg0", Class::Wave, None));
    at.waiting(&wave, 1).await;
    at.waiting(&busy, 5).await;
    assert!((32..150).contains(&at.passed_before(Class::Wave, &busy).await));
}

#[tokio::test]
async fn a_wave_gets_its_registry_s_only_place_though_people_s_runs_never_run_dry() {
    let at = Installation::with(4, &[("reg0", 1)]).await;
    let (busy, wave) = (draft("reg0", Class::Person, None), draft("reg0", Class::Wave, None));
    at.waiting(&wave, 1).await;
    at.waiting(&busy, 5).await;
    assert!((16..150).contains(&at.passed_before(Class::Wave, &busy).await));
}

#[tokio::test]
async fn a_run_is_admitted_despite_ten_thousand_waiting_in_another_registry() {
    let at = Installation::with(2, &[("reg0", 1), ("reg1", 1)]).await;
    at.waiting(&draft("reg0", Class::Person, None), 10_000).await;
    at.waiting(&draft("reg1", Class::Push, None), 1).await;
    at.tick().await;
    let ready = runs::all_ready(at.gantry.store.as_ref(), 10).await.unwrap();
    assert_eq!(registries(&ready), ["reg0", "reg1"]);
}

#[tokio::test]
async fn no_more_runs_of_a_class_are_ready_than_the_pool_has_slots() {
    let at = Installation::with(3, &[("reg0", 100)]).await;
    at.waiting(&draft("reg0", Class::Wave, None), 50).await;
    at.waiting(&draft("reg0", Class::Push, None), 2).await;
    for _ in 0..3 {
        at.tick().await;
    }
    let ready = runs::all_ready(at.gantry.store.as_ref(), 100).await.unwrap();
    let of = |class| ready.iter().filter(|run| run.class() == class).count();
    assert_eq!((of(Class::Push), of(Class::Wave)), (2, 3));
}

/// Counts the records that are read.
#[derive(Default)]
struct Reads(AtomicUsize);

impl CommitHook for Reads {
    fn before_load(&self, keys: &[Key]) {
        self.0.fetch_add(keys.len(), Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_tick_does_not_read_the_crowd_to_admit_one_run() {
    let mut at = Installation::with(1, &[("reg0", 10)]).await;
    at.waiting(&draft("reg0", Class::Wave, None), CROWD).await;
    let reads = Arc::new(Reads::default());
    at.gantry.store = HookedStore::shared(Arc::clone(&at.gantry.store), Arc::clone(&reads));
    at.next(1).await;
    assert!(
        reads.0.load(Ordering::Relaxed) < 200,
        "{reads} records",
        reads = reads.0.load(Ordering::Relaxed)
    );
}

/// A run of a task in the group `deploy`.
fn grouped(task: &str) -> RunDraft {
    let group = Some("deploy".parse().unwrap());
    RunDraft { concurrency_group: group, ..draft("reg0", Class::Push, Some(task)) }
}

#[tokio::test]
async fn runs_of_a_concurrency_group_are_executed_one_at_a_time_and_say_which_they_wait_for() {
    let at = Installation::with(4, &[("reg0", 10)]).await;
    at.waiting(&grouped("api"), 3).await;
    at.waiting(&grouped("web"), 3).await;
    let mut order = Vec::new();
    for _ in 0..6 {
        at.tick().await;
        let running = at.take().await.expect("one of the group");
        at.tick().await;
        assert!(at.take().await.is_none(), "the others wait");
        let reason = WaitReason::Group { group: "deploy".parse().unwrap(), run: running.run.id };
        let waiting = runs::waiting(at.gantry.store.as_ref(), None, 10).await.unwrap();
        let says_it = |run: &&Run| matches!(&run.state, RunState::Waiting { reason: said, .. } if *said == reason);
        // The first of each task. Those behind it wait for their turn.
        assert_eq!(waiting.iter().filter(says_it).count() > 0, !waiting.is_empty());
        order.push(running.run.task.as_ref().unwrap().name.to_string());
        at.end(running).await;
    }
    assert_eq!(order.iter().filter(|task| *task == "api").count(), 3);
    assert_ne!(order[0], order[1], "its tasks take turns: {order:?}");
}

#[tokio::test]
async fn a_run_without_a_group_is_in_the_way_of_none_and_waits_for_none() {
    let at = Installation::with(4, &[("reg0", 10)]).await;
    at.waiting(&grouped("api"), 3).await;
    at.waiting(&draft("reg0", Class::Push, Some("docs")), 2).await;
    at.tick().await;
    let ready = runs::all_ready(at.gantry.store.as_ref(), 10).await.unwrap();
    let grouped = ready.iter().filter(|run| run.concurrency_group.is_some());
    assert_eq!((ready.len(), grouped.count()), (3, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_schedulers_at_once_admit_one_run_of_a_concurrency_group() {
    let at = Installation::with(4, &[("reg0", 10)]).await;
    at.waiting(&grouped("api"), 3).await;
    at.waiting(&grouped("web"), 3).await;
    for _ in 0..6 {
        let ticks = (0..6).map(|_| {
            let scheduler = at.gantry.scheduler();
            tokio::spawn(async move { scheduler.tick().await.unwrap() })
        });
        assert!(futures_util::future::join_all(ticks).await.into_iter().all(|tick| tick.is_ok()));
        let ready: Vec<RunId> = runs::all_ready(at.gantry.store.as_ref(), 10)
            .await
            .unwrap()
            .iter()
            .map(|run| run.id)
            .collect();
        assert_eq!(ready.len(), 1, "{ready:?}");
        let taken = at.take().await.unwrap();
        at.end(taken).await;
    }
}
