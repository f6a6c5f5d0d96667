//! Hooks for senders that gantry does not know: told where their JSON has what makes a push, and how they sign.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::rig::{Answer, TestServer};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

const PUSH: &str = r#"{"repository":{"url":"https://git.example/octo/web"},"ref":"refs/heads/main",
    "after":"b2c3d4e5b2c3d4e5b2c3d4e5b2c3d4e5b2c3d4e5"}"#;

/// A mapping that fits `PUSH`, with one part of it changed.
fn mapping(part: &str, value: Value) -> Value {
    let mut mapping = json!({"repository": "/repository/url", "ref": "/ref", "commit": "/after"});
    mapping[part] = value;
    mapping
}

fn header_mapping() -> Value {
    mapping("signature", json!({"header": "X-Gogs-Signature", "prefix": "sha256="}))
}

async fn create(server: &TestServer, mapping: Value) -> Value {
    let body = json!({"provider": "generic", "mapping": mapping, "secret": SECRET});
    server.post("/registries/contoso/hooks", body).await.expect(StatusCode::CREATED)
}

fn post(server: &TestServer, created: &Value, body: &str) -> RequestBuilder {
    server.client.post(created["url"].as_str().unwrap()).body(body.to_owned())
}

fn hmac(key: &[u8], message: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

async fn status(request: RequestBuilder) -> StatusCode {
    Answer::of(request).await.status
}

async fn deliveries(server: &TestServer, created: &Value) -> Vec<Value> {
    let all = server.ledger().await;
    all.into_iter().filter(|delivery| delivery["hook"] == created["hook"]["id"]).collect()
}

#[tokio::test]
async fn a_sender_signs_as_standard_webhooks_says_unless_the_hook_names_a_header() {
    let server = TestServer::with_registry().await;
    let created = create(&server, mapping("ref", json!("/ref"))).await;
    #[expect(clippy::disallowed_methods, reason = "senders use their machine's clock")]
    let sent = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let key = BASE64_STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let signed = |key: &[u8], sent: u64| {
        let signature = BASE64_STANDARD.encode(hmac(key, &format!("msg-1.{sent}.{PUSH}")));
        post(&server, &created, PUSH)
            .header("webhook-id", "msg-1")
            .header("webhook-timestamp", sent)
            .header("webhook-signature", format!("v1,{signature}"))
    };
    assert_eq!(status(signed(b"another key", sent)).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(signed(&key, sent - 301)).await, StatusCode::UNAUTHORIZED);
    let accepted = Answer::of(signed(&key, sent)).await.expect(StatusCode::ACCEPTED);
    assert_eq!(accepted["delivery"], "msg-1");
    assert_eq!(accepted["events"].as_array().unwrap().len(), 1);
    assert_eq!(status(signed(&key, sent)).await, StatusCode::OK);
    let unsigned = post(&server, &created, PUSH).header("x-gogs-signature", "0".repeat(64));
    assert_eq!(status(unsigned).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_header_of_the_hooks_choice_has_the_signature_in_hexadecimal_digits_or_base64() {
    let server = TestServer::with_registry().await;
    let created = create(&server, header_mapping()).await;
    let tag = hmac(SECRET.as_bytes(), PUSH);
    let signed = |signature: &str| {
        post(&server, &created, PUSH).header("X-Gogs-Signature", format!("sha256={signature}"))
    };
    assert_eq!(status(signed(&hex::encode(hmac(b"other", PUSH)))).await, StatusCode::UNAUTHORIZED);
    let accepted = Answer::of(signed(&hex::encode(&tag))).await.expect(StatusCode::ACCEPTED);
    assert!(accepted["delivery"].as_str().unwrap().starts_with("body-"), "{accepted}");
    // Without an id, the same body is the same delivery, however it is signed.
    assert_eq!(status(signed(&BASE64_STANDARD.encode(&tag))).await, StatusCode::OK);
    let named = signed(&hex::encode(&tag)).header("webhook-id", "msg-1");
    assert_eq!(Answer::of(named).await.expect(StatusCode::ACCEPTED)["delivery"], "msg-1");
    // The hook named one way, so the other one does not count.
    let standard = post(&server, &created, PUSH)
        .header("webhook-id", "msg-2")
        .header("webhook-timestamp", "0")
        .header("webhook-signature", "v1,AAAA");
    assert_eq!(status(standard).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_pointer_that_points_to_nothing_is_named_by_the_delivery() {
    let server = TestServer::with_registry().await;
    let created = create(&server, header_mapping()).await;
    let body = PUSH.replace("after", "sha");
    let tag = hex::encode(hmac(SECRET.as_bytes(), &body));
    let request =
        post(&server, &created, &body).header("x-gogs-signature", format!("sha256={tag}"));
    // As for other providers: the sender cannot mend it, and would only repeat it.
    Answer::of(request).await.expect(StatusCode::ACCEPTED);
    let shown = deliveries(&server, &created).await;
    assert_eq!(shown[0]["verdict"], "unreadable");
    assert_eq!(shown[0]["why"], "`/after` points to nothing in this body", "{shown:?}");
}

#[tokio::test]
async fn a_replay_reads_the_body_with_the_hooks_mapping() {
    let server = TestServer::with_registry().await;
    let created = create(&server, header_mapping()).await;
    let tag = hex::encode(hmac(SECRET.as_bytes(), PUSH));
    let request = post(&server, &created, PUSH)
        .header("x-gogs-signature", format!("sha256={tag}"))
        .header("webhook-id", "msg-1");
    Answer::of(request).await.expect(StatusCode::ACCEPTED);
    let id = created["hook"]["id"].as_str().unwrap();
    let path = format!("/hooks/{id}/deliveries/msg-1/replays");
    let replayed = server.post(&path, ().into()).await.expect(StatusCode::CREATED);
    assert_eq!(replayed["delivery"]["verdict"], "events");
    assert_eq!(replayed["delivery"]["events"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_hook_tells_its_mapping_and_its_instructions_name_the_headers() {
    let server = TestServer::with_registry().await;
    for (mapping, named) in [
        (mapping("before", json!("/before")), "webhook-signature"),
        (header_mapping(), "X-Gogs-Signature: sha256=SIGNATURE"),
        (json!({"image": "/name", "tag": "/tag", "digest": "/digest"}), "each push of an image"),
    ] {
        let created = create(&server, mapping.clone()).await;
        let instructions = created["instructions"].to_string();
        assert!(instructions.contains(named), "{instructions}");
        let path = format!("/hooks/{}", created["hook"]["id"].as_str().unwrap());
        assert_eq!(server.get(&path).await.expect(StatusCode::OK)["mapping"], mapping);
        let tried = server.post(&format!("{path}/test"), json!({})).await.expect(StatusCode::OK);
        assert_eq!(tried["ok"], true, "{tried}");
        assert_eq!(deliveries(&server, &created).await[0]["verdict"], "ping");
    }
}

#[tokio::test]
async fn a_mapping_that_cannot_be_meant_is_refused() {
    let server = TestServer::with_registry().await;
    let refused = async |body: Value| {
        let answer = server.post("/registries/contoso/hooks", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
        answer.text
    };
    let generic = |mapping: Value| json!({"provider": "generic", "mapping": mapping});
    for (mapping, named) in [
        (mapping("ref", json!("ref")), "`ref` is no JSON pointer"),
        (mapping("commit", json!("/a".repeat(17))), "mapping.commit"),
        (mapping("before", json!("")), "mapping.before"),
        (mapping("signature", json!({"header": "Authorization"})), "mapping.signature.header"),
        (mapping("signature", json!({"header": "Content-Type"})), "mapping.signature.header"),
        (
            mapping("signature", json!({"header": "X-S", "prefix": "a\u{1b}"})),
            "mapping.signature.prefix",
        ),
    ] {
        let text = refused(generic(mapping)).await;
        assert!(text.contains(named), "{text}");
    }
    for mapping in [json!({}), mapping("image", json!("/image"))] {
        let text = refused(generic(mapping)).await;
        assert!(text.contains("or where it has an image: one of them"), "{text}");
    }
    let text = refused(generic(json!({"tag": "/tag"}))).await;
    assert!(text.contains("mapping.image"), "{text}");
    let text = refused(generic(mapping("ref", Value::Null))).await;
    assert!(text.contains("mapping.ref"), "{text}");
    let text = refused(json!({"provider": "generic"})).await;
    assert!(text.contains("must be told where the JSON has repository, ref and commit"), "{text}");
    let text =
        refused(json!({"provider": "github", "mapping": mapping("ref", json!("/ref"))})).await;
    assert!(text.contains("leave the mapping out"), "{text}");
}
