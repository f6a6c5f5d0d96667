//! Which secrets open where, and what happens when they do not open.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_domain::attempt::AttemptEnd;
use gantry_domain::hook::HookSecret;
use gantry_domain::id::PoolName;
use gantry_domain::notification::{Filter, Format, Notification, SigningSecret};
use gantry_domain::registry::{RegistryCredentials, SealedCredentials};
use gantry_domain::run::{Run, RunStatus};
use gantry_domain::sealed::Sealed;
use gantry_domain::signature::Signer;
use gantry_domain::task::Task;
use gantry_ops::bundle::Bundle;
use gantry_ops::secret::{ExposeSecret as _, Keyring, SecretString, write_private};
use gantry_seams::installation::{self, OpenError, PoolKeyRefused};
use gantry_seams::place::Place;
use gantry_seams::provisioning::{self, MadeWith, Webhook};
use gantry_seams::reseal::{self, Reseal};
use gantry_seams::store::{Batch, Key, Kind};
use gantry_seams::{hooks, notifications, registries, tasks};
use gantry_tests::pipeline::{DOCKERFILE, TestPipeline, image_build};

const SECRET: &str = "s3cr3t-of-some-length";

/// A key ring; each key repeats one byte.
pub(crate) fn ring(keys: &[u8]) -> Keyring {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret.key");
    let lines: Vec<String> = keys.iter().map(|byte| format!("{byte:02x}").repeat(32)).collect();
    write_private(&path, lines.join("\n").as_bytes()).unwrap();
    Keyring::read(&path).unwrap()
}

fn seal(gantry: &TestPipeline, secret: &str) -> Sealed {
    gantry.keyring.seal(&TestPipeline::seals_for(), &SecretString::from(secret)).unwrap()
}

/// Creates a task with a secret build argument.
pub(crate) async fn task_with_secret(gantry: &TestPipeline, name: &str) -> Task {
    gantry.git.repository(name).unwrap().commit("main", DOCKERFILE).unwrap();
    let sealed = seal(gantry, SECRET);
    let image = format!("{name}:{{{{.Run.ID}}}}");
    gantry
        .task_with(name, &image, |task| {
            image_build(&mut task.recipe).secret_build_args =
                [("TOKEN".parse().unwrap(), sealed)].into();
        })
        .await
}

/// An installation with one ready run, `ca1`, that needs a secret.
async fn with_a_ready_run() -> TestPipeline {
    let gantry = super::start().await;
    let task = task_with_secret(&gantry, "hello").await;
    gantry.settle().await;
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    gantry
}

async fn stored(gantry: &TestPipeline, id: &str) -> Option<Bytes> {
    let found = gantry.store.load(&[Key::new(Kind::Bundle, id)]).await.unwrap().pop().flatten();
    found.map(|record| record.bytes)
}

/// Checks that the secret reached the engine in every build, and that the run has ended.
async fn assert_built_with_its_secret(gantry: &TestPipeline) {
    let run = gantry.run("ca1").await;
    assert_eq!(run.status(), RunStatus::Succeeded, "{run:?}");
    let asked = gantry.engine.asked();
    assert_eq!(asked.len(), 1, "it was built once");
    for asked in asked {
        assert_eq!(asked.order.secret_build_args["TOKEN"].expose_secret(), SECRET);
    }
    for place in ["linux-amd64/ca1", "ca1"] {
        assert!(stored(gantry, place).await.is_none(), "its secrets are gone");
    }
}

#[tokio::test]
async fn a_wrong_pool_key_costs_an_attempt_without_a_build() {
    let gantry = with_a_ready_run().await;
    let mut wrong = gantry.worker("wrong");
    wrong.pool_key = Arc::new(ring(&[9]).pool_key(&wrong.settings.pool));
    assert!(wrong.turn(&gantry.stop).await.unwrap());
    assert!(gantry.engine.asked().is_empty(), "nothing was built");
    let run = gantry.run("ca1").await;
    let AttemptEnd::InfrastructureFailed { error } = &run.attempts[0].end else {
        panic!("{:?}", run.attempts)
    };
    let told = "worker wrong cannot start: the key of pool linux-amd64 does not open the secrets of run ca1";
    assert!(
        error.starts_with(told) && error.contains("`gantry secret pool-key linux-amd64`"),
        "{error}"
    );
    assert!(stored(&gantry, "linux-amd64/ca1").await.is_none(), "the next attempt gets another");

    gantry.settle().await;
    assert_built_with_its_secret(&gantry).await;
}

#[tokio::test]
async fn secrets_that_never_open_end_the_run_after_three_attempts() {
    let gantry = with_a_ready_run().await;
    let mut wrong = gantry.worker("wrong");
    wrong.pool_key = Arc::new(ring(&[9]).pool_key(&wrong.settings.pool));
    for _ in 0..3 {
        assert!(wrong.turn(&gantry.stop).await.unwrap());
        gantry.clock.advance(Duration::from_secs(300));
        gantry.schedule().await;
    }
    assert!(!wrong.turn(&gantry.stop).await.unwrap());
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Error);
    assert!(gantry.engine.asked().is_empty(), "nothing was built");
}

#[tokio::test]
async fn a_run_is_not_built_without_its_secrets() {
    let gantry = with_a_ready_run().await;
    let mut batch = Batch::default();
    batch.delete.push(Key::new(Kind::Bundle, "linux-amd64/ca1"));
    gantry.store.commit(batch).await.unwrap();
    gantry.settle().await;
    assert_eq!(gantry.run("ca1").await.attempts.len(), 2);
    assert_built_with_its_secret(&gantry).await;
}

#[tokio::test]
async fn a_ring_without_a_key_in_use_is_refused() {
    let gantry = super::start().await;
    let store = gantry.store.as_ref();
    let open = async |keys: &[u8]| {
        installation::open(store, "id", &ring(keys).fingerprints()).await.map(|opened| opened.0)
    };
    let (one, two) = (ring(&[1]).fingerprints().remove(0), ring(&[2]).fingerprints().remove(0));
    let alone = vec![one.clone()];
    assert_eq!(open(&[1]).await.unwrap().keys, alone);
    assert!(
        matches!(open(&[2]).await, Err(OpenError::KeyMissing { missing, .. }) if missing == one)
    );
    assert_eq!(open(&[1, 2]).await.unwrap().keys, alone, "the second seals nothing");
    assert_eq!(open(&[2, 1]).await.unwrap().keys, [two.clone(), one.clone()]);
    for lacking in [[1], [2]] {
        assert!(matches!(open(&lacking).await, Err(OpenError::KeyMissing { .. })), "{lacking:?}");
    }
    assert!(matches!(
        installation::keep_only_key(store, &one).await,
        Err(OpenError::AnotherSeals { other }) if other == two
    ));
    installation::keep_only_key(store, &two).await.unwrap();
    let opened = open(&[2]).await.unwrap();

    let pool: PoolName = "p".parse().unwrap();
    let derived_from = |keys: &[u8]| ring(keys).pool_key(&pool).fingerprints();
    assert_eq!(opened.check_pool_key(&derived_from(&[2])), Ok(()));
    assert_eq!(opened.check_pool_key(&derived_from(&[1, 2])), Ok(()));
    assert!(matches!(
        opened.check_pool_key(&derived_from(&[1])),
        Err(PoolKeyRefused::OtherKey { sealing, .. }) if sealing == two
    ));
}

/// Reseals like `gantry secret rekey`.
pub(crate) struct Anew(pub(crate) Keyring);

impl Reseal for Anew {
    fn secret(&self, bound_to: &str, sealed: &Sealed) -> Result<Option<Sealed>, String> {
        self.0.reseal(bound_to, sealed).map_err(|error| error.to_string())
    }

    fn bundle(&self, run: &Run, sealed: &Sealed) -> Option<Sealed> {
        Bundle::reseal(&self.0.pool_key(&run.pool()), run, sealed).ok().flatten()
    }

    fn signer(&self) -> &dyn Signer {
        &self.0
    }
}

/// Records a notification, whose address and signing secret are secrets.
async fn notify(gantry: &TestPipeline) {
    let created = gantry.clock.now();
    let mut notification = Notification {
        id: "1".repeat(32).parse().unwrap(),
        registry: "reg".parse().unwrap(),
        prefix: TestPipeline::prefix(),
        name: "chat".parse().unwrap(),
        format: Format::Standard,
        address: seal(gantry, SECRET),
        origin: "https://chat.example".to_owned(),
        secrets: Vec::new(),
        filter: Filter::default(),
        disabled: None,
        created,
    };
    let bound_to = notification.seals_for();
    let sealed = || gantry.keyring.seal(&bound_to, &SecretString::from(SECRET)).unwrap();
    notification.address = sealed();
    notification.secrets = vec![SigningSecret { sealed: sealed(), created }];
    notifications::create(gantry.store.as_ref(), &notification).await.unwrap();
}

/// Records a webhook for the repository of a task.
async fn keep_webhook(gantry: &TestPipeline, task: &Task) {
    let store = gantry.store.as_ref();
    let url = task.repository().unwrap().clone();
    let place = Place { registry: task.prefix, repository: url.key() };
    let (nonce, a_minute) = ("9".repeat(32).parse().unwrap(), Duration::from_secs(60));
    let claimed = provisioning::claim(store, &place, &nonce, a_minute).await.unwrap().unwrap();
    let webhook = Webhook {
        hook: "hook".parse().unwrap(),
        address: "https://gantry.example/hooks/github/hook".parse().unwrap(),
        url,
        made_with: MadeWith::Token(seal(gantry, SECRET)),
    };
    provisioning::prepare(store, &claimed, &webhook, None).await.unwrap().unwrap();
}

#[tokio::test]
async fn after_resealing_the_old_key_is_not_needed() {
    let mut gantry = super::start().await;
    gantry.keyring = Arc::new(ring(&[1]));
    let store = Arc::clone(&gantry.store);
    let store = store.as_ref();

    // A secret in each kind of record that may have one.
    let credentials =
        SealedCredentials { username: "mona".to_owned(), password: seal(&gantry, SECRET) };
    let name = "reg".parse().unwrap();
    registries::update(store, &name, TestPipeline::prefix(), |registry| {
        registry.credentials = Some(RegistryCredentials::Given(credentials.clone()))
    })
    .await
    .unwrap();
    for value in ["first-value", "second-value"] {
        gantry.set_secret("npm-token", value).await;
    }
    let hook = "hook".parse().unwrap();
    let sealed = gantry.keyring.seal(&hooks::seal_for(&hook), &SecretString::from(SECRET)).unwrap();
    let secret = HookSecret { sealed, created: gantry.clock.now() };
    hooks::update(store, &hook, |hook| hook.secrets = vec![secret.clone()]).await.unwrap();
    notify(&gantry).await;
    let task = task_with_secret(&gantry, "hello").await;
    gantry.schedule().await;
    keep_webhook(&gantry, &task).await;
    gantry.ask(&task, None).await;
    gantry.settle().await;
    let done = gantry.engine.asked().len();
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    let api_token = seal(&gantry, SECRET);
    tasks::update(store, &task.id, |task| {
        image_build(&mut task.recipe).no_cache = true;
        task.api_token = Some(api_token.clone());
    })
    .await
    .unwrap();
    gantry.ask(&task, None).await;
    let before = tasks::find(store, &task.id).await.unwrap().unwrap();

    let both = Anew(ring(&[2, 1]));
    let pass = reseal::pass(store, &both).await.unwrap();
    assert_eq!(
        pass.kinds,
        [
            ("registries", 1, 1),
            ("hooks", 1, 1),
            ("secrets", 1, 1),
            ("notifications", 1, 1),
            ("tasks", 1, 1),
            ("revisions of tasks", 2, 2),
            ("webhooks", 1, 1),
            ("runs", 3, 3),
            ("scans", 1, 1)
        ]
    );
    assert!(pass.unopened.is_empty());
    let again = reseal::pass(store, &both).await.unwrap();
    assert_eq!((again.changed(), again.unopened), (0, vec![]), "a second pass has nothing to do");

    let after = tasks::find(store, &task.id).await.unwrap().unwrap();
    assert_eq!(
        (after.revision, after.updated),
        (before.revision, before.updated),
        "it is the same task"
    );
    let new_alone = reseal::pass(store, &Anew(ring(&[2]))).await.unwrap();
    assert_eq!(
        (new_alone.changed(), new_alone.unopened),
        (0, vec![]),
        "the new key opens everything"
    );
    let old_alone = reseal::pass(store, &Anew(ring(&[1]))).await.unwrap();
    assert_eq!(old_alone.unopened.len(), 12, "{:?}", old_alone.unopened);

    // Earlier ready runs open with the new key of their pool, in their first attempt.
    gantry.keyring = Arc::new(ring(&[2]));
    gantry.settle().await;
    for run in ["ca2", "ca3"] {
        let run = gantry.run(run).await;
        assert_eq!((run.status(), run.attempts.len()), (RunStatus::Succeeded, 1), "{run:?}");
    }
    let asked = gantry.engine.asked();
    assert_eq!(asked.len(), done + 2);
    assert!(
        asked.iter().all(|asked| asked.order.secret_build_args["TOKEN"].expose_secret() == SECRET)
    );
}
