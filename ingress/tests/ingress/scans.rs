//! Scans, which nobody sees, and the images that they find, which everybody sees.

use std::time::Duration;

use gantry_domain::decide::planner;
use gantry_domain::scan::{ImageRole, NeededImage, NeededImages, Scanned};
use gantry_seams::runs::{self, Creation, Limits, TakenRun};
use gantry_seams::store::Batch;
use gantry_seams::tasks;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::rig::{Answer, TestServer};

const IMAGES: &str = "/registries/contoso/tasks/web/images";

/// A task `contoso/web` with a leased scan.
async fn with_a_scan(server: &TestServer) -> TakenRun {
    let task = json!({"name": "web", "context": "https://git.test/a.git", "images": ["a:1"]});
    server.post("/registries/contoso/tasks", task).await.expect(StatusCode::CREATED);
    scan_of(server, "contoso/web").await
}

/// A scan finds that an existing task needs these images.
pub(crate) async fn find_images(server: &TestServer, task: &str, needed: &[(&str, ImageRole)]) {
    let scan = scan_of(server, task).await;
    let mut images = NeededImages::default();
    for (image, role) in needed {
        images.add(NeededImage {
            image: image.parse().unwrap(),
            role: *role,
            step: "build".parse().unwrap(),
            dockerfile: Some("Dockerfile".to_owned()),
            platform: scan.run.recipe.platforms.first().clone(),
        });
    }
    let found = Scanned::Read { commit: None, images };
    runs::scanned(server.store.as_ref(), scan.run.id, &scan.holder, &found).await.unwrap();
}

/// A leased scan of an existing task.
async fn scan_of(server: &TestServer, task: &str) -> TakenRun {
    let store = server.store.as_ref();
    let task = tasks::find(store, &task.parse().unwrap()).await.unwrap().unwrap();
    let (now, signer) = (store.now().await.unwrap(), server.keyring.as_ref());
    let mut creation =
        Creation::begin(store, Batch::default(), task.prefix, signer, now).await.unwrap();
    let event = format!("task:{}:0:1", task.id).parse().unwrap();
    let scan = creation.add(planner::for_scan_of_saved(&task, event), None).unwrap();
    store.commit(creation.finish()).await.unwrap();
    let limits = Limits { registry: 1, task: None };
    runs::ready(store, scan.id, &"linux-amd64".parse().unwrap(), None, limits).await.unwrap();
    let (worker, nonce) = ("w".parse().unwrap(), "1".repeat(32).parse().unwrap());
    let lease = Duration::from_secs(60);
    runs::take(store, &scan.pool(), &worker, &nonce, lease).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_scan_is_shown_to_nobody() {
    let server = TestServer::with_registry().await;
    let scan = with_a_scan(&server).await.run.id;
    for (method, path, body) in [
        (Method::GET, "", json!(null)),
        (Method::PATCH, "", json!({"archived": true})),
        (Method::POST, "/cancel", json!({})),
        (Method::POST, "/reruns", json!({})),
        (Method::GET, "/log", json!(null)),
        (Method::GET, "/log/events", json!(null)),
    ] {
        let path = format!("/runs/{scan}{path}");
        let asked = server.api(method.clone(), &path).bearer_auth(&server.admin);
        let answer = Answer::of(asked.json(&body)).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}: {}", answer.text);
    }
    let listed = server.get("/runs").await.expect(StatusCode::OK);
    assert_eq!(listed["items"], json!([]));
    let status = server.get("/status").await.expect(StatusCode::OK);
    assert_eq!((&status["queued_runs"], &status["leased_runs"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn the_images_of_a_task_are_shown_once_they_were_read() {
    let server = TestServer::with_registry().await;
    let scan = with_a_scan(&server).await;
    let unread = server.get(IMAGES).await.expect(StatusCode::OK);
    assert_eq!(unread, json!({"images": []}));

    let mut images = NeededImages::default();
    images.add(NeededImage {
        image: "alpine:3".parse().unwrap(),
        role: ImageRole::Runtime,
        step: "build".parse().unwrap(),
        dockerfile: Some("Dockerfile".to_owned()),
        platform: scan.run.recipe.platforms.first().clone(),
    });
    let commit = "1".repeat(40);
    let found = Scanned::Read { commit: Some(commit.parse().unwrap()), images };
    runs::scanned(server.store.as_ref(), scan.run.id, &scan.holder, &found).await.unwrap();
    let mut shown = server.get(IMAGES).await.expect(StatusCode::OK);
    assert!(shown["read"]["at"].take().is_string());
    assert_eq!(
        shown,
        json!({
            "read": {"revision": 1, "commit": commit, "at": null},
            "images": [{
                "image": "docker.io/library/alpine:3", "role": "runtime", "step": "build",
                "dockerfile": "Dockerfile", "platform": "linux/amd64"
            }]
        })
    );
}
