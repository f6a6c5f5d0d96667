//! Whether the submodules of a source are fetched, in the API.

use gantry_seams::runs;
use reqwest::StatusCode;
use serde_json::json;

use crate::rig::TestServer;

#[tokio::test]
async fn a_task_fetches_submodules_as_it_is_told_also_of_another_reference() {
    let server = TestServer::with_registry().await;
    let git = "https://github.com/octo/hello.git#main";
    let task = json!({"name": "web", "context": git, "push": false, "submodules": true});
    let created = server.post("/registries/contoso/tasks", task).await.expect(StatusCode::CREATED);
    assert_eq!(created["submodules"], true);

    let path = "/registries/contoso/tasks/web";
    let elsewhere = json!({"context": "https://github.com/octo/hello.git#next"});
    let changed = server.patch(path, elsewhere.clone()).await.expect(StatusCode::OK);
    assert_eq!(changed["submodules"], true);
    let run = server.post(&format!("{path}/runs"), elsewhere).await.expect(StatusCode::CREATED);
    let id = run["id"].as_str().unwrap().parse().unwrap();
    let run = runs::find(server.store.as_ref(), id).await.unwrap().unwrap();
    assert!(run.recipe.source.has_submodules());

    let without = server.patch(path, json!({"submodules": false})).await.expect(StatusCode::OK);
    assert_eq!((without.get("submodules"), &without["revision"]), (None, &json!(3)));
    let archive = json!({"context": "https://a.example/x.tar.gz", "source_trigger": null});
    let changed = server.patch(path, archive).await.expect(StatusCode::OK);
    assert_eq!(changed.get("submodules"), None);
    let refused = server.patch(path, json!({"submodules": true})).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
    assert!(refused.text.contains("only a git repository has submodules"), "{}", refused.text);
}

#[tokio::test]
async fn a_build_and_a_run_fetch_submodules_only_if_they_are_told() {
    let server = TestServer::with_registry().await;
    let file = json!({"text": "steps:\n  - cmd: busybox true\n"});
    for wanted in [false, true] {
        let git = "https://github.com/octo/hello.git#main";
        let build = json!({"context": git, "push": false, "submodules": wanted});
        let run = json!({"context": git, "task_file": file, "submodules": wanted});
        for (path, body) in [("builds", build), ("runs", run)] {
            let started = server.post(&format!("/registries/contoso/{path}"), body).await;
            let started = started.expect(StatusCode::CREATED);
            let id = started["id"].as_str().unwrap().parse().unwrap();
            let run = runs::find(server.store.as_ref(), id).await.unwrap().unwrap();
            assert_eq!(run.recipe.source.has_submodules(), wanted, "{path}");
        }
    }
    for (path, body) in [
        (
            "builds",
            json!({"context": "https://a.example/x.tar.gz", "push": false, "submodules": true}),
        ),
        ("runs", json!({"task_file": file, "submodules": true})),
    ] {
        let refused = server.post(&format!("/registries/contoso/{path}"), body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
        assert!(refused.text.contains("only a git repository has submodules"), "{}", refused.text);
    }
}
