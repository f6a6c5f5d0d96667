//! GitLab.

use gantry_domain::report::{ReportState, ReportTarget, StatusReport};
use gantry_remote::code_host::{CodeHostFailure, CodeHosts, ProviderApi as _};
use gantry_tests::hosts::code_hosts;
use gantry_tests::hosts::gitlab::{FORK, GitLabServer, PROJECT, TOKEN};
use gantry_tests::hosts::server::json as answer;
use serde_json::{Value, json};

use crate::{A, Access, B, C, RUN, STATES, all, report, why};

async fn gitlab() -> (GitLabServer, CodeHosts, Access) {
    let server = GitLabServer::start().await.unwrap();
    let (hosts, access) = (code_hosts(&[server.entry()]), Access::new(&server.url(), TOKEN));
    (server, hosts, access)
}

fn merge_request(source: &Value) -> Value {
    json!({
        "iid": 7, "state": "opened", "draft": true, "sha": B,
        "source_branch": "feature/x", "target_branch": "main",
        "source_project_id": source, "target_project_id": PROJECT,
        "labels": ["ready"], "author": {"username": "mona"}, "merge_commit_sha": null,
    })
}

fn edits(count: usize) -> Vec<(String, String)> {
    let path = |number| format!("src/{number:04}.rs");
    (0..count).map(|number| (path(number), path(number))).collect()
}

#[tokio::test]
async fn a_merge_request_has_its_head_and_its_base() {
    let (server, hosts, access) = gitlab().await;
    server.state().merge_requests.insert(7, merge_request(&json!(PROJECT)));
    let pull = hosts.pull_request(access.at(), 7).await.unwrap().unwrap();
    assert!(pull.is_open && pull.is_draft && !pull.is_from_fork());
    assert_eq!((pull.number, pull.head.commit.as_str()), (7, B));
    assert_eq!((pull.base.branch.as_str(), pull.base.repository.as_str()), ("main", "4"));
    assert_eq!((pull.labels, pull.author), (vec!["ready".to_owned()], Some("mona".to_owned())));

    for source in [json!(FORK), json!(null)] {
        server.state().merge_requests.insert(7, merge_request(&source));
        assert!(hosts.pull_request(access.at(), 7).await.unwrap().unwrap().is_from_fork());
    }
    assert!(hosts.pull_request(access.at(), 8).await.unwrap().is_none());
}

#[tokio::test]
async fn changed_files_have_old_and_new_names_and_a_list_that_may_be_cut_is_unknown() {
    let (server, hosts, access) = gitlab().await;
    let (a, b) = (A.parse().unwrap(), B.parse().unwrap());
    let between = (A.to_owned(), B.to_owned());
    let renamed = vec![("src/old.rs".to_owned(), "src/new.rs".to_owned())];
    server.state().comparisons.insert(between.clone(), renamed);
    let files = hosts.changed_files(access.at(), &a, &b).await.unwrap();
    assert_eq!(files, all(&["src/new.rs", "src/old.rs"]));

    server.state().comparisons.insert(between, edits(1000));
    let files = hosts.changed_files(access.at(), &a, &b).await.unwrap();
    assert!(why(&files).contains("only 1000 files"), "{files:?}");

    server.state().is_slow = true;
    let files = hosts.changed_files(access.at(), &a, &b).await.unwrap();
    assert!(why(&files).contains("in time"), "{files:?}");

    let files = hosts.changed_files(access.at(), &C.parse().unwrap(), &b).await.unwrap();
    assert!(why(&files).contains("does not know one of the commits"), "{files:?}");
}

#[tokio::test]
async fn the_files_of_a_merge_request_are_read_page_by_page() {
    let (server, hosts, access) = gitlab().await;
    for count in [0, 99, 100, 999] {
        server.state().files.insert(1, edits(count));
        let expected = edits(count);
        let expected = all(&expected.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>());
        assert_eq!(hosts.pull_request_files(access.at(), 1).await.unwrap(), expected);
    }
    server.state().files.insert(1, edits(1000));
    let files = hosts.pull_request_files(access.at(), 1).await.unwrap();
    assert!(why(&files).contains("only 1000 files"), "{files:?}");
}

#[tokio::test]
async fn each_state_of_a_run_is_a_status_of_its_commit() {
    let (server, hosts, access) = gitlab().await;
    for state in STATES {
        hosts.report(access.at(), &report(state), &RUN).await.unwrap();
    }
    let set = std::mem::take(&mut server.state().statuses);
    let states: Vec<&Value> = set.iter().map(|(.., body)| &body["state"]).collect();
    assert_eq!(states, ["pending", "running", "success", "failed", "failed", "failed", "canceled"]);
    assert!(set.iter().all(|(project, commit, _)| project == "4" && commit == B));
    assert_eq!(set[0].2["name"], "gantry/web");
}

#[tokio::test]
async fn a_state_that_is_there_already_is_no_error() {
    let (server, hosts, access) = gitlab().await;
    for state in [
        ReportState::Pending,
        ReportState::Pending,
        ReportState::Running,
        ReportState::Running,
        // Another attempt of the run.
        ReportState::Pending,
        ReportState::Succeeded,
        // Another run.
        ReportState::Pending,
    ] {
        hosts.report(access.at(), &report(state), &RUN).await.unwrap();
    }
    let states: Vec<Value> =
        server.state().statuses.iter().map(|(.., body)| body["state"].clone()).collect();
    assert_eq!(states, ["pending", "running", "success", "pending"]);
}

#[tokio::test]
async fn an_end_that_gitlab_does_not_take_is_an_error_unless_it_is_there_already() {
    let (server, hosts, access) = gitlab().await;
    for (from, is_taken) in [("success", true), ("canceled", false)] {
        server.server().fail(move |_| {
            let message = format!("Cannot transition status via :success from :{from}");
            Some(answer(400, &json!({"message": message})))
        });
        let taken = hosts.report(access.at(), &report(ReportState::Succeeded), &RUN).await;
        assert_eq!(taken.is_ok(), is_taken, "{taken:?}");
    }
}

#[tokio::test]
async fn a_conflict_with_another_report_is_tried_again() {
    let (server, hosts, access) = gitlab().await;
    server.server().fail(|_| Some(answer(409, &json!({"message": "409 Conflict"}))));
    let error = hosts.report(access.at(), &report(ReportState::Running), &RUN).await.unwrap_err();
    assert_eq!(error.kind, CodeHostFailure::Transient { retry_after: None }, "{error}");
}

#[tokio::test]
async fn a_forks_commit_gets_its_status_in_the_fork() {
    let (server, hosts, access) = gitlab().await;
    let target = ReportTarget {
        commit: B.parse().unwrap(),
        pull_request: Some(7),
        repository: Some(FORK.to_string().parse().unwrap()),
    };
    let report = StatusReport { target, ..report(ReportState::Running) };
    hosts.report(access.at(), &report, &RUN).await.unwrap();
    assert_eq!(server.state().statuses[0].0, FORK.to_string());
}

#[tokio::test]
async fn a_gitlab_in_a_folder_of_its_host_is_used() {
    let (server, _, _) = gitlab().await;
    let host = server.server().host();
    // The folder is a part of the repository's URL, and not of the project's path.
    let hosts = code_hosts(&[format!("{host}=gitlab@http://{host}/api/v4")]);
    let access = Access::new(&server.url(), TOKEN);
    hosts.report(access.at(), &report(ReportState::Running), &RUN).await.unwrap();

    let hosts = code_hosts(&[format!("{host}=gitlab@http://{host}/git/api/v4")]);
    let access = Access::new(&format!("http://{host}/git/group/sub/web.git"), TOKEN);
    let _missing = hosts.report(access.at(), &report(ReportState::Running), &RUN).await;
    let asked = server.server().asked().pop().unwrap();
    assert_eq!(asked.words()[..5], ["git", "api", "v4", "projects", "group/sub/web"]);
}
