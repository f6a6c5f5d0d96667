//! The credentials of tasks and quick builds for other registries: who has them, and where they go.
//!
//! Each password here names its owner and its host. Registries and the engine record every credential that they are given, so a
//! password at another host is seen at once.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use gantry_domain::id::RunPrefix;
use gantry_domain::run::{ErrorCode, Run, RunState, RunStatus, WaitReason};
use gantry_ops::secret::ExposeSecret as _;
use gantry_remote::credential_helper::{CredentialHelpers, HelperSettings};
use gantry_seams::image_watches;
use gantry_tests::git_server::TestRepository;
use gantry_tests::github::{FORK, PullRequest};
use gantry_tests::pipeline::TestPipeline;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::requests::Api;

const DOCKERFILE: &str = "\
ARG OF=base.test/team/base:1
FROM ${OF}
COPY --from=base.test:5000/team/tool:1 /tool /
COPY --from=open.test/team/open:1 /open /
COPY --from=registry.test/busybox:1 /bin /
";

const IMAGES: [&str; 3] =
    ["base.test/team/base:1", "base.test:5000/team/tool:1", "open.test/team/open:1"];

/// An installation whose registry has a password, and a task `web` with credentials for two others.
struct Rig {
    gantry: TestPipeline,
    api: Api,
    /// How many builds were looked at.
    builds: Cell<usize>,
}

impl Rig {
    async fn start() -> Self {
        let gantry = super::start().await;
        let api = Api::of(&gantry).await;
        let digest = format!("sha256:{}", "d".repeat(64)).parse().unwrap();
        IMAGES.iter().for_each(|image| gantry.registries.have(image, &digest));
        let rig = Self { gantry, api, builds: Cell::new(0) };
        rig.gives("home", "registry.test").await;
        rig
    }

    /// Gives the registry of gantry its own password.
    async fn gives(&self, owner: &str, host: &str) {
        let credentials =
            json!({"credentials": {"username": owner, "password": format!("{owner}@{host}")}});
        let (status, said) = self.api.ask(Method::PATCH, "/registries/reg", &credentials).await;
        assert_eq!(status, StatusCode::OK, "{said}");
    }

    /// Saves a task that pushes to two registries.
    async fn save(&self, name: &str, credentials: Value) -> TestRepository {
        let files = [("Dockerfile", DOCKERFILE)];
        let repository = self.gantry.git.repository(name).unwrap();
        repository.commit("main", &files).unwrap();
        let task = json!({
            "name": name,
            "context": format!("{}#main", self.gantry.git.url(name)),
            "images": [format!("{name}:{{{{.Run.ID}}}}"), format!("push.test/team/{name}:{{{{.Run.ID}}}}")],
            "credentials": credentials,
            "source_trigger": {"name": "t", "pull_request": {"status": "Enabled", "forks": "run", "builds": "head"}},
        });
        let (status, said) = self.api.ask(Method::POST, "/registries/reg/tasks", &task).await;
        assert_eq!(status, StatusCode::CREATED, "{said}");
        assert!(!said.to_string().contains('@'), "{said}");
        self.gantry.settle().await;
        repository
    }

    async fn run(&self, path: &str, body: &Value) -> Run {
        self.api.run(&self.gantry, path, body).await
    }

    /// The credentials that registries and the engine were given since the last call, as `HOST PASSWORD`. None was given to
    /// another host than its own.
    fn given(&self) -> BTreeSet<String> {
        let mut given = self.gantry.registries.take_given();
        given.extend(self.gantry.engine.take_given());
        let builds = self.gantry.engine.asked();
        let seen = self.builds.replace(builds.len());
        for asked in builds.into_iter().skip(seen) {
            let registries = asked.order.registries.into_iter();
            given.extend(registries.map(|(host, credentials)| (host, Some(credentials))));
        }
        let shown = given.into_iter().map(|(host, credentials)| match credentials {
            None => format!("{host} -"),
            Some(credentials) => {
                let password = credentials.password.expose_secret();
                assert!(password.ends_with(&format!("@{host}")), "{password} was given to {host}");
                format!("{host} {password}")
            }
        });
        shown.collect()
    }
}

/// Credentials of this owner for these hosts.
fn of(owner: &str, hosts: &[&str]) -> Value {
    let login = |host: &&str| {
        let password = format!("{owner}@{}", host.to_lowercase());
        ((*host).to_owned(), json!({"username": "ann", "password": password}))
    };
    Value::Object(hosts.iter().map(login).collect())
}

fn set(lines: &[&str]) -> BTreeSet<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

fn succeeded(run: &Run) {
    assert_eq!(run.status(), RunStatus::Succeeded, "{:?}", run.state);
}

#[tokio::test]
async fn each_credential_reaches_its_own_host_for_the_runs_that_have_it_and_nothing_else() {
    let rig = Rig::start().await;
    let (gantry, api) = (&rig.gantry, &rig.api);
    rig.save("web", of("web", &["BASE.test", "push.test", "unused.test"])).await;
    rig.save("other", json!({})).await;
    let _of_scans = rig.given();
    let everywhere = set(&[
        "base.test web@base.test",
        "base.test:5000 -",
        "open.test -",
        "push.test web@push.test",
        "registry.test home@registry.test",
        // Offered to the build's session, which asks for the hosts of its bases.
        "unused.test web@unused.test",
    ]);
    let anonymously = set(&[
        "base.test -",
        "base.test:5000 -",
        "open.test -",
        "push.test -",
        "registry.test home@registry.test",
    ]);
    let runs_of = |task: &str| format!("/registries/reg/tasks/{task}/runs");

    let run = rig.run(&runs_of("web"), &json!({})).await;
    succeeded(&run);
    assert_eq!(rig.given(), everywhere, "a run of the task");
    for password in ["web@base.test", "web@push.test", "home@registry.test"] {
        assert!(!gantry.log(&run.id.to_string(), 1).await.contains(password));
    }
    let again = rig.run(&format!("/runs/{}/reruns", run.id), &json!({})).await;
    succeeded(&again);
    assert_eq!(rig.given(), everywhere, "a rerun");
    succeeded(&rig.run(&runs_of("other"), &json!({})).await);
    assert_eq!(rig.given(), anonymously, "a run of another task");

    let context = json!({"context": format!("{}#main", gantry.git.url("other"))});
    succeeded(&rig.run(&runs_of("web"), &context).await);
    assert_eq!(rig.given(), anonymously, "another context");
    let context = json!({"context": format!("{}#main", gantry.git.url("web"))});
    succeeded(&rig.run(&runs_of("web"), &context).await);
    assert_eq!(rig.given(), anonymously, "the same context, but named by whoever asks");

    let build = json!({
        "context": format!("{}#main", gantry.git.url("web")),
        "images": ["push.test/team/quick:1"],
        "credentials": of("quick", &["push.test"]),
    });
    succeeded(&rig.run("/registries/reg/builds", &build).await);
    let quick = set(&[
        "base.test -",
        "base.test:5000 -",
        "open.test -",
        "push.test quick@push.test",
        "registry.test home@registry.test",
    ]);
    assert_eq!(rig.given(), quick, "a quick build");

    // Whoever takes the credentials away ends their use.
    let (status, _) = api
        .ask(
            Method::PATCH,
            "/registries/reg/tasks/web",
            &json!({"credentials": {"base.test": null, "push.test": null, "unused.test": null}}),
        )
        .await;
    assert_eq!(status, StatusCode::OK);
    gantry.settle().await;
    succeeded(&rig.run(&runs_of("web"), &json!({})).await);
    assert_eq!(rig.given(), anonymously, "after they were removed");
}

#[tokio::test]
async fn a_pull_request_of_the_repository_has_them_and_a_fork_has_none_not_even_the_registrys() {
    let rig = Rig::start().await;
    let repository = rig.save("web", of("web", &["base.test", "push.test"])).await;
    rig.gantry.providers.open();
    let head = repository.commit("topic", &[("file", "one")]).unwrap();
    for number in [7, 8] {
        let head = format!("HEAD:refs/pull/{number}/head");
        repository.git(&["push", "-q", "-f", "origin", &head]).unwrap();
    }
    let _of_scans = rig.given();
    let url = rig.gantry.git.url("web");
    let own = PullRequest::opened(&url, &head);
    rig.gantry.deliver_pull_request("d1", &own).await;
    rig.gantry.settle().await;
    succeeded(&rig.gantry.run("ca1").await);
    let given = rig.given();
    assert!(given.contains("base.test web@base.test"), "{given:?}");

    let fork = PullRequest { number: 8, head_repository: Some(FORK), ..own };
    rig.gantry.deliver_pull_request("d2", &fork).await;
    rig.gantry.settle().await;
    let run = rig.gantry.run("ca2").await;
    succeeded(&run);
    assert!(run.recipe.logins.is_empty());
    let anonymous = set(&["base.test -", "base.test:5000 -", "open.test -", "registry.test -"]);
    assert_eq!(rig.given(), anonymous);
}

#[tokio::test]
async fn the_watch_of_a_base_asks_with_the_credentials_of_a_task_that_uses_it() {
    let rig = Rig::start().await;
    let tick = async || {
        rig.gantry.clock.advance(Duration::from_secs(2000));
        while rig.gantry.scheduler().watch_images().await.unwrap() {}
        rig.given()
    };
    rig.save("anonymous", json!({})).await;
    let given = tick().await;
    assert!(given.contains("base.test -"), "{given:?}");
    rig.save("web", of("web", &["base.test", "push.test"])).await;
    let given = tick().await;
    let expected = set(&["base.test web@base.test"]);
    // The former watch ends at its next look.
    assert_eq!(&tick().await, &expected, "{given:?}");
    let own: Vec<(String, Option<RunPrefix>)> =
        image_watches::list(rig.gantry.store.as_ref(), None, 9)
            .await
            .unwrap()
            .into_iter()
            .map(|watch| (watch.watched.image.to_string(), watch.watched.by))
            .collect();
    let base = ("base.test/team/base:1".to_owned(), Some(TestPipeline::prefix()));
    assert_eq!(own, [base]);
    let (_, listed) = rig.api.ask(Method::GET, "/images", &json!({})).await;
    let items = listed["items"].as_array().unwrap();
    let shown = items.iter().find(|item| item["image"] == "base.test/team/base:1").unwrap();
    assert_eq!((&shown["credentials_of"], &shown["users"]), (&json!("reg"), &json!(2)), "{shown}");

    let removed = json!({"credentials": {"base.test": null}});
    rig.api.ask(Method::PATCH, "/registries/reg/tasks/web", &removed).await;
    rig.gantry.settle().await;
    tick().await;
    let given = tick().await;
    assert!(
        given.contains("base.test -") && !given.contains("base.test web@base.test"),
        "{given:?}"
    );
}

#[tokio::test]
async fn user_and_password_may_be_secrets_which_are_read_when_the_run_becomes_ready() {
    const VAULT: &str = "https://vault.test/v1/secret/data/base#password";
    let rig = Rig::start().await;
    rig.gantry.vaults.put(VAULT, "vault@base.test");
    rig.gantry.set_secret("base-user", "robot-from-a-secret\n").await;
    let secrets = json!({"base.test": {"username_secret": "base-user", "password_secret": VAULT}});
    rig.save("web", secrets.clone()).await;
    let _of_scans = rig.given();
    let run = rig.run("/registries/reg/tasks/web/runs", &json!({})).await;
    succeeded(&run);
    assert!(rig.given().contains("base.test vault@base.test"));
    rig.gantry.vaults.put(VAULT, "");
    let run = rig.run("/registries/reg/tasks/web/runs", &json!({})).await;
    let error = run.state.done().unwrap().outcome.error().unwrap().clone();
    assert_eq!(error.code, ErrorCode::SecretRefused, "{}", error.message);
    assert!(error.message.contains("neither user nor password for base.test"), "{}", error.message);
    assert_eq!(rig.given(), set(&[]), "nobody was asked");
}

#[tokio::test]
async fn who_may_only_start_runs_chooses_no_image_that_the_credentials_show() {
    let rig = Rig::start().await;
    rig.save("web", of("web", &["base.test"])).await;
    let token = json!({"description": "ci", "scope": "run"});
    let (_, token) = rig.api.ask(Method::POST, "/tokens", &token).await;
    let ci = rig.api.with_token(token["text"].as_str().unwrap());
    let runs = "/registries/reg/tasks/web/runs";
    for chosen in [
        json!({"build_args": {"OF": "base.test/team/secret:1"}}),
        json!({"dockerfile": "Other"}),
        json!({"target": "x"}),
    ] {
        let (status, said) = ci.ask(Method::POST, runs, &chosen).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{chosen}: {said}");
        let said = said["error"]["message"].as_str().unwrap();
        assert!(
            said.contains("credentials for base.test") && said.contains("scope `write`"),
            "{said}"
        );
    }
    let (status, said) = ci.ask(Method::POST, runs, &json!({})).await;
    assert_eq!(status, StatusCode::CREATED, "{said}");
    // A secret of the registry's is not theirs either.
    let build = json!({
        "context": format!("{}#main", rig.gantry.git.url("web")), "push": false,
        "credentials": {"base.test": {"username": "ann", "password_secret": "npm-token"}},
    });
    let (status, said) = ci.ask(Method::POST, "/registries/reg/builds", &build).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{said}");
    // Another context of the task needs the credentials again, or none.
    let context = format!("{}#topic", rig.gantry.git.url("web"));
    let change = json!({"context": context});
    let (status, said) = rig.api.ask(Method::PATCH, "/registries/reg/tasks/web", &change).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{said}");
    assert!(said.to_string().contains("credentials for base.test"), "{said}");
    for credentials in [of("web", &["base.test"]), json!({"base.test": null})] {
        let change = json!({"context": context, "credentials": credentials});
        let (status, said) = rig.api.ask(Method::PATCH, "/registries/reg/tasks/web", &change).await;
        assert_eq!(status, StatusCode::OK, "{said}");
    }
}

#[tokio::test]
async fn wrong_credentials_are_told_with_their_registry_and_never_shown() {
    let rig = Rig::start().await;
    let many: serde_json::Map<String, Value> = (0..33)
        .map(|n| (format!("r{n}.test"), json!({"username": "u", "password": "hunter2"})))
        .collect();
    for (credentials, told) in [
        (json!({"https://ghcr.io": {"username": "u", "password": "hunter2"}}), "without scheme"),
        (
            json!({"ghcr.io": {"username": "u"}}),
            "ghcr.io: give a `password` or a `password_secret`",
        ),
        (json!({"ghcr.io": {"password": "hunter2"}}), "ghcr.io: give a `username`"),
        (json!({"ghcr.io": {"username": "a:b", "password": "hunter2"}}), "ghcr.io: a user has"),
        (json!({"ghcr.io": {"username": "u", "password": ""}}), "ghcr.io: the password is empty"),
        (json!({"ghcr.io": {"username": "u", "password": "hunter2\n"}}), "a line break"),
        (json!({"ghcr.io": {"username": "u", "password_secret": "no name"}}), "secret's name"),
        (
            json!({
                "docker.io": {"username": "u", "password": "hunter2"},
                "index.docker.io": {"username": "u", "password": "hunter2"},
            }),
            "it names docker.io twice",
        ),
        (Value::Object(many), "credentials for 33 registries are given: at most 32"),
    ] {
        let task = json!({
            "name": "web", "context": "https://github.com/octo/web.git#main", "push": false, "credentials": credentials,
        });
        let (status, said) = rig.api.ask(Method::POST, "/registries/reg/tasks", &task).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{said}");
        let said = said.to_string();
        assert!(said.contains(told) && !said.contains("hunter2"), "{said}");
    }
}

/// Helpers of the registry `registry.test`, with this script.
fn helper(gantry: &mut TestPipeline, folder: &tempfile::TempDir, script: &str, lifetime: u64) {
    let program = folder.path().join("helper");
    std::fs::write(&program, format!("#!/bin/sh\ncd {}\n{script}\n", folder.path().display()))
        .unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    gantry.helpers = Arc::new(CredentialHelpers::new(HelperSettings {
        entries: vec![format!("registry.test={}", program.display()).parse().unwrap()],
        lifetime: Duration::from_secs(lifetime),
        ..HelperSettings::default()
    }));
}

#[tokio::test]
async fn a_registrys_helper_is_asked_for_each_run_and_a_run_that_waited_too_long_gets_new_credentials()
 {
    let mut rig = Rig::start().await;
    rig.save("web", json!({})).await;
    let folder = tempfile::tempdir().unwrap();
    let script = r#"echo >> asked; echo "{\"Username\":\"AWS\",\"Secret\":\"token-$(wc -l < asked)@registry.test\"}""#;
    // A run takes an hour at most, so what was given before is never good enough.
    helper(&mut rig.gantry, &folder, script, 3600);
    let uses_helper = json!({"credential_helper": true});
    let (status, said) = rig.api.ask(Method::PATCH, "/registries/reg", &uses_helper).await;
    assert_eq!((status, &said["credential_helper"]), (StatusCode::OK, &json!(true)), "{said}");
    assert_eq!(said["username"], Value::Null, "the former credentials are gone");
    let runs_of_web = "/registries/reg/tasks/web/runs";
    let _before = rig.given();
    succeeded(&rig.run(runs_of_web, &json!({})).await);
    assert!(rig.given().contains("registry.test token-1@registry.test"));

    let (status, run) = rig.api.ask(Method::POST, runs_of_web, &json!({})).await;
    assert_eq!(status, StatusCode::CREATED);
    let id = run["id"].as_str().unwrap();
    let scheduler = rig.gantry.scheduler();
    while !matches!(rig.gantry.run(id).await.state, RunState::Ready { .. }) {
        scheduler.tick().await.unwrap();
    }
    rig.gantry.clock.advance(Duration::from_secs(1801));
    rig.gantry.settle().await;
    let run = rig.gantry.run(id).await;
    succeeded(&run);
    let given = rig.given();
    assert!(given.contains("registry.test token-3@registry.test"), "{given:?}");
    assert!(!given.contains("registry.test token-2@registry.test"), "{given:?}");
}

#[tokio::test]
async fn a_helper_that_fails_holds_its_runs_and_one_without_credentials_ends_them() {
    let mut rig = Rig::start().await;
    rig.save("web", json!({})).await;
    let uses_helper = json!({"credential_helper": true});
    rig.api.ask(Method::PATCH, "/registries/reg", &uses_helper).await;
    let runs_of_web = "/registries/reg/tasks/web/runs";
    let unnamed = rig.run(runs_of_web, &json!({})).await;
    let error = unnamed.state.done().unwrap().outcome.error().unwrap().clone();
    assert_eq!((unnamed.status(), error.code), (RunStatus::Error, ErrorCode::RegistryUnauthorized));
    assert!(
        error.message.contains("no credential helper is named for registry.test"),
        "{}",
        error.message
    );

    let folder = tempfile::tempdir().unwrap();
    helper(&mut rig.gantry, &folder, "echo 'the cloud is away' >&2; exit 1", 3600);
    let waiting = rig.run(runs_of_web, &json!({})).await;
    let RunState::Waiting { reason: WaitReason::VaultAway { error, .. }, .. } = &waiting.state
    else {
        panic!("{:?}", waiting.state)
    };
    assert!(
        error.contains("failed for registry.test (exit status: 1): the cloud is away"),
        "{error}"
    );

    helper(
        &mut rig.gantry,
        &folder,
        "echo 'credentials not found in native keychain'; exit 1",
        3600,
    );
    rig.gantry.clock.advance(Duration::from_secs(60));
    rig.gantry.settle().await;
    let ended = rig.gantry.run(&waiting.id.to_string()).await;
    let error = ended.state.done().unwrap().outcome.error().unwrap().clone();
    assert!(error.message.contains("has no credentials for registry.test"), "{}", error.message);
}
