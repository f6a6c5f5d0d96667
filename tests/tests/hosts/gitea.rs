//! Gitea and Forgejo.

use gantry_remote::code_host::{CodeHosts, ProviderApi as _};
use gantry_tests::hosts::code_hosts;
use gantry_tests::hosts::gitea::{GiteaServer, TOKEN};
use serde_json::{Value, json};

use crate::{A, Access, B, C, RUN, STATES, all, report, why};

async fn gitea() -> (GiteaServer, CodeHosts, Access) {
    let server = GiteaServer::start().await.unwrap();
    let (hosts, access) = (code_hosts(&[server.entry()]), Access::new(&server.url(), TOKEN));
    (server, hosts, access)
}

#[tokio::test]
async fn a_pull_request_has_its_head_and_its_base() {
    let (server, hosts, access) = gitea().await;
    for (repository, is_from_fork) in
        [(json!({"id": 5}), false), (json!({"id": 6}), true), (json!(null), true)]
    {
        let pull = json!({
            "number": 3, "state": "open", "draft": false, "labels": null, "user": {"login": "mona"},
            "head": {"sha": B, "ref": "feature/x", "repo": repository},
            "base": {"sha": A, "ref": "main", "repo": {"id": 5}},
        });
        server.state().pulls.insert(3, pull);
        let pull = hosts.pull_request(access.at(), 3).await.unwrap().unwrap();
        assert!(pull.is_open && pull.is_from_fork() == is_from_fork);
        assert_eq!((pull.number, pull.head.commit.as_str()), (3, B));
        assert_eq!((pull.base.branch.as_str(), pull.base.repository.as_str()), ("main", "5"));
    }
    assert!(hosts.pull_request(access.at(), 4).await.unwrap().is_none());
}

fn commit(parent: &str, files: &Value) -> Value {
    json!({"sha": B, "parents": [{"sha": parent}], "files": files})
}

#[tokio::test]
async fn changed_files_are_those_of_all_new_commits() {
    let (server, hosts, access) = gitea().await;
    let (a, b) = (A.parse().unwrap(), B.parse().unwrap());
    let files = |names: &[&str]| -> Value {
        names.iter().map(|name| json!({"filename": name, "status": "modified"})).collect()
    };
    for (total, commits, told) in [
        (2, json!([commit(C, &files(&["b", "a"])), commit(A, &files(&["c"]))]), None),
        (3, json!([commit(A, &files(&["a"]))]), Some("all commits")),
        (1, json!([commit(C, &files(&["a"]))]), Some("former head")),
        (0, json!(null), Some("former head")),
        (1, json!([commit(A, &json!(null))]), Some("no files of a commit")),
    ] {
        let comparison = json!({"total_commits": total, "commits": commits});
        server.state().comparisons.insert(format!("{A}...{B}"), comparison);
        let files = hosts.changed_files(access.at(), &a, &b).await.unwrap();
        match told {
            None => assert_eq!(files, all(&["a", "b", "c"])),
            Some(told) => assert!(why(&files).contains(told), "{files:?}"),
        }
    }
    let files = hosts.changed_files(access.at(), &C.parse().unwrap(), &b).await.unwrap();
    assert!(why(&files).contains("does not know one of the commits"), "{files:?}");
}

#[tokio::test]
async fn the_files_of_a_pull_request_are_read_page_by_page_whatever_the_servers_page_is() {
    let (server, hosts, access) = gitea().await;
    for count in [0, 30, 95] {
        let names: Vec<String> = (0..count).map(|number| format!("src/{number:04}.rs")).collect();
        server.state().files.insert(1, names.clone());
        let expected = all(&names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(hosts.pull_request_files(access.at(), 1).await.unwrap(), expected);
    }
    let files = hosts.pull_request_files(access.at(), 2).await.unwrap();
    assert!(why(&files).contains("no pull request 2"), "{files:?}");
}

#[tokio::test]
async fn each_state_of_a_run_is_a_status_of_its_commit() {
    let (server, hosts, access) = gitea().await;
    for state in STATES {
        hosts.report(access.at(), &report(state), &RUN).await.unwrap();
    }
    let set = std::mem::take(&mut server.state().statuses);
    let states: Vec<&Value> = set.iter().map(|(_, body)| &body["state"]).collect();
    assert_eq!(
        states,
        ["pending", "pending", "pending", "success", "failure", "failure", "error", "error"]
    );
    assert!(set.iter().all(|(commit, body)| commit == B && body["context"] == "gantry/web"));
}
