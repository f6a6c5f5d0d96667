//! Who may override what when a task is run: scope of the token × override × whether the task has secrets.
//!
//! A run of scope `run` may not choose code that sees the task's secrets; `write` may, within the task's own repository.

use gantry_domain::recipe::Work;
use gantry_seams::runs;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::rig::{Answer, TestServer};

const GIT: &str = "https://github.com/octo/hello.git#main";

/// The answers to one override: without secrets in the task, with them for scope `run`, and with them for `write`.
struct Row {
    name: &'static str,
    body: Value,
    answers: [u16; 3],
}

fn row(name: &'static str, body: Value, answers: [u16; 3]) -> Row {
    Row { name, body, answers }
}

async fn task(server: &TestServer, name: &str, fields: Value) {
    let mut task = json!({"name": name, "context": GIT});
    task.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    server.post("/registries/contoso/tasks", task).await.expect(StatusCode::CREATED);
}

async fn check(server: &TestServer, rows: &[Row]) {
    let (run, write) = (server.token("run", None).await, server.token("write", None).await);
    for Row { name, body, answers: [plain, as_run, as_write] } in rows {
        for (task, token, who, expected) in [
            ("plain", &run, "run", plain),
            ("plain", &write, "write", plain),
            ("secret", &run, "run", as_run),
            ("secret", &write, "write", as_write),
        ] {
            let path = format!("/registries/contoso/tasks/{task}/runs");
            let asked = server.api(Method::POST, &path).bearer_auth(token).json(body);
            let answer = Answer::of(asked).await;
            let told = format!("{name} of task {task} with scope {who}: {}", answer.text);
            assert_eq!(answer.status.as_u16(), *expected, "{told}");
        }
    }
}

#[tokio::test]
async fn overrides_of_a_task_that_builds_a_dockerfile() {
    let server = TestServer::with_registry().await;
    task(&server, "plain", json!({"images": ["hello:1"]})).await;
    let secrets = json!({"images": ["hello:1"], "secret_build_args": {"TOKEN": "s3cret"}});
    task(&server, "secret", secrets).await;
    let other = "https://evil.test/octo/hello.git#main";
    let own = json!({"context": other, "secret_build_args": {"TOKEN": "mine"}});
    check(
        &server,
        &[
            row("nothing", json!({}), [201, 201, 201]),
            row("tags", json!({"force_tags": true}), [201, 201, 201]),
            row(
                "branch",
                json!({"context": "https://github.com/octo/hello.git#x"}),
                [201, 403, 201],
            ),
            row("repository", json!({"context": other}), [201, 403, 403]),
            row("file", json!({"dockerfile": "x"}), [201, 403, 201]),
            row("argument", json!({"build_args": {"A": "1"}}), [201, 403, 201]),
            row("secret", json!({"secret_build_args": {"A": "1"}}), [201, 403, 201]),
            row("target", json!({"target": "x"}), [201, 403, 201]),
            row("own secrets", own, [201, 201, 201]),
            row("task file", json!({"task_file": "x.yaml"}), [400, 403, 400]),
            row("value", json!({"values": {"a": "1"}}), [400, 403, 400]),
            row("secret value", json!({"secret_values": {"a": "1"}}), [400, 403, 400]),
        ],
    )
    .await;
}

#[tokio::test]
async fn overrides_of_a_task_that_runs_a_task_file() {
    let server = TestServer::with_registry().await;
    task(&server, "plain", json!({"task_file": {"path": "acr-task.yaml"}})).await;
    let secrets = json!({"path": "acr-task.yaml", "secret_values": {"token": "s3cret"}});
    task(&server, "secret", json!({"task_file": secrets})).await;
    let other = "https://evil.test/octo/hello.git#main";
    let own = json!({"context": other, "secret_values": {"token": "mine"}});
    check(
        &server,
        &[
            row("nothing", json!({}), [201, 201, 201]),
            row("tags", json!({"force_tags": true}), [201, 201, 201]),
            row(
                "branch",
                json!({"context": "https://github.com/octo/hello.git#x"}),
                [201, 403, 201],
            ),
            row("repository", json!({"context": other}), [201, 403, 403]),
            row("file", json!({"task_file": "x.yaml"}), [201, 403, 201]),
            row("value", json!({"values": {"a": "1"}}), [201, 403, 201]),
            row("secret value", json!({"secret_values": {"a": "1"}}), [201, 403, 201]),
            row("own secrets", own, [201, 201, 201]),
            row("dockerfile", json!({"dockerfile": "x"}), [400, 403, 400]),
            row("argument", json!({"build_args": {"A": "1"}}), [400, 403, 400]),
            row("target", json!({"target": "x"}), [400, 403, 400]),
        ],
    )
    .await;
}

/// A run with a context of its own has none of the secrets that its task declares, so it may choose its code.
#[tokio::test]
async fn overrides_of_a_task_that_declares_secrets() {
    let server = TestServer::with_registry().await;
    task(&server, "plain", json!({"task_file": {"path": "acr-task.yaml"}})).await;
    let declared = json!({"path": "acr-task.yaml", "secrets": {"token": "npm-token"}});
    task(&server, "secret", json!({"task_file": declared})).await;
    let other = "https://evil.test/octo/hello.git#main";
    let branch = "https://github.com/octo/hello.git#x";
    check(
        &server,
        &[
            row("nothing", json!({}), [201, 201, 201]),
            row("tags", json!({"force_tags": true}), [201, 201, 201]),
            row("branch", json!({"context": branch}), [201, 201, 201]),
            row("repository", json!({"context": other}), [201, 201, 201]),
            row("file", json!({"task_file": "x.yaml"}), [201, 403, 201]),
            row("value", json!({"values": {"a": "1"}}), [201, 403, 201]),
            row("secret value", json!({"secret_values": {"a": "1"}}), [201, 403, 201]),
        ],
    )
    .await;
    let path = "/registries/contoso/tasks/secret/runs";
    for (body, expected) in [
        (json!({}), json!({"token": "npm-token"})),
        (json!({"context": branch}), json!({})),
        (json!({"context": other}), json!({})),
    ] {
        let run = server.post(path, body).await.expect(StatusCode::CREATED);
        let id = run["id"].as_str().unwrap().parse().unwrap();
        let run = runs::find(server.store.as_ref(), id).await.unwrap().unwrap();
        let Work::File(file) = &run.recipe.work else { panic!("{run:?}") };
        assert_eq!(serde_json::to_value(&file.secrets).unwrap(), expected);
    }
}

#[tokio::test]
async fn only_who_may_change_tasks_declares_secrets() {
    let server = TestServer::with_registry().await;
    let (run, write) = (server.token("run", None).await, server.token("write", None).await);
    let text = "steps:\n- cmd: busybox true\n  env: ['A={{.Secrets.token}}']\n";
    let body = json!({"task_file": {"text": text, "secrets": {"token": "npm-token"}}});
    for (token, expected) in [(&run, StatusCode::FORBIDDEN), (&write, StatusCode::CREATED)] {
        let asked = server.api(Method::POST, "/registries/contoso/runs").bearer_auth(token);
        let answer = Answer::of(asked.json(&body)).await;
        assert_eq!(answer.status, expected, "{}", answer.text);
    }
    // A run of the same file without secrets is anybody's who may start runs.
    let asked = server.api(Method::POST, "/registries/contoso/runs").bearer_auth(&run);
    let answer = Answer::of(asked.json(&json!({"task_file": {"text": text}}))).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
}

#[tokio::test]
async fn another_context_needs_the_declarations_again() {
    let server = TestServer::with_registry().await;
    let declared = json!({"path": "acr-task.yaml", "secrets": {"token": "npm-token"}});
    task(&server, "web", json!({"task_file": declared})).await;
    let path = "/registries/contoso/tasks/web";
    let other = json!({"context": "https://github.com/octo/other.git"});
    let refused = server.patch(path, other).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.text.contains("has secrets (token)"), "{}", refused.text);
    let both = json!({
        "context": "https://github.com/octo/other.git",
        "task_file": {"secrets": {"token": "npm-token@2"}},
    });
    let changed = server.patch(path, both).await.expect(StatusCode::OK);
    assert_eq!(changed["task_file"]["secrets"], json!({"token": "npm-token@2"}));
}

#[tokio::test]
async fn a_declaration_that_says_not_where_the_secret_is_is_refused() {
    let server = TestServer::with_registry().await;
    let secrets = json!({"a b": "x", "b": "https://v.test/keys/x", "c": "npm@0", "d": "https://ann:pw@v.test/secrets/x"});
    let body = json!({"task_file": {"text": "steps: [cmd: busybox true]", "secrets": secrets}});
    let refused = server.post("/registries/contoso/runs", body).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    for told in [
        "secrets: `a b` is no secret's id",
        "secrets: `b`: expected `/secrets/NAME`",
        "secrets: `c`: the version of a secret is a number from 1",
        "secrets: `d`: the address of a vault begins with",
    ] {
        assert!(refused.text.contains(told), "{told}: {}", refused.text);
    }
    assert!(!refused.text.contains("ann"), "a password may be in it: {}", refused.text);
}

#[tokio::test]
async fn a_task_file_is_linted_at_the_door() {
    let server = TestServer::with_registry().await;
    let wrong = "steps:\n- cmd: busybox true\n  when: [no]\n- {}\n";
    let refused = server.post("/registries/contoso/runs", json!({"task_file": {"text": wrong}}));
    let refused = refused.await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("task_file: 3:10: no step has the id `no`"), "{message}");
    assert!(message.contains("task_file: 4:3: "), "{message}");
    // What a value may still make right is left to the run.
    let later = "steps:\n- cmd: {{.Values.image}} true\n";
    let run = server.post("/registries/contoso/runs", json!({"task_file": {"text": later}})).await;
    let run = run.expect(StatusCode::CREATED);
    assert_eq!((&run["run_type"], &run["source"]), (&json!("QuickRun"), &json!("/dev/null")));
}

#[tokio::test]
async fn fields_of_a_build_and_a_task_file_exclude_each_other() {
    let server = TestServer::with_registry().await;
    let both = json!({
        "name": "both", "context": GIT, "images": ["a:1"], "target": "x",
        "task_file": {"text": "steps: [cmd: busybox true]", "path": "a.yaml"},
    });
    let refused = server.post("/registries/contoso/tasks", both).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    for field in ["images: ", "target: ", "task_file: give a `text` or a `path`"] {
        assert!(refused.text.contains(field), "{field}: {}", refused.text);
    }
    let without_files = json!({"name": "none", "context": "/dev/null", "images": ["a:1"]});
    let refused = server.post("/registries/contoso/tasks", without_files).await;
    assert!(refused.text.contains("it has no files"), "{}", refused.text);
    let path = json!({"name": "none", "context": "/dev/null", "task_file": {"path": "a.yaml"}});
    let refused = server.post("/registries/contoso/tasks", path).await;
    assert!(refused.text.contains("it has no files"), "{}", refused.text);
}

#[tokio::test]
async fn a_task_shows_its_file_and_never_its_secret_values() {
    let server = TestServer::with_registry().await;
    let file = json!({
        "text": "steps: [cmd: busybox true]", "values": {"tag": "1"}, "secret_values": {"key": "hunter2"},
    });
    let new = json!({"name": "file", "context": "/dev/null", "task_file": file});
    server.post("/registries/contoso/tasks", new).await.expect(StatusCode::CREATED);
    let shown = server.get("/registries/contoso/tasks/file").await;
    assert!(!shown.text.contains("hunter2"), "{}", shown.text);
    let shown = shown.expect(StatusCode::OK);
    assert_eq!(shown["task_file"]["secret_values"], json!(["key"]));
    assert!(shown.get("dockerfile").is_none());

    let change = json!({"task_file": {"values": {"tag": "2"}, "secret_values": {}}});
    let shown = server.patch("/registries/contoso/tasks/file", change).await;
    let shown = shown.expect(StatusCode::OK);
    assert_eq!(shown["task_file"]["values"], json!({"tag": "2"}));
    assert_eq!(shown["task_file"]["secret_values"], json!([]));
    assert_eq!(shown["task_file"]["text"], json!("steps: [cmd: busybox true]"));
}

#[tokio::test]
async fn editors_read_the_schema_of_task_files_without_a_token() {
    let server = TestServer::with_registry().await;
    let answer = Answer::of(server.api(Method::GET, "/acr-task.schema.json")).await;
    let schema = answer.expect(StatusCode::OK);
    assert!(schema["properties"]["steps"].is_object(), "{schema}");
}
