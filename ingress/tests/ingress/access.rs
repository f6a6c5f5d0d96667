//! Who may do what.

use gantry_domain::hook::Provider;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::rig::{Answer, Door, push};

const ABSENT: StatusCode = StatusCode::NOT_FOUND;

async fn ask(door: &Door, token: &str, method: Method, path: &str, body: Value) -> StatusCode {
    let mut request = door.api(method.clone(), path).bearer_auth(token);
    if method != Method::GET && method != Method::DELETE {
        request = request.json(&body);
    }
    Answer::of(request).await.status
}

#[tokio::test]
async fn what_belongs_to_another_registry_looks_as_if_it_were_not_there() {
    let door = Door::with_registry().await;
    door.create_registry("fabrikam").await;
    let hook = door.hook(Provider::GitHub).await;
    Answer::of(door.github(&hook, "push", "d-1", &push('1', '2')))
        .await
        .expect(StatusCode::ACCEPTED);
    let build = json!({"context": "https://git.test/a.git", "images": ["a:1"]});
    let foreign = door.post("/registries/contoso/builds", build.clone()).await;
    let foreign = foreign.expect(StatusCode::CREATED);
    let run = foreign["id"].as_str().unwrap();
    let own = door.post("/registries/fabrikam/builds", build.clone()).await;
    let own = own.expect(StatusCode::CREATED);

    let token = door.token("write", Some(&["fabrikam"])).await;
    for (method, path) in [
        (Method::GET, "/registries/contoso".to_owned()),
        (Method::DELETE, "/registries/contoso".to_owned()),
        (Method::POST, "/registries/contoso/builds".to_owned()),
        (Method::GET, format!("/runs/{run}")),
        (Method::POST, format!("/runs/{run}/cancel")),
        (Method::POST, format!("/runs/{run}/reruns")),
        (Method::GET, format!("/runs/{run}/log")),
        (Method::GET, format!("/runs/{run}/log/events")),
        (Method::GET, format!("/hooks/{}", hook.id)),
        (Method::GET, format!("/hooks/{}/deliveries/d-1", hook.id)),
        (Method::GET, format!("/hooks/{}/deliveries/d-1/body", hook.id)),
        (Method::POST, format!("/hooks/{}/deliveries/d-1/replays", hook.id)),
        (Method::GET, format!("/events/{}/d-1/0", hook.id)),
        (Method::GET, format!("/events/{}", foreign["event"].as_str().unwrap())),
    ] {
        let status = ask(&door, &token, method.clone(), &path, build.clone()).await;
        assert_eq!(status, ABSENT, "{method} {path}");
    }
    for (path, expected) in [
        ("/registries", json!(["fabrikam"])),
        ("/runs", json!([own["id"]])),
        ("/hooks", json!([])),
        ("/deliveries", json!([])),
        ("/deliveries?id=d-1", json!([])),
    ] {
        let page = Answer::of(door.api(Method::GET, path).bearer_auth(&token)).await;
        let page = page.expect(StatusCode::OK);
        let items = page["items"].as_array().unwrap();
        let ids: Vec<&Value> =
            items.iter().map(|item| item.get("id").unwrap_or(&item["name"])).collect();
        assert_eq!(json!(ids), expected, "{path}");
    }
    let new = json!({"name": "new", "host": "new.test"});
    let status = ask(&door, &token, Method::POST, "/registries", new).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let event = door.get(&format!("/events/{}", own["event"].as_str().unwrap())).await;
    let event = event.expect(StatusCode::OK);
    assert_eq!(event["decision"]["candidates"][0]["run"], own["id"]);
}

#[tokio::test]
async fn a_token_that_is_wrong_expired_or_revoked_is_none() {
    let door = Door::open().await;
    let current = |token: String| {
        let request = door.api(Method::GET, "/tokens/current").bearer_auth(token);
        async move { Answer::of(request).await }
    };
    let token = door.token("read", None).await;
    let shown = current(token.clone()).await.expect(StatusCode::OK);
    assert_eq!((&shown["scope"], &shown["active"]), (&json!("read"), &json!(true)));
    assert_eq!(shown.get("secret_sha256"), None);

    let (rest, secret) = token.rsplit_once('_').unwrap();
    let id = shown["id"].as_str().unwrap();
    for wrong in [
        format!("{rest}_{}", "0".repeat(64)),
        format!("{rest}_{}", &secret[..63]),
        format!("{rest}_"),
        format!("gantry_nobody_{secret}"),
        secret.to_owned(),
        String::new(),
    ] {
        let refused = current(wrong.clone()).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{wrong}");
        assert_eq!(refused.headers["www-authenticate"], "Bearer");
    }
    let brief = door.post("/tokens", json!({"scope": "read", "expires_in": 1})).await;
    let brief = brief.expect(StatusCode::CREATED)["text"].as_str().unwrap().to_owned();
    current(brief.clone()).await.expect(StatusCode::OK);
    door.delete(&format!("/tokens/{id}")).await.expect(StatusCode::OK);
    assert_eq!(current(token).await.status, StatusCode::UNAUTHORIZED);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(current(brief).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_first_admin_token_is_made_once() {
    let door = Door::open().await;
    assert!(door.admin.starts_with("gantry_admin_"));
    let again = gantry_ingress::bootstrap_admin_token(door.store.as_ref()).await.unwrap();
    assert_eq!(again, None);
}
