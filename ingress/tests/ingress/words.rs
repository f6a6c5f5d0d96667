//! The messages for wrong requests: what is wrong, where, and the remedy.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::rig::TestServer;

/// A build that is valid except for `field`.
fn build(field: &str, value: Value) -> (&'static str, &'static str, Value) {
    let mut body = json!({"context": "https://git.example/a.git", "images": ["web:{{.Run.ID}}"]});
    body[field] = value;
    ("POST", "/registries/contoso/builds", body)
}

/// A task that is valid except for `field`.
fn task(field: &str, value: Value) -> (&'static str, &'static str, Value) {
    let mut body = json!({
        "name": "web", "context": "https://git.example/a.git", "images": ["web:{{.Run.ID}}"],
    });
    body[field] = value;
    ("POST", "/registries/contoso/tasks", body)
}

fn registry(field: &str, value: Value) -> (&'static str, &'static str, Value) {
    let mut body = json!({"name": "other", "host": "other.example"});
    body[field] = value;
    ("POST", "/registries", body)
}

fn hook(body: Value) -> (&'static str, &'static str, Value) {
    ("POST", "/registries/contoso/hooks", body)
}

fn get(path: &'static str) -> (&'static str, &'static str, Value) {
    ("GET", path, Value::Null)
}

fn wrong_requests() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        build("context", json!("git@github.com:octo/web.git")),
        build("context", json!("ssh://git:hunter2@github.com/octo/web.git")),
        build("context", json!("ssh://git@-oProxyCommand=id/octo/web.git")),
        build("git_host_keys", json!(["github.com"])),
        build("context", json!("./folder")),
        build("context", json!("file:///etc")),
        build("context", json!("https://octo:hunter2@git.example/a.git")),
        build("context", json!("https://git.example/a.git#a..b")),
        build("context", json!("https://git.example/a.git#main:../b")),
        build("context", json!("https://git.example/a.git?x=1")),
        build("upload", json!("nothing")),
        build("dockerfile", json!("/Dockerfile")),
        build("dockerfile", json!("")),
        build("images", json!([])),
        build("images", json!(["Web:1"])),
        build("images", json!(["web:"])),
        build("images", json!(["https://ghcr.io/octo/web:1"])),
        build("images", json!(["web:{{.Run.Idd}}"])),
        build("images", json!(["web:{{.Run.ID"])),
        build("images", json!(["a.example:99999/web:1"])),
        build("images", json!(["{{.Run.TaskName}}:1"])),
        build("images", json!([format!("web@sha256:{}", "a".repeat(64))])),
        build("build_args", json!({"A B": "hunter2"})),
        build("build_args", json!({"A": "hunter2{{.Run.Idd}}"})),
        build("build_args", json!({"A": 1})),
        build("build_args", json!({"BUILDKIT_SYNTAX": "hunter2"})),
        build("secret_build_args", json!({"A": "hunter2\u{0}"})),
        build("build_args", json!("hunter2, expected")),
        build("secret_build_args", json!(["hunter2"])),
        build("secret_build_args", json!({"A": {"B": "hunter2"}})),
        build("secret_build_args", json!({"A": null})),
        build("secret_build_args", json!({"A": "x".repeat(40_000)})),
        build("secret_build_args", json!({"A": "x".repeat(20_000), "B": "y".repeat(20_000)})),
        build("git_token", json!(["hunter2"])),
        build("target", json!("a b")),
        build("platform", json!("plan9/amd64")),
        build("platform", json!("linux/vax")),
        build("timeout", json!(0)),
        build("timeout", json!(100_000)),
        build("timeout", json!("1h")),
        build("git_token", json!("hunter2 hunter2")),
        build("tag", json!("web:1")),
        task("name", json!("a")),
        task("name", json!("web/api")),
        task("context", json!("https://a.example/x.tar.gz#main")),
        task("source_trigger", json!({"branch": "refs/tags/v1"})),
        task("source_trigger", json!({"commit": {"status": "on", "branches": ["a["]}})),
        task("source_trigger", json!({"pull_request": {"forks": "maybe"}, "poll": 5})),
        task("source_trigger", json!({"name": ""})),
        task("status", json!("on")),
        task("run_limit", json!(0)),
        task("run_limit", json!(-1)),
        ("PATCH", "/registries/contoso/tasks/gone", json!({"status": "Disabled"})),
        ("POST", "/registries/contoso/tasks/gone/runs", json!({})),
        ("POST", "/registries/gone/builds", json!({})),
        registry("name", json!("a")),
        registry("host", json!("https://other.example")),
        registry("host", json!("registry")),
        registry("run_limit", json!(0)),
        registry("credentials", json!({"username": "octo"})),
        registry("credentials", json!("octo:hunter2")),
        registry("credentials", json!({"username": "octo", "password": 1234})),
        hook(json!({"provider": "subversion"})),
        hook(json!({"provider": "github", "repositories": ["octo/web"]})),
        hook(json!({"provider": "github", "repositories": "github.com/octo/web"})),
        hook(json!({"provider": "github", "repository": ["github.com/octo/web"]})),
        hook(json!({"provider": "github", "secret": "short"})),
        get("/runs?status=done"),
        get("/runs?task=web"),
        get("/runs?registry=gone"),
        get("/runs?after=nothing"),
        get("/runs?limit=x"),
        get("/runs/ca99"),
        get("/runs/ca99/log"),
        get("/runs/nonsense"),
        get("/nothing"),
        file_run(json!({})),
        file_run(json!({"text": "steps: []", "path": "acr-task.yaml"})),
        file_run(json!({"path": "../acr-task.yaml"})),
        file_run(json!({"text": "steps: [cmd: busybox true"})),
        file_run(json!({"text": "steps: [{cmd: busybox, when: [no]}]"})),
        file_run(json!({"text": "steps: []", "values": {"a b": "1"}})),
        ("POST", "/runs/ca99/cancel", json!({})),
        ("POST", "/runs/ca99/reruns", json!({})),
        ("POST", "/tokens", json!({"description": "ci", "scope": "all"})),
    ]
}

fn file_run(file: Value) -> (&'static str, &'static str, Value) {
    ("POST", "/registries/contoso/runs", json!({"task_file": file}))
}

#[tokio::test]
async fn each_wrong_request_says_what_is_wrong_where_and_what_to_do() {
    let server = TestServer::with_registry().await;
    let mut table = String::new();
    for (method, path, body) in wrong_requests() {
        let answer = match method {
            "GET" => server.get(path).await,
            "PATCH" => server.patch(path, body.clone()).await,
            _ => server.post(path, body.clone()).await,
        };
        assert!(answer.status.is_client_error(), "{method} {path} {body}: {}", answer.text);
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
        let answer = answer.json();
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "{method} {path} {body}");
        let asked = if body.is_null() { String::new() } else { format!(" {body}") };
        let asked = asked.replace(&"x".repeat(20_000), "x…").replace(&"y".repeat(20_000), "y…");
        writeln!(table, "{method} {path}{asked}\n    {}", message.replace('\n', "\n    ")).unwrap();
    }
    insta::assert_snapshot!(table);
}
