//! The API, as people and programs use it.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use gantry_api as types;
use gantry_domain::recipe::Work;
use gantry_domain::run::{CanceledBy, ErrorCode, Outcome, RunError, RunStatus};
use gantry_ingress::IngressSettings;
use gantry_seams::store::{Batch, Key, Kind};
use gantry_seams::{runs, tasks, uploads};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::rig::{Answer, TestServer, within};

fn task(name: &str) -> Value {
    json!({
        "name": name,
        "context": "https://github.com/octo/hello.git#main:app",
        "images": ["hello:{{.Run.ID}}", "hello:latest"],
        "build_args": {"VERSION": "1"},
        "secret_build_args": {"NPM_TOKEN": "npm-hunter2"},
        "git_token": "ghp-hunter2",
        "source_trigger": {},
    })
}

#[tokio::test]
async fn secrets_are_accepted_and_never_returned() {
    let server = TestServer::with_registry().await;
    let body = json!({"credentials": {"username": "ci", "password": "registry-hunter2"}});
    let patched = server.patch("/registries/contoso", body).await;
    assert_eq!(patched.json()["username"], "ci");
    let created = server.post("/registries/contoso/tasks", task("web")).await;
    let run = server.post("/registries/contoso/tasks/web/runs", json!({})).await;
    let id = run.json()["id"].as_str().unwrap().to_owned();
    for answer in [
        patched,
        created,
        run,
        server.get("/registries").await,
        server.get("/tasks").await,
        server.get("/registries/contoso/tasks/web").await,
        server.get(&format!("/runs/{id}")).await,
    ] {
        assert!(answer.status.is_success(), "{}", answer.text);
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    }
    let shown = server.get("/registries/contoso/tasks/web").await.json();
    assert_eq!(shown["secret_build_args"], json!(["NPM_TOKEN"]));
    assert_eq!(shown["has_git_token"], true);
}

#[tokio::test]
async fn all_mistakes_of_a_task_are_reported_at_once() {
    let server = TestServer::with_registry().await;
    let body = json!({
        "name": "x",
        "context": "https://user:pw@github.com/octo/hello.git",
        "dockerfile": "../Dockerfile",
        "images": ["web:{{.Run.Idd}}", "WEB:1"],
        "build_args": {"1A": "x"},
        "platform": "plan9",
        "timeout": 0,
        "status": "on",
        "source_trigger": {"branch": "a b"},
        "run_limit": 0,
    });
    let refused = server.post("/registries/contoso/tasks", body).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let error = refused.json();
    insta::assert_snapshot!(error["error"]["message"].as_str().unwrap(), @r"
    name: `x` is no task name: 2 to 50 letters, digits, `-` or `_`, beginning with a letter or digit
    context: `https://…@github.com/octo/hello.git` is no git URL: remove what stands before `@` in the address, and give the token with `--git-access-token`
    dockerfile: `../Dockerfile` is no path in a source: relative, without `..`, empty words or control characters, at most 1024 characters
    images: `web:{{.Run.Idd}}` is no template: the run variables are .Run.ID, .Run.Registry, .Run.RegistryName, .Run.Date, .Run.OS, .Run.Architecture, .Run.Commit, .Run.Branch, .Run.TaskName, .Run.Timer, .Run.TimerDue
    images: `WEB:1`: `WEB` is no repository: words of lower-case letters and digits, with `.`, `_`, `__` or dashes between them, separated by `/`, at most 255 characters
    build_args: `1A` is no build argument's name: letters, digits and `_`, not beginning with a digit, at most 200 characters
    platform: `plan9` is no platform: `linux[/architecture[/variant]]` or `windows/amd64`
    timeout: `0` is no timeout: 1 to 28800 seconds
    status: `on` is no status: `Enabled` or `Disabled`
    source_trigger.branch: `a b` is no git reference: a branch, tag or commit by git's rules for names: no space, `..`, `~^:?*[\`, `@{`, no leading `-`
    run_limit: 0 is no limit: at least 1; to stop runs, disable the task
    ");
    assert!(!refused.text.contains("pw"), "{}", refused.text);

    let body = json!({"name": "web", "context": "https://files.test/a.tar.gz", "source_trigger": {}, "git_token": "t", "api_token": "t"});
    let refused = server.post("/registries/contoso/tasks", body).await.json();
    insta::assert_snapshot!(refused["error"]["message"].as_str().unwrap(), @r"
    images: name at least one image to push, or set `push` to false
    source_trigger: a source trigger needs a git repository as context, like `https://host/repository.git`
    git_token: a git token needs a git repository as context, like `https://host/repository.git`
    api_token: a token for a code host needs a git repository as context, like `https://host/repository.git`
    ");
    let misspelt = json!({"name": "web", "context": "https://git.test/a.git", "image": ["a"]});
    let refused = server.post("/registries/contoso/tasks", misspelt).await;
    assert!(refused.text.contains("unknown field `image`"), "{}", refused.text);
}

#[tokio::test]
async fn a_context_without_a_branch_has_no_source_trigger() {
    let server = TestServer::with_registry().await;
    let commit = "4f2a".repeat(10);
    for (number, reference) in
        ["refs/tags/v1", "tags/v1", &commit, "refs/pull/7/head", "pull/7/head"].iter().enumerate()
    {
        let mut body = task(&format!("t{number}"));
        body["context"] = format!("https://github.com/octo/hello.git#{reference}").into();
        body["images"] = json!(["hello:{{.Run.ID}}"]);
        let refused = server.post("/registries/contoso/tasks", body.clone()).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{reference}: {}", refused.text);
        assert!(refused.text.contains("--commit-trigger-enabled false"), "{}", refused.text);
        body["source_trigger"] = json!({"branch": "refs/tags/v1"});
        let refused = server.post("/registries/contoso/tasks", body.clone()).await;
        assert!(refused.text.contains("names a tag, which no push moves"), "{}", refused.text);
        body["source_trigger"] = json!({"commit": {"status": "Disabled"}});
        server.post("/registries/contoso/tasks", body).await.expect(StatusCode::CREATED);
    }
    for (number, reference) in ["HEAD", "heads/main", "refs/heads/main"].iter().enumerate() {
        let mut body = task(&format!("b{number}"));
        body["context"] = format!("https://github.com/octo/hello.git#{reference}").into();
        server.post("/registries/contoso/tasks", body).await.expect(StatusCode::CREATED);
        let change = json!({"context": "https://github.com/octo/hello.git#tags/v1"});
        let refused = server.patch(&format!("/registries/contoso/tasks/b{number}"), change).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
    }
}

#[tokio::test]
async fn requests_that_must_fail_are_refused() {
    let server = TestServer::with_registry().await;
    let long = "a".repeat(240);
    let tag = "x".repeat(120);
    for (field, value, words) in [
        ("target", json!("-x"), "`-x` is no stage"),
        ("target", json!("1a"), "`1a` is no stage"),
        ("platform", json!("linux/vax"), "`linux/vax` is no platform"),
        ("dockerfile", json!("../Dockerfile"), "no path in a source"),
        ("dockerfile", json!("/etc/Dockerfile"), "no path in a source"),
        ("images", json!([format!("{long}/{long}:1")]), "at most 255 characters"),
        ("images", json!([format!("contoso.azurecr.io/{long}:1")]), "together"),
        ("images", json!([format!("web:{tag}{{{{.Run.ID}}}}")]), "1 to 128"),
        ("images", json!(["web..x:1"]), "`web..x` is no repository"),
        ("images", json!(["a_b.example/web:1"]), "is no registry host"),
        ("images", json!(["web@sha256:12"]), "is no digest"),
        ("build_args", json!({"A-B": "hunter2"}), "`A-B` is no build argument's name"),
        (
            "build_args",
            json!({"A": "hunter2{{.Run.Idd}}"}),
            "`A`: `{{.Run.Idd}}` is no run variable",
        ),
        ("build_args", json!({"A": "hunter2".repeat(20_000)}), "`A`: the value has 140000 bytes"),
        ("build_args", json!({"A": "hunter2\0"}), "`A`: the value contains a NUL"),
        ("build_args", json!({"BUILDKIT_SYNTAX": "hunter2"}), "`BUILDKIT_SYNTAX` is set by gantry"),
        (
            "secret_build_args",
            json!({"A": "hunter2".repeat(10_000)}),
            "`A`: the secret has 70000 bytes",
        ),
        ("secret_build_args", json!({"A": "hunter2\0"}), "`A`: the secret contains a NUL"),
    ] {
        let mut build = json!({"context": "https://github.com/octo/hello.git", "push": false});
        build[field] = value.clone();
        let mut saved = task("web");
        saved[field] = value;
        for refused in [
            server.post("/registries/contoso/builds", build).await,
            server.post("/registries/contoso/tasks", saved).await,
        ] {
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{words}: {}", refused.text);
            assert_eq!(refused.json()["error"]["target"], field, "{}", refused.text);
            assert!(refused.text.contains(words), "{words}: {}", refused.text);
            assert!(!refused.text.contains("hunter2"), "{}", refused.text);
            assert!(!refused.text.contains("at least one image"), "{}", refused.text);
        }
    }
}

#[tokio::test]
async fn an_always_empty_variable_in_an_image_name_is_reported() {
    let server = TestServer::with_registry().await;
    for (context, image, words) in [
        (
            "https://a.example/x.tar.gz",
            "web:{{.Run.Commit}}",
            "`{{.Run.Commit}}` is empty in a build of no git repository",
        ),
        (
            "https://a.example/x.tar.gz",
            "web:{{.Run.Branch}}",
            "`{{.Run.Branch}}` is empty in a build of no branch",
        ),
        (
            "https://a.example/x.git#tags/v1",
            "web:{{.Run.Branch}}",
            "`{{.Run.Branch}}` is empty in a build of no branch",
        ),
        (
            "https://a.example/x.git",
            "{{.Run.TaskName}}:1",
            "`{{.Run.TaskName}}` is empty in a build without a task",
        ),
    ] {
        let body = json!({"context": context, "images": [image], "push": true});
        let refused = server.post("/registries/contoso/builds", body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
        assert!(refused.text.contains(words), "{words}: {}", refused.text);
    }
    let body = json!({"context": "https://a.example/x.tar.gz", "images": ["web:v{{.Run.Commit}}"]});
    server.post("/registries/contoso/builds", body).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn a_task_is_created_changed_and_removed() {
    let server = TestServer::with_registry().await;
    let created = server.post("/registries/contoso/tasks", task("web")).await;
    let created: types::Task = serde_json::from_value(created.expect(StatusCode::CREATED)).unwrap();
    assert_eq!((created.revision, created.timeout), (1, 3600));
    let rung = within(server.queues.events.claim()).await.unwrap().unwrap();
    let event = rung.message().event.as_str();
    assert!(event.starts_with("task:contoso/web:") && event.ends_with(":1"), "{event}");
    let again = server.post("/registries/contoso/tasks", task("web")).await;
    assert_eq!((again.status, again.code()), (StatusCode::CONFLICT, "exists".to_owned()));

    let path = "/registries/contoso/tasks/web";
    let change = json!({"timeout": 600, "source_trigger": null, "target": "final"});
    let changed = server.patch(path, change.clone()).await.expect(StatusCode::OK);
    assert_eq!(changed["revision"], 2);
    assert_eq!((&changed["timeout"], &changed["target"]), (&json!(600), &json!("final")));
    assert_eq!(changed.get("source_trigger"), None);
    assert_eq!(changed["has_git_token"], true);
    assert_eq!(changed.get("webhook"), None, "without a source trigger it needs none");
    let same = server.patch(path, change).await.expect(StatusCode::OK);
    assert_eq!(same["revision"], 2);
    assert_eq!((&same["report_status"], &same["has_api_token"]), (&json!(true), &json!(false)));
    let silent = json!({"report_status": false, "api_token": "ghs-hunter2"});
    let silent = server.patch(path, silent).await.expect(StatusCode::OK);
    assert_eq!((&silent["report_status"], &silent["has_api_token"]), (&json!(false), &json!(true)));
    assert!(!silent.to_string().contains("hunter2"), "{silent}");

    // A token is valid only for the repository with which it was given.
    let moved = json!({
        "context": "https://elsewhere.test/octo/hello.git",
        "secret_build_args": {"NPM_TOKEN": "again"},
    });
    let moved = server.patch(path, moved).await.expect(StatusCode::OK);
    assert_eq!((&moved["has_git_token"], &moved["has_api_token"]), (&json!(false), &json!(false)));

    let in_use = server.delete("/registries/contoso").await;
    assert_eq!((in_use.status, in_use.code()), (StatusCode::CONFLICT, "in_use".to_owned()));
    server.delete(path).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(server.get(path).await.status, StatusCode::NOT_FOUND);
    server.delete("/registries/contoso").await.expect(StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_run_of_a_task_has_the_requested_overrides() {
    let server = TestServer::with_registry().await;
    server.post("/registries/contoso/tasks", task("web")).await.expect(StatusCode::CREATED);
    let path = "/registries/contoso/tasks/web/runs";
    let over = json!({
        "context": "https://github.com/octo/hello.git#next",
        "dockerfile": "Dockerfile.next",
        "build_args": {"VERSION": "2", "EXTRA": "x"},
        "secret_build_args": {"OTHER": "y"},
        "target": "test",
    });
    let run = server.post(path, over).await.expect(StatusCode::CREATED);
    assert_eq!(run["task"], "web");
    let id = run["id"].as_str().unwrap().parse().unwrap();
    let run = runs::find(server.store.as_ref(), id).await.unwrap().unwrap();
    assert_eq!(run.recipe.source.to_string(), "https://github.com/octo/hello.git#next");
    let Work::Build(build) = &run.recipe.work else { panic!("it is a build") };
    assert_eq!(build.dockerfile.as_str(), "Dockerfile.next");
    assert_eq!(build.target.as_ref().unwrap().as_str(), "test");
    let args: Vec<String> =
        build.build_args.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(args, ["EXTRA=x", "VERSION=2"]);
    assert_eq!(build.secret_build_args.len(), 2);
    assert!(run.git_token.is_some());
    let misspelt = server.post(path, json!({"tarjet": "x"})).await;
    assert_eq!(misspelt.status, StatusCode::BAD_REQUEST);
    let unchanged = tasks::find(server.store.as_ref(), &run.task_id().unwrap()).await.unwrap();
    assert_eq!(unchanged.unwrap().revision, 1);
}

#[tokio::test]
async fn a_repeated_idempotency_key_starts_nothing() {
    let server = TestServer::with_registry().await;
    let build = json!({"context": "https://git.test/a.git", "images": ["a:1"]});
    let start = |token: &str, key: &str| {
        let request = server.api(Method::POST, "/registries/contoso/builds").bearer_auth(token);
        Answer::of(request.header("idempotency-key", key).json(&build))
    };
    let answers = join_all((0..50).map(|_| start(&server.admin, "k-1"))).await;
    let ids: BTreeSet<String> =
        answers.iter().map(|answer| answer.json()["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 1);
    let new = answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count();
    assert_eq!(new, 1);
    let repeat = answers.iter().find(|answer| answer.status == StatusCode::OK).unwrap();
    assert_eq!(repeat.headers["idempotent-replayed"], "true");

    // The same key from another token is another key.
    let other = start(&server.token("run", None).await, "k-1").await.expect(StatusCode::CREATED);
    assert!(!ids.contains(other["id"].as_str().unwrap()));
    assert_eq!(start(&server.admin, "not a key").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_queued_run_explains_its_wait_and_can_be_cancelled() {
    let server = TestServer::with_registry().await;
    let build =
        json!({"context": "https://git.test/a.git", "images": ["a:1"], "platform": "linux/arm64"});
    let run = server.post("/registries/contoso/builds", build).await.expect(StatusCode::CREATED);
    assert_eq!((&run["id"], &run["status"]), (&json!("ca1"), &json!("Queued")));
    assert_eq!((&run["run_type"], &run["trigger"]), (&json!("QuickBuild"), &json!("Manual")));
    assert_eq!(run["waits_for"], "its turn");
    let rung = within(server.queues.runs.claim()).await.unwrap().unwrap();
    assert_eq!(rung.message().run.to_string(), "ca1");

    let id = "ca1".parse().unwrap();
    let limits = runs::Limits { registry: 1, task: None };
    runs::ready(server.store.as_ref(), id, &"linux-arm64".parse().unwrap(), None, limits)
        .await
        .unwrap();
    let run = server.get("/runs/ca1").await.json();
    insta::assert_snapshot!(run["waits_for"].as_str().unwrap(), @"a worker of pool linux-arm64: there is no worker in pool linux-arm64: start one with `gantry worker --pool linux-arm64`");
    let status = server.get("/status").await.json();
    assert_eq!(status["oldest_waiting"]["run"], "ca1");
    assert_eq!(status["oldest_waiting"]["waits_for"], run["waits_for"]);
    assert_eq!(status["ok"], false);

    let mut cancels = server.queues.control.listen().await.unwrap();
    let cancelled = server.post("/runs/ca1/cancel", json!({})).await.expect(StatusCode::OK);
    assert_eq!(cancelled["status"], "Canceled");
    assert_eq!(cancelled["cancel_asked"]["by"], "token admin");
    assert_eq!(within(cancels.next()).await.unwrap().run, id);
    let archived = server.patch("/runs/ca1", json!({"archived": true})).await;
    assert_eq!(archived.expect(StatusCode::OK)["archived"], true);

    let rerun = server.post("/runs/ca1/reruns", json!({})).await.expect(StatusCode::CREATED);
    assert_eq!((&rerun["id"], &rerun["cause"]), (&json!("ca2"), &json!("rerun of ca1")));
    assert_eq!(server.get("/runs/ca3").await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/runs/nonsense").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_tampered_run_cannot_be_rerun() {
    let server = TestServer::with_registry().await;
    let build = json!({"context": "https://git.test/a.git", "images": ["a:1"]});
    server.post("/registries/contoso/builds", build).await.expect(StatusCode::CREATED);
    let key = Key::new(Kind::Run, "ca1");
    let found =
        server.store.load(std::slice::from_ref(&key)).await.unwrap().pop().flatten().unwrap();
    let mut run: Value = serde_json::from_slice(&found.bytes).unwrap();
    run["recipe"]["work"]["build"]["dockerfile"] = json!("Evil");
    let mut batch = Batch::default();
    batch.put(key, run.to_string());
    server.store.commit(batch).await.unwrap();
    let refused = server.post("/runs/ca1/reruns", json!({})).await.expect(StatusCode::CONFLICT);
    assert_eq!(refused["error"]["code"], "run_unsigned");
    assert_eq!(server.get("/runs/ca2").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn refused_credentials_are_reported_until_a_run_gets_further() {
    let server = TestServer::with_registry().await;
    for (id, code) in [("ca1", ErrorCode::RegistryUnauthorized), ("ca2", ErrorCode::Internal)] {
        let build = json!({"context": "https://git.test/a.git", "images": ["a:1"]});
        server.post("/registries/contoso/builds", build).await.expect(StatusCode::CREATED);
        let message = "registry.test refused access".to_owned();
        let error = RunError { code, step: None, exit_code: None, message };
        runs::give_up(server.store.as_ref(), id.parse().unwrap(), Outcome::Error { error })
            .await
            .unwrap();
        let told = server.get("/status").await.json()["failing_credentials"].clone();
        if id == "ca1" {
            assert_eq!((&told[0]["run"], &told[0]["registry"]), (&json!("ca1"), &json!("contoso")));
        } else {
            assert_eq!(told, json!([]));
        }
    }
}

#[tokio::test]
async fn runs_are_filtered_and_paged_newest_first() {
    let server = TestServer::with_registry().await;
    server.create_registry("fabrikam").await;
    server.post("/registries/contoso/tasks", task("web")).await.expect(StatusCode::CREATED);
    let mut newest_first = Vec::new();
    for n in 0..12 {
        let (path, body) = match n % 3 {
            0 => ("/registries/contoso/tasks/web/runs", json!({})),
            1 => (
                "/registries/contoso/builds",
                json!({"context": "https://git.test/a.git", "push": false}),
            ),
            _ => (
                "/registries/fabrikam/builds",
                json!({"context": "https://git.test/a.git", "push": false}),
            ),
        };
        let run = server.post(path, body).await.expect(StatusCode::CREATED);
        newest_first.insert(0, run["id"].as_str().unwrap().to_owned());
        // Runs of the same millisecond would be ordered by id.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let by = CanceledBy::Token { token: "admin".parse().unwrap() };
    runs::cancel(server.store.as_ref(), "ca1".parse().unwrap(), &by).await.unwrap();
    let both = server.token("read", Some(&["contoso", "fabrikam"])).await;
    for (query, token, expected) in [
        ("", &server.admin, 12),
        ("", &both, 12),
        ("registry=contoso", &server.admin, 8),
        ("registry=contoso&task=web", &server.admin, 4),
        ("status=canceled", &server.admin, 1),
        ("status=Queued", &both, 11),
        ("image=nothing", &server.admin, 0),
    ] {
        let mut seen = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!("/runs?{query}&limit=5{after}");
            let page = Answer::of(server.api(Method::GET, &path).bearer_auth(token)).await;
            let page: types::Page<types::Run> =
                serde_json::from_value(page.expect(StatusCode::OK)).unwrap();
            seen.extend(page.items);
            match page.next {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        let seen: Vec<String> = seen.into_iter().map(|run| run.id).collect();
        let mut in_order = newest_first.clone();
        in_order.retain(|id| seen.contains(id));
        assert_eq!(seen, in_order, "{query}");
        assert_eq!(seen.len(), expected, "{query}");
    }
    let wrong = server.get("/runs?status=lost").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(RunStatus::ALL.iter().all(|status| wrong.text.contains(status.as_str())));
}

#[tokio::test]
async fn uploads_of_one_registry_are_limited() {
    let settings = IngressSettings { uploads_limit: 64 << 20, ..IngressSettings::default() };
    let server = TestServer::open_with(settings, false).await;
    server.create_registry("contoso").await;
    server.create_registry("fabrikam").await;
    let token = server.token("run", Some(&["contoso"])).await;
    let archive = [&[0x1f, 0x8b][..], &[0; 1000]].concat();
    let send = async |token: &str, registry: &str| {
        let request = server.api(Method::POST, &format!("/registries/{registry}/uploads"));
        Answer::of(request.bearer_auth(token).body(archive.clone())).await
    };
    let first = send(&token, "contoso").await.expect(StatusCode::CREATED);
    // Uploads in progress count too, and return what they do not need.
    let kept =
        uploads::Kept { registry: "contoso".parse().unwrap(), id: "coming".parse().unwrap() };
    let (store, now) = (server.store.as_ref(), server.store.now().await.unwrap());
    uploads::announce(store, &kept, 64 << 20, now).await.unwrap();
    let refused = send(&token, "contoso").await;
    assert_eq!((refused.status, refused.code()), (StatusCode::CONFLICT, "uploads_full".to_owned()));
    assert!(refused.text.contains("limits.uploads"), "{}", refused.text);
    send(&server.admin, "fabrikam").await.expect(StatusCode::CREATED);
    assert_eq!(uploads::bytes_of(store, &kept.registry).await.unwrap(), (64 << 20) + 1002);
    uploads::delete(store, &kept).await.unwrap();

    let path = format!("/registries/contoso/uploads/{}", first["id"].as_str().unwrap());
    let other = server.token("run", Some(&["fabrikam"])).await;
    let delete = async |token: &str| {
        Answer::of(server.api(Method::DELETE, &path).bearer_auth(token)).await.status
    };
    assert_eq!(delete(&other).await, StatusCode::NOT_FOUND);
    assert_eq!(delete(&token).await, StatusCode::NO_CONTENT);
    assert_eq!(delete(&token).await, StatusCode::NOT_FOUND);
    assert_eq!(uploads::bytes_of(store, &kept.registry).await.unwrap(), 0);
    send(&token, "contoso").await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn uploads_are_refused_when_the_disk_fills_up() {
    let settings = IngressSettings { min_free: u64::MAX, ..IngressSettings::default() };
    let server = TestServer::open_with(settings, false).await;
    server.create_registry("contoso").await;
    let request =
        server.api(Method::POST, "/registries/contoso/uploads").bearer_auth(&server.admin);
    let refused = Answer::of(request.body([&[0x1f, 0x8b][..], &[0; 1000]].concat())).await;
    assert_eq!(
        (refused.status, refused.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "objects_full".to_owned())
    );
    assert!(refused.text.contains("lower `objects.min_free`"), "{}", refused.text);
}

#[tokio::test]
async fn an_upload_is_only_usable_in_its_registry() {
    let settings = IngressSettings { upload_limit: 1_000_000, ..IngressSettings::default() };
    let server = TestServer::open_with(settings, false).await;
    server.create_registry("contoso").await;
    server.create_registry("fabrikam").await;
    let send = |bytes: Vec<u8>| {
        let request = server.api(Method::POST, "/registries/contoso/uploads");
        Answer::of(request.bearer_auth(&server.admin).body(bytes))
    };
    let mut archive = vec![0x1f, 0x8b];
    archive.resize(700_000, 7);
    let upload = send(archive.clone()).await.expect(StatusCode::CREATED);
    assert_eq!(upload["bytes"], 700_000);
    let id = upload["id"].as_str().unwrap();
    let stored = server.blobs.get(&uploads::blob_path(&id.parse().unwrap())).await.unwrap();
    assert_eq!(stored, archive);
    let mut tar = vec![0; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    send(tar).await.expect(StatusCode::CREATED);

    assert_eq!(send(b"PK..".to_vec()).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(send(Vec::new()).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    archive.resize(1_000_001, 7);
    assert_eq!(send(archive).await.status, StatusCode::PAYLOAD_TOO_LARGE);

    let build = json!({"upload": id, "images": ["a:1"]});
    let run = server.post("/registries/contoso/builds", build.clone()).await;
    assert_eq!(run.expect(StatusCode::CREATED)["source"], format!("upload {id}"));
    let foreign = server.post("/registries/fabrikam/builds", build).await;
    assert_eq!(foreign.status, StatusCode::BAD_REQUEST);
    for body in [
        json!({"images": ["a:1"]}),
        json!({"upload": id, "context": "https://git.test/a.git", "images": ["a:1"]}),
    ] {
        let refused = server.post("/registries/contoso/builds", body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn an_upload_without_length_is_limited_while_it_arrives() {
    let settings = IngressSettings { upload_limit: 100_000, ..IngressSettings::default() };
    let server = TestServer::open_with(settings, false).await;
    server.create_registry("contoso").await;
    let pieces = futures_util::stream::iter(
        (0..64).map(|_| Ok::<_, std::io::Error>([0x1f_u8, 0x8b].repeat(5_000))),
    );
    let request =
        server.api(Method::POST, "/registries/contoso/uploads").bearer_auth(&server.admin);
    match request.body(reqwest::Body::wrap_stream(pieces)).send().await {
        Ok(answer) => assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE),
        // The server may close the connection while the sender still writes.
        Err(error) => assert!(error.is_request(), "{error}"),
    }
}

#[tokio::test]
async fn the_document_has_every_route_and_every_error_one_shape() {
    let server = TestServer::open().await;
    let document = server.client.get(format!("{}/api/v1/openapi.json", server.url)).send().await;
    let document: Value = document.unwrap().json().await.unwrap();
    let listed = include_str!("../../src/api/mod.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `"))
        .flat_map(|line| line.split(" | ").next().unwrap().split("`, `"));
    let mut listed_routes = BTreeSet::new();
    for entry in listed {
        let entry = entry.trim_matches('`');
        let (methods, path) = entry.rsplit_once(' ').unwrap();
        let path = path.split('?').next().unwrap();
        for method in methods.split(' ') {
            listed_routes.insert(format!("{} {path}", method.to_lowercase()));
        }
    }
    listed_routes.remove("get /openapi.json");
    let mut documented = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let path = path.strip_prefix("/api/v1").unwrap();
            documented.insert(format!("{method} {}", path.replace("{event:.*}", "{event}")));
        }
    }
    assert_eq!(documented, listed_routes);
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name} is not described");
    }

    for (method, path) in
        [(Method::GET, "/nothing"), (Method::PUT, "/registries"), (Method::POST, "/registries")]
    {
        let request = server.api(method, path).bearer_auth(&server.admin).body("{");
        let answer = Answer::of(request.header("content-type", "application/json")).await;
        assert!(answer.status.is_client_error());
        assert!(!answer.code().is_empty(), "{path}: {}", answer.text);
    }
    for path in ["healthz", "readyz"] {
        let answer = server.client.get(format!("{}/{path}", server.url)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
}
