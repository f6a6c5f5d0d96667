//! A worker with its own Redis user, which may access only what its pool's runs need, by the template for operators.

use std::sync::Arc;
use std::time::Duration;

use gantry_domain::platform::Platform;
use gantry_domain::run::{Run, RunStatus};
use gantry_domain::sealed::Sealed;
use gantry_ops::bundle::Bundle;
use gantry_ops::secret::SecretString;
use gantry_redis::{RedisOptions, RedisStore};
use gantry_seams::clock::Clock;
use gantry_seams::store::{Batch, From, Index, Key, Kind, SharedStore, StoreError};
use gantry_seams::{hooks, installation, runs, workers};
use gantry_tests::backend::Backend;
use gantry_tests::pipeline::{
    DOCKERFILE, HOOK, REGISTRY, TestPipeline, create_registry, image_build,
};
use gantry_tests::servers::redis::Redis;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const TEMPLATE: &str = include_str!("../../../deploy/redis/users.acl.example");

/// A pipeline on a Redis with the users of the template.
struct Guarded {
    gantry: TestPipeline,
    redis: Redis,
}

impl Guarded {
    async fn start() -> Self {
        let redis = Redis::start().await.unwrap();
        for line in TEMPLATE.lines() {
            let user = line.strip_prefix("user ").expect("a file for Redis holds nothing else");
            // Set last, because it sets the others.
            if !user.starts_with("default") {
                call(&redis, user).await;
            }
        }
        let mut gantry = TestPipeline::start(Backend::Embedded).await;
        gantry.store = connect(&gantry, &redis, "gantry", "CHANGE-ME").await;
        create_registry(gantry.store.as_ref(), "reg", REGISTRY, 8).await;
        Self { gantry, redis }
    }

    /// The store as a worker of pool linux-amd64 sees it.
    async fn workers_store(&self) -> SharedStore {
        connect(&self.gantry, &self.redis, "gantry-worker-linux-amd64", "CHANGE-ME-TOO").await
    }

    /// A ready run for a platform, with a secret.
    async fn ready_run(&self, name: &str, platform: &str) -> Run {
        let gantry = &self.gantry;
        let repository = gantry.git.repository(name).unwrap();
        let first = repository.commit("main", DOCKERFILE).unwrap();
        let secret = SecretString::from("s3cr3t-of-some-length");
        let sealed = gantry.keyring.seal(&TestPipeline::seals_for(), &secret).unwrap();
        let task = gantry
            .task_with(name, &format!("{name}:{{{{.Run.ID}}}}"), |task| {
                task.recipe.platforms = platform.parse().unwrap();
                image_build(&mut task.recipe).secret_build_args =
                    [("TOKEN".parse().unwrap(), sealed)].into();
            })
            .await;
        gantry.schedule().await;
        if hooks::find(gantry.store.as_ref(), &HOOK.parse().unwrap()).await.unwrap().is_none() {
            gantry.create_hook().await;
        }
        let second = repository.commit("main", &[("file", "2")]).unwrap();
        gantry.deliver(&format!("d-{name}"), name, Some(&first), Some(&second)).await;
        gantry.schedule().await;
        let all = runs::RunFilter::default();
        let all = runs::list(gantry.store.as_ref(), &all, None, 10).await.unwrap();
        all.into_iter().find(|run| run.task_id().as_ref() == Some(&task.id)).unwrap()
    }

    async fn bundle(&self, run: &Run) -> Sealed {
        let key = Key::new(Kind::Bundle, format_args!("{}/{}", run.pool(), run.id));
        let found = self.gantry.store.load(&[key]).await.unwrap().pop().flatten().unwrap();
        Sealed::from_text(String::from_utf8(found.bytes.to_vec()).unwrap())
    }
}

async fn connect(gantry: &TestPipeline, redis: &Redis, user: &str, password: &str) -> SharedStore {
    let mut options = RedisOptions::parse(&redis.url()).unwrap();
    options.user = Some(user.to_owned());
    options.password = Some(SecretString::from(password));
    options.check_durability = user == "gantry";
    options.clock = Clock::Manual(gantry.clock.clone());
    Arc::new(RedisStore::connect(options).await.unwrap())
}

/// Runs `ACL SETUSER` as the default user.
async fn call(redis: &Redis, user: &str) {
    let mut stream = TcpStream::connect(redis.address()).await.unwrap();
    stream.write_all(format!("ACL SETUSER {user}\r\n").as_bytes()).await.unwrap();
    let mut answer = [0; 256];
    let length = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert_eq!(answer, "+OK\r\n", "{user}");
}

#[tokio::test]
async fn a_worker_with_its_own_redis_user_reads_no_other_secrets() {
    let guarded = Guarded::start().await;
    let gantry = &guarded.gantry;
    let fingerprints = gantry.keyring.fingerprints();
    installation::open(gantry.store.as_ref(), "id", &fingerprints).await.unwrap();
    let own = guarded.ready_run("own", "linux/amd64").await;
    let second = guarded.ready_run("second", "linux/amd64").await;
    let other = guarded.ready_run("other", "linux/arm64").await;
    let (own_bundle, other_bundle) = (guarded.bundle(&own).await, guarded.bundle(&other).await);

    let mut worker = gantry.worker("w1");
    worker.store = guarded.workers_store().await;
    let store = Arc::clone(&worker.store);
    let key = Arc::clone(&worker.pool_key);
    let found = installation::find(store.as_ref()).await.unwrap().unwrap();
    assert_eq!(found.check_pool_key(&key.fingerprints()), Ok(()));

    // One run, tick by tick: an attempt that fails because of the infrastructure, and the pause before the next.
    gantry.engine.go_away();
    assert!(worker.turn(&gantry.stop).await.unwrap());
    assert_eq!(gantry.run(&own.id.to_string()).await.status(), RunStatus::Queued);
    gantry.engine.come_back();
    gantry.clock.advance(Duration::from_secs(120));
    gantry.schedule().await;
    // Both, by the whole worker: it reports, takes, builds, packs logs and shuts down.
    let stop = CancellationToken::new();
    let working = tokio::spawn(worker.clone().run(stop.clone()));
    for run in [&own, &second] {
        let done = async {
            while gantry.run(&run.id.to_string()).await.state.done().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), done).await.expect("it is built");
        let run = gantry.run(&run.id.to_string()).await;
        assert_eq!(run.status(), RunStatus::Succeeded, "{run:?}");
        assert!(gantry.log(&run.id.to_string(), run.next_attempt() - 1).await.contains("pushed"));
    }
    assert_eq!(workers::list(gantry.store.as_ref(), 10).await.unwrap().len(), 1, "it said so");
    stop.cancel();
    working.await.unwrap();
    assert!(workers::list(gantry.store.as_ref(), 10).await.unwrap().is_empty(), "it left");

    // Records that it may neither read nor write.
    let others = [
        (Kind::Bundle, format!("linux-arm64/{}", other.id)),
        (Kind::Hook, "hook".to_owned()),
        (Kind::Token, "t".to_owned()),
        (Kind::Delivery, "hook/d1".to_owned()),
        (Kind::DeliveryBody, "hook/d1".to_owned()),
        (Kind::Event, "hook/d1/0".to_owned()),
        (Kind::Task, "reg/other".to_owned()),
        (Kind::Fact, "x".to_owned()),
        (Kind::Notification, format!("{}/x", TestPipeline::prefix())),
        (Kind::Message, "x".to_owned()),
    ];
    for (kind, id) in others {
        let key = Key::new(kind, id);
        assert_refused(store.load(std::slice::from_ref(&key)).await.map(drop), &key.to_string());
        let mut batch = Batch::default();
        batch.put(key.clone(), "mine");
        assert!(store.commit(batch).await.is_err(), "{key} was written");
    }
    for (kind, id) in [(Kind::Registry, "reg"), (Kind::Installation, "this"), (Kind::Drain, "w1")] {
        let mut batch = Batch::default();
        batch.put(Key::new(kind, id), "mine");
        assert!(store.commit(batch).await.is_err(), "{id} was written");
    }
    for index in ["hook/all", "token/all", "runs/all", "runs/ready/linux-arm64", "events/undecided"]
    {
        assert_refused(store.range(&Index::new(index), From::Start, 1).await.map(drop), index);
    }

    // A bundle of another pool does not open, even if the worker gets it.
    assert!(Bundle::open(&key, &own, &own_bundle).is_ok(), "its own does");
    assert!(Bundle::open(&key, &other, &other_bundle).is_err(), "another pool's");
    assert!(Bundle::open(&key, &second, &own_bundle).is_err(), "its own for another run");
    let arm = gantry.keyring.pool_key(&"linux/arm64".parse::<Platform>().unwrap().pool());
    assert!(Bundle::open(&arm, &other, &other_bundle).is_ok(), "that pool's own key does");

    // What it may write anyway gives it no secrets.
    super::forged::other_registry(gantry).await;
    super::forged::forge(store.as_ref(), &own).await;
    gantry.schedule().await;
    super::forged::assert_refused(gantry, "zz9").await;
}

fn assert_refused(answer: Result<(), StoreError>, what: &str) {
    let error = answer.expect_err(what).to_string();
    assert!(
        error.contains("NOPERM") || error.to_lowercase().contains("permission"),
        "{what}: {error}"
    );
}
