//! Azure DevOps.

use std::time::Duration;

use gantry_domain::report::{ReportState, ReportTarget, StatusReport};
use gantry_remote::code_host::{CodeHostFailure, CodeHosts, ProviderApi as _};
use gantry_tests::hosts::azure_devops::{AzureDevOpsServer, TOKEN, sign_in_page};
use gantry_tests::hosts::code_hosts;
use gantry_tests::hosts::server::json as answer;
use serde_json::{Value, json};

use crate::{A, Access, B, C, RUN, STATES, all, report, why};

const REPOSITORY: &str = "278d5cd2-584d-4b63-824a-2ba458937249";
const FORK: &str = "3411ebc1-d5aa-464f-9615-0b527bc66719";

async fn azure() -> (AzureDevOpsServer, CodeHosts, Access) {
    let server = AzureDevOpsServer::start().await.unwrap();
    let (hosts, access) = (code_hosts(&[server.entry()]), Access::new(&server.url(), TOKEN));
    (server, hosts, access)
}

fn pull() -> Value {
    json!({
        "pullRequestId": 22, "status": "active", "isDraft": false,
        "sourceRefName": "refs/heads/feature/x", "targetRefName": "refs/heads/main",
        "mergeStatus": "succeeded",
        "lastMergeSourceCommit": {"commitId": B}, "lastMergeTargetCommit": {"commitId": A},
        "lastMergeCommit": {"commitId": C},
        "repository": {"id": REPOSITORY, "name": "web"},
        "createdBy": {"displayName": "Norman Paulk"},
        "labels": [{"id": "1", "name": "ready", "active": true}],
    })
}

fn edits(count: usize) -> Vec<Value> {
    let edit =
        |number| json!({"item": {"path": format!("/src/{number:05}.rs")}, "changeType": "edit"});
    (0..count).map(edit).collect()
}

#[tokio::test]
async fn a_pull_request_has_its_head_its_base_and_the_trial_merge() {
    let (server, hosts, access) = azure().await;
    server.state().pulls.insert(22, pull());
    let pull = hosts.pull_request(access.at(), 22).await.unwrap().unwrap();
    assert!(pull.is_open && !pull.is_draft && !pull.is_from_fork());
    assert_eq!((pull.number, pull.head.commit.as_str()), (22, B));
    assert_eq!(pull.head.branch.as_ref().unwrap().as_str(), "feature/x");
    assert_eq!((pull.base.branch.as_str(), pull.base.repository.as_str()), ("main", REPOSITORY));
    assert_eq!(pull.merge.as_ref().unwrap().as_str(), C);
    assert_eq!(pull.labels, ["ready"]);
    assert_eq!(pull.author.as_deref(), Some("Norman Paulk"));
    assert!(hosts.pull_request(access.at(), 23).await.unwrap().is_none());
}

#[tokio::test]
async fn a_pull_request_of_a_fork_names_the_forks_repository() {
    let (server, hosts, access) = azure().await;
    for (source, repository) in [
        (json!({"name": "refs/heads/x", "repository": {"id": FORK}}), Some(FORK)),
        (json!({"name": "refs/heads/x"}), None),
    ] {
        let mut forked = pull();
        forked["forkSource"] = source;
        forked["mergeStatus"] = "conflicts".into();
        server.state().pulls.insert(22, forked);
        let pull = hosts.pull_request(access.at(), 22).await.unwrap().unwrap();
        assert!(pull.is_from_fork());
        assert_eq!(pull.head.repository.as_ref().map(|it| it.as_str()), repository);
        assert_eq!(pull.merge, None);
    }
}

#[tokio::test]
async fn changed_files_have_old_and_new_names_and_no_folders() {
    let (server, hosts, access) = azure().await;
    let changes = vec![
        json!({"item": {"gitObjectType": "tree", "path": "/src", "isFolder": true}, "changeType": "edit"}),
        json!({"item": {"gitObjectType": "blob", "path": "/src/a b.rs"}, "changeType": "edit"}),
        json!({"item": {"path": "/src/new.rs"}, "sourceServerItem": "/src/old.rs", "changeType": "rename"}),
    ];
    server.state().differences.insert((A.to_owned(), B.to_owned()), changes);
    let (a, b) = (A.parse().unwrap(), B.parse().unwrap());
    let files = hosts.changed_files(access.at(), &a, &b).await.unwrap();
    assert_eq!(files, all(&["src/a b.rs", "src/new.rs", "src/old.rs"]));

    let files = hosts.changed_files(access.at(), &C.parse().unwrap(), &b).await.unwrap();
    assert!(why(&files).contains("does not know one of the commits"), "{files:?}");
}

#[tokio::test]
async fn long_lists_of_changes_are_read_page_by_page_and_the_longest_are_unknown() {
    let (server, hosts, access) = azure().await;
    let (a, b) = (A.parse().unwrap(), B.parse().unwrap());
    server.state().iterations.insert(5, vec![A.to_owned(), B.to_owned()]);
    for count in [0, 1999, 2000, 4001] {
        let names: Vec<String> = (0..count).map(|number| format!("src/{number:05}.rs")).collect();
        let expected = all(&names.iter().map(String::as_str).collect::<Vec<_>>());
        server.state().differences.insert((A.to_owned(), B.to_owned()), edits(count));
        server.state().changes.insert(5, edits(count));
        assert_eq!(hosts.changed_files(access.at(), &a, &b).await.unwrap(), expected);
        assert_eq!(hosts.pull_request_files(access.at(), 5).await.unwrap(), expected);
    }
    server.state().differences.insert((A.to_owned(), B.to_owned()), edits(20_001));
    server.state().changes.insert(5, edits(20_001));
    for files in [
        hosts.changed_files(access.at(), &a, &b).await.unwrap(),
        hosts.pull_request_files(access.at(), 5).await.unwrap(),
    ] {
        assert!(why(&files).contains("does not list all changes"), "{files:?}");
    }
    let files = hosts.pull_request_files(access.at(), 6).await.unwrap();
    assert!(why(&files).contains("no pull request 6"), "{files:?}");
}

#[tokio::test]
async fn each_state_of_a_run_is_a_status_of_its_commit() {
    let (server, hosts, access) = azure().await;
    for state in STATES {
        hosts.report(access.at(), &report(state), &RUN).await.unwrap();
    }
    let set = std::mem::take(&mut server.state().commit_statuses);
    let states: Vec<&Value> = set.iter().map(|(_, body)| &body["state"]).collect();
    assert_eq!(
        states,
        ["pending", "pending", "pending", "succeeded", "failed", "failed", "error", "error"]
    );
    let body = json!({
        "state": "pending", "description": "Pushed web:1", "targetUrl": "https://gantry.example/runs/ca1",
        "context": {"genre": "gantry", "name": "web"},
    });
    assert_eq!(set[0], (B.to_owned(), body));
    assert!(server.state().pull_statuses.is_empty());
}

fn report_of_pull(commit: &str) -> StatusReport {
    let target =
        ReportTarget { commit: commit.parse().unwrap(), pull_request: Some(22), repository: None };
    StatusReport { target, ..report(ReportState::Succeeded) }
}

#[tokio::test]
async fn a_pull_request_gets_the_status_at_the_last_iteration_of_the_commit() {
    let (server, hosts, access) = azure().await;
    let commits = [A, B, A].map(str::to_owned).to_vec();
    server.state().iterations.insert(22, commits);
    hosts.report(access.at(), &report_of_pull(A), &RUN).await.unwrap();
    hosts.report(access.at(), &report_of_pull(B), &RUN).await.unwrap();
    let set: Vec<(u64, Value)> = std::mem::take(&mut server.state().pull_statuses);
    let iterations: Vec<&Value> = set.iter().map(|(_, body)| &body["iterationId"]).collect();
    assert_eq!(iterations, [3, 2]);
    assert!(set.iter().all(|(number, body)| *number == 22 && body["context"]["genre"] == "gantry"));
}

#[tokio::test]
async fn a_commit_that_no_iteration_has_gets_no_status_at_the_pull_request() {
    let (server, hosts, access) = azure().await;
    server.state().iterations.insert(22, vec![A.to_owned()]);
    hosts.report(access.at(), &report_of_pull(C), &RUN).await.unwrap();
    assert_eq!(server.state().commit_statuses.len(), 1);
    assert!(server.state().pull_statuses.is_empty());
}

#[tokio::test]
async fn a_page_to_sign_in_means_that_the_token_was_refused() {
    let (server, hosts, access) = azure().await;
    for status in [200, 203, 302, 401] {
        server.server().fail(move |_| Some(sign_in_page(status)));
        for error in [
            hosts.pull_request(access.at(), 1).await.unwrap_err(),
            hosts.report(access.at(), &report(ReportState::Succeeded), &RUN).await.unwrap_err(),
        ] {
            assert_eq!(error.kind, CodeHostFailure::RefusedToken, "{status}: {error}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_asks_to_slow_down_is_still_an_answer() {
    let (server, hosts, access) = azure().await;
    server.state().pulls.insert(22, pull());
    server.state().is_busy = true;
    assert!(hosts.pull_request(access.at(), 22).await.unwrap().is_some());
}

#[tokio::test]
async fn a_request_that_a_limit_cancels_is_tried_again() {
    let (server, hosts, access) = azure().await;
    for (status, pause, seconds) in [(429, Some("12"), 12), (503, Some("12"), 12), (403, None, 60)]
    {
        server.server().fail(move |_| {
            let message = "TF400733: The request has been canceled: Request was blocked due to exceeding usage of resource";
            let mut answer = answer(status, &json!({"message": message}));
            if let Some(pause) = pause {
                answer.headers_mut().insert("retry-after", pause.parse().unwrap());
            }
            Some(answer)
        });
        let error = hosts.pull_request(access.at(), 1).await.unwrap_err();
        let retry_after = Some(Duration::from_secs(seconds));
        assert_eq!(error.kind, CodeHostFailure::Transient { retry_after }, "{error}");
        assert!(error.to_string().contains("limits the number of requests"), "{error}");
    }
}
