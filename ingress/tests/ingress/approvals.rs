//! Approvals of held runs.

use gantry_domain::decide::planner::{PullRequestNow, for_pull_request};
use gantry_domain::event::PullRequestRefs;
use gantry_domain::fact::{FactKey, advanced};
use gantry_domain::pull_request::{
    Association, PullRequest, PullRequestBase, PullRequestHead, PullRequestVersion,
};
use gantry_domain::trigger::PullRequestRules;
use gantry_seams::runs::Creation;
use gantry_seams::store::Batch;
use gantry_seams::tasks;
use reqwest::StatusCode;
use serde_json::json;

use crate::rig::{Answer, TestServer};

/// Creates a held run of pull request 7, from a fork, at the commit `b…`.
pub(crate) async fn held_run(server: &TestServer) -> String {
    let body = json!({
        "name": "forked", "context": "https://github.com/octo/hello.git#main",
        "images": ["web:{{.Run.ID}}"], "source_trigger": {"pull_request": {"status": "Enabled"}},
    });
    server.post("/registries/contoso/tasks", body).await.expect(StatusCode::CREATED);
    let store = server.store.as_ref();
    let task = tasks::find(store, &"contoso/forked".parse().unwrap()).await.unwrap().unwrap();
    let (base, head) = ("main".parse().unwrap(), "b".repeat(40).parse().unwrap());
    let pull_request = PullRequest {
        number: 7,
        is_open: true,
        head: PullRequestHead { commit: head, branch: None, repository: None },
        base: PullRequestBase { branch: base, repository: "1".parse().unwrap() },
        merge: None,
        is_draft: false,
        labels: Vec::new(),
        author: None,
        association: Association::Stranger,
    };
    let url: gantry_domain::source::GitUrl = "https://github.com/octo/hello.git".parse().unwrap();
    let registry = &task.id.registry;
    let key = FactKey::pull_request(registry, &url.key(), &pull_request.base.repository, 7);
    let now = store.now().await.unwrap();
    let version: PullRequestVersion = pull_request.version().unwrap();
    let fact = advanced(None, &key, Some(version.clone()), now);
    let draft = for_pull_request(
        &task,
        &PullRequestRules::default(),
        PullRequestNow {
            event: &"h/d/0".parse().unwrap(),
            repository: &url.key(),
            pull_request: &pull_request,
            refs: &PullRequestRefs::default(),
            version: &version,
            fact: &fact,
        },
    );
    let signer = server.keyring.as_ref();
    let mut creation =
        Creation::begin(store, Batch::default(), task.prefix, signer, now).await.unwrap();
    let run = creation.add(draft, None).unwrap();
    store.commit(creation.finish()).await.unwrap();
    run.id.to_string()
}

#[tokio::test]
async fn only_a_held_run_of_the_named_commit_is_approved_and_only_with_write() {
    let server = TestServer::with_registry().await;
    let run = held_run(&server).await;
    let path = format!("/runs/{run}/approve");
    let head = "b".repeat(40);
    let may_run = server.token("run", None).await;
    let asked = server.api(reqwest::Method::POST, &path).bearer_auth(&may_run);
    let refused = Answer::of(asked.json(&json!({"commit": head}))).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text);
    let short = server.post(&path, json!({"commit": "bbbbbbb"})).await;
    assert_eq!(short.status, StatusCode::BAD_REQUEST, "{}", short.text);
    let other = server.post(&path, json!({"commit": "c".repeat(40)})).await;
    assert_eq!(other.status, StatusCode::CONFLICT, "{}", other.text);

    let shown = server.get(&format!("/runs/{run}")).await.expect(StatusCode::OK);
    assert_eq!(shown["pull_request"]["is_held"], true);
    assert!(shown["waits_for"].as_str().unwrap().contains("approval"), "{shown}");
    for _ in 0..2 {
        let approved = server.post(&path, json!({"commit": head})).await.expect(StatusCode::OK);
        assert_eq!(approved["pull_request"]["is_held"], false);
        assert_eq!(approved["approved"]["by"], "token admin");
    }
}

#[tokio::test]
async fn to_start_a_held_run_again_is_no_approval() {
    let server = TestServer::with_registry().await;
    let run = held_run(&server).await;
    let rerun = server.post(&format!("/runs/{run}/reruns"), json!({})).await;
    let rerun = rerun.expect(StatusCode::CREATED);
    assert_eq!(rerun["pull_request"]["is_held"], true, "{rerun}");
}
