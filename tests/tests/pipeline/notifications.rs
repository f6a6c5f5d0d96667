//! Whom gantry tells of runs, and what becomes of a message that its receiver does not take.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use gantry_domain::hook::{Hook, HookSecret, Sender};
use gantry_domain::notification::{Message, Notification};
use gantry_ingress::{Ingress, IngressSettings, Listeners};
use gantry_ops::health::Health;
use gantry_ops::secret::SecretString;
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::webhook::Webhooks;
use gantry_seams::{hooks, messages, notifications, runs};
use gantry_tests::hosts::server::{Answer, Asked, HostServer, json as answer};
use gantry_tests::pipeline::{DOCKERFILE, TestPipeline, webhooks};
use gantry_worker::engine::scripted::Action;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

const AN_HOUR: Duration = Duration::from_secs(3600);
const A_DAY: Duration = Duration::from_secs(24 * 3600);

/// The API and the hooks of an installation.
struct Api {
    client: Client,
    url: String,
    token: String,
}

impl Api {
    async fn of(gantry: &TestPipeline) -> Self {
        Self::with(gantry, gantry.webhooks.clone()).await
    }

    async fn with(gantry: &TestPipeline, webhooks: Webhooks) -> Self {
        let token = gantry_ingress::issue_admin_token(gantry.store.as_ref()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let ingress = Ingress {
            store: gantry.store.clone(),
            queues: gantry.queues.clone(),
            blobs: gantry.blobs.clone(),
            keyring: gantry.keyring.clone(),
            providers: Arc::new(gantry.providers.clone()),
            webhooks,
            health: Health::default(),
            settings: IngressSettings { threads: 1, ..IngressSettings::default() },
        };
        let listeners = Listeners { api: listener, hooks: None };
        tokio::spawn(gantry_ingress::run(ingress, listeners, gantry.stop.clone()));
        let client = Client::builder().no_proxy().build().unwrap();
        Self { client, url, token: token.as_str().to_owned() }
    }

    /// Sends a request about notifications. No answer may name a secret address.
    async fn send(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let url = format!("{}/api/v1/registries/reg/notifications{path}", self.url);
        let request = self.client.request(method, url).bearer_auth(&self.token);
        let answer = request.json(body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(!text.contains("s3cr3t"), "{text}");
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send(Method::GET, path, &json!(null)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, body) = self.send(Method::POST, path, &body).await;
        assert!(status.is_success(), "{path}: {body}");
        body
    }

    /// Creates a notification to a receiver, and returns its signing secret.
    async fn notify(&self, name: &str, receiver: &HostServer, more: Value) -> Option<String> {
        let url = format!("http://{}/services/s3cr3t?key=s3cr3t", receiver.host());
        let mut new = json!({"name": name, "url": url, "format": "standard"});
        new.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.post("", new).await["secret"].as_str().map(str::to_owned)
    }

    /// The messages of a notification, one per line: run, event, state, attempts and status.
    async fn told(&self, name: &str) -> Vec<String> {
        let listed = self.get(&format!("/{name}/messages")).await;
        let line = |message: &Value| {
            let text = |name: &str| message[name].as_str().unwrap().to_owned();
            let status = &message["answer"]["status"];
            let (run, event, state) = (text("run"), text("event"), text("state"));
            format!("{run} {event} {state} {} {status}", message["attempts"])
        };
        listed["items"].as_array().unwrap().iter().map(line).collect()
    }
}

async fn receiver() -> HostServer {
    HostServer::start(|_| answer(200, &json!({}))).await.unwrap()
}

/// The events that a receiver got.
fn received(receiver: &HostServer) -> Vec<String> {
    let event = |asked: Asked| {
        let (kind, run) = (&asked.body["type"], &asked.body["data"]["run"]);
        format!("{} {}", run.as_str().unwrap_or("-"), kind.as_str().unwrap())
    };
    receiver.asked().into_iter().map(event).collect()
}

/// An installation with the API, and a repository `hello` that a task `hello` builds.
async fn start() -> (TestPipeline, Api, String) {
    let gantry = super::start().await;
    let api = Api::of(&gantry).await;
    let commit = gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    // Also reads what the task needs, in a hidden run.
    gantry.settle().await;
    (gantry, api, commit)
}

/// Commits a change to the repository, without a push.
fn change(gantry: &TestPipeline, content: &str) -> String {
    let files = [DOCKERFILE, &[("file", content)]].concat();
    gantry.git.repository("hello").unwrap().commit("main", &files).unwrap()
}

/// Builds the next commit; `action` is what the engine does.
async fn push(gantry: &TestPipeline, before: &str, number: u8, action: Option<Action>) -> String {
    let content = number.to_string();
    let commit = change(gantry, &content);
    // Messages are listed by their times.
    gantry.clock.advance(Duration::from_secs(1));
    gantry.engine.script(&TestPipeline::repository("hello"), action);
    gantry.deliver(&format!("d{number}"), "hello", Some(before), Some(&commit)).await;
    gantry.settle().await;
    commit
}

/// The only message of a notification.
async fn message(gantry: &TestPipeline, name: &str) -> Message {
    let store = gantry.store.as_ref();
    let found = notification(gantry, name).await;
    messages::list(store, &found.id, None, 10).await.unwrap().pop().unwrap()
}

async fn notification(gantry: &TestPipeline, name: &str) -> Notification {
    let (store, prefix) = (gantry.store.as_ref(), TestPipeline::prefix());
    notifications::find(store, prefix, &name.parse().unwrap()).await.unwrap().unwrap()
}

/// What a hook of gantry that takes Standard Webhooks says of a message: its verifier is not the code that signs.
async fn verify(
    gantry: &TestPipeline,
    api: &Api,
    hook: &str,
    secret: &str,
    asked: &Asked,
) -> StatusCode {
    let id: gantry_domain::id::HookId = hook.parse().unwrap();
    let store = gantry.store.as_ref();
    if hooks::find(store, &id).await.unwrap().is_none() {
        let secret = SecretString::from(secret);
        let hook = Hook {
            id: id.clone(),
            registry: "reg".parse().unwrap(),
            prefix: TestPipeline::prefix(),
            sender: Sender::GitLab,
            repositories: Vec::new(),
            secrets: vec![HookSecret {
                sealed: gantry.keyring.seal(&hooks::seal_for(&id), &secret).unwrap(),
                created: gantry.clock.now(),
            }],
            is_provisioned: false,
            created: gantry.clock.now(),
        };
        hooks::create(store, &hook).await.unwrap();
    }
    let mut request = api.client.post(format!("{}/hooks/gitlab/{id}", api.url));
    for name in ["webhook-id", "webhook-signature", "content-type"] {
        request = request.header(name, asked.header(name));
    }
    request = request.header("webhook-timestamp", asked.header("webhook-timestamp"));
    let request = request.header("x-gitlab-event", "Push Hook").header("idempotency-key", "v-1");
    request.body(asked.body.to_string()).send().await.unwrap().status()
}

#[tokio::test]
async fn a_push_is_told_once_it_is_built_and_hidden_runs_are_told_to_nobody() {
    let (gantry, api, first) = start().await;
    let receiver = receiver().await;
    api.notify("deploy", &receiver, json!({})).await;
    let commit = push(&gantry, &first, 1, None).await;
    assert_eq!(received(&receiver), ["ca1 run.succeeded"]);
    let asked = &receiver.asked()[0];
    assert_eq!(asked.words(), ["services", "s3cr3t"]);
    let data = &asked.body["data"];
    assert_eq!(data["task"], "hello");
    assert_eq!(data["commit"], commit.as_str());
    assert_eq!(data["branch"], "main");
    assert_eq!(data["status"], "Succeeded");
    assert_eq!(data["url"], "http://gantry.test/runs/ca1");
    assert_eq!(data["images"][0]["image"], "registry.test/hello:ca1");
    assert!(data["images"][0]["digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(api.told("deploy").await, ["ca1 succeeded sent 1 200"]);
    gantry.settle().await;
    assert_eq!(receiver.asked().len(), 1, "it is told once");
}

#[tokio::test]
async fn a_message_is_signed_with_each_secret_while_one_replaces_the_other() {
    let (gantry, api, first) = start().await;
    let receiver = receiver().await;
    let old = api.notify("deploy", &receiver, json!({})).await.unwrap();
    let added = api.post("/deploy/secrets", json!({})).await;
    let new = added["secret"].as_str().unwrap();
    assert!(new.starts_with("whsec_") && new != old);
    let (status, _) = api.send(Method::POST, "/deploy/secrets", &json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT, "there are two");
    push(&gantry, &first, 1, None).await;
    let asked = receiver.asked().pop().unwrap();
    let mut now = asked.clone();
    // The verifier compares the time with the machine's clock, which the test's is behind.
    let signed = |secret: &str| {
        let (id, body) = (asked.header("webhook-id"), asked.body.to_string());
        let at = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let at = gantry_domain::timestamp::Timestamp::from_millis(at.try_into().unwrap());
        let secrets = [SecretString::from(secret)];
        gantry_ops::standard_webhooks::headers(&secrets, id, at, body.as_bytes())
    };
    for (hook, secret) in [("knows-old", old.as_str()), ("knows-new", new)] {
        let [_, (_, at), (_, signature)] = signed(secret);
        now.headers.insert("webhook-timestamp", at.parse().unwrap());
        now.headers.insert("webhook-signature", signature.parse().unwrap());
        assert!(verify(&gantry, &api, hook, secret, &now).await.is_success());
        let mut forged = now.clone();
        forged.body["data"]["status"] = json!("Failed");
        let status = verify(&gantry, &api, hook, secret, &forged).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    // The message itself has both signatures, for the time at which it was sent.
    let sent = Duration::from_secs(asked.header("webhook-timestamp").parse().unwrap());
    let at = gantry_domain::timestamp::Timestamp::from_millis(sent.as_millis().try_into().unwrap());
    let secrets = [new, old.as_str()].map(SecretString::from);
    let (id, body) = (asked.header("webhook-id"), asked.body.to_string());
    let expected = gantry_ops::standard_webhooks::headers(&secrets, id, at, body.as_bytes());
    assert_eq!(asked.header("webhook-signature"), expected[2].1);

    let old = added["notification"]["secrets"][1]["id"].as_str().unwrap();
    let path = format!("/deploy/secrets/{old}");
    let (status, left) = api.send(Method::DELETE, &path, &json!(null)).await;
    assert_eq!((status, left["secrets"].as_array().unwrap().len()), (StatusCode::OK, 1));
}

#[tokio::test]
async fn a_receiver_that_fails_is_asked_again_under_the_same_id_and_delays_no_other() {
    let (gantry, api, first) = start().await;
    let (broken, well) = (receiver().await, receiver().await);
    broken.fail(|_| Some(answer(500, &json!({"echo": "/services/s3cr3t?key=s3cr3t"}))));
    api.notify("broken", &broken, json!({})).await;
    api.notify("well", &well, json!({})).await;
    push(&gantry, &first, 1, None).await;
    assert_eq!(api.told("well").await, ["ca1 succeeded sent 1 200"]);
    assert_eq!(api.told("broken").await, ["ca1 succeeded due 1 500"]);
    gantry.settle().await;
    assert_eq!(broken.asked().len(), 1, "not before its time");
    for (attempts, pause) in [(2, 5), (3, 300), (4, 1800), (5, 7200), (6, 18_000)] {
        gantry.clock.advance(Duration::from_secs(pause));
        gantry.settle().await;
        assert_eq!(api.told("broken").await, [format!("ca1 succeeded due {attempts} 500")]);
    }
    gantry.clock.advance(Duration::from_secs(36_000));
    gantry.settle().await;
    assert_eq!(api.told("broken").await, ["ca1 succeeded given_up 7 500"]);
    let answer = message(&gantry, "broken").await.answer.unwrap().text;
    assert!(answer.contains("500") && answer.contains("***") && !answer.contains("s3cr3t"));
    gantry.clock.advance(A_DAY);
    gantry.settle().await;
    let ids: std::collections::BTreeSet<String> =
        broken.asked().iter().map(|asked| asked.header("webhook-id").to_owned()).collect();
    assert_eq!((broken.asked().len(), ids.len()), (7, 1));

    broken.recover();
    let replayed = api.post("/broken/replays", json!({"since_seconds": 60})).await;
    assert_eq!(replayed["messages"], json!([]), "it is older");
    let since = json!({"since_seconds": 3 * 24 * 3600, "failed": true});
    let replayed = api.post("/broken/replays", since.clone()).await;
    assert_eq!(replayed["messages"].as_array().unwrap().len(), 1);
    gantry.settle().await;
    assert_eq!(api.told("broken").await, ["ca1 succeeded sent 8 200"]);
    let replayed = api.post("/broken/replays", since).await;
    assert_eq!(replayed["messages"], json!([]), "it did not fail");
    let id = ids.first().unwrap();
    api.post(&format!("/broken/messages/{id}/replays"), json!({})).await;
    gantry.settle().await;
    assert_eq!(broken.asked().last().unwrap().header("webhook-id"), id);
    assert_eq!(broken.asked().len(), 9);
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_delays_no_other() {
    let (gantry, api, first) = start().await;
    let (silent, well) = (receiver().await, receiver().await);
    silent.fail(|_| None);
    // The test ends before the silent receiver is given up.
    gantry.leaves_work();
    api.notify("silent", &silent, json!({})).await;
    api.notify("well", &well, json!({})).await;
    let commit = change(&gantry, "1");
    gantry.deliver("d1", "hello", Some(&first), Some(&commit)).await;
    let settling = gantry.settle();
    tokio::pin!(settling);
    let told = async {
        while well.asked().is_empty() || silent.asked().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = told => {}
        () = &mut settling => panic!("the silent receiver is waited for"),
    }
}

#[tokio::test]
async fn a_message_whose_sender_dies_is_sent_again_under_the_same_id() {
    let (gantry, api, first) = start().await;
    let receiver = receiver().await;
    receiver.fail(|_| Some(answer(500, &json!({}))));
    api.notify("deploy", &receiver, json!({})).await;
    push(&gantry, &first, 1, None).await;
    gantry.clock.advance(AN_HOUR);
    let (store, due) = (gantry.store.as_ref(), message(&gantry, "deploy").await);
    let period = Duration::from_secs(40);
    let begun = messages::begin(store, &due, period).await.unwrap().unwrap();
    assert!(messages::begin(store, &due, period).await.unwrap().is_none(), "it is somebody's");
    receiver.recover();
    gantry.settle().await;
    assert_eq!(receiver.asked().len(), 1, "nobody else sends it meanwhile");
    gantry.clock.advance(period);
    gantry.settle().await;
    assert_eq!(api.told("deploy").await, ["ca1 succeeded sent 3 200"]);
    let asked = receiver.asked();
    assert_eq!(asked[0].header("webhook-id"), asked[1].header("webhook-id"));
    // What the lost one would still report changes nothing.
    let answer = begun.answer.clone().unwrap();
    let end = messages::End::GivenUp;
    assert!(messages::end(store, &begun, end, &answer).await.unwrap().is_none());
}

#[tokio::test]
async fn a_receiver_that_is_gone_gets_no_more_messages_until_somebody_enables_it() {
    let (gantry, api, first) = start().await;
    let receiver = receiver().await;
    receiver.fail(|_| Some(answer(410, &json!({}))));
    api.notify("deploy", &receiver, json!({})).await;
    let second = push(&gantry, &first, 1, None).await;
    assert_eq!(api.told("deploy").await, ["ca1 succeeded given_up 1 410"]);
    let shown = api.get("/deploy").await;
    assert_eq!(shown["enabled"], false);
    assert!(shown["disabled_because"].as_str().unwrap().contains("410 Gone"), "{shown}");
    let third = push(&gantry, &second, 2, None).await;
    assert_eq!(receiver.asked().len(), 1);
    let (status, _) = api.send(Method::POST, "/deploy/replays", &json!({"since_seconds": 9})).await;
    assert_eq!(status, StatusCode::CONFLICT);

    receiver.recover();
    api.send(Method::PATCH, "/deploy", &json!({"enabled": true})).await;
    push(&gantry, &third, 3, None).await;
    assert_eq!(received(&receiver), ["ca1 run.succeeded", "ca3 run.succeeded"]);
}

#[tokio::test]
async fn a_pause_that_a_receiver_asks_for_is_kept() {
    let (gantry, api, first) = start().await;
    let receiver = receiver().await;
    let busy = |_: &Asked| -> Option<Answer> {
        let mut busy = answer(429, &json!({}));
        busy.headers_mut().insert("retry-after", "600".parse().unwrap());
        Some(busy)
    };
    receiver.fail(busy);
    api.notify("deploy", &receiver, json!({})).await;
    push(&gantry, &first, 1, None).await;
    receiver.recover();
    gantry.clock.advance(Duration::from_secs(599));
    gantry.settle().await;
    assert_eq!(receiver.asked().len(), 1);
    gantry.clock.advance(Duration::from_secs(1));
    gantry.settle().await;
    assert_eq!(api.told("deploy").await, ["ca1 succeeded sent 2 200"]);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (gantry, api, first) = start().await;
    let (target, receiver) = (receiver().await, receiver().await);
    let location = format!("http://{}/", target.host());
    receiver.fail(move |_| {
        let mut moved = answer(307, &json!({}));
        moved.headers_mut().insert("location", location.parse().unwrap());
        Some(moved)
    });
    api.notify("deploy", &receiver, json!({})).await;
    push(&gantry, &first, 1, None).await;
    assert_eq!(api.told("deploy").await, ["ca1 succeeded due 1 307"]);
    assert!(target.asked().is_empty());
}

#[tokio::test]
async fn filters_choose_events_tasks_and_branches() {
    let (gantry, api, first) = start().await;
    let receiver = receiver().await;
    for (name, filter) in [
        ("failures", json!({"on": ["failed"]})),
        ("starts", json!({"on": ["started"]})),
        ("others", json!({"tasks": ["api*"]})),
        ("releases", json!({"branches": ["release/*"]})),
        ("main", json!({"tasks": ["hel*"], "branches": ["main"]})),
    ] {
        api.notify(name, &receiver, filter).await;
    }
    let second = push(&gantry, &first, 1, None).await;
    push(&gantry, &second, 2, Some(Action::Exit(2))).await;
    assert_eq!(api.told("failures").await, ["ca2 failed sent 1 200"]);
    assert_eq!(api.told("others").await, Vec::<String>::new());
    assert_eq!(api.told("releases").await, Vec::<String>::new());
    assert_eq!(api.told("main").await, ["ca2 failed sent 1 200", "ca1 succeeded sent 1 200"]);
    let failed = receiver.asked().into_iter().find(|asked| asked.body["type"] == "run.failed");
    let failure = &failed.unwrap().body["data"]["failure"];
    assert!(failure["message"].as_str().is_some_and(|text| !text.is_empty()), "{failure}");
}

#[tokio::test]
async fn only_changes_tells_of_what_broke_and_what_was_repaired() {
    let (gantry, api, mut commit) = start().await;
    let receiver = receiver().await;
    api.notify("chat", &receiver, json!({"only_changes": true})).await;
    let fails = || Some(Action::Exit(2));
    for (number, action) in [(1, None), (2, fails()), (3, fails()), (4, None), (5, None)] {
        commit = push(&gantry, &commit, number, action).await;
    }
    assert_eq!(received(&receiver), ["ca2 run.failed", "ca4 run.succeeded"]);
}

#[tokio::test]
async fn what_is_not_public_is_refused_and_the_setting_is_named() {
    let (gantry, api, first) = start().await;
    let receiver = receiver().await;
    // Allowed when it was created, and not any more.
    api.notify("inside", &receiver, json!({})).await;
    let mut scheduler = gantry.scheduler();
    scheduler.webhooks = webhooks(OutboundPolicy::default());
    let commit = change(&gantry, "1");
    gantry.deliver("d1", "hello", Some(&first), Some(&commit)).await;
    scheduler.tick().await.unwrap();
    let run = "ca1".parse().unwrap();
    runs::cancel(gantry.store.as_ref(), run, &TestPipeline::canceler()).await.unwrap();
    scheduler.tick().await.unwrap();
    assert!(receiver.asked().is_empty());
    let text = message(&gantry, "inside").await.answer.unwrap().text;
    assert!(text.contains("127.0.0.1") && text.contains("`outbound.allow`"), "{text}");

    let strict = Api::with(&gantry, webhooks(OutboundPolicy::default())).await;
    for url in [
        "https://169.254.169.254/latest/meta-data/s3cr3t",
        "https://127.0.0.1/s3cr3t",
        "https://[::1]/s3cr3t",
        "http://example.com/s3cr3t",
    ] {
        let new = json!({"name": "x", "url": url, "format": "slack"});
        let (status, refused) = strict.send(Method::POST, "", &new).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{url}");
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains("`outbound.allow`"), "{message}");
    }
    // A name is resolved when the connection is made, and by the guard.
    let new = json!({"name": "local", "url": "https://localhost:1/s3cr3t", "format": "slack"});
    strict.post("", new).await;
    let tested = strict.post("/local/test", json!({})).await;
    let message = tested["message"].as_str().unwrap();
    assert!(message.contains("`outbound.allow`"), "{message}");
}

#[tokio::test]
async fn a_test_message_tells_of_no_run_in_each_format() {
    let (_gantry, api, _) = start().await;
    let receiver = receiver().await;
    for format in ["standard", "cloudevents", "slack", "teams"] {
        let secret = api.notify(format, &receiver, json!({"format": format})).await;
        assert_eq!(secret.is_some(), matches!(format, "standard" | "cloudevents"));
        let tested = api.post(&format!("/{format}/test"), json!({})).await;
        assert_eq!((&tested["ok"], &tested["status"]), (&json!(true), &json!(200)), "{tested}");
        let asked = receiver.asked().pop().unwrap();
        let is_signed = !asked.header("webhook-signature").is_empty();
        assert_eq!(is_signed, secret.is_some(), "{format}");
        assert!(asked.body.to_string().contains(format), "{}", asked.body);
    }
    let kinds: Vec<String> = receiver
        .asked()
        .iter()
        .map(|asked| format!("{} {}", asked.header("content-type"), asked.body["type"]))
        .collect();
    assert_eq!(
        kinds,
        [
            r#"application/json "test""#,
            r#"application/cloudevents+json "gantry.test""#,
            "application/json null",
            r#"application/json "message""#,
        ]
    );
}

#[tokio::test]
async fn what_a_deleted_notification_had_not_sent_is_never_sent() {
    let (gantry, api, first) = start().await;
    let receiver = receiver().await;
    receiver.fail(|_| Some(answer(500, &json!({}))));
    api.notify("deploy", &receiver, json!({})).await;
    push(&gantry, &first, 1, None).await;
    let former = message(&gantry, "deploy").await;
    api.send(Method::DELETE, "/deploy", &json!(null)).await;
    // Another one of the same name is not the same.
    api.notify("deploy", &receiver, json!({})).await;
    gantry.clock.advance(AN_HOUR);
    gantry.settle().await;
    assert_eq!(receiver.asked().len(), 1);
    assert_eq!(messages::find(gantry.store.as_ref(), &former.id).await.unwrap(), None);
    assert_eq!(api.told("deploy").await, Vec::<String>::new());
}

#[tokio::test]
async fn messages_are_forgotten_after_their_time_and_a_registry_has_few_notifications() {
    let (gantry, api, first) = start().await;
    let receiver = receiver().await;
    api.notify("deploy", &receiver, json!({})).await;
    push(&gantry, &first, 1, None).await;
    gantry.scheduler().keeper().forget_old().await.unwrap();
    assert_eq!(api.told("deploy").await.len(), 1);
    gantry.clock.advance(8 * A_DAY);
    gantry.scheduler().keeper().forget_old().await.unwrap();
    assert_eq!(api.told("deploy").await, Vec::<String>::new());
    for number in 2..=20 {
        api.notify(&format!("n{number}"), &receiver, json!({})).await;
    }
    let url = format!("http://{}/", receiver.host());
    let one_more = json!({"name": "more", "url": url, "format": "slack"});
    let (status, refused) = api.send(Method::POST, "", &one_more).await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (StatusCode::CONFLICT, &json!("too_many_notifications"))
    );
}
