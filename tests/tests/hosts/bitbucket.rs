//! Bitbucket Cloud.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_domain::report::{ReportState, ReportTarget, StatusReport};
use gantry_remote::code_host::{CodeHostFailure, CodeHosts, ProviderApi as _};
use gantry_tests::hosts::bitbucket::{BitbucketServer, Difference, TOKEN};
use gantry_tests::hosts::code_hosts;
use gantry_tests::hosts::server::json as answer;
use serde_json::{Value, json};

use crate::{A, Access, B, C, RUN, STATES, all, report, why};

const REPOSITORY: &str = "{d93ba5d4-0000-0000-0000-000000000001}";
const FORK: &str = "{d93ba5d4-0000-0000-0000-000000000002}";

async fn bitbucket() -> (BitbucketServer, CodeHosts, Access) {
    let server = BitbucketServer::start().await.unwrap();
    let (hosts, access) = (code_hosts(&[server.entry()]), Access::new(&server.url(), TOKEN));
    (server, hosts, access)
}

/// With commits of 12 digits, as Bitbucket sends them.
fn pull(source: &Value) -> Value {
    json!({
        "id": 9, "state": "OPEN", "draft": false, "author": {"display_name": "Mona Lisa"},
        "source": {"branch": {"name": "feature/x"}, "commit": {"hash": B[..12]}, "repository": source},
        "destination": {
            "branch": {"name": "main"}, "commit": {"hash": A[..12]}, "repository": {"uuid": REPOSITORY},
        },
    })
}

#[tokio::test]
async fn a_pull_request_has_its_full_head_and_its_base() {
    let (server, hosts, access) = bitbucket().await;
    for (source, is_from_fork) in
        [(json!({"uuid": REPOSITORY}), false), (json!({"uuid": FORK}), true), (json!(null), true)]
    {
        server.state().pulls.insert(9, (pull(&source), B.to_owned()));
        let pull = hosts.pull_request(access.at(), 9).await.unwrap().unwrap();
        assert!(pull.is_open && pull.is_from_fork() == is_from_fork);
        assert_eq!((pull.number, pull.head.commit.as_str()), (9, B));
        assert_eq!(pull.base.branch.as_str(), "main");
        assert_eq!(pull.base.repository.as_str(), REPOSITORY);
    }
    assert!(hosts.pull_request(access.at(), 10).await.unwrap().is_none());
}

#[tokio::test]
async fn a_pull_request_that_changes_while_it_is_read_is_read_again() {
    let (server, hosts, access) = bitbucket().await;
    let source = json!({"uuid": REPOSITORY});
    server.state().pulls.insert(9, (pull(&source), C.to_owned()));
    let error = hosts.pull_request(access.at(), 9).await.unwrap_err();
    assert_eq!(error.kind, CodeHostFailure::Transient { retry_after: None }, "{error}");
}

fn edits(count: usize) -> Vec<Difference> {
    let path = |number| Some(format!("src/{number:04}.rs"));
    (0..count).map(|number| Difference { old: path(number), new: path(number) }).collect()
}

#[tokio::test]
async fn changed_files_have_old_and_new_names_and_are_read_page_by_page() {
    let (server, hosts, access) = bitbucket().await;
    let (a, b) = (A.parse().unwrap(), B.parse().unwrap());
    let file = |old: &str, new: &str| {
        let path = |path: &str| (!path.is_empty()).then(|| path.to_owned());
        Difference { old: path(old), new: path(new) }
    };
    let files = vec![file("old", "new"), file("", "added"), file("deleted", "")];
    server.state().differences.insert(format!("{B}..{A}"), files);
    let files = hosts.changed_files(access.at(), &a, &b).await.unwrap();
    assert_eq!(files, all(&["added", "deleted", "new", "old"]));

    server.state().differences.insert(format!("{B}..{A}"), edits(250));
    let names: Vec<String> = (0..250).map(|number| format!("src/{number:04}.rs")).collect();
    let expected = all(&names.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(hosts.changed_files(access.at(), &a, &b).await.unwrap(), expected);

    server.state().differences.insert(format!("{B}..{A}"), edits(2001));
    let files = hosts.changed_files(access.at(), &a, &b).await.unwrap();
    assert!(why(&files).contains("more files than gantry reads"), "{files:?}");

    let files = hosts.changed_files(access.at(), &C.parse().unwrap(), &b).await.unwrap();
    assert!(why(&files).contains("does not know one of the commits"), "{files:?}");

    server.server().fail(|_| Some(answer(555, &json!({}))));
    let files = hosts.changed_files(access.at(), &a, &b).await.unwrap();
    assert!(why(&files).contains("in time"), "{files:?}");
}

#[tokio::test]
async fn the_files_of_a_pull_request_differ_from_where_it_began() {
    let (server, hosts, access) = bitbucket().await;
    let (head, base) = (&B[..12], &A[..12]);
    server.state().pulls.insert(9, (pull(&json!({"uuid": REPOSITORY})), B.to_owned()));
    server.state().merge_bases.insert(format!("{head}..{base}"), C.to_owned());
    server.state().differences.insert(format!("{head}..{C}"), edits(1));
    let files = hosts.pull_request_files(access.at(), 9).await.unwrap();
    assert_eq!(files, all(&["src/0000.rs"]));

    server.state().pulls.insert(9, (pull(&json!({"uuid": FORK})), B.to_owned()));
    let files = hosts.pull_request_files(access.at(), 9).await.unwrap();
    assert!(why(&files).contains("one repository"), "{files:?}");
}

#[tokio::test]
async fn each_state_of_a_run_is_a_build_status_with_a_short_key() {
    let (server, hosts, access) = bitbucket().await;
    for state in STATES {
        hosts.report(access.at(), &report(state), &RUN).await.unwrap();
    }
    let long = format!("gantry/{}", "x".repeat(100)).parse().unwrap();
    let report = StatusReport { context: long, ..report(ReportState::Succeeded) };
    hosts.report(access.at(), &report, &RUN).await.unwrap();
    let set = std::mem::take(&mut server.state().statuses);
    let states: Vec<&Value> = set.iter().map(|(.., body)| &body["state"]).collect();
    let expected = [
        "INPROGRESS",
        "INPROGRESS",
        "INPROGRESS",
        "SUCCESSFUL",
        "FAILED",
        "FAILED",
        "FAILED",
        "STOPPED",
        "SUCCESSFUL",
    ];
    assert_eq!(states, expected);
    assert!(set.iter().all(|(repository, commit, _)| repository == "web" && commit == B));
    // One key per name: a later state replaces the former.
    let keys: Vec<&Value> = set.iter().map(|(.., body)| &body["key"]).collect();
    assert!(keys[..8].iter().all(|key| *key == keys[0]) && keys[8] != keys[0]);
}

#[tokio::test]
async fn a_forks_commit_gets_its_status_in_the_fork() {
    let (server, hosts, access) = bitbucket().await;
    let target = ReportTarget {
        commit: B.parse().unwrap(),
        pull_request: Some(9),
        repository: Some(FORK.parse().unwrap()),
    };
    let report = StatusReport { target, ..report(ReportState::Running) };
    hosts.report(access.at(), &report, &RUN).await.unwrap();
    assert_eq!(server.state().statuses[0].0, FORK);
}

#[tokio::test]
async fn a_token_of_an_account_is_sent_as_its_password() {
    let (server, hosts, _) = bitbucket().await;
    for (token, header) in [
        (TOKEN.to_owned(), format!("Bearer {TOKEN}")),
        (format!("x-token-auth:{TOKEN}"), format!("Bearer {TOKEN}")),
        (
            format!("mona@example.com:{TOKEN}"),
            format!("Basic {}", STANDARD.encode(format!("mona@example.com:{TOKEN}"))),
        ),
    ] {
        let access = Access::new(&server.url(), &token);
        let _taken = hosts.report(access.at(), &report(ReportState::Running), &RUN).await;
        assert_eq!(server.server().asked().pop().unwrap().header("authorization"), header);
    }
}
