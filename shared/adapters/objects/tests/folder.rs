//! Objects in a folder fulfil the contract.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

use gantry_objects::{ObjectBlobs, ObjectsOptions};
use gantry_seams::contract;

fn options(url: String) -> ObjectsOptions {
    ObjectsOptions {
        url: url.parse().unwrap(),
        endpoint: None,
        region: "us-east-1".to_owned(),
        ca_file: None,
        environment: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_in_a_directory_pass_the_contract() {
    let parent = tempfile::tempdir().unwrap();
    let blobs = ObjectBlobs::local(parent.path().join("objects")).unwrap();
    contract::blobs::all(&blobs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_folder_passes_the_contract_and_keeps_others_unfinished_objects() {
    let parent = tempfile::tempdir().unwrap();
    let url = format!("file://{}/objects", parent.path().display());
    let blobs = ObjectBlobs::open(&options(url.clone())).unwrap();
    blobs.probe().await.unwrap();
    let unfinished = parent.path().join("objects/upload#1");
    std::fs::write(&unfinished, "another machine's").unwrap();

    contract::blobs::all(&ObjectBlobs::open(&options(url)).unwrap()).await;
    assert!(unfinished.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_probes_of_a_folder_succeed_and_leave_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let url = format!("file://{}/objects", parent.path().display());
    let probes = (0..64).map(|_| {
        let blobs = ObjectBlobs::open(&options(url.clone())).unwrap();
        tokio::spawn(async move {
            for _ in 0..8 {
                blobs.probe().await.unwrap();
            }
        })
    });
    for probe in probes.collect::<Vec<_>>() {
        probe.await.unwrap();
    }
    let left = std::fs::read_dir(parent.path().join("objects")).unwrap().count();
    assert_eq!(left, 0);
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_reach_an_object() {
    use std::os::unix::fs::PermissionsExt;

    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("objects");
    ObjectBlobs::local(&directory).unwrap();
    assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o700);
}
