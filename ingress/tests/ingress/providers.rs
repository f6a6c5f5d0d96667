//! How the senders of each provider prove who they are, and how their deliveries are told apart.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use gantry_domain::hook::{Hook, Provider};
use gantry_seams::due;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::rig::{Answer, SECRET, TestServer, signature};

const JSON: &str = "application/json";

/// A delivery without a proof.
fn post(server: &TestServer, hook: &Hook, body: &str) -> RequestBuilder {
    let request = server.client.post(server.hook_url(hook)).header("content-type", JSON);
    request.body(body.to_owned())
}

async fn status(request: RequestBuilder) -> StatusCode {
    Answer::of(request).await.status
}

const THREE_REFS: &str =
    include_str!("../../../tests/fixtures/webhooks/azure/push-three-refs.json");
const REDUCED: &str = include_str!("../../../tests/fixtures/webhooks/azure/push-minimal.json");

#[tokio::test]
async fn azure_devops_sends_the_secret_as_password_or_in_a_header() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::AzureDevOps).await;
    let plain = || post(&server, &hook, THREE_REFS);
    for refused in [
        plain(),
        plain().bearer_auth(SECRET),
        plain().basic_auth(SECRET, Some("gantry")),
        plain().basic_auth("gantry", Some("another secret")),
        plain().header("x-gantry-secret", "another secret"),
    ] {
        assert_eq!(status(refused).await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(server.ledger().await, Vec::<Value>::new());
    let accepted = plain().basic_auth("whoever", Some(SECRET));
    assert_eq!(status(accepted).await, StatusCode::ACCEPTED);
    // Another subscription, or a retry: the id in the body is the same.
    let again = plain().header("x-gantry-secret", SECRET);
    assert_eq!(status(again).await, StatusCode::OK);
}

#[tokio::test]
async fn one_push_of_azure_devops_is_an_event_for_each_of_its_branches_and_tags() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::AzureDevOps).await;
    let request = post(&server, &hook, THREE_REFS).basic_auth("gantry", Some(SECRET));
    let accepted = Answer::of(request).await.expect(StatusCode::ACCEPTED);
    let id = accepted["delivery"].as_str().unwrap();
    let events = [0, 1, 2].map(|place| format!("{}/{id}/{place}", hook.id));
    assert_eq!(accepted["events"], json!(events));
    let now = server.store.now().await.unwrap();
    assert_eq!(due::undecided(server.store.as_ref(), now, 10).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_subscription_with_reduced_details_is_kept_alive_and_told_what_to_set() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::AzureDevOps).await;
    let request = post(&server, &hook, REDUCED).basic_auth("gantry", Some(SECRET));
    // Any refusal would put the subscription on probation.
    let accepted = Answer::of(request).await.expect(StatusCode::ACCEPTED);
    let path = format!("/hooks/{}/deliveries/{}", hook.id, accepted["delivery"].as_str().unwrap());
    let shown = server.get(&path).await.expect(StatusCode::OK);
    assert_eq!(shown["delivery"]["verdict"], "unreadable");
    assert!(shown.to_string().contains("Resource details to send"), "{shown}");
}

const GITLAB: &str = include_str!("../../../tests/fixtures/webhooks/gitlab/push-branch.json");
const GITEA: &str = include_str!("../../../tests/fixtures/webhooks/gitea/push-branch.json");
const BITBUCKET: &str = include_str!("../../../tests/fixtures/webhooks/bitbucket/push-branch.json");

#[tokio::test]
async fn gitlab_sends_the_secret_token_or_signs_with_its_signing_token() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitLab).await;
    let with = |id: &str, token: &str| {
        let request = post(&server, &hook, GITLAB).header("idempotency-key", id);
        request.header("x-gitlab-token", token)
    };
    assert_eq!(status(with("d-1", "another secret")).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(with("d-1", SECRET)).await, StatusCode::ACCEPTED);
    assert_eq!(status(with("d-1", SECRET)).await, StatusCode::OK);

    #[expect(clippy::disallowed_methods, reason = "senders use their machine's clock")]
    let now = SystemTime::now();
    let signed = |secret: &str, age: Duration| {
        let sent = (now - age).duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("msg-1.{sent}.{GITLAB}").as_bytes());
        let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        post(&server, &hook, GITLAB)
            .header("idempotency-key", "d-2")
            .header("webhook-id", "msg-1")
            .header("webhook-timestamp", sent)
            .header("webhook-signature", format!("v1,{signature}"))
    };
    let (new, old) = (Duration::ZERO, Duration::from_secs(301));
    assert_eq!(status(signed("another secret", new)).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(signed(SECRET, old)).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(signed(SECRET, new)).await, StatusCode::ACCEPTED);
    assert_eq!(server.ledger().await.len(), 2);
}

#[tokio::test]
async fn gitea_and_bitbucket_sign_and_repeat_under_the_same_id() {
    let server = TestServer::with_registry().await;
    for (provider, body, event, id, proof) in [
        (
            Provider::Gitea,
            GITEA,
            ("x-gitea-event", "push"),
            "x-gitea-delivery",
            ("x-gitea-signature", ""),
        ),
        (
            Provider::Bitbucket,
            BITBUCKET,
            ("x-event-key", "repo:push"),
            "x-request-uuid",
            ("x-hub-signature", "sha256="),
        ),
    ] {
        let hook = server.hook(provider).await;
        let signed = |secret: &str| {
            let signature = signature(secret, body).replace("sha256=", proof.1);
            let request = post(&server, &hook, body).header(event.0, event.1);
            request.header(id, "d-1").header(proof.0, signature)
        };
        assert_eq!(status(signed("another secret")).await, StatusCode::UNAUTHORIZED);
        let accepted = Answer::of(signed(SECRET)).await.expect(StatusCode::ACCEPTED);
        assert_eq!(accepted["delivery"], "d-1");
        assert_eq!(accepted["events"].as_array().unwrap().len(), 1);
        assert_eq!(status(signed(SECRET)).await, StatusCode::OK);
    }
}

const HUB: &str = include_str!("../../../tests/fixtures/webhooks/docker-hub/push.json");
const QUAY: &str = include_str!("../../../tests/fixtures/webhooks/quay/push-several-tags.json");
const ACR: &str = include_str!("../../../tests/fixtures/webhooks/acr/push.json");
const HARBOR: &str = include_str!("../../../tests/fixtures/webhooks/harbor/push.json");
const GHCR: &str = include_str!("../../../tests/fixtures/webhooks/ghcr/published.json");

#[tokio::test]
async fn a_registry_that_is_told_a_header_sends_the_secret_in_it() {
    let server = TestServer::with_registry().await;
    for (provider, body) in [(Provider::Acr, ACR), (Provider::Harbor, HARBOR)] {
        let hook = server.hook(provider).await;
        let plain = || post(&server, &hook, body);
        for refused in
            [plain(), plain().bearer_auth("another secret"), plain().basic_auth("x", Some(SECRET))]
        {
            assert_eq!(status(refused).await, StatusCode::UNAUTHORIZED, "{provider}");
        }
        let accepted = Answer::of(plain().bearer_auth(SECRET)).await.expect(StatusCode::ACCEPTED);
        assert_eq!(accepted["events"].as_array().unwrap().len(), 1);
        assert_eq!(status(plain().bearer_auth(SECRET)).await, StatusCode::OK);
    }
}

#[tokio::test]
async fn github_signs_the_packages_of_its_registry_for_hooks_of_either_provider() {
    let server = TestServer::with_registry().await;
    for provider in [Provider::Ghcr, Provider::GitHub] {
        let hook = server.hook(provider).await;
        let forged = server.github_with("another secret", &hook, "package", "d-1", GHCR);
        assert_eq!(status(forged).await, StatusCode::UNAUTHORIZED);
        let accepted = Answer::of(server.github(&hook, "package", "d-1", GHCR)).await;
        let accepted = accepted.expect(StatusCode::ACCEPTED);
        assert_eq!(accepted["events"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_registry_that_signs_nothing_needs_to_know_the_address_of_its_own_hook() {
    let server = TestServer::with_registry().await;
    for (provider, body, events) in [(Provider::DockerHub, HUB, 1), (Provider::Quay, QUAY, 3)] {
        let new = json!({"provider": provider.as_str()});
        let created = server.post("/registries/contoso/hooks", new).await;
        let url = created.expect(StatusCode::CREATED)["url"].as_str().unwrap().to_owned();
        let send = |url: &str| server.client.post(url).body(body.to_owned());
        let accepted = Answer::of(send(&url)).await.expect(StatusCode::ACCEPTED);
        assert_eq!(accepted["events"].as_array().unwrap().len(), events);
        assert_eq!(status(send(&url)).await, StatusCode::OK, "the same body");

        let (folder, id) = url.rsplit_once('/').unwrap();
        let (root, _) = folder.rsplit_once('/').unwrap();
        let signed = server.hook(Provider::Harbor).await;
        for wrong in [
            format!("{folder}/{}", "0".repeat(32)),
            format!("{folder}/{}", &id[1..]),
            format!("{root}/harbor/{id}"),
            // A hook with a secret cannot be reached without it.
            format!("{folder}/{}", signed.id),
        ] {
            assert_eq!(status(send(&wrong)).await, StatusCode::UNAUTHORIZED, "{wrong}");
        }
    }
    let ledger = server.ledger().await;
    assert_eq!(ledger.len(), 2);
    let event = ledger[0]["events"][0].as_str().unwrap();
    let path = format!(
        "/hooks/{}/deliveries/{}",
        ledger[0]["hook"].as_str().unwrap(),
        ledger[0]["id"].as_str().unwrap()
    );
    let shown = server.get(&path).await.expect(StatusCode::OK);
    assert_eq!(shown["events"][0]["id"], event);
    assert_eq!(shown["events"][0]["kind"], "image_pushed");
    assert_eq!(
        shown["events"][0]["what"],
        "quay.io/octo/base:latest was pushed, without a proof of who says so"
    );
}

#[tokio::test]
async fn a_hook_whose_sender_can_be_told_no_secret_takes_none() {
    let server = TestServer::with_registry().await;
    let new = json!({"provider": "docker-hub", "secret": SECRET});
    let refused = server.post("/registries/contoso/hooks", new).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.text.contains("can only be told the address"), "{}", refused.text);
    let new = json!({"provider": "docker-hub"});
    let created = server.post("/registries/contoso/hooks", new).await.expect(StatusCode::CREATED);
    let path = format!("/hooks/{}/secrets", created["hook"]["id"].as_str().unwrap());
    let refused = server.post(&path, json!({})).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::CONFLICT, "no_secret".to_owned()));
}

#[tokio::test]
async fn what_a_registry_reports_beside_pushes_is_counted_and_not_kept() {
    let server = TestServer::with_registry().await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/webhooks");
    for (provider, files) in [
        (Provider::Acr, ["delete", "chart-push", "push-config"]),
        (Provider::Harbor, ["pull", "delete", "chart-uploaded"]),
        (Provider::Ghcr, ["deleted", "published-npm", "published-chart"]),
        (Provider::Gitea, ["package-deleted", "package-created-npm", "package-created-helm"]),
        (Provider::Quay, ["build-success", "vulnerability-found", "push-no-tags"]),
    ] {
        let hook = server.hook(provider).await;
        for file in files {
            let path = format!("{folder}/{provider}/{file}.json");
            let body = std::fs::read_to_string(path).unwrap();
            let proof = signature(SECRET, &body);
            let request = post(&server, &hook, &body)
                .bearer_auth(SECRET)
                .header("x-github-event", "package")
                .header("x-gitea-event", "package")
                .header("x-gitea-signature", proof.replace("sha256=", ""))
                .header("x-hub-signature-256", proof);
            let accepted = Answer::of(request).await.expect(StatusCode::ACCEPTED);
            assert_eq!(accepted["events"], json!([]), "{provider} {file}");
        }
        let shown = server.get(&format!("/hooks/{}", hook.id)).await.expect(StatusCode::OK);
        assert_eq!(shown["since_start"]["dropped"], 3, "{provider}");
    }
    assert_eq!(server.ledger().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_hook_of_any_provider_is_created_with_instructions_and_tried() {
    let server = TestServer::with_registry().await;
    for provider in Provider::ALL {
        let mut body = json!({"provider": provider.as_str()});
        if *provider == Provider::Generic {
            body["mapping"] =
                json!({"repository": "/repository/url", "ref": "/ref", "commit": "/after"});
        }
        let created = server.post("/registries/contoso/hooks", body).await;
        let created = created.expect(StatusCode::CREATED);
        let instructions = created["instructions"].to_string();
        for told in [&created["url"], &created["secret"]].into_iter().filter_map(Value::as_str) {
            assert!(instructions.contains(told), "{provider}: {instructions}");
        }
        let has_secret = ![Provider::DockerHub, Provider::Quay].contains(provider);
        assert_eq!(created["secret"].is_string(), has_secret, "{provider}");
        assert_eq!(created["hook"]["secrets"].as_array().unwrap().len(), usize::from(has_secret));
        assert_eq!(instructions.contains("keep it secret"), !has_secret, "{instructions}");
        let path = format!("/hooks/{}/test", created["hook"]["id"].as_str().unwrap());
        let tried = server.post(&path, json!({})).await.expect(StatusCode::OK);
        assert_eq!((&tried["ok"], &tried["status"]), (&json!(true), &json!(202)), "{tried}");
    }
    let ledger = server.ledger().await;
    let pings = ledger.iter().filter(|delivery| delivery["verdict"] == "ping").count();
    // Distribution has no ping: a notification without events is of no interest, and is not recorded.
    assert_eq!(pings, Provider::ALL.len() - 1, "{ledger:?}");
}
