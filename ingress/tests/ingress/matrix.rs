//! Every operation of the OpenAPI document with every kind of token, on existing, foreign and absent objects.
//!
//! The expected results are derived from the roles that the document declares for the operation, so this test verifies
//! the document. An operation whose parameters or body are missing from the tables here fails the test.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use gantry_domain::hook::Provider;
use gantry_domain::notification::{Message, MessageId, News, Sending};
use gantry_domain::scan::ImageRole;
use gantry_domain::token::{Scope, Token};
use gantry_domain::worker::{EngineHealth, Worker};
use gantry_seams::store::{Batch, Key, Kind};
use gantry_seams::{messages, notifications, runs, tokens, workers};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::rig::{Answer, TestServer, push};

const SCOPES: [Scope; 4] = [Scope::Read, Scope::Run, Scope::Write, Scope::Admin];
const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

/// An operation of the document.
#[derive(Debug, Clone)]
struct Operation {
    method: Method,
    /// Its parameters are in braces.
    path: String,
    /// The minimum scope.
    scope: Scope,
    /// Whether its token must not be bound to registries.
    is_everywhere: bool,
    parameters: Vec<String>,
    /// Names that the query must have.
    required: Vec<String>,
    query: Vec<String>,
    has_body: bool,
}

impl Operation {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The parameters that it cannot do without.
    fn names(&self) -> impl Iterator<Item = &String> {
        self.parameters.iter().chain(&self.required)
    }

    /// Whether a parameter names an object of a registry.
    fn names_a_registrys_own(&self) -> bool {
        self.names().next().is_some() && !self.is_everywhere
    }
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let said = format!("{method} {path}");
            let requirements = operation["security"].as_array().unwrap_or_else(|| panic!("{said}"));
            let [requirement] = requirements.as_slice() else { panic!("{said}: one way in") };
            let mut roles: Vec<&str> =
                requirement["token"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
            let is_everywhere = roles.last() == Some(&"everywhere");
            roles.truncate(roles.len() - usize::from(is_everywhere));
            let [scope] = roles.as_slice() else { panic!("{said}: one scope, not {roles:?}") };
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let of = |place: &str| {
                let those = parameters.iter().filter(|parameter| parameter["in"] == place);
                those.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
            };
            all.push(Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.strip_prefix("/api/v1").unwrap().to_owned(),
                scope: scope.parse().unwrap(),
                is_everywhere,
                parameters: of("path"),
                required: {
                    let required = parameters.iter().filter(|parameter| {
                        parameter["in"] == "query" && parameter["required"] == true
                    });
                    required.map(|it| it["name"].as_str().unwrap().to_owned()).collect()
                },
                query: of("query"),
                has_body: operation["requestBody"].is_object(),
            });
        }
    }
    all
}

/// A server with one object of each kind in registry `contoso`, and an empty registry `fabrikam`.
struct World {
    server: TestServer,
    /// An existing value for each parameter.
    things: BTreeMap<&'static str, String>,
}

/// A valid value for a parameter that names nothing.
fn absent(parameter: &str) -> String {
    match parameter {
        "registry" | "task" => "nowhere".to_owned(),
        "run" | "after" => "zz999".to_owned(),
        "hook" => "0".repeat(32),
        "secret" | "name" | "upload" => "absent".to_owned(),
        "delivery" | "id" => "d-999".to_owned(),
        "notification" => "absent".to_owned(),
        "message" => format!("msg_zz999_failed_{}", "0".repeat(32)),
        "signing_secret" => "0".repeat(12),
        "event" => "request/absent".to_owned(),
        "wave" => "zz-w999".to_owned(),
        "image" | "base" => "absent.test/nothing:1".to_owned(),
        "digest" => format!("sha256:{}", "2".repeat(64)),
        other => panic!("the matrix does not know what `{other}` could name"),
    }
}

impl World {
    async fn make() -> Self {
        let server = TestServer::with_registry().await;
        server.create_registry("fabrikam").await;
        server.create_registry("empty").await;
        let task = json!({"name": "web", "context": "https://git.test/a.git", "images": ["a:1"]});
        server.post("/registries/contoso/tasks", task).await.expect(StatusCode::CREATED);
        let secret = server.api(Method::PUT, "/registries/contoso/secrets/npm-token");
        let secret = secret.bearer_auth(&server.admin).json(&json!({"value": "a value"}));
        Answer::of(secret).await.expect(StatusCode::OK);
        let run = server.post("/registries/contoso/tasks/web/runs", json!({})).await;
        let run = run.expect(StatusCode::CREATED);
        let hook = server.hook(Provider::GitHub).await;
        server
            .post(&format!("/hooks/{}/secrets", hook.id), json!({}))
            .await
            .expect(StatusCode::CREATED);
        let shown = server.get(&format!("/hooks/{}", hook.id)).await.expect(StatusCode::OK);
        let delivery = Answer::of(server.github(&hook, "push", "d-1", &push('1', '2'))).await;
        delivery.expect(StatusCode::ACCEPTED);
        let lineage = json!({
            "v": 1, "digest": DIGEST, "images": ["registry.test/a:1"], "platforms": "linux/amd64",
            "bases": [], "run": run["id"], "registry": "contoso", "source": "s", "cause": "c",
            "pushed": 1_700_000_000_000_i64,
        });
        let mut batch = Batch::default();
        batch.put(Key::new(Kind::Lineage, DIGEST), serde_json::to_vec(&lineage).unwrap());
        server.store.commit(batch).await.unwrap();
        workers::record_seen(server.store.as_ref(), &worker(&server, &run).await).await.unwrap();
        let made =
            server.post("/tokens", json!({"scope": "read"})).await.expect(StatusCode::CREATED);
        let archive = [&[0x1f, 0x8b][..], &[0; 300]].concat();
        let upload =
            server.api(Method::POST, "/registries/contoso/uploads").bearer_auth(&server.admin);
        let upload = Answer::of(upload.body(archive)).await.expect(StatusCode::CREATED);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let held = crate::approvals::held_run(&server).await;
        let (message, signing_secret) = told(&server, &held).await;
        let image = "docker.io/library/alpine:3";
        crate::scans::find_images(&server, "contoso/web", &[(image, ImageRole::Runtime)]).await;
        crate::images::watch(&server, image, '3').await;
        let wave = crate::images::wave(&server, image).await;
        let things = [
            ("image", image.to_owned()),
            ("base", image.to_owned()),
            ("wave", wave.to_string()),
            ("held", held),
            ("registry", "contoso".to_owned()),
            ("task", "web".to_owned()),
            ("run", text(&run["id"])),
            ("after", text(&run["id"])),
            ("hook", hook.id.to_string()),
            ("secret", text(&shown["secrets"][0]["id"])),
            ("name", "npm-token".to_owned()),
            ("delivery", "d-1".to_owned()),
            ("id", "d-1".to_owned()),
            ("event", text(&run["event"])),
            ("digest", DIGEST.to_owned()),
            ("notification", "deploy".to_owned()),
            ("message", message),
            ("signing_secret", signing_secret),
            ("worker", "w1".to_owned()),
            ("upload", text(&upload["id"])),
            ("token", text(&made["token"]["id"])),
        ]
        .into();
        Self { server, things }
    }

    fn thing(&self, operation: &Operation, parameter: &str) -> String {
        // Only a registry without tasks, hooks and secrets can be deleted.
        if operation.method == Method::DELETE && operation.path == "/registries/{registry}" {
            return "empty".to_owned();
        }
        // Only a held run can be approved.
        let is_approval = operation.path == "/runs/{run}/approve" && parameter == "run";
        let thing = self.things.get(if is_approval { "held" } else { parameter });
        thing.unwrap_or_else(|| panic!("the matrix has no {parameter}: make one")).clone()
    }

    /// A valid body.
    fn body(&self, operation: &Operation) -> Value {
        let git = "https://git.test/a.git";
        match operation.name().as_str() {
            "POST /registries" => json!({"name": "other", "host": "other.test"}),
            "PATCH /registries/{registry}" => json!({"run_limit": 3}),
            "POST /registries/{registry}/builds" => json!({"context": git, "images": ["a:1"]}),
            "POST /registries/{registry}/runs" => {
                json!({"task_file": {"text": "steps: [cmd: busybox true]"}})
            }
            "POST /registries/{registry}/tasks" => {
                json!({"name": "new", "context": git, "images": ["a:1"]})
            }
            "PATCH /registries/{registry}/tasks/{task}" => json!({"timeout": 60}),
            "PUT /registries/{registry}/secrets/{name}" => json!({"value": "a value"}),
            "POST /runs/{run}/reruns" => json!({}),
            "POST /runs/{run}/approve" => json!({"commit": "b".repeat(40)}),
            "PATCH /runs/{run}" => json!({"archived": true}),
            "POST /registries/{registry}/simulations" => {
                json!({"provider": "github", "event": "ping", "body": "{}"})
            }
            "POST /registries/{registry}/hooks" => json!({"provider": "github"}),
            "PATCH /hooks/{hook}" => json!({"repositories": [git]}),
            "POST /registries/{registry}/notifications" => {
                json!({"name": "new", "url": "https://hooks.invalid/a", "format": "slack"})
            }
            "PATCH /registries/{registry}/notifications/{notification}" => {
                json!({"on": ["failed"]})
            }
            "POST /registries/{registry}/notifications/{notification}/replays" => {
                json!({"since_seconds": 60})
            }
            "POST /tokens" => json!({"scope": "read"}),
            "POST /registries/{registry}/tasks/{task}/runs" | "POST /hooks/{hook}/secrets" => {
                json!({})
            }
            other => panic!("the matrix has no body for {other}"),
        }
    }

    fn path(&self, operation: &Operation) -> String {
        self.path_without(operation, &[])
    }

    /// The path, with absent values for these parameters.
    fn path_without(&self, operation: &Operation, without: &[&str]) -> String {
        let mut path = operation.path.clone();
        let named = |parameter: &String| {
            let is_absent = without.contains(&parameter.as_str());
            if is_absent { absent(parameter) } else { self.thing(operation, parameter) }
        };
        for parameter in &operation.parameters {
            path = path.replace(&format!("{{{parameter}}}"), &named(parameter));
        }
        for parameter in &operation.required {
            path.push_str(&format!("?{parameter}={}", named(parameter)));
        }
        assert!(!path.contains('{'), "{path}");
        path
    }

    fn request(&self, operation: &Operation, path: &str) -> RequestBuilder {
        let request = self.server.api(operation.method.clone(), path);
        if operation.path.ends_with("/uploads") {
            return request.body([0x1f, 0x8b].to_vec());
        }
        if operation.has_body { request.json(&self.body(operation)) } else { request }
    }

    async fn status(&self, operation: &Operation, token: &str) -> StatusCode {
        let request = self.request(operation, &self.path(operation)).bearer_auth(token);
        // The event stream of a running run does not end.
        request.send().await.unwrap().status()
    }

    /// A response without the requested names.
    async fn unnamed(
        &self,
        operation: &Operation,
        path: &str,
        token: &str,
    ) -> (StatusCode, String) {
        let answer = Answer::of(self.request(operation, path).bearer_auth(token)).await;
        // Whether the connection is kept alive depends on how much of the body had arrived.
        let headers = answer.headers.keys().filter(|name| *name != "connection");
        let headers: BTreeSet<&str> = headers.map(|name| name.as_str()).collect();
        let mut text = format!("{headers:?} {}", answer.text);
        for parameter in operation.names() {
            text = text.replace(&self.thing(operation, parameter), "?");
            text = text.replace(&absent(parameter), "?");
        }
        (answer.status, text)
    }
}

/// A notification that told of a held run. Returns the ids of its message and of its secret.
async fn told(server: &TestServer, held: &str) -> (String, String) {
    let new = json!({
        "name": "deploy", "url": "https://hooks.invalid/s3cr3t", "format": "standard", "on": ["held"],
    });
    let made = server.post("/registries/contoso/notifications", new).await;
    let made = made.expect(StatusCode::CREATED);
    let store = server.store.as_ref();
    let prefix = server.prefix("contoso").await;
    let notification =
        notifications::find(store, prefix, &"deploy".parse().unwrap()).await.unwrap().unwrap();
    let run = runs::find(store, held.parse().unwrap()).await.unwrap().unwrap();
    let untold = messages::untold(store, None, 10).await.unwrap();
    let untold = untold.iter().find(|untold| untold.run == run.id).unwrap();
    let now = store.now().await.unwrap();
    let message = Message {
        id: MessageId::of(run.id, untold.event, &notification.id),
        notification: notification.id,
        registry: prefix,
        name: notification.name,
        news: News::of(&run, "http://gantry.test").unwrap(),
        created: now,
        attempts: 1,
        sending: Sending::Sent { at: now },
        answer: None,
    };
    messages::tell(store, untold, std::slice::from_ref(&message)).await.unwrap();
    let secret = made["notification"]["secrets"][0]["id"].as_str().unwrap().to_owned();
    (message.id.to_string(), secret)
}

async fn worker(server: &TestServer, run: &Value) -> Worker {
    Worker {
        id: "w1".parse().unwrap(),
        has_fixed_name: true,
        pool: "linux-amd64".parse().unwrap(),
        platforms: Vec::new(),
        slots: 2,
        runs: vec![run["id"].as_str().unwrap().parse().unwrap()],
        version: "1".to_owned(),
        engine: EngineHealth::Ready { name: "an engine".to_owned() },
        free_disk: None,
        idle_because: None,
        last_seen: server.store.now().await.unwrap(),
    }
}

/// A token that expired before this test began.
async fn expired(server: &TestServer) -> String {
    let secret = "0".repeat(64);
    let token = Token {
        id: "expired".parse().unwrap(),
        description: String::new(),
        secret_sha256: hex::encode(Sha256::digest(&secret)),
        scope: Scope::Admin,
        registries: None,
        created: gantry_domain::timestamp::Timestamp::from_millis(1),
        expires: Some(gantry_domain::timestamp::Timestamp::from_millis(2)),
        revoked: None,
    };
    tokens::create(server.store.as_ref(), &token).await.unwrap();
    format!("gantry_expired_{secret}")
}

async fn revoked(server: &TestServer) -> String {
    let token = server.token("admin", None).await;
    let id = token.split('_').nth(1).unwrap();
    server.delete(&format!("/tokens/{id}")).await.expect(StatusCode::OK);
    token
}

/// Values of `Authorization` that do not authenticate.
async fn no_keys(server: &TestServer) -> Vec<Option<String>> {
    let good = &server.admin;
    let (rest, secret) = good.rsplit_once('_').unwrap();
    let mut all = vec![None];
    let headers = [
        format!("Bearer {}", expired(server).await),
        format!("Bearer {}", revoked(server).await),
        format!("Bearer {rest}_{}", "0".repeat(64)),
        format!("Bearer {}", &good[..good.len() - 1]),
        format!("Bearer {good}0"),
        format!("Bearer {good} {good}"),
        format!("Bearer {}", good.to_uppercase()),
        format!("Bearer gantry_nobody_{secret}"),
        "Bearer gantry__".to_owned(),
        "Bearer".to_owned(),
        format!("Basic {good}"),
        good.clone(),
        format!("Bearer\t{good}"),
        "Bearer é".to_owned(),
        format!("Bearer {}", "x".repeat(4000)),
        String::new(),
    ];
    all.extend(headers.map(Some));
    all
}

async fn document(server: &TestServer) -> Vec<Operation> {
    let answer = Answer::of(server.api(Method::GET, "/openapi.json")).await;
    let all = operations(&answer.expect(StatusCode::OK));
    assert!(all.len() >= 42, "{}", all.len());
    all
}

#[tokio::test]
async fn without_a_valid_token_no_operation_has_an_effect() {
    let world = World::make().await;
    let keys = no_keys(&world.server).await;
    for operation in document(&world.server).await {
        let path = world.path(&operation);
        for key in &keys {
            let request = |request: RequestBuilder| match key {
                Some(key) => request.header("authorization", key.as_bytes()),
                None => request,
            };
            let whole = Answer::of(request(world.request(&operation, &path))).await;
            assert_eq!(whole.status, StatusCode::UNAUTHORIZED, "{} {key:?}", operation.name());
            // Nor does it reveal what is wrong with the rest of the request.
            let broken = world.server.api(operation.method.clone(), &format!("{path}?limit=x"));
            let broken = broken.header("content-type", "application/json").body("{");
            let broken = Answer::of(request(broken)).await;
            assert_eq!(broken.text, whole.text, "{} {key:?}", operation.name());
            assert_eq!(broken.status, whole.status, "{} {key:?}", operation.name());
        }
        let in_address = format!("{path}?access_token={0}&token={0}", world.server.admin);
        let in_address = Answer::of(world.request(&operation, &in_address)).await;
        assert_eq!(in_address.status, StatusCode::UNAUTHORIZED, "{}", operation.name());
    }
}

#[tokio::test]
async fn every_operation_asks_for_the_scope_and_the_registry_that_the_document_says() {
    let world = World::make().await;
    let registries: [Option<&[&str]>; 3] = [None, Some(&["contoso", "empty"]), Some(&["fabrikam"])];
    let mut keys = Vec::new();
    for scope in SCOPES {
        for bound in registries {
            keys.push((scope, bound, world.server.token(&scope.to_string(), bound).await));
        }
    }
    let mut operations = document(&world.server).await;
    // Deletions come last, and contained objects before their containers.
    let deletes = |operation: &Operation| operation.method == Method::DELETE;
    operations.sort_by_key(|operation| (deletes(operation), Reverse(operation.path.len())));
    let mut done = 0;
    for operation in operations {
        let mut allowed = Vec::new();
        for (scope, bound, token) in &keys {
            let is_elsewhere = *bound == registries[2];
            let is_too_little =
                *scope < operation.scope || (operation.is_everywhere && bound.is_some());
            let refused = if is_too_little {
                Some(StatusCode::FORBIDDEN)
            } else if is_elsewhere && operation.names_a_registrys_own() {
                Some(StatusCode::NOT_FOUND)
            } else {
                None
            };
            match refused {
                None => allowed.push((scope, bound, token)),
                Some(expected) => {
                    let status = world.status(&operation, token).await;
                    assert_eq!(status, expected, "{} as {scope} {bound:?}", operation.name());
                    done += 1;
                }
            }
        }
        for (at, (scope, bound, token)) in allowed.into_iter().enumerate() {
            let status = world.status(&operation, token).await;
            // The first request succeeded, so a repeated one may be refused.
            let is_again =
                at > 0 && [StatusCode::CONFLICT, StatusCode::NOT_FOUND].contains(&status);
            let said = format!("{} as {scope} {bound:?}: {status}", operation.name());
            assert!(status.is_success() || is_again, "{said}");
            done += 1;
        }
    }
    assert!(done >= 42 * 12, "{done}");
}

#[tokio::test]
async fn another_registrys_things_answer_as_if_they_were_not_there() {
    let world = World::make().await;
    let token = world.server.token("admin", Some(&["fabrikam"])).await;
    for operation in document(&world.server).await {
        if operation.names_a_registrys_own() {
            let there = world.unnamed(&operation, &world.path(&operation), &token).await;
            assert_eq!(there.0, StatusCode::NOT_FOUND, "{}", operation.name());
            let names: Vec<&str> = operation.names().map(String::as_str).collect();
            for without in (0..names.len()).map(|at| &names[at..]).chain([&names[..1]]) {
                let path = world.path_without(&operation, without);
                let absent = world.unnamed(&operation, &path, &token).await;
                assert_eq!(there, absent, "{} without {without:?}", operation.name());
            }
            continue;
        }
        if operation.method != Method::GET || operation.is_everywhere {
            continue;
        }
        // No filter of a list shows or reveals another registry's objects. Only the list of runs continues after
        // another's name.
        let names = operation.query.iter().map(String::as_str);
        let of_things = names.filter(|name| match *name {
            "after" => operation.path == "/runs",
            name => world.things.contains_key(name),
        });
        for name in of_things {
            let ask = async |value: &str| {
                let path = format!("{}?{name}={value}", operation.path);
                let request = world.server.api(Method::GET, &path).bearer_auth(&token);
                let answer = Answer::of(request).await;
                (answer.status, answer.text.replace(value, "?"))
            };
            let there = ask(&world.thing(&operation, name)).await;
            assert_eq!(there, ask(&absent(name)).await, "{} by {name}", operation.name());
        }
        let all = world.server.api(Method::GET, &operation.path).bearer_auth(&token);
        let all = Answer::of(all).await;
        assert_eq!(all.status, StatusCode::OK, "{}", operation.name());
        for name in ["registry", "run", "hook", "delivery", "digest"] {
            assert!(!all.text.contains(&world.things[name]), "{}: {}", operation.name(), all.text);
        }
    }
}

mod slow {
    use super::*;

    #[tokio::test]
    async fn another_registrys_things_take_as_long_as_absent_ones() {
        let world = World::make().await;
        let token = world.server.token("read", Some(&["fabrikam"])).await;
        for path in ["/registries/{registry}", "/runs/{run}", "/hooks/{hook}", "/events/{event}"] {
            let name = path.split(['{', '}']).nth(1).unwrap();
            let ask = async |named: &str| {
                let path = path.replace(&format!("{{{name}}}"), named);
                let began = Instant::now();
                let request = world.server.api(Method::GET, &path).bearer_auth(&token);
                assert_eq!(Answer::of(request).await.status, StatusCode::NOT_FOUND);
                began.elapsed()
            };
            let (mut there, mut not) = (Vec::new(), Vec::new());
            for _ in 0..60 {
                there.push(ask(&world.things[name]).await);
                not.push(ask(&absent(name)).await);
            }
            let median = |mut times: Vec<Duration>| {
                times.sort();
                times[times.len() / 2]
            };
            let (there, not) = (median(there), median(not));
            assert!(there < 2 * not && not < 2 * there, "{path}: {there:?} and {not:?}");
        }
    }
}
