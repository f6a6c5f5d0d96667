//! The operator's GitHub App, against a stand-in that checks what GitHub checks.

use std::time::Duration;

use gantry_domain::id::RegistryName;
use gantry_domain::report::{CheckRunId, ReportState, StatusReport};
use gantry_domain::source::GitUrl;
use gantry_ops::secret::{ExposeSecret as _, SecretString};
use gantry_remote::code_host::{
    AppKey, CodeHost as _, CodeHostError, CodeHostFailure, CodeHosts, InvalidAppKey,
    ProviderApi as _, ReportedRun, RepositoryAccess, WantedHook,
};
use gantry_tests::hosts::code_hosts;
use gantry_tests::hosts::github::{Comparison, GitHubServer};
use gantry_tests::hosts::github_app::{self, KEY, OTHER_KEY, token};
use gantry_tests::hosts::server::json as answer;
use serde_json::{Value, json};

use crate::{A, B, C, RUN, STATES, report};

/// A repository on which the App is installed, and that registry `reg` may use it for.
struct Rig {
    server: GitHubServer,
    hosts: CodeHosts,
    url: GitUrl,
    registry: RegistryName,
}

impl Rig {
    async fn start() -> Self {
        Self::with(KEY, &["reg=octo/*"]).await
    }

    async fn with(key: &str, grants: &[&str]) -> Self {
        let server = GitHubServer::start().await.unwrap();
        let app = github_app::config(&server.server().host(), key, grants);
        let hosts = code_hosts(&[server.entry()]).with_app(app);
        let url = server.url().parse().unwrap();
        Self { server, hosts, url, registry: "reg".parse().unwrap() }
    }

    fn at(&self) -> RepositoryAccess<'_> {
        RepositoryAccess {
            url: &self.url,
            registry: Some(&self.registry),
            token: None,
            host_keys: &[],
        }
    }

    async fn report(&self, state: ReportState) -> Result<Option<CheckRunId>, CodeHostError> {
        self.hosts.report(self.at(), &report(state), &RUN).await
    }

    async fn refusal(&self) -> CodeHostError {
        let error = self.report(ReportState::Pending).await.unwrap_err();
        assert_eq!(error.kind, CodeHostFailure::RefusedApp, "{error}");
        error
    }

    fn minted(&self) -> Vec<String> {
        self.server.state().app.minted.clone()
    }
}

#[tokio::test]
async fn each_purpose_has_a_token_for_one_repository_with_its_permissions_only() {
    let rig = Rig::start().await;
    let pull = json!({"head": {"sha": B}});
    rig.server.state().pulls.insert(1, pull);
    rig.hosts.pull_request(rig.at(), 1).await.unwrap().unwrap();
    rig.server
        .state()
        .comparisons
        .insert(format!("{A}...{B}"), Comparison { status: "ahead", files: Vec::new() });
    rig.hosts.changed_files(rig.at(), &A.parse().unwrap(), &B.parse().unwrap()).await.unwrap();
    rig.report(ReportState::Pending).await.unwrap();
    let hook = "https://gantry.example/hooks/github/h1".parse().unwrap();
    let wanted = WantedHook { url: &hook, secret: &SecretString::from("s") };
    rig.hosts.ensure_hook(rig.at(), &wanted).await.unwrap();
    rig.hosts.remove_hook(rig.at(), &hook).await.unwrap();
    let fetch = rig.hosts.fetch_token(&rig.registry, &rig.url).await.unwrap().unwrap();
    let expected = format!("x-access-token:{}", token("contents-read", 1));
    assert_eq!(fetch.token.expose_secret(), expected);
    assert!(fetch.valid_for > Duration::from_secs(3500), "{:?}", fetch.valid_for);
    assert_eq!(
        rig.minted(),
        [
            "contents-read+pull_requests-read",
            "checks-write",
            "repository_hooks-write",
            "contents-read"
        ]
    );
}

#[tokio::test]
async fn fifty_needs_at_once_are_one_request_for_a_token() {
    let rig = Rig::start().await;
    let needs = (0..50).map(|_| rig.hosts.fetch_token(&rig.registry, &rig.url));
    for found in futures_util::future::join_all(needs).await {
        found.unwrap().unwrap();
    }
    assert_eq!(rig.minted(), ["contents-read"]);
    assert_eq!(rig.server.server().asked().len(), 2, "the installation and the token");
}

#[tokio::test]
async fn a_token_is_replaced_five_minutes_before_its_end() {
    let rig = Rig::start().await;
    for (valid_for, minted) in [(290, 1), (290, 2), (310, 3), (310, 3)] {
        rig.server.state().app.valid_for = valid_for;
        rig.hosts.fetch_token(&rig.registry, &rig.url).await.unwrap();
        assert_eq!(rig.minted().len(), minted, "{valid_for}");
    }
}

#[tokio::test]
async fn a_registry_without_a_grant_gets_nothing_and_the_error_names_the_setting() {
    for grants in [["other=octo/*"], ["reg=octo/api"], ["reg=octo-b/*"]] {
        let rig = Rig::with(KEY, &grants).await;
        assert!(!rig.hosts.may_use_app(&rig.registry, &rig.url));
        assert!(rig.hosts.fetch_token(&rig.registry, &rig.url).await.unwrap().is_none());
        let error = rig.report(ReportState::Pending).await.unwrap_err();
        assert_eq!(error.kind, CodeHostFailure::RefusedToken);
        let told = "or ask the operator to let registry reg use the GitHub App, with `reg=octo/web` in the setting \
                    `github_app.grants`";
        assert!(error.to_string().ends_with(told), "{error}");
        assert!(rig.minted().is_empty());
        assert!(
            rig.server
                .server()
                .asked()
                .iter()
                .all(|asked| asked.header("authorization").is_empty())
        );
    }
}

#[tokio::test]
async fn a_token_of_the_task_is_used_instead_of_the_app() {
    let rig = Rig::start().await;
    let own = SecretString::from(gantry_tests::hosts::github::TOKEN);
    let at = RepositoryAccess { token: Some(&own), ..rig.at() };
    rig.hosts.report(at, &report(ReportState::Pending), &RUN).await.unwrap();
    assert!(rig.minted().is_empty());
    assert_eq!(rig.server.state().statuses.len(), 1);
}

#[tokio::test]
async fn a_key_of_another_app_is_an_error_of_the_operator() {
    let rig = Rig::with(OTHER_KEY, &["reg=octo/*"]).await;
    let error = rig.refusal().await.to_string();
    assert!(error.contains("rejects the GitHub App `Iv23liTestOfGantry` (401)"), "{error}");
    assert!(error.contains("`github_app.private_key_file`"), "{error}");
}

#[tokio::test]
async fn clocks_that_differ_are_named_and_it_is_tried_again() {
    let rig = Rig::start().await;
    for (ahead, told) in [(-900, "900 s ahead of"), (900, "900 s behind")] {
        rig.server.state().app.clock_ahead = ahead;
        let error = rig.report(ReportState::Pending).await.unwrap_err();
        assert_eq!(error.kind, CodeHostFailure::Transient { retry_after: None }, "{error}");
        let message = error.to_string();
        assert!(message.contains("the clock of this machine is"), "{message}");
        // A second may pass in between.
        assert!(
            message.contains(told) || message.contains("899 s") || message.contains("901 s"),
            "{message}"
        );
    }
    for ahead in [-50, 50] {
        let rig = Rig::start().await;
        rig.server.state().app.clock_ahead = ahead;
        let fetch = rig.hosts.fetch_token(&rig.registry, &rig.url).await.unwrap().unwrap();
        assert!(fetch.valid_for > Duration::from_secs(3500), "by GitHub's own clock");
    }
}

#[tokio::test]
async fn an_app_that_is_not_installed_says_where_to_install_it_and_works_once_it_is() {
    let rig = Rig::start().await;
    rig.server.state().app.is_installed = false;
    let error = rig.refusal().await.to_string();
    assert!(error.contains("the GitHub App is not installed on octo/web"), "{error}");
    assert!(
        error.ends_with("install it at https://github.com/apps/octoapp/installations/new"),
        "{error}"
    );
    rig.server.state().app.is_installed = true;
    rig.report(ReportState::Pending).await.unwrap();
}

#[tokio::test]
async fn a_suspended_installation_says_who_resumes_it() {
    let rig = Rig::start().await;
    rig.server.state().app.is_suspended = true;
    let error = rig.refusal().await.to_string();
    assert!(error.contains("installation of the GitHub App on octo is suspended"), "{error}");
    assert!(error.contains("an owner of octo resumes it at https://github.com/"), "{error}");
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let rig = Rig::start().await;
    rig.server.state().app.permissions.insert("checks", "read");
    let error = rig.refusal().await.to_string();
    assert!(
        error.contains("needs the permission \"Checks: write\" to set a commit status"),
        "{error}"
    );
    rig.server.state().app.permissions.remove("repository_hooks");
    let hook = "https://gantry.example/hooks/github/h1".parse().unwrap();
    let error = rig.hosts.find_hooks(rig.at(), &hook).await.unwrap_err().to_string();
    assert!(
        error.contains("needs the permission \"Webhooks: write\" to manage webhooks"),
        "{error}"
    );
    rig.server.state().app.permissions.insert("checks", "write");
    rig.report(ReportState::Pending).await.unwrap();
}

#[tokio::test]
async fn an_installation_that_was_made_anew_is_found() {
    let rig = Rig::start().await;
    rig.report(ReportState::Pending).await.unwrap();
    rig.server.state().app.installation = 8;
    rig.hosts.fetch_token(&rig.registry, &rig.url).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_limit_and_an_outage_are_waited_for_as_long_as_github_says() {
    let rig = Rig::start().await;
    for (status, headers, kind) in [
        (429, Some("7"), CodeHostFailure::Transient { retry_after: Some(Duration::from_secs(7)) }),
        (403, Some("9"), CodeHostFailure::Transient { retry_after: Some(Duration::from_secs(9)) }),
        (503, None, CodeHostFailure::Transient { retry_after: None }),
    ] {
        for at in ["installation", "access_tokens"] {
            rig.server.server().fail(move |asked| {
                let mut refused = answer(status, &json!({"message": "slow down"}));
                if let Some(seconds) = headers {
                    refused.headers_mut().insert("retry-after", seconds.parse().unwrap());
                }
                let found = json!({
                    "id": 7, "app_id": 42, "html_url": "https://github.com/x", "permissions": {"checks": "write"},
                });
                Some(if asked.words.last().is_some_and(|word| word == at) { refused } else { answer(200, &found) })
            });
            let error = rig.report(ReportState::Pending).await.unwrap_err();
            assert_eq!(error.kind, kind, "{at}: {error}");
        }
    }
    rig.server.server().recover();
    rig.report(ReportState::Pending).await.unwrap();
}

#[tokio::test]
async fn a_token_that_github_refuses_is_not_used_again() {
    let rig = Rig::start().await;
    rig.report(ReportState::Pending).await.unwrap();
    let refused = json!({"message": format!("Bad credentials: {}", token("checks-write", 1))});
    rig.server.server().fail(move |_| Some(answer(401, &refused)));
    let error = rig.refusal().await.to_string();
    assert!(error.contains("does not let the GitHub App set a commit status"), "{error}");
    assert!(!error.contains("Canary"), "{error}");
    rig.server.server().recover();
    rig.report(ReportState::Running).await.unwrap();
    assert_eq!(rig.minted(), ["checks-write", "checks-write"]);
}

#[tokio::test]
async fn the_states_of_a_run_are_states_of_one_check_run() {
    let rig = Rig::start().await;
    let mut run = *RUN;
    for state in STATES {
        let error = "step `test`: exit code 2\n```\n<b>@octo</b>";
        let details = if state == ReportState::Failed { error.to_owned() } else { String::new() };
        let started = (state == ReportState::Running)
            .then(|| gantry_domain::timestamp::Timestamp::from_millis(1_767_607_200_000));
        let report = StatusReport { details, started, ..report(state) };
        run.check_run = rig.hosts.report(rig.at(), &report, &run).await.unwrap();
        assert_eq!(run.check_run, Some(CheckRunId(1)));
    }
    let set = std::mem::take(&mut rig.server.state().checks_set);
    let states: Vec<(&Value, &Value)> =
        set.iter().map(|(_, body)| (&body["status"], &body["conclusion"])).collect();
    let completed = |conclusion| (json!("completed"), json!(conclusion));
    let expected = [
        (json!("queued"), Value::Null),
        completed("action_required"),
        (json!("in_progress"), Value::Null),
        completed("success"),
        completed("failure"),
        completed("timed_out"),
        completed("failure"),
        completed("cancelled"),
    ];
    assert_eq!(states, expected.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>());
    let first = json!({
        "name": "gantry/web", "head_sha": B, "external_id": "ca1", "status": "queued",
        "details_url": "https://gantry.example/runs/ca1",
        "output": {"title": "Pushed web:1", "summary": "[Run ca1](https://gantry.example/runs/ca1)"},
    });
    assert_eq!(set[0].1, first);
    assert_eq!(set[2].1["started_at"], "2026-01-05T10:00:00.000Z");
    assert_eq!(
        set[4].1["output"]["summary"],
        "[Run ca1](https://gantry.example/runs/ca1)\n\n    step `test`: exit code 2\n    ```\n    <b>@octo</b>\n"
    );
}

#[tokio::test]
async fn a_lost_answer_leaves_no_second_check_run_and_a_removed_one_is_made_anew() {
    let rig = Rig::start().await;
    rig.report(ReportState::Pending).await.unwrap();
    // Its answer was lost: the caller does not know it.
    assert_eq!(rig.report(ReportState::Running).await.unwrap(), Some(CheckRunId(1)));
    assert_eq!(rig.server.state().check_runs.len(), 1);
    // Another commit has its own.
    let target = gantry_domain::report::ReportTarget {
        commit: C.parse().unwrap(),
        pull_request: None,
        repository: None,
    };
    let other = StatusReport { target, ..report(ReportState::Pending) };
    let made = rig.hosts.report(rig.at(), &other, &RUN).await.unwrap();
    assert_eq!(made, Some(CheckRunId(2)));
    let gone = ReportedRun { check_run: Some(CheckRunId(99)), ..*RUN };
    let made = rig.hosts.report(rig.at(), &report(ReportState::Succeeded), &gone).await.unwrap();
    assert_eq!(made, Some(CheckRunId(1)));
}

#[test]
fn a_key_is_rsa_in_either_form_of_pem_and_an_error_quotes_nothing_of_it() {
    let pkcs8 = include_str!("../../fixtures/github-app/app.pkcs8.pem");
    for pem in [KEY, pkcs8] {
        let key = AppKey::parse(pem.as_bytes()).unwrap();
        assert_eq!(format!("{key:?}"), "AppKey(..)");
    }
    let small = include_str!("../../fixtures/github-app/small.pkcs1.pem");
    let ec = include_str!("../../fixtures/github-app/ec.pem");
    for (pem, error) in [
        (small, InvalidAppKey::NotRsa),
        (ec, InvalidAppKey::NotRsa),
        ("", InvalidAppKey::NoPem),
        ("hunter2", InvalidAppKey::NoPem),
        (&KEY[..200], InvalidAppKey::NoPem),
    ] {
        let refused = AppKey::parse(pem.as_bytes()).unwrap_err();
        assert_eq!(refused, error, "{pem}");
        assert!(!refused.to_string().contains("hunter2"));
    }
}
