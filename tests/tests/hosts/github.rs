//! GitHub.

use std::time::Duration;

use gantry_domain::pull_request::{Association, ChangedFiles};
use gantry_domain::report::{ReportState, StatusReport};
use gantry_remote::code_host::{CodeHostFailure, CodeHosts, ProviderApi as _};
use gantry_tests::hosts::github::{ChangedFile, Comparison, GitHubServer, READER, TOKEN};
use gantry_tests::hosts::server::json as answer;
use gantry_tests::hosts::{Answer, code_hosts};
use serde_json::{Value, json};

use crate::{A, Access, B, C, RUN, STATES, all, report, why};

async fn github() -> (GitHubServer, CodeHosts, Access) {
    let server = GitHubServer::start().await.unwrap();
    let (hosts, access) = (code_hosts(&[server.entry()]), Access::new(&server.url(), TOKEN));
    (server, hosts, access)
}

fn named(count: usize) -> Vec<ChangedFile> {
    (0..count).map(|number| edited(&format!("src/{number:04}.rs"))).collect()
}

fn edited(path: &str) -> ChangedFile {
    ChangedFile { path: path.to_owned(), former: None }
}

fn paths(files: &[ChangedFile]) -> ChangedFiles {
    all(&files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>())
}

#[tokio::test]
async fn a_pull_request_has_its_head_its_base_and_the_trial_merge() {
    let (server, hosts, access) = github().await;
    let pull = json!({
        "state": "open", "draft": true, "mergeable": true, "merge_commit_sha": C,
        "author_association": "MEMBER", "user": {"login": "mona"},
        "labels": [{"name": "ready"}],
        "head": {"sha": B, "ref": "feature/x", "repo": {"id": 7}},
        "base": {"ref": "main", "repo": {"id": 7}},
    });
    server.state().pulls.insert(12, pull);
    let pull = hosts.pull_request(access.at(), 12).await.unwrap().unwrap();
    assert!(pull.is_open && pull.is_draft && !pull.is_from_fork());
    assert_eq!((pull.number, pull.head.commit.as_str()), (12, B));
    assert_eq!(pull.head.branch.as_ref().unwrap().as_str(), "feature/x");
    assert_eq!((pull.base.branch.as_str(), pull.base.repository.as_str()), ("main", "7"));
    assert_eq!(pull.merge.as_ref().unwrap().as_str(), C);
    assert_eq!(pull.labels, ["ready"]);
    assert_eq!(pull.author.as_deref(), Some("mona"));
    assert_eq!(pull.association, Association::Member);
    assert!(hosts.pull_request(access.at(), 13).await.unwrap().is_none());
}

#[tokio::test]
async fn a_pull_request_of_a_deleted_fork_is_one_of_a_fork() {
    let (server, hosts, access) = github().await;
    let head = json!({"head": {"sha": B, "ref": "x", "repo": null}});
    server.state().pulls.insert(1, head);
    let pull = hosts.pull_request(access.at(), 1).await.unwrap().unwrap();
    assert!(pull.is_from_fork() && pull.head.repository.is_none());
}

#[tokio::test]
async fn only_an_open_and_mergeable_pull_request_has_a_trial_merge() {
    let (server, hosts, access) = github().await;
    for (state, mergeable) in
        [("open", json!(null)), ("open", json!(false)), ("closed", json!(true))]
    {
        let pull = json!({
            "state": state, "mergeable": mergeable, "merge_commit_sha": C, "head": {"sha": B},
        });
        server.state().pulls.insert(1, pull);
        let pull = hosts.pull_request(access.at(), 1).await.unwrap().unwrap();
        assert_eq!((pull.is_open, pull.merge), (state == "open", None));
    }
}

#[tokio::test]
async fn changed_files_have_old_and_new_names() {
    let (server, hosts, access) = github().await;
    let renamed = ChangedFile { former: Some("src/old.rs".to_owned()), ..edited("src/new.rs") };
    let comparison = Comparison { status: "ahead", files: vec![renamed, edited("a b/é")] };
    server.state().comparisons.insert(format!("{A}...{B}"), comparison);
    let files = hosts.changed_files(access.at(), &A.parse().unwrap(), &B.parse().unwrap()).await;
    assert_eq!(files.unwrap(), all(&["a b/é", "src/new.rs", "src/old.rs"]));
}

#[tokio::test]
async fn a_comparison_that_may_be_incomplete_is_unknown() {
    let (server, hosts, access) = github().await;
    let (a, b) = (A.parse().unwrap(), B.parse().unwrap());
    let spec = format!("{A}...{B}");
    for (status, count, told) in [
        ("ahead", 300, Some("at most 300")),
        ("ahead", 299, None),
        ("identical", 0, None),
        ("diverged", 1, Some("former head")),
        ("behind", 0, Some("former head")),
    ] {
        let comparison = Comparison { status, files: named(count) };
        server.state().comparisons.insert(spec.clone(), comparison);
        let files = hosts.changed_files(access.at(), &a, &b).await.unwrap();
        match told {
            Some(told) => assert!(why(&files).contains(told), "{files:?}"),
            None => assert_eq!(files, paths(&named(count))),
        }
    }
    let files = hosts.changed_files(access.at(), &C.parse().unwrap(), &b).await.unwrap();
    assert!(why(&files).contains("does not know one of the commits"), "{files:?}");
}

#[tokio::test]
async fn the_files_of_a_pull_request_are_read_page_by_page() {
    let (server, hosts, access) = github().await;
    for (number, count) in [(1, 0), (2, 99), (3, 100), (4, 250), (5, 2999)] {
        server.state().files.insert(number, named(count));
        let files = hosts.pull_request_files(access.at(), number).await.unwrap();
        assert_eq!(files, paths(&named(count)));
    }
    server.state().files.insert(6, named(3000));
    let files = hosts.pull_request_files(access.at(), 6).await.unwrap();
    assert!(why(&files).contains("at most 3000"), "{files:?}");
    let files = hosts.pull_request_files(access.at(), 7).await.unwrap();
    assert!(why(&files).contains("no pull request 7"), "{files:?}");
}

#[tokio::test]
async fn each_state_of_a_run_is_a_status_of_its_commit() {
    let (server, hosts, access) = github().await;
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
    assert_eq!(set[0].1["target_url"], "https://gantry.example/runs/ca1");
}

#[tokio::test]
async fn a_long_description_is_cut_to_140_characters() {
    let (server, hosts, access) = github().await;
    for (given, kept) in
        [("é".repeat(140), "é".repeat(140)), ("é".repeat(141), format!("{}…", "é".repeat(139)))]
    {
        let report = StatusReport { description: given, ..report(ReportState::Succeeded) };
        hosts.report(access.at(), &report, &RUN).await.unwrap();
        assert_eq!(server.state().statuses.pop().unwrap().1["description"], kept.as_str());
    }
}

#[tokio::test]
async fn a_user_before_the_token_is_not_sent() {
    let (server, hosts, _) = github().await;
    let access = Access::new(&server.url(), &format!("x-access-token:{TOKEN}"));
    hosts.report(access.at(), &report(ReportState::Succeeded), &RUN).await.unwrap();
}

#[tokio::test]
async fn a_token_that_may_only_read_sets_no_status_and_the_error_names_the_permission() {
    let (server, hosts, _) = github().await;
    let access = Access::new(&server.url(), READER);
    let error = hosts.report(access.at(), &report(ReportState::Succeeded), &RUN).await.unwrap_err();
    let told = format!(
        "127.0.0.1 refused the token for {} (403 Forbidden): to set a commit status, it needs the permission \
         \"Commit statuses: write\" for this repository",
        server.url()
    );
    assert_eq!(error.to_string(), told);
    assert_eq!(error.kind, CodeHostFailure::RefusedToken);
}

fn with_headers(mut answer: Answer, headers: &[(&'static str, &str)]) -> Answer {
    for (name, value) in headers {
        answer.headers_mut().insert(*name, value.parse().unwrap());
    }
    answer
}

#[tokio::test]
async fn a_limit_of_requests_tells_how_long_to_wait() {
    const SECONDARY: &str = "You have exceeded a secondary rate limit.";
    const DATE: (&str, &str) = ("date", "Mon, 05 Jan 2026 10:00:00 GMT");
    let (server, hosts, access) = github().await;
    // 40 seconds, and a day, after `DATE`.
    let (soon, late) = (("x-ratelimit-reset", "1767607240"), ("x-ratelimit-reset", "1767693600"));
    let exhausted = ("x-ratelimit-remaining", "0");
    for (status, message, headers, seconds) in [
        (403, SECONDARY, vec![("retry-after", "7"), exhausted, soon, DATE], 7),
        (429, "", vec![("retry-after", "7")], 7),
        (403, "API rate limit exceeded", vec![exhausted, soon, DATE], 40),
        (429, "API rate limit exceeded", vec![exhausted, late, DATE], 3600),
        (403, "API rate limit exceeded", vec![exhausted, ("x-ratelimit-reset", "soon"), DATE], 60),
        (403, SECONDARY, vec![("x-ratelimit-remaining", "4999")], 60),
        (403, "You have triggered an abuse detection mechanism.", vec![], 60),
        (429, "", vec![], 60),
    ] {
        let shown = headers.clone();
        server.server().fail(move |_| {
            Some(with_headers(answer(status, &json!({"message": message})), &headers))
        });
        let error =
            hosts.report(access.at(), &report(ReportState::Succeeded), &RUN).await.unwrap_err();
        let retry_after = Some(Duration::from_secs(seconds));
        assert_eq!(error.kind, CodeHostFailure::Transient { retry_after }, "{shown:?}: {error}");
        assert!(error.to_string().contains("limits the number of requests"), "{error}");
    }
}

#[tokio::test]
async fn a_refusal_names_the_scope_of_a_classic_token_and_the_permission_of_a_fine_grained_one() {
    let (server, hosts, access) = github().await;
    for (header, told) in [
        (("x-oauth-scopes", "read:org"), "it needs the scope `repo:status`"),
        (
            ("x-accepted-github-permissions", "statuses=write"),
            "it needs the permission \"Commit statuses: write\" for this repository",
        ),
        (("x-github-sso", "required; url=https://github.com/orgs/octo/sso?x=1"), "single sign-on"),
        (("x-other", ""), "the scope `repo:status` (classic) or the permission"),
    ] {
        server.server().fail(move |_| {
            Some(with_headers(answer(403, &json!({"message": "Forbidden"})), &[header]))
        });
        let error =
            hosts.report(access.at(), &report(ReportState::Succeeded), &RUN).await.unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(error.kind, CodeHostFailure::RefusedToken);
    }
}

#[tokio::test]
async fn a_status_that_github_cannot_take_is_not_repeated() {
    let (server, hosts, access) = github().await;
    for (message, told) in [
        ("This SHA and context has reached the maximum number of statuses.", "has 1000 statuses"),
        ("No commit found for SHA: bbbb", "no commit"),
        ("Validation Failed", "(422)"),
    ] {
        server.server().fail(move |_| Some(answer(422, &json!({"message": message}))));
        let error =
            hosts.report(access.at(), &report(ReportState::Succeeded), &RUN).await.unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(error.kind, CodeHostFailure::Permanent);
    }
}
