//! What images are now, according to stand-in registries that a test fills, and to the real one.

mod content;
mod failures;
mod real;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gantry_domain::image::Digest;
use gantry_domain::platform::Platform;
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;
use gantry_remote::image_registry::{
    Allowance, ImageRegistry as _, LookError, RemoteImageRegistry,
};
use http_body_util::Full;
use serde_json::json;

use content::{Content, Server, configuration};

use crate::registry::{status, user};

/// What the tests look with.
pub(crate) fn looks() -> RemoteImageRegistry {
    looks_where(&["127.0.0.1", "localhost"])
}

fn looks_where(allowed: &[&str]) -> RemoteImageRegistry {
    let policy = OutboundPolicy::parse(allowed.iter().copied()).unwrap();
    RemoteImageRegistry::new(OutboundClient::new(policy).unwrap()).unwrap()
}

pub(crate) fn platforms(names: &[&str]) -> BTreeSet<Platform> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

const FIVE: [&str; 5] =
    ["linux/386", "linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8"];

#[tokio::test]
async fn an_index_has_a_version_for_each_platform_and_no_layer_is_requested() {
    let mut content = Content::default();
    let (index, manifests) = content.index("1", &FIVE, "2026-01-01");
    let server = Server::start(content).await;
    let looks = looks();

    let wanted = platforms(&[&FIVE[..], &["linux/s390x"]].concat());
    let answered = looks.versions(&server.image("1"), &index, &wanted, None).await.unwrap();
    assert!(answered.value.is_index);
    let found = &answered.value.by_platform;
    assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), platforms(&FIVE));
    for (platform, manifest) in FIVE.iter().zip(&manifests) {
        assert_eq!(&found[&platform.parse().unwrap()].digest, manifest, "{platform}");
    }
    let contents: BTreeSet<_> = found.values().map(|version| &version.content).collect();
    assert_eq!(contents.len(), FIVE.len());
    // The index, five manifests and five configurations.
    assert_eq!(server.requests().len(), 11, "{:#?}", server.requests());

    // Without a variant it is the same manifest, which is read once.
    let two = platforms(&["linux/arm64", "linux/arm64/v8"]);
    let answered = looks.versions(&server.image("1"), &index, &two, None).await.unwrap();
    assert_eq!(answered.value.by_platform.len(), 2);
    assert_eq!(server.requests().len(), 14);
    server.assert_no_layer_was_requested();
}

#[tokio::test]
async fn a_rebuilt_image_has_another_digest_and_the_same_content() {
    let mut content = Content::default();
    let (before, _) = content.index("1", &FIVE, "2026-01-01");
    let (after, _) = content.index("1", &FIVE, "2026-02-02");
    let server = Server::start(content).await;
    let (looks, image) = (looks(), server.image("1"));
    assert_ne!(before, after);
    let before = looks.versions(&image, &before, &platforms(&FIVE), None).await.unwrap().value;
    let after = looks.versions(&image, &after, &platforms(&FIVE), None).await.unwrap().value;
    for (platform, version) in before.by_platform {
        let rebuilt = &after.by_platform[&platform];
        assert_eq!(rebuilt.content, version.content, "{platform}");
        assert_ne!(rebuilt.digest, version.digest, "{platform}");
    }
}

#[tokio::test]
async fn a_single_manifest_counts_for_the_platform_of_its_configuration() {
    let mut content = Content::default();
    let manifest = content.image("1", &configuration("linux/arm64/v8", "2026-01-01"));
    let server = Server::start(content).await;
    let wanted = platforms(&["linux/amd64", "linux/arm64", "linux/arm64/v8"]);
    let answered = looks().versions(&server.image("1"), &manifest, &wanted, None).await.unwrap();
    assert!(!answered.value.is_index);
    let found: BTreeSet<_> = answered.value.by_platform.keys().cloned().collect();
    assert_eq!(found, platforms(&["linux/arm64", "linux/arm64/v8"]));
    assert!(answered.value.by_platform.values().all(|version| version.digest == manifest));
    assert_eq!(server.requests().len(), 2);
    server.assert_no_layer_was_requested();
}

#[tokio::test]
async fn a_platform_whose_manifest_was_not_copied_is_left_out() {
    let mut content = Content::default();
    let (index, manifests) = content.index("1", &FIVE, "2026-01-01");
    content.remove(&format!("manifests/{}", manifests[0]));
    let server = Server::start(content).await;
    let answered = looks().versions(&server.image("1"), &index, &platforms(&FIVE), None).await;
    let found: BTreeSet<_> = answered.unwrap().value.by_platform.into_keys().collect();
    assert_eq!(found, platforms(&FIVE[1..]));
}

#[tokio::test]
async fn the_digest_of_a_tag_costs_one_head_request() {
    let mut content = Content::default();
    let manifest = content.image("1", &configuration("linux/amd64", "2026-01-01"));
    let server = Server::start(content).await;
    let (looks, image) = (looks(), server.image("1"));
    let other: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    for known in [None, Some(&other), Some(&manifest)] {
        let digest = looks.digest(&image, known, None).await.unwrap().value;
        assert_eq!(digest.as_ref(), Some(&manifest));
    }
    assert_eq!(looks.digest(&server.image("absent"), None, None).await.unwrap().value, None);
    // A digest in the reference does not hide where the tag is now.
    let pinned = looks.digest(&image.pinned(other), None, None).await.unwrap().value;
    assert_eq!(pinned, Some(manifest));
    let head = "HEAD /v2/team/web/manifests/1";
    let absent = "HEAD /v2/team/web/manifests/absent";
    assert_eq!(server.requests(), [head, head, head, absent, head]);
    // The registry was told what is known, and answered that nothing has changed.
    assert_eq!(server.statuses(), [200, 200, 304, 404, 200]);
}

#[tokio::test]
async fn a_digest_that_the_registry_does_not_send_is_computed_from_the_manifest() {
    let mut content = Content::default();
    let manifest = content.image("1", &configuration("linux/amd64", "2026-01-01"));
    content.sends_digests = false;
    let server = Server::start(content).await;
    let digest = looks().digest(&server.image("1"), None, None).await.unwrap().value;
    assert_eq!(digest, Some(manifest));
    let named = "/v2/team/web/manifests/1";
    assert_eq!(server.requests(), [format!("HEAD {named}"), format!("GET {named}")]);
}

#[tokio::test]
async fn a_hundred_looks_at_a_repository_need_one_token() {
    let mut content = Content::default();
    let (index, _) = content.index("1", &FIVE, "2026-01-01");
    let tokens = Arc::new(AtomicUsize::new(0));
    let server = Server::with_tokens(content, Arc::clone(&tokens)).await;
    let (looks, image) = (looks(), server.image("1"));
    let ann = user("pw");
    for _ in 0..100 {
        looks.digest(&image, None, ann.as_ref()).await.unwrap();
    }
    looks.versions(&image, &index, &platforms(&FIVE), ann.as_ref()).await.unwrap();
    assert_eq!(tokens.load(Ordering::SeqCst), 1);
    // Nobody uses the token of another user.
    looks.digest(&image, None, None).await.unwrap();
    looks.digest(&image, None, user("other").as_ref()).await.unwrap();
    looks.digest(&image, None, ann.as_ref()).await.unwrap();
    assert_eq!(tokens.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_answer_says_how_many_more_requests_are_allowed() {
    let mut content = Content::default();
    let (index, _) = content.index("1", &FIVE, "2026-01-01");
    content.headers =
        vec![("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "76;w=21600")];
    let server = Server::start(content).await;
    let (looks, image) = (looks(), server.image("1"));
    let left = Some(Allowance { remaining: 76, resets_in: Duration::from_secs(21600) });
    let digest = looks.digest(&image, None, None).await.unwrap();
    assert_eq!(digest.allowance, left);
    assert_eq!(looks.digest(&image, Some(&index), None).await.unwrap().allowance, left);
    assert_eq!(looks.digest(&server.image("no"), None, None).await.unwrap().allowance, left);
    let versions = looks.versions(&image, &index, &platforms(&FIVE), None).await.unwrap();
    assert_eq!(versions.allowance, left);
    assert_eq!(looks.tags(&image, None).await.unwrap().allowance, left);
}

#[tokio::test]
async fn tags_are_read_page_by_page() {
    let server = Server::answering(Content::default(), |asked| {
        let query = asked.path.strip_prefix("/v2/team/web/tags/list?")?;
        let (tags, next) = match query {
            "n=1000" => (json!(["1", "2"]), Some("/v2/team/web/tags/list?last=2&n=2")),
            "last=2&n=2" => (json!(["3", "not a tag"]), Some("?last=3&n=2")),
            _ => (json!(null), None),
        };
        let mut answer = status(200);
        if let Some(next) = next {
            answer = answer.header("link", format!("<{next}>; rel=\"next\""));
        }
        let body = json!({"name": "team/web", "tags": tags}).to_string();
        Some(answer.body(Full::from(body)).unwrap())
    })
    .await;
    let list = looks().tags(&server.image("1"), None).await.unwrap().value;
    let names: Vec<_> = list.tags.iter().map(|tag| tag.as_str()).collect();
    assert_eq!((names, list.is_cut), (vec!["1", "2", "3"], false));
    assert_eq!(server.requests().len(), 3);

    // A list without end is read for twenty pages.
    let endless = Server::answering(Content::default(), |_| {
        let answer = status(200).header("link", "</v2/team/web/tags/list?last=1>; rel=\"next\"");
        Some(answer.body(Full::from(r#"{"tags":["1"]}"#)).unwrap())
    })
    .await;
    let list = looks().tags(&endless.image("1"), None).await.unwrap().value;
    assert!(list.is_cut);
    assert_eq!(endless.requests().len(), 20);

    let absent = Server::start(Content::default()).await;
    let list = looks().tags(&absent.image("1"), None).await.unwrap().value;
    assert!(list.tags.is_empty() && !list.is_cut);
}

#[tokio::test]
async fn a_configuration_kept_elsewhere_is_read_there_without_credentials() {
    let mut content = Content::default();
    let manifest = content.image("1", &configuration("linux/amd64", "2026-01-01"));
    // Signed addresses of a store: it refuses a request with other credentials.
    let store = Server::answering(content.clone(), |asked| {
        let is_refused = !asked.authorization.is_empty();
        is_refused.then(|| status(400).body(Full::default()).unwrap())
    })
    .await;
    let to = store.host.replace("127.0.0.1", "localhost");
    let server = Server::answering(content, move |asked| {
        if asked.authorization != "Basic YW5uOnB3" {
            let answer = status(401).header("www-authenticate", "Basic realm=\"r\"");
            return Some(answer.body(Full::default()).unwrap());
        }
        let is_blob = asked.path.contains("/blobs/");
        let location = format!("http://{to}{}?signature=s", asked.path);
        is_blob.then(|| status(307).header("location", location).body(Full::default()).unwrap())
    })
    .await;
    let (looks, wanted) =
        (looks_where(&["127.0.0.1", "http://localhost"]), platforms(&["linux/amd64"]));
    let ann = user("pw");
    let found = looks.versions(&server.image("1"), &manifest, &wanted, ann.as_ref()).await.unwrap();
    assert_eq!(found.value.by_platform.len(), 1);
    assert_eq!(store.requests().len(), 1);
}

#[tokio::test]
async fn a_redirect_to_another_name_is_followed_only_without_credentials() {
    let mut content = Content::default();
    let (index, _) = content.index("1", &FIVE, "2026-01-01");
    let target = Server::start(content).await;
    let to = target.host.clone();
    let server = Server::answering(Content::default(), move |asked| {
        let location = format!("http://{to}{}?token=s3cret", asked.path);
        Some(status(307).header("location", location).body(Full::default()).unwrap())
    })
    .await;
    let (looks, image) = (looks(), server.image("1"));
    assert_eq!(looks.digest(&image, None, None).await.unwrap().value, Some(index.clone()));
    assert_eq!(target.requests().len(), 1);

    let ann = user("pw");
    let to = format!("{}/v2/team/web/", target.host);
    let error = looks.digest(&image, None, ann.as_ref()).await.unwrap_err();
    assert_eq!(
        error,
        LookError::Moved { image: Box::new(image.clone()), to: format!("{to}manifests/1") }
    );
    let error = looks.tags(&image, ann.as_ref()).await.unwrap_err();
    assert_eq!(
        error,
        LookError::Moved { image: Box::new(image.clone()), to: format!("{to}tags/list") }
    );
    let error = looks.versions(&image, &index, &platforms(&FIVE), ann.as_ref()).await.unwrap_err();
    assert!(matches!(error, LookError::Moved { .. }), "{error}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
    assert_eq!(target.requests().len(), 1, "nothing more was sent there");
}
