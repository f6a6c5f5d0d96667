//! Attempts by the holder of a token to get more than it allows.

use gantry_domain::recipe::{Recipe, Work};
use gantry_domain::registry::Registry;
use gantry_domain::run::Run;
use gantry_domain::sealed::Sealed;
use gantry_ops::secret::ExposeSecret as _;
use gantry_seams::{runs, tasks};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::rig::{Answer, TestServer};

const RUNS: &str = "/registries/contoso/tasks/web/runs";
const TASK: &str = "/registries/contoso/tasks/web";

/// A server with a task that has a secret build argument and a git token.
async fn with_task() -> TestServer {
    let server = TestServer::with_registry().await;
    let task = json!({
        "name": "web",
        "context": "https://github.com/octo/hello.git#main:app",
        "images": ["hello:{{.Run.ID}}"],
        "build_args": {"BASE": "alpine"},
        "secret_build_args": {"NPM_TOKEN": "npm-hunter2"},
        "git_token": "ghp-hunter2",
        "source_trigger": {},
    });
    server.post("/registries/contoso/tasks", task).await.expect(StatusCode::CREATED);
    server
}

async fn send(
    server: &TestServer,
    token: &str,
    method: Method,
    path: &str,
    body: &Value,
) -> Answer {
    Answer::of(server.api(method, path).bearer_auth(token).json(body)).await
}

async fn started(server: &TestServer, answer: Answer) -> Run {
    let run = answer.expect(StatusCode::CREATED);
    let id = run["id"].as_str().unwrap().parse().unwrap();
    runs::find(server.store.as_ref(), id).await.unwrap().unwrap()
}

fn secret(recipe: &Recipe) -> Sealed {
    let Work::Build(build) = &recipe.work else { panic!("it is a build") };
    build.secret_build_args[&"NPM_TOKEN".parse().unwrap()].clone()
}

async fn stored_secret(server: &TestServer) -> Sealed {
    let id = "contoso/web".parse().unwrap();
    let task = tasks::find(server.store.as_ref(), &id).await.unwrap().unwrap();
    secret(&task.recipe)
}

fn message(answer: &Answer) -> String {
    answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn whoever_may_only_start_runs_chooses_no_code_that_sees_the_task_s_secrets() {
    let server = with_task().await;
    let upload = gantry_seams::uploads::Upload {
        id: "u1".parse().unwrap(),
        registry: "contoso".parse().unwrap(),
        by: "t1".parse().unwrap(),
        bytes: 1,
        digest: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
        created: server.store.now().await.unwrap(),
    };
    gantry_seams::uploads::create(server.store.as_ref(), &upload).await.unwrap();
    let attacks = [
        ("`context`", json!({"context": "https://evil.test/octo/hello.git"})),
        ("`context`", json!({"context": "http://github.com/octo/hello.git#main:app"})),
        ("`context`", json!({"context": "https://github.com/octo/hello.git#pull/7/head"})),
        ("`context`", json!({"context": "https://github.com/octo/hello.git#refs/pull/7/merge"})),
        ("`context`", json!({"context": "https://github.com/octo/hello.git#main:evil"})),
        ("`context`", json!({"context": "https://files.test/evil.tar.gz"})),
        ("`upload`", json!({"upload": "u1"})),
        ("`dockerfile`", json!({"dockerfile": "evil/Dockerfile"})),
        ("`build_args`", json!({"build_args": {"BASE": "evil/onbuild"}})),
        ("`secret_build_args`", json!({"secret_build_args": {"BASE": "evil/onbuild"}})),
        ("`target`", json!({"target": "print-secrets"})),
    ];
    for token in [server.token("run", None).await, server.token("run", Some(&["contoso"])).await] {
        for (field, attack) in &attacks {
            let refused = send(&server, &token, Method::POST, RUNS, attack).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{attack}");
            assert!(message(&refused).contains(field), "{}", refused.text);
        }
        let refused = send(&server, &token, Method::POST, RUNS, &attacks[8].1).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(message(&refused), @"task `contoso/web` has secrets (NPM_TOKEN), and `build_args` may choose other code, which would see them: this needs a token of scope `write`, or the secrets given again with this request");
        }

        // The task can be started unchanged, or with any change if the request brings its own secrets.
        let run =
            started(&server, send(&server, &token, Method::POST, RUNS, &json!({})).await).await;
        let Work::Build(build) = &run.recipe.work else { panic!("it is a build") };
        assert_eq!(build.secret_build_args.len(), 1);
        let own = json!({
            "context": "https://github.com/octo/hello.git#next",
            "secret_build_args": {"NPM_TOKEN": "mine"},
        });
        let run = started(&server, send(&server, &token, Method::POST, RUNS, &own).await).await;
        assert_ne!(secret(&run.recipe), stored_secret(&server).await);
    }
}

#[tokio::test]
async fn a_run_of_a_task_without_secrets_may_differ_for_whoever_starts_it() {
    let server = with_task().await;
    let none = json!({"secret_build_args": {}});
    server.patch(TASK, none).await.expect(StatusCode::OK);
    let token = server.token("run", None).await;
    let differs = json!({"target": "test", "build_args": {"BASE": "debian"}});
    started(&server, send(&server, &token, Method::POST, RUNS, &differs).await).await;
    // The git token is only for the task's repository, by its exact address.
    for context in ["https://evil.test/octo/hello.git", "http://github.com/octo/hello.git"] {
        let elsewhere = json!({"context": context});
        let run =
            started(&server, send(&server, &token, Method::POST, RUNS, &elsewhere).await).await;
        assert_eq!(run.git_token, None);
    }
}

#[tokio::test]
async fn another_context_gets_only_the_callers_secrets() {
    let server = with_task().await;
    let token = server.token("write", Some(&["contoso"])).await;
    let elsewhere = json!({"context": "https://evil.test/octo/hello.git"});
    let refused = send(&server, &token, Method::POST, RUNS, &elsewhere).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    insta::assert_snapshot!(message(&refused), @"task `contoso/web` has secrets (NPM_TOKEN), which another repository or archive must not see: give them again with this request");
    let again = json!({
        "context": "https://evil.test/octo/hello.git",
        "secret_build_args": {"NPM_TOKEN": "again"},
    });
    let run = started(&server, send(&server, &token, Method::POST, RUNS, &again).await).await;
    assert_eq!(run.git_token, None);
    assert_ne!(secret(&run.recipe), stored_secret(&server).await);
}

#[tokio::test]
async fn another_context_of_a_task_asks_for_its_secrets_again() {
    let server = with_task().await;
    let token = server.token("write", Some(&["contoso"])).await;
    for context in [
        "https://evil.test/octo/hello.git",
        "https://github.com/octo/hello.git#pull/7/head:app",
        "https://github.com/octo/hello.git#main:evil",
        "http://github.com/octo/hello.git#main:app",
    ] {
        let change = json!({"context": context, "source_trigger": null});
        let refused = send(&server, &token, Method::PATCH, TASK, &change).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{context}");
        insta::allow_duplicates! {
            insta::assert_snapshot!(message(&refused), @"context: task `contoso/web` has secrets (NPM_TOKEN), which another context must not see: give them again with this change, or remove them with an empty `secret_build_args`, `secret_values` or `secrets`");
        }
    }
    let same = json!({"context": "https://github.com/octo/hello.git#main:app", "timeout": 60});
    send(&server, &token, Method::PATCH, TASK, &same).await.expect(StatusCode::OK);
    let before = stored_secret(&server).await;
    let again = json!({
        "context": "https://evil.test/octo/hello.git",
        "secret_build_args": {"NPM_TOKEN": "again"},
    });
    let changed = send(&server, &token, Method::PATCH, TASK, &again).await.expect(StatusCode::OK);
    assert_eq!(changed["has_git_token"], false);
    assert_ne!(stored_secret(&server).await, before);
    let without = json!({"context": "https://files.test/a.tar.gz", "source_trigger": null, "secret_build_args": {}});
    send(&server, &token, Method::PATCH, TASK, &without).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn whoever_may_write_tasks_chooses_the_code_of_its_repository_that_sees_the_secrets() {
    let server = with_task().await;
    let token = server.token("write", Some(&["contoso"])).await;
    let before = stored_secret(&server).await;
    for change in [
        json!({"dockerfile": "deploy/Dockerfile"}),
        json!({"target": "test"}),
        json!({"build_args": {"BASE": "debian"}}),
    ] {
        // The task itself, and a single run of it.
        let run = started(&server, send(&server, &token, Method::POST, RUNS, &change).await).await;
        assert_eq!(secret(&run.recipe), before);
        send(&server, &token, Method::PATCH, TASK, &change).await.expect(StatusCode::OK);
        assert_eq!(stored_secret(&server).await, before);
    }
    // Combined with a change of the context, it counts as a change of the context.
    let elsewhere = json!({"context": "https://github.com/octo/hello.git#next", "target": "test"});
    let refused = send(&server, &token, Method::PATCH, TASK, &elsewhere).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    // Another registry's token does not see the task.
    server.create_registry("fabrikam").await;
    let bound = server.token("write", Some(&["fabrikam"])).await;
    let refused = send(&server, &bound, Method::PATCH, TASK, &json!({"target": "test"})).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    assert_eq!(message(&refused), "no such registry: `contoso`");
}

#[tokio::test]
async fn a_rerun_does_not_show_secrets_to_newer_code() {
    let server = with_task().await;
    let of_pull_request = json!({"context": "https://github.com/octo/hello.git#pull/7/head"});
    let writer = server.token("write", None).await;
    let answer = send(&server, &writer, Method::POST, RUNS, &of_pull_request).await;
    let of_pull_request = started(&server, answer).await;
    let of_task = started(&server, server.post(RUNS, json!({})).await).await;

    let rerun = |run: &Run| format!("/runs/{}/reruns", run.id);
    let reader = server.token("run", Some(&["contoso"])).await;
    let refused = send(&server, &reader, Method::POST, &rerun(&of_pull_request), &json!({})).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    insta::assert_snapshot!(message(&refused), @"run ca1 has secrets and runs the code of https://github.com/octo/hello.git#pull/7/head, whose content may have changed since: this needs a token of scope `write`");
    for (token, run) in [(&writer, &of_pull_request), (&reader, &of_task)] {
        let again = send(&server, token, Method::POST, &rerun(run), &json!({})).await;
        again.expect(StatusCode::CREATED);
    }
}

#[tokio::test]
async fn deleted_objects_can_be_created_again() {
    let server = with_task().await;
    for _ in 0..3 {
        let task = server.get(TASK).await.expect(StatusCode::OK);
        server.delete(TASK).await.expect(StatusCode::NO_CONTENT);
        assert_eq!(server.get(TASK).await.status, StatusCode::NOT_FOUND);
        server.delete("/registries/contoso").await.expect(StatusCode::NO_CONTENT);
        server.create_registry("contoso").await;
        let again = json!({
            "name": "web",
            "context": task["context"],
            "images": task["images"],
            "source_trigger": {},
        });
        let again = server.post("/registries/contoso/tasks", again).await;
        assert_eq!(again.expect(StatusCode::CREATED)["revision"], 1);
        for branch in ["next", "main"] {
            let change = json!({"source_trigger": {"branch": branch}});
            server.patch(TASK, change).await.expect(StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_one_request() {
    let server = with_task().await;
    let ask = async |path: &str, body: Value| {
        let request = server.api(Method::POST, path).bearer_auth(&server.admin).json(&body);
        Answer::of(request.header("idempotency-key", "k-1")).await
    };
    ask(RUNS, json!({"target": "test"})).await.expect(StatusCode::CREATED);
    ask(RUNS, json!({"target": "test"})).await.expect(StatusCode::OK);
    let build = json!({"context": "https://git.test/a.git", "images": ["a:1"]});
    for (path, body) in [
        (RUNS, json!({"target": "other"})),
        (RUNS, json!({})),
        ("/registries/contoso/builds", build),
        ("/runs/ca1/reruns", json!({})),
    ] {
        let refused = ask(path, body).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.text);
        assert_eq!(refused.code(), "idempotency_key_reused");
        let expected = format!(
            "this Idempotency-Key belongs to another request, which started run ca1; `POST /api/v1{path}` asks for something \
             else: send it with a key of its own"
        );
        assert_eq!(message(&refused), expected);
    }
    assert_eq!(server.get("/runs").await.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_query_of_a_tarball_url_is_sealed_and_never_shown() {
    let server = TestServer::with_registry().await;
    let context = "https://files.test/a.tar.gz?X-Amz-Signature=s3cr3t-signature";
    let task = json!({"name": "web", "context": context, "push": false});
    let task = server.post("/registries/contoso/tasks", task).await;
    let changed = server.patch(TASK, json!({"context": context, "timeout": 60})).await;
    let of_task = server.post(RUNS, json!({})).await;
    let overridden = server.post(RUNS, json!({"context": context})).await;
    let build = json!({"context": context, "push": false});
    let build = server.post("/registries/contoso/builds", build).await;
    let shown = server.get("/runs").await;
    for answer in [&task, &changed, &of_task, &overridden, &build, &shown] {
        assert!(answer.status.is_success(), "{}", answer.text);
        assert!(answer.text.contains("https://files.test/a.tar.gz"), "{}", answer.text);
        assert!(!answer.text.contains("s3cr3t"), "{}", answer.text);
    }
    let broken = json!({"context": format!("{context} x"), "push": false});
    let refused = server.post("/registries/contoso/builds", broken).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(!refused.text.contains("s3cr3t"), "{}", refused.text);
    for id in ["ca1", "ca2", "ca3"] {
        let run = runs::find(server.store.as_ref(), id.parse().unwrap()).await.unwrap().unwrap();
        let stored = serde_json::to_string(&run).unwrap();
        assert!(!stored.contains("s3cr3t"), "{stored}");
        let query = run.recipe.source.query().unwrap();
        let opened = server.keyring.open(&Registry::seals_for(run.id.prefix()), query).unwrap();
        assert_eq!(opened.expose_secret(), "X-Amz-Signature=s3cr3t-signature");
        assert!(run.is_signed(server.keyring.as_ref()));
    }
}
