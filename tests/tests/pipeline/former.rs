//! The data folder of the former build is opened, and what it left goes on.

use std::sync::Arc;

use flate2::read::GzDecoder;
use gantry_domain::run::RunStatus;
use gantry_domain::timestamp::Timestamp;
use gantry_objects::ObjectBlobs;
use gantry_ops::secret::Keyring;
use gantry_seams::clock::{Clock, ManualClock};
use gantry_seams::runs::RunFilter;
use gantry_seams::store::{Batch, Key, Kind, Store, Stored, Walk as _};
use gantry_seams::{deliveries, events, hooks, installation, registries, runs, tasks, tokens};
use gantry_sqlite::{Options, SqliteStore};
use gantry_tests::pipeline::TestPipeline;
use tempfile::TempDir;
use tokio::sync::mpsc;

const FOLDER: &[u8] = include_bytes!("../../fixtures/data-0.1/data.tar.gz");

/// A day after the former build stopped.
const LATER: Timestamp = Timestamp::from_millis(1_795_530_000_000);

struct Former {
    gantry: TestPipeline,
    store: Arc<SqliteStore>,
    _folder: TempDir,
}

async fn former() -> Former {
    let folder = tempfile::tempdir().unwrap();
    tar::Archive::new(GzDecoder::new(FOLDER)).unpack(folder.path()).unwrap();
    let mut gantry = super::start().await;
    gantry.clock = ManualClock::new(LATER);
    let clock = Clock::Manual(gantry.clock.clone());
    let options = Options { clock, ..Options::default() };
    let store = Arc::new(SqliteStore::open(folder.path().join("gantry.db"), options).unwrap());
    gantry.store = store.clone();
    gantry.blobs = Arc::new(ObjectBlobs::local(folder.path().join("objects")).unwrap());
    let keyring = Keyring::open_or_create(&folder.path().join("secret.key")).unwrap();
    let (_, began) =
        installation::open(store.as_ref(), "new", &keyring.fingerprints()).await.unwrap();
    assert!(!began, "it is the former installation");
    assert!(runs::sign_former(store.as_ref(), &keyring).await.unwrap() > 0, "it signed none");
    assert_eq!(runs::sign_former(store.as_ref(), &keyring).await.unwrap(), 0, "once is enough");
    assert_eq!(runs::index_former(store.as_ref()).await.unwrap(), 5);
    assert_eq!(runs::index_former(store.as_ref()).await.unwrap(), 0, "once is enough");
    gantry.keyring = Arc::new(keyring);
    Former { gantry, store, _folder: folder }
}

#[tokio::test]
async fn what_the_former_build_kept_is_there() {
    let former = former().await;
    let (gantry, store) = (&former.gantry, former.store.as_ref());
    let registry = registries::find(store, &"demo".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(registry.host.to_string(), "registry.test");
    let task = tasks::find(store, &"demo/web".parse().unwrap()).await.unwrap().unwrap();
    let opened = gantry.keyring.open(
        &gantry_domain::registry::Registry::seals_for(&registry.name),
        task.build.secret_build_args.values().next().unwrap(),
    );
    assert_eq!(gantry_ops::secret::ExposeSecret::expose_secret(&opened.unwrap()), "npm-hunter2");
    assert_eq!(tokens::list(store, None, 10).await.unwrap().len(), 1);
    assert_eq!(hooks::list(store, None, 10).await.unwrap().len(), 1);
    assert_eq!(deliveries::list(store, None, None, 10).await.unwrap().len(), 2);
    assert_eq!(events::undecided(store, LATER, 10).await.unwrap().len(), 1);
    let mut all = runs::list(store, &RunFilter::default(), None, 10).await.unwrap();
    all.sort_by_key(|run| run.id);
    let lines: Vec<String> = all.iter().map(|run| format!("{} {}", run.id, run.status())).collect();
    assert_eq!(lines, ["ca1 Canceled", "ca2 Queued", "ca3 Queued", "ca4 Queued", "ca5 Queued"]);
    let canceled = RunFilter { status: Some(RunStatus::Canceled), ..RunFilter::default() };
    let canceled = runs::list(store, &canceled, None, 10).await.unwrap();
    assert_eq!(canceled.iter().map(|run| run.id.to_string()).collect::<Vec<_>>(), ["ca1"]);
    assert_eq!(installation::quarantined(store, 10).await.unwrap(), []);
}

#[tokio::test]
async fn what_the_former_build_left_waiting_is_built() {
    let former = former().await;
    let gantry = &former.gantry;
    runs::cancel(gantry.store.as_ref(), "ca5".parse().unwrap(), &TestPipeline::somebody())
        .await
        .unwrap();
    gantry.settle().await;
    for run in ["ca2", "ca3", "ca4"] {
        let run = gantry.run(run).await;
        assert_eq!(run.status(), RunStatus::Succeeded, "{}", gantry.transcript().await);
    }
}

#[tokio::test]
async fn every_record_says_its_shape_and_keeps_what_this_build_does_not_know() {
    let former = former().await;
    let store = former.store.as_ref();
    let (sender, mut pieces) = mpsc::channel::<Vec<Stored>>(64);
    store.walk(sender).await.unwrap();
    let mut looked_at = 0;
    while let Some(piece) = pieces.recv().await {
        for stored in piece {
            let Stored::Record(key, bytes) = stored else { continue };
            if !is_json(key.kind) {
                continue;
            }
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(value["v"], 1, "{key}");
            looked_at += 1;
        }
    }
    assert!(looked_at > 20);

    let key = Key::new(Kind::Hook, &hooks::list(store, None, 1).await.unwrap()[0].id);
    let mut hook = raw(store, &key).await;
    hook["later"] = serde_json::json!([1, 2]);
    let mut batch = Batch::default();
    batch.put(key.clone(), hook.to_string());
    store.commit(batch).await.unwrap();
    let id = key.id.parse().unwrap();
    hooks::update(store, &id, |hook| hook.repositories = Vec::new()).await.unwrap();
    hooks::update(store, &id, |hook| hook.secrets.clear()).await.unwrap();
    let written = raw(store, &key).await;
    assert_eq!((&written["later"], &written["secrets"]), (&hook["later"], &serde_json::json!([])));
}

async fn raw(store: &dyn Store, key: &Key) -> serde_json::Value {
    let found = store.load(std::slice::from_ref(key)).await.unwrap().pop().flatten().unwrap();
    serde_json::from_slice(&found.bytes).unwrap()
}

/// The others are a number, an id, or bytes of somebody else.
fn is_json(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Counter | Kind::RunKey | Kind::Admission | Kind::Bundle | Kind::DeliveryBody
    )
}
