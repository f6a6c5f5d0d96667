//! Sources over ssh: what a task must have, what is shown of it, and what stays when it changes.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::rig::TestServer;

/// A private key without a passphrase, as far as anybody looks before ssh does.
const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n\
                   b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\
                   -----END OPENSSH PRIVATE KEY-----\n";
const HOST_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
const NEXT_HOST_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9dG4kjRhQTtWTVzd2t27+t0DEHBPW7iOD23TUiYLio";

fn task(fields: &Value) -> Value {
    let mut task =
        json!({"name": "web", "context": "git@github.com:octo/web.git#main", "images": ["web:1"]});
    task.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    task
}

#[tokio::test]
async fn a_source_over_ssh_needs_a_deploy_key_and_a_host_key() {
    let server = TestServer::with_registry().await;
    let told = async |fields: Value| {
        let refused = server.post("/registries/contoso/tasks", task(&fields)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
        assert!(!refused.text.contains("hunter2"), "{}", refused.text);
        refused.json()["error"]["message"].as_str().unwrap().to_owned()
    };
    insta::assert_snapshot!(told(json!({})).await, @r"
    git_token: ssh://git@github.com/octo/web.git is read with a deploy key: make one with `ssh-keygen -t ed25519 -N '' -f FILE`, register FILE.pub at the host, and give FILE with `--git-ssh-key FILE`
    git_host_keys: ssh://git@github.com/octo/web.git is read only from a host that proves its key: `ssh-keyscan github.com` shows it, compare its fingerprint with what the host publishes, and give the line with `--git-host-key`
    ");
    insta::assert_snapshot!(told(json!({"git_token": "ghp-hunter2", "git_host_keys": [HOST_KEY]})).await, @"git_token: a repository is read over ssh with a deploy key (`--git-ssh-key FILE`): it is no private key: give the whole file that `ssh-keygen -t ed25519 -N '' -f FILE` wrote, from its `-----BEGIN` to its last line");
    insta::assert_snapshot!(told(json!({"git_token": KEY, "git_host_keys": ["github.com"]})).await, @r"
    git_host_keys: `github.com` is no host key: a line of `ssh-keyscan HOST`, like `ssh-ed25519 AAAA…`; compare its fingerprint with what the host publishes
    git_host_keys: ssh://git@github.com/octo/web.git is read only from a host that proves its key: `ssh-keyscan github.com` shows it, compare its fingerprint with what the host publishes, and give the line with `--git-host-key`
    ");
    let https = json!({"context": "https://github.com/octo/web.git", "git_token": KEY, "git_host_keys": [HOST_KEY]});
    insta::assert_snapshot!(told(https).await, @r"
    git_host_keys: only a git repository that is read over ssh has them: give its address as context, like `ssh://git@host/repository.git`
    git_token: a private key reads only a repository over ssh: give its address as context, like `ssh://git@host/repository.git`
    ");
    let many = vec![HOST_KEY; 9];
    insta::assert_snapshot!(told(json!({"git_token": KEY, "git_host_keys": many})).await, @"git_host_keys: 9 keys are given: at most 8 of one host");
}

#[tokio::test]
async fn a_deploy_key_stays_with_its_repository_and_a_host_key_is_replaced_alone() {
    let server = TestServer::with_registry().await;
    let line = format!("github.com {HOST_KEY} comment");
    let body = task(&json!({"git_token": KEY, "git_host_keys": [line]}));
    let created = server.post("/registries/contoso/tasks", body).await.expect(StatusCode::CREATED);
    assert_eq!(created["context"], "ssh://git@github.com/octo/web.git#main");
    assert_eq!(
        (&created["git_host_keys"], &created["has_git_token"]),
        (&json!([HOST_KEY]), &json!(true))
    );
    assert!(!created.to_string().contains("PRIVATE"), "{created}");

    let path = "/registries/contoso/tasks/web";
    let changed = server.patch(path, json!({"context": "git@github.com:octo/web.git#next"})).await;
    let changed = changed.expect(StatusCode::OK);
    assert_eq!(
        (&changed["git_host_keys"], &changed["has_git_token"]),
        (&json!([HOST_KEY]), &json!(true))
    );
    let changed = server.patch(path, json!({"git_host_keys": [NEXT_HOST_KEY]})).await;
    let changed = changed.expect(StatusCode::OK);
    assert_eq!(
        (&changed["git_host_keys"], &changed["has_git_token"]),
        (&json!([NEXT_HOST_KEY]), &json!(true))
    );
    let run = server.post(&format!("{path}/runs"), json!({})).await.expect(StatusCode::CREATED);
    assert!(!run.to_string().contains("PRIVATE"), "{run}");

    for elsewhere in ["git@github.com:octo/other.git", "git@git.example:octo/web.git"] {
        for refused in [
            server.patch(path, json!({"context": elsewhere})).await,
            server.post(&format!("{path}/runs"), json!({"context": elsewhere})).await,
        ] {
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
            assert!(
                refused.text.contains("git_token") && refused.text.contains("git_host_keys"),
                "{}",
                refused.text
            );
        }
    }
    let both = json!({"context": "git@git.example:octo/web.git", "git_token": KEY, "git_host_keys": [HOST_KEY]});
    server.patch(path, both).await.expect(StatusCode::OK);
    let public = server.patch(path, json!({"context": "https://github.com/octo/web.git"})).await;
    let public = public.expect(StatusCode::OK);
    assert_eq!((public.get("git_host_keys"), &public["has_git_token"]), (None, &json!(false)));
}
