//! Tasks that would be based on each other in a circle.

use gantry_domain::scan::ImageRole;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::rig::{Answer, TestServer};
use crate::scans::find_images;

const HOST: &str = "registry.test:5000";

/// Tasks `base`, `node` and `web` that each push an image of their name: each needs that of the task before, and `base` needs
/// `image`.
async fn chain_on(image: &str) -> TestServer {
    let server = TestServer::with_registry().await;
    for (name, needs) in [("base", image), ("node", "base:1"), ("web", "node:1")] {
        let task = json!({
            "name": name, "context": "https://git.test/x.git", "images": [format!("{name}:1")],
        });
        server.post("/registries/contoso/tasks", task).await.expect(StatusCode::CREATED);
        let needed = format!("{HOST}/{needs}");
        find_images(&server, &format!("contoso/{name}"), &[(&needed, ImageRole::Runtime)]).await;
    }
    server
}

async fn update(server: &TestServer, task: &str, change: Value) -> Answer {
    server.patch(&format!("/registries/contoso/tasks/{task}"), change).await
}

async fn circle_of(server: &TestServer, task: &str) -> Value {
    let images = server.get(&format!("/registries/contoso/tasks/{task}/images")).await;
    images.expect(StatusCode::OK)["circle"].clone()
}

#[tokio::test]
async fn a_save_that_closes_a_circle_is_refused_and_names_it() {
    let server = chain_on("os:1").await;
    let refused = update(&server, "web", json!({"images": ["web:1", "os:1"]})).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::CONFLICT, "circle".to_owned()));
    insta::assert_snapshot!(refused.json()["error"]["message"].as_str().unwrap(), @"task `contoso/web` would be based on its own image: web → base → node → web: push it under another name, or disable the base image trigger of one of these tasks");
    for other in ["web:2", "{{.Run.RegistryName}}/os:1", "os:{{.Run.ID}}"] {
        update(&server, "web", json!({"images": [other]})).await.expect(StatusCode::OK);
    }
    let named = json!({"images": ["{{.Run.Registry}}/os:1"]});
    assert_eq!(update(&server, "web", named).await.code(), "circle");
    assert_eq!(circle_of(&server, "web").await, json!(null));
}

#[tokio::test]
async fn a_circle_that_a_scan_closes_is_told_and_refuses_no_other_change() {
    let server = chain_on("web:1").await;
    assert_eq!(circle_of(&server, "base").await, json!(["base", "node", "web", "base"]));
    assert_eq!(circle_of(&server, "node").await, json!(["node", "web", "base", "node"]));
    for change in [json!({"timeout": 700}), json!({"images": ["base:1", "base:2"]})] {
        update(&server, "base", change).await.expect(StatusCode::OK);
    }
}

#[tokio::test]
async fn whatever_has_broken_a_circle_cannot_be_taken_back() {
    for (breaks, closes) in [
        (json!({"status": "Disabled"}), json!({"status": "Enabled"})),
        (json!({"base_image_trigger": null}), json!({"base_image_trigger": {}})),
        (json!({"push": false}), json!({"push": true})),
    ] {
        let server = chain_on("web:1").await;
        update(&server, "node", breaks).await.expect(StatusCode::OK);
        assert_eq!(circle_of(&server, "base").await, json!(null));
        assert_eq!(update(&server, "node", closes.clone()).await.code(), "circle", "{closes}");
        update(&server, "web", json!({"images": ["other:1"]})).await.expect(StatusCode::OK);
        update(&server, "node", closes).await.expect(StatusCode::OK);
    }
}

#[tokio::test]
async fn a_task_on_its_own_image_is_no_circle() {
    let server = chain_on("os:1").await;
    update(&server, "base", json!({"images": ["base:1", "os:1"]})).await.expect(StatusCode::OK);
    assert_eq!(circle_of(&server, "base").await, json!(null));
}

#[tokio::test]
async fn images_that_a_new_source_needs_are_not_known_before_it_is_read() {
    let server = chain_on("os:1").await;
    let change = json!({"images": ["os:1"], "context": "https://git.test/y.git"});
    update(&server, "web", change).await.expect(StatusCode::OK);
    find_images(&server, "contoso/web", &[("alpine:3", ImageRole::Runtime)]).await;
    assert_eq!(circle_of(&server, "web").await, json!(null));
}

#[tokio::test]
async fn tasks_of_two_registries_close_no_circle() {
    let server = chain_on("os:1").await;
    server.create_registry("fabrikam").await;
    let task = json!({"name": "web", "context": "https://git.test/x.git", "images": ["web:1"]});
    server.post("/registries/fabrikam/tasks", task).await.expect(StatusCode::CREATED);
    let needed = format!("{HOST}/node:1");
    find_images(&server, "fabrikam/web", &[(&needed, ImageRole::Runtime)]).await;
    let change = json!({"images": ["os:1"]});
    server.patch("/registries/fabrikam/tasks/web", change).await.expect(StatusCode::OK);
}
