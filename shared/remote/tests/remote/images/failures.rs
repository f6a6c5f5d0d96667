//! Why a look fails: each error names the image and the remedy, and tells the caller what to do next.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_domain::image::ImageReference;
use gantry_remote::guard::{Names, OutboundPolicy};
use gantry_remote::http::OutboundClient;
use gantry_remote::image_registry::{ImageRegistry as _, LookError, RemoteImageRegistry};
use http_body_util::Full;
use rustls::{ServerConfig, ServerConnection};
use serde_json::json;

use super::content::{Content, MANIFEST, Server, configuration, digest_of};
use super::{looks, looks_where, platforms};
use crate::broken_host::{BrokenHost, Fault};
use crate::registry::{status, user};

/// The error of a look at the digest of a tag, with the registry's host as `HOST`.
async fn refused(
    answer: u16,
    headers: &'static [(&'static str, &'static str)],
) -> (LookError, String) {
    let server = Server::answering(Content::default(), move |_| {
        let mut built = status(answer);
        for (name, value) in headers {
            built = built.header(*name, *value);
        }
        Some(built.body(Full::from(r#"{"errors":[{"code":"X","message":"no"}]}"#)).unwrap())
    })
    .await;
    let error = looks().digest(&server.image("1"), None, user("pw").as_ref()).await.unwrap_err();
    let said = error.to_string().replace(&server.host, "HOST");
    assert_eq!(server.requests().len(), 1, "a look is not repeated: {said}");
    (error, said)
}

#[tokio::test]
async fn a_limit_says_how_long_the_registry_wants_no_request() {
    const HUB: &str = "ratelimit-remaining";
    let said = "HOST limits requests, and did not answer for HOST/team/web:1: set credentials for it, or wait";
    for (headers, seconds) in [
        (&[("retry-after", "30")][..], Some(30)),
        (&[(HUB, "0;w=21600")], Some(21600)),
        (&[("retry-after", "30"), (HUB, "0;w=21600")], Some(30)),
        (&[(HUB, "5;w=21600")], None),
        (&[("retry-after", "99999999999")], Some(24 * 3600)),
        (&[], None),
    ] {
        let (error, message) = refused(429, headers).await;
        assert!(matches!(error, LookError::Limited { .. }), "{error:?}");
        assert_eq!((error.after(), message.as_str()), (seconds.map(Duration::from_secs), said));
    }
}

#[tokio::test]
async fn a_problem_of_the_registry_says_the_status_and_how_long_it_lasts() {
    let said = "HOST could not answer for HOST/team/web:1: 503 Service Unavailable: gantry looks again later";
    let (error, message) = refused(503, &[("retry-after", "120")]).await;
    assert_eq!((error.after(), message.as_str()), (Some(Duration::from_secs(120)), said));
    for answer in [500, 502, 504] {
        let (error, _) = refused(answer, &[]).await;
        assert!(matches!(error, LookError::Unavailable { after: None, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn refused_credentials_and_requests_say_so() {
    for answer in [401, 403] {
        let server = Server::answering(Content::default(), move |_| {
            let body = r#"{"errors":[{"code":"DENIED","message":"no"}]}"#;
            Some(status(answer).body(Full::from(body)).unwrap())
        })
        .await;
        let image = server.image("1");
        let error = looks().tags(&image, user("s3cret").as_ref()).await.unwrap_err();
        let said = error.to_string().replace(&server.host, "HOST");
        let expected = "HOST refused access to HOST/team/web:1: check that it exists, and the credentials of the registry; \
                        it said: DENIED no";
        assert_eq!(said, expected);
        assert!(!format!("{error:?}").contains("s3cret"));
    }
    let (error, said) = refused(410, &[]).await;
    assert!(matches!(error, LookError::Unreadable { .. }), "{error:?}");
    assert_eq!(
        said,
        "HOST/team/web:1 cannot be read: the registry refused the request: 410 Gone: nothing"
    );
}

#[tokio::test]
async fn a_registry_that_is_down_silent_or_slow_is_given_up_in_time() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let silent = BrokenHost::start(Fault::Silent).await.unwrap();
    let slow = BrokenHost::start(Fault::Trickle).await.unwrap();
    let address = |host: &BrokenHost| host.url("x").split('/').nth(2).unwrap().to_owned();
    let looks = looks().with_limit(Duration::from_millis(300));
    for (host, cause) in [
        (closed, "onnection refused"),
        (address(&silent), "no whole answer came within"),
        (address(&slow), "no whole answer came within"),
    ] {
        let image: ImageReference = format!("{host}/team/web:1").parse().unwrap();
        let error = looks.digest(&image, None, None).await.unwrap_err();
        assert!(matches!(error, LookError::Unreachable { .. }), "{error:?}");
        let said = error.to_string();
        assert!(said.starts_with(&format!("{host} did not answer for {image}: ")), "{said}");
        assert!(said.contains(cause) && said.ends_with("host and port, and the network"), "{said}");
    }
}

#[tokio::test]
async fn a_registry_with_an_untrusted_certificate_is_unreachable() {
    // Only a name that is not of this machine must have TLS.
    let policy = OutboundPolicy::parse(["registry.test"]).unwrap().with_names(Arc::new(AllHere));
    let looks = RemoteImageRegistry::new(OutboundClient::new(policy).unwrap()).unwrap();
    let port = with_own_certificate();
    let image: ImageReference = format!("registry.test:{port}/team/web:1").parse().unwrap();
    let error = looks.digest(&image, None, None).await.unwrap_err();
    let LookError::Unreachable { cause, .. } = &error else { panic!("{error:?}") };
    assert!(cause.contains("certificate"), "{cause}");

    let plain = Server::start(Content::default()).await;
    let image = plain.image("1").to_string().replace("127.0.0.1", "registry.test");
    let error = looks.digest(&image.parse().unwrap(), None, None).await.unwrap_err();
    assert!(matches!(error, LookError::Unreachable { .. }), "{error:?}");
    assert!(plain.requests().is_empty());
}

/// Every name is this machine's.
#[derive(Debug)]
struct AllHere;

#[async_trait]
impl Names for AllHere {
    async fn addresses(&self, _host: &str) -> std::io::Result<Vec<IpAddr>> {
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    }
}

/// The port of a TLS server with a certificate that it signed itself.
fn with_own_certificate() -> u16 {
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(["registry.test".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            // The client refuses the certificate.
            let _refused = connection.complete_io(&mut stream);
        }
    });
    port
}

#[tokio::test]
async fn an_address_that_the_operator_did_not_allow_is_not_contacted() {
    let server = Server::start(Content::default()).await;
    let error = looks_where(&[]).digest(&server.image("1"), None, None).await.unwrap_err();
    let LookError::Refused { reason, .. } = &error else { panic!("{error:?}") };
    assert!(reason.contains("`outbound.allow`"), "{reason}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn what_is_no_readable_image_is_refused_with_the_reason() {
    let mut content = Content::default();
    let config = |media_type: &str, size: u64| {
        let digest = digest_of(b"a configuration");
        json!({"schemaVersion": 2, "layers": [], "config": {"mediaType": media_type, "digest": digest, "size": size}})
    };
    let docker = "application/vnd.docker.container.image.v1+json";
    let mut of_other_bytes = configuration("linux/amd64", "2026-01-01");
    let replaced = content.image("replaced", &of_other_bytes);
    let blob = format!("blobs/{}", digest_of(of_other_bytes.to_string().as_bytes()));
    of_other_bytes["created"] = json!("2027-01-01");
    content.store(&blob, "application/octet-stream", of_other_bytes.to_string().into());
    let large = format!("{{\"rootfs\":{{}}}}{}", " ".repeat(2 << 20));
    content.store(&format!("blobs/{}", digest_of(b"large")), "application/json", large.into());
    let too_large = json!({"schemaVersion": 2, "layers": [], "config": {"mediaType": docker, "digest": digest_of(b"large"), "size": 9}});
    let schema1 = json!({"schemaVersion": 1, "name": "web", "fsLayers": [], "history": []});
    let schema1_type = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let no_json = digest_of(b"<html>");
    content.store(&format!("manifests/{no_json}"), MANIFEST, "<html>".into());
    let cases = [
        (content.manifest("1", schema1_type, &schema1), "outdated schema 1: push it again"),
        (
            content.manifest("2", MANIFEST, &config("application/vnd.cncf.helm.config.v1+json", 7)),
            "not an image, but application/vnd.cncf.helm",
        ),
        (
            content.manifest("3", MANIFEST, &config(docker, 7)),
            "configuration is not in the repository",
        ),
        (
            content.manifest("4", MANIFEST, &config(docker, 2 << 20)),
            "configuration is larger than 1 MiB",
        ),
        (content.manifest("5", MANIFEST, &too_large), "answer is larger than 1 MiB"),
        (replaced, "configuration is not the one of its digest"),
        (no_json, "no manifest there, but something else"),
    ];
    let foreign = digest_of(b"another manifest");
    content.store(&format!("manifests/{foreign}"), MANIFEST, "{}".into());
    let server = Server::start(content).await;
    let (image, wanted, looks) = (server.image("1"), platforms(&["linux/amd64"]), looks());
    let foreign = (foreign, "the manifest is not the one of its digest");
    for (digest, reason) in cases.into_iter().chain([foreign]) {
        let error = looks.versions(&image, &digest, &wanted, None).await.unwrap_err();
        assert!(matches!(error, LookError::Unreadable { .. }), "{error:?}");
        let said = error.to_string();
        assert!(said.starts_with(&format!("{image} cannot be read: ")), "{said}");
        assert!(said.contains(reason), "{said}");
    }
    let absent = digest_of(b"deleted");
    let error = looks.versions(&image, &absent, &wanted, None).await.unwrap_err();
    assert_eq!(error, LookError::Gone { image: Box::new(image), digest: absent });
}

#[tokio::test]
async fn a_token_service_that_does_not_exist_does_not_mean_that_the_tag_was_deleted() {
    let tokens = Server::start(Content::default()).await;
    let realm = format!("Bearer realm=\"http://{}/token\"", tokens.host);
    let registry = Server::answering(Content::default(), move |_| {
        Some(status(401).header("www-authenticate", &realm).body(Full::default()).unwrap())
    })
    .await;
    let error = looks().digest(&registry.image("1"), None, None).await.unwrap_err();
    assert!(matches!(error, LookError::Unreadable { .. }), "{error:?}");
    assert!(error.to_string().ends_with("its token service gave no token"), "{error}");
}
