//! The base image trigger of tasks in the API.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::rig::TestServer;

fn task(trigger: &Value) -> Value {
    let mut body = json!({
        "name": "web", "context": "https://github.com/octo/hello.git#main", "push": false,
    });
    if !trigger.is_null() {
        body["base_image_trigger"] = trigger.clone();
    }
    body
}

#[tokio::test]
async fn a_new_task_starts_when_its_bases_change_unless_told_otherwise() {
    let server = TestServer::with_registry().await;
    let created = server.post("/registries/contoso/tasks", task(&json!(null))).await;
    let created = created.expect(StatusCode::CREATED);
    let default =
        json!({"name": "defaultBaseimageTriggerName", "status": "Enabled", "type": "Runtime"});
    assert_eq!(created["base_image_trigger"], default);

    let path = "/registries/contoso/tasks/web";
    let asked = json!({"name": "bases", "status": "Disabled", "type": "All", "images": ["node:*"]});
    let changed = server.patch(path, json!({"base_image_trigger": asked})).await.json();
    assert_eq!((&changed["base_image_trigger"], &changed["revision"]), (&asked, &json!(2)));
    assert_eq!(server.get(path).await.json()["base_image_trigger"], asked);
    // Another change leaves it.
    let changed = server.patch(path, json!({"timeout": 600})).await.json();
    assert_eq!(changed["base_image_trigger"], asked);
    let none = server.patch(path, json!({"base_image_trigger": null})).await.json();
    assert_eq!(none["base_image_trigger"], json!(null));
}

#[tokio::test]
async fn a_task_follows_tags_as_it_is_told_and_a_wrong_policy_says_what_is_wrong() {
    let server = TestServer::with_registry().await;
    let mut body = task(&json!(null));
    body["base_image_follow"] = json!(["node:20.*", "ghcr.io/octo/base:>=1.4 <2"]);
    let created = server.post("/registries/contoso/tasks", body.clone()).await;
    let written = json!(["docker.io/library/node:20.*", "ghcr.io/octo/base:>=1.4,<2"]);
    assert_eq!(created.expect(StatusCode::CREATED)["base_image_follow"], written);

    let path = "/registries/contoso/tasks/web";
    let changed = server.patch(path, json!({"timeout": 600})).await.json();
    assert_eq!(changed["base_image_follow"], written, "another change leaves them");
    let changed = server.patch(path, json!({"base_image_follow": ["node:^22"]})).await.json();
    assert_eq!(changed["base_image_follow"], json!(["docker.io/library/node:^22"]));
    let none = server.patch(path, json!({"base_image_follow": []})).await.json();
    assert_eq!(none["base_image_follow"], json!(null));

    let wrong = json!({"base_image_follow": ["node", "node:20", "Node:20.*", "node:20*"]});
    let refused = server.patch(path, wrong).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
    let said = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    for (line, expected) in said.lines().zip([
        "base_image_follow: `node` is no policy of tags: `REPOSITORY:PATTERN`, like `node:20.*`",
        "base_image_follow: `20` is no pattern of tags: a glob like `20.*`",
        "base_image_follow: `library/Node` is no repository: words of lower-case letters",
        "base_image_follow: `20*` is no pattern of tags: a glob like `20.*`",
    ]) {
        assert!(line.starts_with(expected), "{line}");
    }
    assert_eq!(said.lines().count(), 4, "{said}");
}

#[tokio::test]
async fn a_wrong_base_image_trigger_is_refused_with_all_mistakes() {
    let server = TestServer::with_registry().await;
    let wrong = json!({"name": "", "status": "on", "type": "runtime", "images": ["node:["]});
    let refused = server.post("/registries/contoso/tasks", task(&wrong)).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
    insta::assert_snapshot!(refused.json()["error"]["message"].as_str().unwrap(), @r"
    base_image_trigger.name: a trigger's name has 1 to 100 characters, and this one 0
    base_image_trigger.status: `on` is no status: `Enabled` or `Disabled`
    base_image_trigger.type: `runtime` is no type of a base image trigger: `Runtime` or `All`
    base_image_trigger.images: `node:[` is no pattern: 1 to 250 printable characters without spaces at its ends, at most 16 of `*?[{`, with brackets closed, and not only `!`
    ");
}
