//! Moves an installation from the embedded store into this mode's store, without loss.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use gantry_domain::run::RunStatus;
use gantry_domain::task::Task;
use gantry_seams::archive::{self, ArchiveError};
use gantry_seams::clock::Clock;
use gantry_seams::installation::{self, OpenError};
use gantry_seams::store::{Batch, Key, Kind};
use gantry_seams::{requests, tasks, tokens};
use gantry_sqlite::{Options, SqliteStore};
use gantry_tests::backend::Backend;
use gantry_tests::pipeline::{DOCKERFILE, Delivered, REGISTRY, TestPipeline, create_registry};

const OBJECT: &str = "uploads/some/where";

/// An embedded installation with a finished run, a ready one, and one that waits for the only place.
struct Old {
    gantry: TestPipeline,
    store: Arc<SqliteStore>,
    task: Task,
    commit: String,
}

async fn old() -> Old {
    let mut gantry = TestPipeline::start(Backend::Embedded).await;
    let clock = Clock::Manual(gantry.clock.clone());
    let store = Arc::new(SqliteStore::in_memory(Options { clock, ..Options::default() }).unwrap());
    gantry.store = store.clone();
    gantry.providers.open();
    gantry.providers.set_away(true);
    installation::open(store.as_ref(), "old", &[]).await.unwrap();
    create_registry(store.as_ref(), "reg", REGISTRY, 1).await;
    gantry.create_hook().await;
    gantry_ingress::issue_admin_token(store.as_ref()).await.unwrap();
    let hello = gantry.git.repository("hello").unwrap();
    let commit = hello.commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.schedule().await;
    gantry.deliver("d1", "hello", None, Some(&commit)).await;
    gantry.settle().await;
    gantry.ask(&task, Some("k")).await;
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    gantry.blobs.put(OBJECT, Bytes::from_static(b"an upload")).await.unwrap();
    Old { gantry, store, task, commit }
}

async fn export(old: &Old, folder: &Path) {
    let store = old.store.as_ref();
    let moved = archive::export(store, old.gantry.blobs.as_ref(), folder, "1.2.3").await.unwrap();
    assert!(moved.records > 10 && moved.entries > 10 && moved.objects > 0, "{moved:?}");
}

#[tokio::test]
async fn a_moved_installation_continues_completely() {
    let old = old().await;
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("moving");
    export(&old, &archive).await;
    let log = old.gantry.log("ca1", 1).await;
    assert!(
        log.contains("pushed registry.test/hello:ca1"),
        "{log}\n{}",
        old.gantry.transcript().await
    );

    let mut new = super::start().await;
    new.keyring = old.gantry.keyring;
    new.git = old.gantry.git;
    new.clock.advance(std::time::Duration::from_secs(60));
    let store = new.store.clone();
    archive::import(store.as_ref(), new.blobs.as_ref(), &archive).await.unwrap();

    let found = installation::find(store.as_ref()).await.unwrap().unwrap();
    assert_eq!(found.id, "old");
    let before = "ca1 Succeeded push to main at ";
    assert!(new.transcript().await.starts_with(before), "{}", new.transcript().await);
    assert_eq!(new.log("ca1", 1).await, log);
    assert_eq!(new.blobs.get(OBJECT).await.unwrap(), "an upload");
    let old_store = old.store.as_ref();
    let listed = tokens::list(store.as_ref(), None, 10).await.unwrap();
    assert_eq!(listed, tokens::list(old_store, None, 10).await.unwrap());
    assert_eq!(tasks::find(store.as_ref(), &old.task.id).await.unwrap(), Some(old.task.clone()));
    let (_, again) = new.deliver("d1", "hello", None, Some(&old.commit)).await;
    assert_eq!(again, Delivered::Repeat);

    let requests::AcceptedRequest::Started(next) = new.ask(&old.task, None).await else {
        panic!("it is new")
    };
    assert_eq!(next.id.to_string(), "ca4");
    let repeated = new.ask(&old.task, Some("k")).await;
    assert_eq!(repeated, requests::AcceptedRequest::Repeated("ca2".parse().unwrap()));
    new.providers.open();
    new.settle().await;
    let reports = new.providers.reports();
    assert!(reports.iter().any(|report| report.link.ends_with("/ca1")), "{reports:?}");
    for run in ["ca1", "ca2", "ca3", "ca4"] {
        assert_eq!(new.run(run).await.status(), RunStatus::Succeeded, "{run}");
    }

    let twice = archive::import(store.as_ref(), new.blobs.as_ref(), &archive).await;
    assert!(matches!(twice, Err(ArchiveError::StoreInUse { .. })), "{twice:?}");
}

#[tokio::test]
async fn an_import_that_broke_off_is_noticed_and_repeated() {
    let old = old().await;
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("moving");
    export(&old, &archive).await;
    let lines = std::fs::read_to_string(archive.join("store.jsonl")).unwrap();
    let cut: String = lines.lines().take(10).flat_map(|line| [line, "\n"]).collect();
    std::fs::write(archive.join("store.jsonl"), cut).unwrap();
    let new = super::start().await;
    let (store, blobs) = (new.store.as_ref(), new.blobs.as_ref());
    let broken = archive::import(store, blobs, &archive).await.unwrap_err().to_string();
    assert!(broken.ends_with("line 10: it breaks off: export again"), "{broken}");
    std::fs::write(archive.join("store.jsonl"), &lines).unwrap();

    // The state that a process leaves if it crashes right after the start of an import.
    let header: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let mut mark = Batch::default();
    mark.put(Key::new(Kind::Import, "this"), header["header"].to_string());
    store.commit(mark).await.unwrap();
    let started = installation::open(store, "new", &[]).await;
    assert!(matches!(started, Err(OpenError::ImportUnfinished)), "{started:?}");

    archive::import(store, blobs, &archive).await.unwrap();
    let (started, began) = installation::open(store, "new", &[]).await.unwrap();
    assert_eq!((started.id.as_str(), began), ("old", false));
}

#[tokio::test]
async fn export_refuses_a_folder_with_content() {
    let old = old().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine"), "mine").unwrap();
    let store = old.store.as_ref();
    let refused = archive::export(store, old.gantry.blobs.as_ref(), folder.path(), "1").await;
    assert!(matches!(refused, Err(ArchiveError::FolderInUse { .. })), "{refused:?}");
}
