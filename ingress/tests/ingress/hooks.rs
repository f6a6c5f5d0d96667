//! Which deliveries are accepted, and what a response guarantees.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use gantry_api::HookAccepted;
use gantry_domain::hook::Provider;
use gantry_ingress::IngressSettings;
use gantry_seams::due;
use gantry_seams::queue::EventAccepted;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::rig::{Answer, SECRET, SHORT, TestServer, push, signature, within};

#[tokio::test]
async fn a_signed_push_is_stored_with_its_event_before_the_answer() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitHub).await;

    let answer = Answer::of(server.github(&hook, "push", "d-1", &push('1', '2'))).await;
    let accepted = answer.expect(StatusCode::ACCEPTED);
    let event = format!("{}/d-1/0", hook.id);
    assert_eq!(accepted, json!({"delivery": "d-1", "events": [event]}));

    let store = server.store.as_ref();
    let now = store.now().await.unwrap();
    let undecided = due::undecided(store, now, 10).await.unwrap();
    assert_eq!(
        undecided.iter().map(|due| due.event.as_str()).collect::<Vec<_>>(),
        [event.as_str()]
    );
    let rung = within(server.queues.events.claim()).await.unwrap().unwrap();
    assert_eq!(*rung.message(), EventAccepted { event: event.parse().unwrap() });

    let shown = server.get(&format!("/hooks/{}/deliveries/d-1", hook.id)).await;
    let shown = shown.expect(StatusCode::OK);
    assert_eq!(shown["delivery"]["verdict"], "events");
    assert_eq!(shown["events"][0]["what"], "branch main of github.com/octo/hello is 2222222");
}

#[tokio::test]
async fn githubs_published_test_vector_is_accepted() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitHub).await;
    let request = server
        .client
        .post(server.hook_url(&hook))
        .header("content-type", "application/json")
        .header("x-github-event", "ping")
        .header(
            "x-hub-signature-256",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        )
        .body("Hello, World!");
    Answer::of(request).await.expect(StatusCode::ACCEPTED);
    assert_eq!(server.ledger().await[0]["verdict"], "ping");
}

#[tokio::test]
async fn whoever_cannot_sign_learns_nothing_and_leaves_nothing() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitHub).await;
    let body = push('1', '2');
    let right = signature(SECRET, &body);
    let digits = right.strip_prefix("sha256=").unwrap();
    let forged = [
        ("x-hub-signature-256", format!("sha256={}", "0".repeat(64))),
        ("x-hub-signature-256", signature("another secret", &body)),
        ("x-hub-signature-256", format!("sha256={}", &digits[..40])),
        ("x-hub-signature-256", format!("sha256={}", digits.to_uppercase())),
        ("x-hub-signature-256", digits.to_owned()),
        ("x-hub-signature", format!("sha1={}", &digits[..40])),
        ("x-nothing", String::new()),
    ];
    let mut answers = Vec::new();
    for (header, value) in &forged {
        let request = server
            .client
            .post(server.hook_url(&hook))
            .header("content-type", "application/json")
            .header("x-github-event", "push")
            .header(*header, value)
            .body(body.clone());
        answers.push(Answer::of(request).await);
    }
    // Correctly signed, but for a hook that does not exist or belongs to another provider.
    for path in ["github/00000000000000000000000000000000", "github/~", "distribution/{hook}"] {
        let path = path.replace("{hook}", hook.id.as_str());
        let request = server
            .client
            .post(format!("{}/hooks/{path}", server.url))
            .header("content-type", "application/json")
            .header("x-hub-signature-256", &right)
            .bearer_auth(SECRET)
            .body(body.clone());
        answers.push(Answer::of(request).await);
    }
    for answer in &answers {
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.text, answers[0].text);
    }
    assert_eq!(server.ledger().await, Vec::<Value>::new());

    let status = server.get("/status").await.expect(StatusCode::OK);
    assert_eq!(status["failing_hooks"][0]["counts"]["unauthorized"], forged.len());
    assert_eq!(status["unknown_hook_requests"], 3);
}

#[tokio::test]
async fn every_published_github_payload_is_accepted_with_a_verdict() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitHub).await;
    let text =
        include_str!("../../../tests/fixtures/octokit-webhooks-examples/api.github.com.json");
    let all: Vec<Value> = serde_json::from_str(text).unwrap();
    let mut sent = 0;
    for kind in &all {
        let event = kind["name"].as_str().unwrap();
        let examples = kind["examples"].as_array().unwrap();
        let deliveries = examples.iter().enumerate().map(|(n, example)| {
            Answer::of(server.github(&hook, event, &format!("{event}-{n}"), &example.to_string()))
        });
        for answer in join_all(deliveries).await {
            answer.expect(StatusCode::ACCEPTED);
            sent += 1;
        }
    }
    assert_eq!(sent, 329);

    let ledger = server.ledger().await;
    let count = |verdict: &str| ledger.iter().filter(|d| d["verdict"] == verdict).count();
    assert_eq!(
        [count("events"), count("ping"), count("of_no_interest"), count("unreadable")],
        [23, 4, 299, 0]
    );
    // Packages that are no containers.
    let shown = server.get(&format!("/hooks/{}", hook.id)).await.expect(StatusCode::OK);
    assert_eq!(shown["since_start"]["dropped"], 3);
}

#[tokio::test]
async fn a_form_is_the_same_delivery_and_other_types_are_refused() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitHub).await;
    let form = serde_urlencoded::to_string([("payload", push('1', '2'))]).unwrap();
    let send = |content_type: &str, id: &str| {
        let request = server.github(&hook, "push", id, &form);
        let (client, request) = request.build_split();
        let mut request = request.unwrap();
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        reqwest::RequestBuilder::from_parts(client, request)
    };
    let accepted = Answer::of(send("application/x-www-form-urlencoded", "d-1")).await;
    let accepted: HookAccepted =
        serde_json::from_value(accepted.expect(StatusCode::ACCEPTED)).unwrap();
    assert_eq!(accepted.events.len(), 1);
    for content_type in ["text/plain", "application/xml"] {
        let refused = Answer::of(send(content_type, "d-2")).await;
        assert_eq!(refused.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
}

#[tokio::test]
async fn the_same_delivery_a_hundred_times_at_once_is_one_event() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitHub).await;
    let body = push('1', '2');
    let answers =
        join_all((0..100).map(|_| Answer::of(server.github(&hook, "push", "d-1", &body)))).await;
    let new = answers.iter().filter(|answer| answer.status == StatusCode::ACCEPTED).count();
    let repeats = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!((new, repeats), (1, 99));
    assert!(answers.iter().all(|answer| answer.text == answers[0].text));

    let now = server.store.now().await.unwrap();
    assert_eq!(due::undecided(server.store.as_ref(), now, 10).await.unwrap().len(), 1);
    assert_eq!(server.ledger().await.len(), 1);
}

#[tokio::test]
async fn another_body_with_the_same_id_is_recorded_as_a_conflict() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitHub).await;
    let first = Answer::of(server.github(&hook, "push", "d-1", &push('1', '2'))).await;
    first.expect(StatusCode::ACCEPTED);
    for _ in 0..2 {
        let other = Answer::of(server.github(&hook, "push", "d-1", &push('1', '3'))).await;
        let other = other.expect(StatusCode::ACCEPTED);
        assert_eq!(other, json!({"delivery": "d-1", "events": []}));
    }
    let ledger = server.ledger().await;
    let mut verdicts: Vec<&str> =
        ledger.iter().map(|delivery| delivery["verdict"].as_str().unwrap()).collect();
    verdicts.sort_unstable();
    assert_eq!(verdicts, ["conflict", "events"]);
}

#[tokio::test]
async fn unreadable_bodies_are_recorded_and_answered_202() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitHub).await;
    let too_deep = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for (n, body) in ["", "{", "nonsense", "\u{0}", &too_deep].iter().enumerate() {
        let answer = Answer::of(server.github(&hook, "push", &format!("d-{n}"), body)).await;
        answer.expect(StatusCode::ACCEPTED);
    }
    let ledger = server.ledger().await;
    assert_eq!(ledger.len(), 5);
    assert!(ledger.iter().all(|delivery| delivery["verdict"] == "unreadable"), "{ledger:?}");
}

#[tokio::test]
async fn manifests_are_events_and_other_notifications_are_counted() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::Distribution).await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/registry-notifications");
    let mut stored = Vec::new();
    let mut dropped = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let body = std::fs::read_to_string(&path).unwrap();
        let first = Answer::of(server.notify(&hook, &body)).await;
        let first = first.expect(StatusCode::ACCEPTED);
        let again = Answer::of(server.notify(&hook, &body)).await;
        let name = path.file_stem().unwrap().to_str().unwrap();
        let name = name.strip_prefix("registry-notification-").unwrap().to_owned();
        if first["events"] == json!([]) {
            dropped += 1;
            assert!(!name.contains("manifest"), "{name}");
            assert_eq!(again.status, StatusCode::ACCEPTED);
        } else {
            // A registry sends a notification again until it is accepted.
            assert_eq!(again.status, StatusCode::OK);
            assert_eq!(again.json(), first);
            stored.push(name);
        }
    }
    stored.sort();
    assert_eq!(
        stored,
        [
            "push-by-digest",
            "push-docker-manifest",
            "push-helm-chart",
            "push-oci-index",
            "push-oci-manifest",
            "push-retag"
        ]
    );
    assert_eq!(dropped, 5);
    assert_eq!(server.ledger().await.len(), stored.len());

    let shown = server.get(&format!("/hooks/{}", hook.id)).await.expect(StatusCode::OK);
    assert_eq!(shown["since_start"]["dropped"], 2 * dropped);
    let refused = server.notify(&hook, "{}").bearer_auth("wrong").build().unwrap();
    drop(refused);
    let mut wrong = server.notify(&hook, "{}").build().unwrap();
    wrong.headers_mut().insert("authorization", "Bearer wrong".parse().unwrap());
    let refused = server.client.execute(wrong).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_largest_body_is_verified_and_kept_as_it_came() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitHub).await;
    let text: String = (0..25 * 1024 * 1024 / 8).map(|number| format!("{number:07}\n")).collect();
    let answer = Answer::at_last(|| server.github(&hook, "issues", "d-1", &text)).await;
    answer.expect(StatusCode::ACCEPTED);
    let kept = server.get(&format!("/hooks/{}/deliveries/d-1/body", hook.id)).await;
    assert!(kept.text == text, "{} bytes were sent, {} kept", text.len(), kept.text.len());

    let forged = || server.github_with("another secret", &hook, "issues", "d-2", &text);
    assert_eq!(Answer::at_last(forged).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(server.ledger().await.len(), 1);
}

#[tokio::test]
async fn a_body_is_limited_before_and_while_it_is_read() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::Distribution).await;
    // With a declared length: refused before a byte of the body is read.
    let answer = raw(&server, &hook.id, "Content-Length: 3145729\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // Without a declared length: refused once it is too large.
    let pieces =
        futures_util::stream::iter((0..64).map(|_| Ok::<_, std::io::Error>(vec![b' '; 65_536])));
    let request =
        server.client.post(server.hook_url(&hook)).body(reqwest::Body::wrap_stream(pieces));
    match request.send().await {
        Ok(answer) => assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE),
        // The server may close while the sender still writes.
        Err(error) => assert!(error.is_request(), "{error}"),
    }
    let most = " ".repeat(3 * 1024 * 1024);
    Answer::at_last(|| server.notify(&hook, &most)).await.expect(StatusCode::ACCEPTED);
}

#[tokio::test]
async fn bodies_in_flight_share_one_budget_and_slow_senders_are_disconnected() {
    let settings = IngressSettings {
        body_budget: 120_000,
        body_patience: SHORT,
        ..IngressSettings::default()
    };
    let server = TestServer::open_with(settings, false).await;
    server.create_registry("contoso").await;
    let hook = server.hook(Provider::Distribution).await;
    let large = Answer::of(server.notify(&hook, &" ".repeat(200_000))).await;
    assert_eq!(large.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(large.headers.contains_key("retry-after"));

    let answer = raw(&server, &hook.id, "Content-Length: 10\r\n\r\nhalf").await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    // The reserved memory is free again.
    Answer::of(server.notify(&hook, &" ".repeat(90_000))).await.expect(StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_senders_connection_is_kept_open_between_deliveries() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitHub).await;
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    for (n, secret, status) in [(1, SECRET, 202), (2, "wrong", 401), (3, SECRET, 202)] {
        let body = push('1', '2');
        let head = format!(
            "POST /hooks/github/{} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             X-GitHub-Event: push\r\nX-GitHub-Delivery: d-{n}\r\nX-Hub-Signature-256: {}\r\n\
             Content-Length: {}\r\n\r\n",
            hook.id,
            signature(secret, &body),
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = within(stream.read(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
    }
}

async fn raw(server: &TestServer, hook: &gantry_domain::id::HookId, rest: &str) -> String {
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("POST /hooks/distribution/{hook} HTTP/1.1\r\nHost: x\r\n{rest}");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = within(stream.read(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn a_store_that_hangs_is_answered_503_in_time_and_never_2xx() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::Distribution).await;
    let manifest = include_str!(
        "../../../tests/fixtures/registry-notifications/registry-notification-push-oci-manifest.json"
    );
    server.stuck.store(true, Ordering::Relaxed);
    let answer = Answer::of(server.notify(&hook, manifest)).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(server.ledger().await, Vec::<Value>::new());

    server.stuck.store(false, Ordering::Relaxed);
    let answer = Answer::of(server.notify(&hook, manifest)).await;
    assert_eq!(answer.expect(StatusCode::ACCEPTED)["events"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn hooks_with_their_own_address_are_served_only_there() {
    let server = TestServer::open_with(IngressSettings::default(), true).await;
    server.create_registry("contoso").await;
    let hook = server.hook(Provider::GitHub).await;
    Answer::of(server.github(&hook, "ping", "d-1", "{}")).await.expect(StatusCode::ACCEPTED);

    let path = format!("/hooks/github/{}", hook.id);
    let elsewhere = server.client.post(format!("{}{path}", server.url)).send().await.unwrap();
    assert_eq!(elsewhere.status(), StatusCode::NOT_FOUND);
    let api = server.client.get(format!("{}/api/v1/openapi.json", server.hooks_url)).send().await;
    assert_eq!(api.unwrap().status(), StatusCode::NOT_FOUND);
    let created = server.post("/registries/contoso/hooks", json!({"provider": "github"})).await;
    let url = created.expect(StatusCode::CREATED)["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with(&server.hooks_url), "{url}");
}

#[tokio::test]
async fn a_hook_is_created_tried_rotated_and_removed() {
    let server = TestServer::with_registry().await;
    let body = json!({"provider": "github", "repositories": ["https://github.com/Octo/Hello.git"]});
    let created = server.post("/registries/contoso/hooks", body).await.expect(StatusCode::CREATED);
    assert_eq!(created["hook"]["repositories"], json!(["github.com/octo/hello"]));
    assert_eq!(created["content_type"], "application/json");
    assert_eq!(created["events"], json!(["push", "pull_request", "issue_comment"]));
    let id = created["hook"]["id"].as_str().unwrap();
    let url = created["url"].as_str().unwrap();
    let old = created["secret"].as_str().unwrap();
    let ping = |secret: &str, id: &str| {
        let request = server.client.post(url).header("content-type", "application/json");
        let request = request.header("x-github-event", "ping").header("x-github-delivery", id);
        Answer::of(request.header("x-hub-signature-256", signature(secret, "{}")).body("{}"))
    };
    ping(old, "d-1").await.expect(StatusCode::ACCEPTED);

    let tried = server.post(&format!("/hooks/{id}/test"), json!({})).await.expect(StatusCode::OK);
    assert_eq!((&tried["ok"], &tried["status"]), (&json!(true), &json!(202)), "{tried}");

    let added = server.post(&format!("/hooks/{id}/secrets"), json!({})).await;
    let added = added.expect(StatusCode::CREATED);
    let new = added["secret"].as_str().unwrap();
    ping(old, "d-2").await.expect(StatusCode::ACCEPTED);
    ping(new, "d-3").await.expect(StatusCode::ACCEPTED);

    let secrets = added["hook"]["secrets"].as_array().unwrap();
    let (kept, gone) = (secrets[0]["id"].as_str().unwrap(), secrets[1]["id"].as_str().unwrap());
    let removed = server.delete(&format!("/hooks/{id}/secrets/{gone}")).await;
    removed.expect(StatusCode::OK);
    assert_eq!(ping(old, "d-4").await.status, StatusCode::UNAUTHORIZED);
    ping(new, "d-5").await.expect(StatusCode::ACCEPTED);
    let last = server.delete(&format!("/hooks/{id}/secrets/{kept}")).await;
    assert_eq!((last.status, last.code()), (StatusCode::CONFLICT, "last_secret".to_owned()));

    server.delete(&format!("/hooks/{id}")).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(ping(new, "d-6").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_hook_has_at_most_five_secrets_and_each_of_them_is_good() {
    let server = TestServer::with_registry().await;
    let body = json!({"provider": "github"});
    let created = server.post("/registries/contoso/hooks", body).await.expect(StatusCode::CREATED);
    let secrets = format!("/hooks/{}/secrets", created["hook"]["id"].as_str().unwrap());
    let mut good = vec![created["secret"].as_str().unwrap().to_owned()];
    for _ in 0..4 {
        let added = server.post(&secrets, json!({})).await.expect(StatusCode::CREATED);
        good.push(added["secret"].as_str().unwrap().to_owned());
    }
    let refused = server.post(&secrets, json!({})).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    let message = refused.json()["error"]["message"].clone();
    assert_eq!(message, "a hook has at most 5 secrets: remove one first");
    for (number, secret) in good.iter().enumerate() {
        let request = server.client.post(created["url"].as_str().unwrap());
        let request = request.header("content-type", "application/json");
        let request = request.header("x-github-event", "ping");
        let request = request.header("x-github-delivery", format!("d-{number}"));
        let request = request.header("x-hub-signature-256", signature(secret, "{}")).body("{}");
        Answer::of(request).await.expect(StatusCode::ACCEPTED);
    }
}
