//! The secrets that gantry keeps for the tasks of a registry.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::rig::{Answer, TestServer};

const SECRETS: &str = "/registries/contoso/secrets";

async fn put(server: &TestServer, path: &str, token: &str, value: &str) -> Answer {
    let asked = server.api(Method::PUT, path).bearer_auth(token).json(&json!({"value": value}));
    Answer::of(asked).await
}

#[tokio::test]
async fn a_secret_has_versions_and_its_value_is_never_shown() {
    let server = TestServer::with_registry().await;
    let write = server.token("write", None).await;
    let path = format!("{SECRETS}/npm-token");
    for (value, number) in [("first-value", 1), ("second-value", 2)] {
        let answer = put(&server, &path, &write, value).await;
        assert!(!answer.text.contains(value), "{}", answer.text);
        let secret = answer.expect(StatusCode::OK);
        assert_eq!(secret["versions"][0]["number"], json!(number));
    }
    for path in [SECRETS, &path] {
        let shown = server.get(path).await;
        assert_eq!(shown.status, StatusCode::OK);
        assert!(!shown.text.contains("-value"), "{}", shown.text);
    }
    let listed = server.get(SECRETS).await.expect(StatusCode::OK);
    let versions = listed["items"][0]["versions"].as_array().unwrap();
    assert_eq!((versions.len(), &listed["items"][0]["name"]), (2, &json!("npm-token")));

    let refused = server.delete("/registries/contoso").await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(refused.text.contains("secrets belong to registry `contoso`"), "{}", refused.text);
    assert_eq!(server.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(server.get(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.delete(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.get(SECRETS).await.expect(StatusCode::OK)["items"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn a_value_that_cannot_be_kept_is_refused_without_showing_it() {
    let server = TestServer::with_registry().await;
    let write = server.token("write", None).await;
    let path = format!("{SECRETS}/npm-token");
    for (value, told) in [
        (String::new(), "it is empty"),
        ("x".repeat(40_000), "at most 32768"),
        ("a\0b".to_owned(), "contains a NUL character"),
    ] {
        let answer = put(&server, &path, &write, &value).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.text.contains(told) && !answer.text.contains("xxxx"), "{}", answer.text);
    }
    let answer = put(&server, &format!("{SECRETS}/npm%20token"), &write, "value").await;
    assert!(answer.status.is_client_error(), "{}", answer.text);
    assert_eq!(server.get(&path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn secrets_are_set_with_scope_write_and_only_in_registries_of_the_token() {
    let server = TestServer::with_registry().await;
    let path = format!("{SECRETS}/npm-token");
    for scope in ["read", "run"] {
        let token = server.token(scope, None).await;
        let answer = put(&server, &path, &token, "value").await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{scope}: {}", answer.text);
        let asked = server.api(Method::DELETE, &path).bearer_auth(&token);
        assert_eq!(Answer::of(asked).await.status, StatusCode::FORBIDDEN, "{scope}");
    }
}
