//! Authorization: which token may do what.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gantry_domain::delivery::Delivery;
use gantry_domain::hook::{Hook, Provider, Sender};
use gantry_seams::{deliveries, hooks};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::rig::{Answer, TestServer, push};

const ABSENT: StatusCode = StatusCode::NOT_FOUND;

async fn ask(
    server: &TestServer,
    token: &str,
    method: Method,
    path: &str,
    body: Value,
) -> StatusCode {
    let mut request = server.api(method.clone(), path).bearer_auth(token);
    if method != Method::GET && method != Method::DELETE {
        request = request.json(&body);
    }
    Answer::of(request).await.status
}

#[tokio::test]
async fn objects_of_other_registries_are_not_found() {
    let server = TestServer::with_registry().await;
    server.create_registry("fabrikam").await;
    let hook = server.hook(Provider::GitHub).await;
    Answer::of(server.github(&hook, "push", "d-1", &push('1', '2')))
        .await
        .expect(StatusCode::ACCEPTED);
    let build = json!({"context": "https://git.test/a.git", "images": ["a:1"]});
    let foreign = server.post("/registries/contoso/builds", build.clone()).await;
    let foreign = foreign.expect(StatusCode::CREATED);
    let run = foreign["id"].as_str().unwrap();
    let own = server.post("/registries/fabrikam/builds", build.clone()).await;
    let own = own.expect(StatusCode::CREATED);

    let token = server.token("write", Some(&["fabrikam"])).await;
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
        let status = ask(&server, &token, method.clone(), &path, build.clone()).await;
        assert_eq!(status, ABSENT, "{method} {path}");
    }
    for (path, expected) in [
        ("/registries", json!(["fabrikam"])),
        ("/runs", json!([own["id"]])),
        ("/hooks", json!([])),
        ("/deliveries", json!([])),
        ("/deliveries?id=d-1", json!([])),
    ] {
        let page = Answer::of(server.api(Method::GET, path).bearer_auth(&token)).await;
        let page = page.expect(StatusCode::OK);
        let items = page["items"].as_array().unwrap();
        let ids: Vec<&Value> =
            items.iter().map(|item| item.get("id").unwrap_or(&item["name"])).collect();
        assert_eq!(json!(ids), expected, "{path}");
    }
    let new = json!({"name": "new", "host": "new.test"});
    let status = ask(&server, &token, Method::POST, "/registries", new).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let event = server.get(&format!("/events/{}", own["event"].as_str().unwrap())).await;
    let event = event.expect(StatusCode::OK);
    assert_eq!(event["decision"]["candidates"][0]["run"], own["id"]);
}

#[tokio::test]
async fn a_wrong_expired_or_revoked_token_is_unauthorized() {
    let server = TestServer::open().await;
    let current = |token: String| {
        let request = server.api(Method::GET, "/tokens/current").bearer_auth(token);
        async move { Answer::of(request).await }
    };
    let token = server.token("read", None).await;
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
    let brief = server.post("/tokens", json!({"scope": "read", "expires_in": 1})).await;
    let brief = brief.expect(StatusCode::CREATED)["text"].as_str().unwrap().to_owned();
    current(brief.clone()).await.expect(StatusCode::OK);
    server.delete(&format!("/tokens/{id}")).await.expect(StatusCode::OK);
    assert_eq!(current(token).await.status, StatusCode::UNAUTHORIZED);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(current(brief).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_first_admin_token_is_made_once() {
    let server = TestServer::open().await;
    assert!(server.admin.starts_with("gantry_admin_"));
    let again = gantry_ingress::bootstrap_admin_token(server.store.as_ref()).await.unwrap();
    assert_eq!(again, None);
}

/// A hook with a chosen id, which determines its place in the order of ids.
async fn hook_with_id(server: &TestServer, id: &str, registry: &str) -> Hook {
    Hook {
        id: id.parse().unwrap(),
        registry: registry.parse().unwrap(),
        prefix: server.prefix(registry).await,
        sender: Sender::GitHub,
        repositories: Vec::new(),
        secrets: Vec::new(),
        is_provisioned: false,
        created: server.store.now().await.unwrap(),
    }
}

async fn get(server: &TestServer, token: &str, path: &str) -> Answer {
    Answer::of(server.api(Method::GET, path).bearer_auth(token)).await
}

#[tokio::test]
async fn hooks_of_one_registry_hide_none_of_another() {
    let server = TestServer::with_registry().await;
    server.create_registry("fabrikam").await;
    let store = server.store.as_ref();
    let first = hook_with_id(&server, &"0".repeat(32), "contoso").await;
    let numbered = |number| Hook { id: format!("{number:032x}").parse().unwrap(), ..first.clone() };
    let creations = (0..6_000).map(|number| {
        let hook = numbered(number);
        async move { hooks::create(store, &hook).await }
    });
    // The store commits together what is created at once.
    stream::iter(creations).buffer_unordered(100).try_collect::<Vec<_>>().await.unwrap();
    let other = hook_with_id(&server, &"f".repeat(32), "fabrikam").await;
    hooks::create(store, &other).await.unwrap();
    let token = server.token("read", Some(&["fabrikam"])).await;
    let page = get(&server, &token, "/hooks").await.expect(StatusCode::OK);
    assert_eq!(page["items"][0]["id"], "f".repeat(32));
    assert_eq!(page["next"], Value::Null);

    // And the hooks of both registries are found, page by page.
    for (token, expected) in [
        (server.token("read", None).await, 6_001),
        (server.token("read", Some(&["contoso", "fabrikam"])).await, 6_001),
    ] {
        let (mut path, mut found) = ("/hooks?limit=500".to_owned(), 0);
        loop {
            let page = get(&server, &token, &path).await.expect(StatusCode::OK);
            found += page["items"].as_array().unwrap().len();
            match page["next"].as_str() {
                Some(next) => path = format!("/hooks?limit=500&after={next}"),
                None => break,
            }
        }
        assert_eq!(found, expected);
    }
    server.delete("/registries/fabrikam").await.expect(StatusCode::CONFLICT);
}

#[tokio::test]
async fn deliveries_of_one_registry_neither_hide_nor_tell_those_of_another() {
    let server = TestServer::with_registry().await;
    server.create_registry("fabrikam").await;
    let foreign = server.hook(Provider::GitHub).await;
    let deliver = async |id: &str| {
        let answer = Answer::of(server.github(&foreign, "ping", id, "{}")).await;
        answer.expect(StatusCode::ACCEPTED);
    };
    let own = Hook {
        id: "f".repeat(32).parse().unwrap(),
        registry: "fabrikam".parse().unwrap(),
        prefix: server.prefix("fabrikam").await,
        ..foreign.clone()
    };
    let stored = Delivery {
        id: "own".parse().unwrap(),
        hook: own.id.clone(),
        registry: own.registry.clone(),
        prefix: own.prefix,
        ..{
            deliver("first").await;
            let id = "first".parse().unwrap();
            let store = server.store.as_ref();
            deliveries::find(store, &foreign.id, &id).await.unwrap().unwrap()
        }
    };
    deliveries::accept(server.store.as_ref(), &stored, None).await.unwrap();
    // All are newer, and more than fit on a page.
    let many: Vec<Delivery> = (0..2_100)
        .map(|number| Delivery {
            id: format!("d-{number}").parse().unwrap(),
            received: stored.received.after(Duration::from_secs(1)),
            registry: foreign.registry.clone(),
            prefix: foreign.prefix,
            hook: foreign.id.clone(),
            ..stored.clone()
        })
        .collect();
    let accepted =
        many.iter().map(|delivery| deliveries::accept(server.store.as_ref(), delivery, None));
    join_all(accepted).await;

    let token = server.token("read", Some(&["fabrikam"])).await;
    let foreign_hook = format!("/deliveries?hook={}", foreign.id);
    for (path, expected) in [
        ("/deliveries?limit=1", vec!["own"]),
        ("/deliveries?registry=fabrikam&limit=1", vec!["own"]),
        (foreign_hook.as_str(), vec![]),
    ] {
        let page = get(&server, &token, path).await.expect(StatusCode::OK);
        let ids: Vec<&Value> =
            page["items"].as_array().unwrap().iter().map(|delivery| &delivery["id"]).collect();
        assert_eq!(ids, expected, "{path}");
        // Otherwise a page of foreign deliveries would follow.
        assert_eq!(page["next"], Value::Null, "{path}");
    }
    let absent = get(&server, &token, "/deliveries?registry=contoso").await;
    assert_eq!(absent.status, StatusCode::NOT_FOUND);
    // Tokens that see both registries find all deliveries of both, in one order.
    let both = server.token("read", Some(&["contoso", "fabrikam"])).await;
    for token in [&both, &server.admin] {
        let (mut path, mut ids) = ("/deliveries?limit=500".to_owned(), Vec::new());
        loop {
            let page = get(&server, token, &path).await.expect(StatusCode::OK);
            let items = page["items"].as_array().unwrap();
            ids.extend(items.iter().map(|delivery| delivery["id"].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                Some(next) => path = format!("/deliveries?limit=500&after={next}"),
                None => break,
            }
        }
        assert_eq!(ids.len(), 2_102);
        assert!(ids[2_100..].contains(&"own".to_owned()), "the two oldest are last");
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 2_102);
    }

    // An existing delivery, an absent one and another registry's cursor are refused alike.
    let mut answers = BTreeSet::new();
    let others =
        server.get("/deliveries?limit=1").await.json()["next"].as_str().unwrap().to_owned();
    let real = format!("github/{}/d-1", foreign.id);
    let absent = format!("github/{}/d-x", foreign.id);
    for after in [real.as_str(), &absent, &others, "00"] {
        let refused = get(&server, &token, &format!("/deliveries?after={after}")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        answers.insert(refused.text);
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn a_token_of_a_former_registry_sees_nothing_of_the_one_that_has_its_name_nor_the_reverse() {
    let server = TestServer::with_registry().await;
    let former = server.token("write", Some(&["contoso"])).await;
    let hook = server.hook(Provider::GitHub).await;
    let delivered = Answer::of(server.github(&hook, "ping", "d-1", "{}")).await;
    delivered.expect(StatusCode::ACCEPTED);
    let build = json!({"context": "https://github.com/octo/hello.git", "images": ["hello:1"]});
    let run = server.post("/registries/contoso/builds", build.clone()).await;
    let run = run.expect(StatusCode::CREATED)["id"].as_str().unwrap().to_owned();
    server.delete(&format!("/hooks/{}", hook.id)).await.expect(StatusCode::NO_CONTENT);
    server.delete("/registries/contoso").await.expect(StatusCode::NO_CONTENT);

    server.create_registry("contoso").await;
    let task =
        json!({"name": "web", "context": "https://github.com/octo/hello.git", "images": ["web:1"]});
    server.post("/registries/contoso/tasks", task.clone()).await.expect(StatusCode::CREATED);
    let new = server.hook(Provider::GitHub).await;
    let latter = server.token("write", Some(&["contoso"])).await;
    let (old_run, old_delivery) =
        (format!("/runs/{run}"), format!("/hooks/{}/deliveries/d-1", hook.id));
    for (token, sees, runs) in [(&former, false, 1), (&latter, true, 0)] {
        let status = |is_seen: bool| if is_seen { StatusCode::OK } else { StatusCode::NOT_FOUND };
        for (path, is_seen) in [
            ("/registries/contoso", sees),
            ("/registries/contoso/tasks/web", sees),
            (&format!("/hooks/{}", new.id), sees),
            (old_run.as_str(), !sees),
            (&format!("{old_run}/log"), !sees),
            (old_delivery.as_str(), !sees),
        ] {
            assert_eq!(get(&server, token, path).await.status, status(is_seen), "{path}");
        }
        let many = usize::from(sees);
        for (path, expected) in [
            ("/registries", many),
            ("/tasks", many),
            ("/hooks", many),
            ("/runs", runs),
            ("/deliveries", runs),
        ] {
            let page = get(&server, token, path).await.expect(StatusCode::OK);
            assert_eq!(page["items"].as_array().unwrap().len(), expected, "{path}");
        }
        for (path, body) in [("builds", &build), ("tasks", &task)] {
            let asked = server.api(Method::POST, &format!("/registries/contoso/{path}"));
            let asked = Answer::of(asked.bearer_auth(token).json(body)).await;
            assert_eq!(asked.status == StatusCode::NOT_FOUND, !sees, "{path}: {}", asked.text);
        }
    }
    // Not even an admin can rerun it, because its registry is gone.
    let again = server.post(&format!("/runs/{run}/reruns"), json!({})).await;
    assert_eq!(again.code(), "registry_gone", "{}", again.text);
}

#[tokio::test]
async fn a_token_can_only_be_bound_to_existing_registries() {
    let server = TestServer::with_registry().await;
    for registries in [json!([]), json!(["contoso", "nobody"])] {
        let asked = json!({"scope": "read", "description": "", "registries": registries});
        let refused = server.post("/tokens", asked).await;
        refused.expect(StatusCode::BAD_REQUEST);
    }
}
