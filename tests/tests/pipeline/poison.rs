//! Records that do not decode, of each kind that a loop reads, and index entries without a record. Each is quarantined
//! once, and everything that does not need it continues.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use gantry_domain::decide::planner;
use gantry_domain::delivery::{Delivery, Verdict};
use gantry_domain::event::{Event, EventKind, Push, PushedRef};
use gantry_domain::fact::FactKey;
use gantry_domain::hook::{Hook, Provider, Sender};
use gantry_domain::id::EventId;
use gantry_domain::pull_request::ChangedFiles;
use gantry_domain::registry::Registry;
use gantry_domain::run::{ErrorCode, RunStatus};
use gantry_domain::task::Task;
use gantry_seams::deliveries::{self, AcceptedDelivery};
use gantry_seams::requests::{self, RunRequest};
use gantry_seams::store::{Batch, CommitError, Index, Key, Kind};
use gantry_seams::{events, hooks, installation, runs};
use gantry_tests::doubles::store::{CommitHook, HookedStore};
use gantry_tests::pipeline::{
    DOCKERFILE, LEASE, QUEUE_TIMEOUT, REGISTRY, TestPipeline, create_registry,
};
use tokio_util::sync::CancellationToken;

/// The time limit for anything on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// The content that replaces a record.
const POISON: &[u8] = b"{\"v\":1,\"not\":\xff";

/// How often each record was quarantined.
#[derive(Default)]
struct Quarantined(Mutex<BTreeMap<String, usize>>);

#[async_trait]
impl CommitHook for Quarantined {
    async fn before(&self, batch: &Batch) -> Result<(), CommitError> {
        for (key, _) in batch.put.iter().filter(|(key, _)| key.kind == Kind::Quarantine) {
            *self.0.lock().unwrap().entry(key.id.clone()).or_default() += 1;
        }
        Ok(())
    }
}

/// A registry with a task, some of whose records are poisoned.
struct Victim {
    registry: Registry,
    task: Task,
    head: String,
}

impl Victim {
    async fn new(gantry: &TestPipeline, name: &str) -> Self {
        let store = gantry.store.as_ref();
        let registry = create_registry(store, name, REGISTRY, 8).await;
        let hook = Hook {
            id: name.parse().unwrap(),
            registry: registry.name.clone(),
            prefix: registry.prefix,
            sender: Sender::GitHub,
            repositories: Vec::new(),
            secrets: Vec::new(),
            is_provisioned: false,
            created: gantry.clock.now(),
        };
        hooks::create(store, &hook).await.unwrap();
        let head = gantry.git.repository(name).unwrap().commit("main", DOCKERFILE).unwrap();
        let image = format!("{name}:{{{{.Run.ID}}}}");
        let task = gantry
            .task_with(name, &image, |task| task.id = format!("{name}/web").parse().unwrap())
            .await;
        Self { registry, task, head }
    }

    fn name(&self) -> &str {
        self.registry.name.as_str()
    }

    /// A push that moves its branch.
    fn push(&self, gantry: &TestPipeline) -> Delivery {
        let name = self.name();
        let push = Push {
            hook: Some(name.parse().unwrap()),
            url: gantry.git.url(name).parse().unwrap(),
            reference: PushedRef::Branch("main".parse().unwrap()),
            before: Some(self.head.parse().unwrap()),
            after: Some("e".repeat(40).parse().unwrap()),
            default_branch: None,
            pusher: None,
            changed: ChangedFiles::default(),
            asks_to_skip: false,
        };
        Delivery {
            id: "d1".parse().unwrap(),
            hook: name.parse().unwrap(),
            provider: Provider::GitHub,
            registry: self.registry.name.clone(),
            prefix: self.registry.prefix,
            kind: "push".to_owned(),
            received: gantry.clock.now(),
            body_sha256: "0".repeat(64),
            body_bytes: 2,
            verdict: Verdict::Events,
            unread: Vec::new(),
            trace: None,
            meaning: vec![EventKind::Push(push)],
        }
    }

    async fn deliver(&self, gantry: &TestPipeline) -> AcceptedDelivery {
        let body = Some(Bytes::from_static(b"{}"));
        deliveries::accept(gantry.store.as_ref(), &self.push(gantry), body).await.unwrap()
    }

    fn event(&self) -> String {
        format!("{}/d1/0", self.name())
    }

    fn fact(&self, gantry: &TestPipeline) -> FactKey {
        let kind = self.push(gantry).meaning.remove(0);
        let EventKind::Push(push) = kind else { unreachable!("it is a push") };
        FactKey::branch(&self.registry.name, &push.repository(), &"main".parse().unwrap())
    }
}

/// The only run of a task.
async fn run_of(gantry: &TestPipeline, victim: &Victim) -> String {
    let task = Some((victim.registry.prefix, victim.task.id.name.clone()));
    let filter = runs::RunFilter { task, ..Default::default() };
    let found = runs::list(gantry.store.as_ref(), &filter, None, 2).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].id.to_string()
}

/// Requests a run of a task, with a number for its id.
async fn ask(gantry: &TestPipeline, task: &Task, number: usize) {
    let by = TestPipeline::somebody();
    let event = Event {
        id: format!("request/{number}").parse().unwrap(),
        registry: task.id.registry.clone(),
        prefix: task.prefix,
        received: gantry.clock.now(),
        trace: None,
        kind: EventKind::Requested { by: by.clone(), task: Some(task.id.clone()), rerun_of: None },
    };
    let request = RunRequest {
        draft: planner::for_task_request(task, task.recipe.clone(), event.id.clone(), by),
        event,
        idempotency: None,
    };
    requests::accept(gantry.store.as_ref(), request, gantry.keyring.as_ref()).await.unwrap();
}

/// An event that no delivery brought. Answers its id.
async fn notice(gantry: &TestPipeline, victim: &Victim) -> EventId {
    let delivery = victim.push(gantry);
    let event = delivery.events().next().unwrap();
    let id: EventId = format!("noticed/{}", victim.name()).parse().unwrap();
    let event = Event { id: id.clone(), ..event };
    assert!(events::notice(gantry.store.as_ref(), &event).await.unwrap());
    id
}

async fn poison(gantry: &TestPipeline, keys: &[Key]) {
    let mut batch = Batch::default();
    for key in keys {
        batch.put(key.clone(), POISON);
    }
    gantry.store.commit(batch).await.unwrap();
}

/// Entries that name no run, event or log in every index that a loop reads; they sort first.
async fn ghosts(gantry: &TestPipeline) {
    let mut batch = Batch::default();
    for index in ["runs/waiting", "runs/leased", "runs/ended", "runs/ready/linux-amd64"] {
        batch.index(Index::new(index), 0, "zz1");
        batch.index(Index::new(index), 0, "no run's id");
    }
    let lanes =
        ["0/ca/@/0/zz1", "0/ca/@/0/no run's id", "0/no prefix!/@/0/zz1", "no class/ca/@/0/zz1"];
    for lane in lanes {
        batch.index(Index::new("runs/waiting-by-lane"), 0, format!("linux-amd64/{lane}"));
    }
    batch.index(Index::new("runs/waiting-by-lane"), 0, "no lane");
    batch.index(Index::new("runs/ready"), 0, "linux-amd64/zz1");
    batch.index(Index::new("events/undecided"), 0, "0000000000000/hook/ghost/0");
    batch.index(Index::new("events/undecided"), 0, "no time and no event");
    batch.index(Index::new("events/age"), 0, "hook/ghost/0");
    batch.index(Index::new("log/open"), 0, "zz1-1");
    for part in ["with-body", "without-body"] {
        let ledger = Index::new(format!("deliveries/{}/{part}", TestPipeline::prefix()));
        batch.index(ledger.clone(), 0, "0000000000000/hook/ghost");
        batch.index(ledger, 0, "no place of a delivery");
    }
    batch.index(Index::new("deliveries/ledgers"), 0, "no prefix!");
    batch.index(Index::new("worker/all"), 0, "ghost");
    gantry.store.commit(batch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_any_kind_that_does_not_decode_is_quarantined_once_and_keeps_nothing_else() {
    let mut gantry = super::start().await;
    let counted = Arc::new(Quarantined::default());
    gantry.store = HookedStore::shared(Arc::clone(&gantry.store), Arc::clone(&counted));

    let named = [
        "ready", "leased", "waiting", "registry", "task", "event", "decision", "hooked", "fact",
        "key", "counter", "delivery",
    ];
    let mut victims = BTreeMap::new();
    for name in named {
        victims.insert(name, Victim::new(&gantry, name).await);
    }
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    // The heads are known from here on.
    gantry.schedule().await;

    gantry.ask(&victims["leased"].task, None).await;
    gantry.schedule().await;
    let (pool, worker) = ("linux-amd64".parse().unwrap(), "lost".parse().unwrap());
    let nonce = "1".repeat(32).parse().unwrap();
    let store = gantry.store.as_ref();
    runs::take(store, &pool, &worker, &nonce, LEASE).await.unwrap().expect("a ready run");
    gantry.ask(&victims["ready"].task, None).await;
    gantry.schedule().await;
    for name in ["waiting", "registry", "task"] {
        gantry.ask(&victims[name].task, None).await;
    }
    let noticed = notice(&gantry, &victims["event"]).await;
    for name in ["decision", "hooked", "fact", "key", "counter", "delivery"] {
        assert_eq!(victims[name].deliver(&gantry).await, AcceptedDelivery::New);
    }
    let mut poisoned = Vec::new();
    for name in ["ready", "leased", "waiting"] {
        poisoned.push(Key::new(Kind::Run, run_of(&gantry, &victims[name]).await));
    }
    let key = &victims["key"];
    let (created, fact) = (key.task.created.as_millis(), key.fact(&gantry));
    let run_key = format!("push/key/web@{created}/{fact}/2");
    poisoned.extend([
        Key::new(Kind::Registry, "registry"),
        Key::new(Kind::Task, "task/web"),
        Key::new(Kind::Event, noticed),
        Key::new(Kind::Delivery, "delivery/d1"),
        Key::new(Kind::Decision, victims["decision"].event()),
        Key::new(Kind::Hook, "hooked"),
        Key::new(Kind::Fact, victims["fact"].fact(&gantry)),
        Key::new(Kind::RunKey, run_key),
        Key::new(Kind::Counter, format!("runs-{}", victims["counter"].registry.prefix)),
    ]);
    let silent = [Key::new(Kind::Worker, "silent"), Key::new(Kind::Drain, "silent")];
    let mut batch = Batch::default();
    batch.index(Index::new("worker/all"), 0, "silent");
    batch.index(Index::new("drain/all"), 0, "silent");
    gantry.store.commit(batch).await.unwrap();
    poisoned.extend(silent);
    poison(&gantry, &poisoned).await;
    // No loop reads this record: it is only replaced.
    let admission = Key::new(Kind::Admission, format!("registry/{}", TestPipeline::prefix()));
    poison(&gantry, &[admission]).await;
    ghosts(&gantry).await;

    let stop = CancellationToken::new();
    let mut scheduler = gantry.scheduler();
    scheduler.settings.sweep_interval = Duration::from_millis(20);
    let scheduling = tokio::spawn(scheduler.clone().run(stop.clone()));
    let working = tokio::spawn(gantry.worker("worker-1").run(stop.clone()));
    let second = hello.commit("main", &[("file", "2")]).unwrap();
    gantry.deliver("d1", "hello", Some(&first), Some(&second)).await;
    let began = Instant::now();
    loop {
        let filter = runs::RunFilter {
            task: Some((TestPipeline::prefix(), "hello".parse().unwrap())),
            ..Default::default()
        };
        let found = runs::list(store, &filter, None, 2).await.unwrap();
        let known = installation::quarantined(store, 100).await.unwrap();
        let missing: Vec<&Key> = poisoned
            .iter()
            .filter(|key| !known.iter().any(|(known, _)| *known == key.to_string()))
            .collect();
        let is_built = found.first().is_some_and(|run| run.status() == RunStatus::Succeeded);
        if is_built && missing.is_empty() {
            break;
        }
        assert!(began.elapsed() < WITHIN, "missing: {missing:?}, built: {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    scheduling.await.unwrap();
    working.await.unwrap();

    // A month and a lease later every loop reads every record, and none quarantines one again.
    let written = counted.0.lock().unwrap().clone();
    gantry.clock.advance(Duration::from_secs(40 * 24 * 3600) + LEASE);
    gantry.schedule().await;
    scheduler.keeper().seal_logs().await.unwrap();
    let long_ago = gantry.clock.now().before(QUEUE_TIMEOUT);
    scheduler.sweeper().end_stranded_runs(gantry.clock.now(), long_ago).await.unwrap();
    scheduler.keeper().make_room().await.unwrap();
    assert!(scheduler.keeper().forget_old().await.unwrap() > 0);
    assert!(written.values().all(|times| *times <= 4), "more than loops that met: {written:?}");
    assert_eq!(*counted.0.lock().unwrap(), written, "nothing is put there again");

    assert!(matches!(victims["delivery"].deliver(&gantry).await, AcceptedDelivery::Repeat(_)));
}

#[tokio::test]
async fn an_undecodable_tag_record_ends_the_run_as_error() {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:latest").await;
    gantry.schedule().await;
    poison(&gantry, &[Key::new(Kind::Tag, "registry.test/hello:latest")]).await;
    gantry.ask(&task, None).await;
    gantry.settle().await;
    let run = gantry.run("ca1").await;
    let error = run.state.done().unwrap().outcome.error().unwrap().clone();
    assert_eq!((run.status(), error.code), (RunStatus::Error, ErrorCode::Internal));
    assert!(error.to_string().contains("tag/registry.test/hello:latest"), "{error}");
}

#[tokio::test]
async fn a_poisoned_run_does_not_block_the_runs_behind_it() {
    let gantry = super::start().await;
    let victim = Victim::new(&gantry, "full").await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let hello = gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.schedule().await;
    // More runs than one pass reads wait for a place in their registry.
    for number in 0..140 {
        ask(&gantry, &victim.task, number).await;
    }
    ask(&gantry, &hello, 140).await;
    poison(&gantry, &[Key::new(Kind::Run, "cb20")]).await;
    gantry.schedule().await;
    assert!(matches!(gantry.run("ca1").await.state, gantry_domain::run::RunState::Ready { .. }));
}
