//! Whether submodules and files of Git LFS are fetched, in the API.

use gantry_domain::run::Run;
use gantry_seams::runs;
use reqwest::StatusCode;
use serde_json::json;

use crate::rig::TestServer;

/// What is fetched only if it is wanted, whether a run fetches it, and what another source is told.
type Part = (&'static str, fn(&Run) -> bool, &'static str);

const PARTS: [Part; 2] = [
    (
        "submodules",
        |run| run.recipe.source.has_submodules(),
        "only a git repository has submodules",
    ),
    ("lfs", |run| run.recipe.source.has_lfs(), "only a git repository has files of Git LFS"),
];

#[tokio::test]
async fn a_task_fetches_what_it_is_told_also_of_another_reference() {
    for (part, is_fetched, refusal) in PARTS {
        let server = TestServer::with_registry().await;
        let git = "https://github.com/octo/hello.git#main";
        let task = json!({"name": "web", "context": git, "push": false, part: true});
        let created = server.post("/registries/contoso/tasks", task).await;
        assert_eq!(created.expect(StatusCode::CREATED)[part], true);

        let path = "/registries/contoso/tasks/web";
        let elsewhere = json!({"context": "https://github.com/octo/hello.git#next"});
        let changed = server.patch(path, elsewhere.clone()).await.expect(StatusCode::OK);
        assert_eq!(changed[part], true);
        let run = server.post(&format!("{path}/runs"), elsewhere).await;
        let id = run.expect(StatusCode::CREATED)["id"].as_str().unwrap().parse().unwrap();
        let run = runs::find(server.store.as_ref(), id).await.unwrap().unwrap();
        assert!(is_fetched(&run), "{part}");

        let without = server.patch(path, json!({part: false})).await.expect(StatusCode::OK);
        assert_eq!((without.get(part), &without["revision"]), (None, &json!(3)));
        let archive = json!({"context": "https://a.example/x.tar.gz", "source_trigger": null});
        let changed = server.patch(path, archive).await.expect(StatusCode::OK);
        assert_eq!(changed.get(part), None);
        let refused = server.patch(path, json!({part: true})).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
        assert!(refused.text.contains(refusal), "{}", refused.text);
    }
}

#[tokio::test]
async fn a_build_and_a_run_fetch_only_what_they_are_told() {
    for (part, is_fetched, refusal) in PARTS {
        let server = TestServer::with_registry().await;
        let file = json!({"text": "steps:\n  - cmd: busybox true\n"});
        for wanted in [false, true] {
            let git = "https://github.com/octo/hello.git#main";
            let build = json!({"context": git, "push": false, part: wanted});
            let run = json!({"context": git, "task_file": file, part: wanted});
            for (path, body) in [("builds", build), ("runs", run)] {
                let started = server.post(&format!("/registries/contoso/{path}"), body).await;
                let started = started.expect(StatusCode::CREATED);
                let id = started["id"].as_str().unwrap().parse().unwrap();
                let run = runs::find(server.store.as_ref(), id).await.unwrap().unwrap();
                assert_eq!(is_fetched(&run), wanted, "{path} {part}");
            }
        }
        let archive = json!({"context": "https://a.example/x.tar.gz", "push": false, part: true});
        for (path, body) in [("builds", archive), ("runs", json!({"task_file": file, part: true}))]
        {
            let refused = server.post(&format!("/registries/contoso/{path}"), body).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
            assert!(refused.text.contains(refusal), "{}", refused.text);
        }
    }
}
