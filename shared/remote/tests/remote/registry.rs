use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gantry_domain::image::{ImageReference, Tag};
use gantry_ops::secret::{Credentials, SecretString};
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;
use gantry_remote::registry::{RegistryClient, RegistryError};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::time::Instant;

pub(crate) fn real_registry() -> String {
    std::env::var("GANTRY_TEST_REGISTRY").unwrap_or_else(|_| "127.0.0.1:5055".to_owned())
}

pub(crate) fn client(host: &str, credentials: Option<Credentials>) -> RegistryClient {
    let policy = OutboundPolicy::parse(["127.0.0.1", "localhost"]).unwrap();
    RegistryClient::new(OutboundClient::new(policy).unwrap(), host.parse().unwrap(), credentials)
}

pub(crate) fn user(password: &str) -> Option<Credentials> {
    Some(Credentials { username: "ann".to_owned(), password: SecretString::from(password) })
}

pub(crate) fn within(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

#[tokio::test]
async fn a_real_registry_resolves_and_moves_tags() {
    let host = real_registry();
    let client = client(&host, None);
    client.check(within(5)).await.expect("a registry must stand at GANTRY_TEST_REGISTRY");

    let image: ImageReference = format!("{host}/busybox:1").parse().unwrap();
    let digest = client.resolve(&image, within(5)).await.expect("the registry must hold busybox:1");
    let manifest = client.manifest(&image, within(5)).await.unwrap();
    assert_eq!(manifest.digest, digest);
    assert_eq!(client.manifest(&image.pinned(digest.clone()), within(5)).await.unwrap(), manifest);

    let tag: Tag = "gantry-test-remote".parse().unwrap();
    client.put_manifest(image.repository(), &tag, &manifest, within(5)).await.unwrap();
    assert_eq!(client.resolve(&image.with_tag(tag), within(5)).await.unwrap(), digest);

    let absent = image.with_tag("no-such-tag".parse().unwrap());
    let error = client.resolve(&absent, within(5)).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
}

/// A registry that answers every request with `answer(authorization, path)`.
pub(crate) async fn scripted(
    answer: impl Fn(&str, &str) -> Response<Full<Bytes>> + Send + Sync + 'static,
) -> String {
    scripted_asked(move |asked| answer(&asked.authorization, &asked.path)).await
}

/// A request to a scripted registry.
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Includes the query.
    pub(crate) path: String,
    pub(crate) authorization: String,
    pub(crate) if_none_match: String,
    pub(crate) body: String,
}

pub(crate) async fn scripted_asked(
    answer: impl Fn(&Asked) -> Response<Full<Bytes>> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let answer = Arc::clone(&answer);
                    async move {
                        let header = |name: &str| {
                            let given = request.headers().get(name);
                            given.map_or("", |value| value.to_str().unwrap()).to_owned()
                        };
                        let (authorization, if_none_match) =
                            (header("authorization"), header("if-none-match"));
                        let (method, path) =
                            (request.method().to_string(), request.uri().to_string());
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let body = String::from_utf8_lossy(&body).into_owned();
                        let asked = Asked { method, path, authorization, if_none_match, body };
                        Ok::<_, std::convert::Infallible>(answer(&asked))
                    }
                });
                let _gone = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

pub(crate) fn status(code: u16) -> hyper::http::response::Builder {
    Response::builder().status(code)
}

fn digest() -> String {
    format!("sha256:{}", "a".repeat(64))
}

#[tokio::test]
async fn a_token_is_fetched_with_credentials_and_reused() {
    let here = Arc::new(Mutex::new(String::new()));
    let tokens = Arc::new(AtomicUsize::new(0));
    let (address, asked) = (Arc::clone(&here), Arc::clone(&tokens));
    let host = scripted(move |given, path| {
        if path.starts_with("/token") {
            asked.fetch_add(1, Ordering::SeqCst);
            assert_eq!(given, "Basic YW5uOnB3");
            assert!(
                path.contains("service=reg") && path.contains("scope=repository%3Aa%2Fb%3Apull"),
                "{path}"
            );
            return status(200)
                .body(r#"{"token":"t","access_token":"t","expires_in":300}"#.into())
                .unwrap();
        }
        if given == "Bearer t" {
            return status(200)
                .header("docker-content-digest", digest())
                .body(Full::default())
                .unwrap();
        }
        let realm =
            format!("Bearer realm=\"http://{}/token\",service=\"reg\"", address.lock().unwrap());
        status(401).header("www-authenticate", realm).body(Full::default()).unwrap()
    })
    .await;
    here.lock().unwrap().clone_from(&host);
    let client = client(&host, user("pw"));
    let image = format!("{host}/a/b:1").parse().unwrap();
    for _ in 0..3 {
        assert_eq!(client.resolve(&image, within(5)).await.unwrap().as_str(), digest());
    }
    assert_eq!(tokens.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn wrong_credentials_are_reported_and_not_retried() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let host = scripted(move |given, _| {
        count.fetch_add(1, Ordering::SeqCst);
        if given == "Basic YW5uOnB3" {
            return status(200).body(Full::default()).unwrap();
        }
        let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"who?"}]}"#;
        status(401).header("www-authenticate", "Basic realm=\"r\"").body(body.into()).unwrap()
    })
    .await;
    client(&host, user("pw")).check(within(5)).await.unwrap();
    assert_eq!(asked.swap(0, Ordering::SeqCst), 2);
    for credentials in [user("wrong"), None] {
        let error = client(&host, credentials).check(within(5)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{host} refused access to its API: check the credentials of the registry or of the task; it said: UNAUTHORIZED who?"
            )
        );
        assert!(!error.is_transient());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_unavailable_registry_is_retried_until_the_deadline() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let host = scripted(move |_, _| match count.fetch_add(1, Ordering::SeqCst) {
        0 => status(503).body(Full::default()).unwrap(),
        1 => status(429).header("retry-after", "1").body(Full::default()).unwrap(),
        _ => status(200).header("docker-content-digest", digest()).body(Full::default()).unwrap(),
    })
    .await;
    let image = format!("{host}/a/b:1").parse().unwrap();
    let began = Instant::now();
    client(&host, None).resolve(&image, within(10)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));

    let host = scripted(|_, _| status(502).body(Full::default()).unwrap()).await;
    let image = format!("{host}/a/b:1").parse().unwrap();
    let error = client(&host, None).resolve(&image, within(1)).await.unwrap_err();
    assert!(error.is_transient(), "{error}");

    let image = "127.0.0.1:1/a/b:1".parse().unwrap();
    let error = client("127.0.0.1:1", None).resolve(&image, within(1)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_manifest_with_another_digest_is_refused() {
    let host = scripted(|_, _| {
        let typed =
            status(200).header("content-type", "application/vnd.oci.image.manifest.v1+json");
        typed.header("docker-content-digest", digest()).body("{}".into()).unwrap()
    })
    .await;
    let image = format!("{host}/a/b:1").parse().unwrap();
    let error = client(&host, None).manifest(&image, within(5)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Nonsense { .. }), "{error}");
}

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[tokio::test]
async fn a_refused_head_request_is_repeated_as_get() {
    for refusal in [400, 403, 405, 406, 501] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let host = scripted_asked(move |asked| {
            count.fetch_add(1, Ordering::SeqCst);
            match asked.method.as_str() {
                "HEAD" => status(refusal).body(Full::default()).unwrap(),
                _ => status(200).header("content-type", OCI_MANIFEST).body("{}".into()).unwrap(),
            }
        })
        .await;
        let image = format!("{host}/a/b:1").parse().unwrap();
        let digest = client(&host, None).resolve(&image, within(5)).await.unwrap();
        // The digest of `{}`.
        assert!(digest.as_str().starts_with("sha256:44136fa355b3678a"), "{refusal}: {digest}");
        assert_eq!(asked.load(Ordering::SeqCst), 2, "{refusal}");
    }
}

#[tokio::test]
async fn the_status_of_get_counts_if_head_is_refused() {
    let host = scripted_asked(|asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("HEAD", _) => status(405).body(Full::default()).unwrap(),
        (_, "/v2/a/gone/manifests/1") => status(404).body(Full::default()).unwrap(),
        (_, "/v2/a/other/manifests/1") => status(200)
            .header("content-type", OCI_MANIFEST)
            .header("docker-content-digest", digest())
            .body("{}".into())
            .unwrap(),
        _ => {
            let body = r#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#;
            status(403).body(body.into()).unwrap()
        }
    })
    .await;
    let client = client(&host, None);
    let resolve = |name: &str| {
        let (client, image) = (&client, format!("{host}/a/{name}:1").parse().unwrap());
        async move { client.resolve(&image, within(5)).await.unwrap_err() }
    };
    assert!(matches!(resolve("gone").await, RegistryError::NotFound { .. }));
    assert!(matches!(resolve("other").await, RegistryError::Nonsense { .. }));
    let error = resolve("denied").await;
    assert!(error.to_string().ends_with("it said: DENIED not yours"), "{error}");
}

#[tokio::test]
async fn unauthorized_and_not_found_heads_are_not_repeated_as_get() {
    for refusal in [401, 404] {
        let host = scripted_asked(move |asked| {
            assert_eq!(asked.method, "HEAD");
            status(refusal).body(Full::default()).unwrap()
        })
        .await;
        let image = format!("{host}/a/b:1").parse().unwrap();
        let error = client(&host, None).resolve(&image, within(5)).await.unwrap_err();
        assert!(!error.is_transient(), "{error}");
    }
}

#[tokio::test]
async fn a_manifest_without_content_type_has_its_own_media_type() {
    let body = format!(r#"{{"mediaType":"{OCI_MANIFEST}"}}"#);
    for header in
        [None, Some("text/plain; charset=utf-8"), Some("application/octet-stream"), Some("")]
    {
        let body = body.clone();
        let host = scripted(move |_, _| {
            let answer = header
                .into_iter()
                .fold(status(200), |answer, header| answer.header("content-type", header));
            answer.body(body.clone().into()).unwrap()
        })
        .await;
        let image = format!("{host}/a/b:1").parse().unwrap();
        let manifest = client(&host, None).manifest(&image, within(5)).await.unwrap();
        assert_eq!(manifest.media_type, OCI_MANIFEST, "{header:?}");
    }
}

/// A registry with these challenges and this token service; `HERE` in them is its own address. It accepts only `Bearer
/// t`.
async fn guarded(
    challenges: Vec<&'static str>,
    service: impl Fn(&Asked) -> Response<Full<Bytes>> + Send + Sync + 'static,
) -> String {
    let here = Arc::new(Mutex::new(String::new()));
    let address = Arc::clone(&here);
    let host = scripted_asked(move |asked| {
        if asked.path.starts_with("/token") {
            return service(asked);
        }
        if asked.authorization == "Bearer t" {
            return status(200)
                .header("docker-content-digest", digest())
                .body(Full::default())
                .unwrap();
        }
        let here = address.lock().unwrap().clone();
        let refused = challenges.iter().fold(status(401), |refused, challenge| {
            refused.header("www-authenticate", challenge.replace("HERE", &here).into_bytes())
        });
        refused.body(Full::default()).unwrap()
    })
    .await;
    here.lock().unwrap().clone_from(&host);
    host
}

#[tokio::test]
async fn challenges_are_accepted_in_any_notation() {
    for challenges in [
        vec![r#"Bearer realm="http://HERE/token",service="reg""#],
        vec![r#"bearer Realm = "http://HERE/token" , SERVICE=reg"#],
        vec![r#"BEARER service="reg",,realm="http://HERE/token",error="invalid_token""#],
        vec![r#"Basic realm="r", Bearer realm="http://HERE/token",service="reg""#],
        vec![r#"Basic realm="r""#, r#"Bearer realm="http://HERE/token",service="reg""#],
        vec![r#"Bearer realm="http://HERE/token",service="reg""#, r#"Basic realm="Régistre""#],
        vec!["Negotiate", r#"Bearer realm="http://HERE/token",service="reg",scope="""#],
        vec!["Bearer\trealm=\"http://HERE/token\",\tservice=\"reg\""],
    ] {
        let host = guarded(challenges.clone(), |asked| {
            assert_eq!(asked.path, "/token?service=reg&scope=repository%3Aa%2Fb%3Apull");
            assert_eq!(asked.authorization, "Basic YW5uOnB3");
            status(200).body(r#"{"token":"t"}"#.into()).unwrap()
        })
        .await;
        let image = format!("{host}/a/b:1").parse().unwrap();
        let resolved = client(&host, user("pw")).resolve(&image, within(5)).await;
        assert_eq!(resolved.unwrap().as_str(), digest(), "{challenges:?}");
    }
}

#[tokio::test]
async fn a_realm_keeps_its_query_and_the_registrys_scopes_are_requested() {
    let challenge = r#"Bearer realm="http://HERE/token?account=a%20b",scope="repository:a/b:pull repository:x/b:pull""#;
    let host = guarded(vec![challenge], |asked| {
        let scopes = "scope=repository%3Aa%2Fb%3Apull&scope=repository%3Ax%2Fb%3Apull";
        assert_eq!(asked.path, format!("/token?account=a%20b&{scopes}"));
        status(200).body(r#"{"access_token":"t","expires_in":"300"}"#.into()).unwrap()
    })
    .await;
    let image = format!("{host}/a/b:1").parse().unwrap();
    client(&host, None).resolve(&image, within(5)).await.unwrap();
}

#[tokio::test]
async fn a_token_service_without_get_is_asked_with_post() {
    for refusal in [400, 404, 405] {
        let challenge = r#"Bearer realm="http://HERE/token",service="reg""#;
        let host = guarded(vec![challenge], move |asked| {
            if asked.method == "GET" {
                return status(refusal).body(Full::default()).unwrap();
            }
            let scope = "scope=repository%3Aa%2Fb%3Apull";
            let form = "grant_type=password&client_id=gantry&service=reg";
            assert_eq!(asked.body, format!("{form}&{scope}&username=ann&password=pw"));
            status(200).body(r#"{"access_token":"t","refresh_token":"r"}"#.into()).unwrap()
        })
        .await;
        let image = format!("{host}/a/b:1").parse().unwrap();
        client(&host, user("pw")).resolve(&image, within(5)).await.unwrap();
        let error = client(&host, None).resolve(&image, within(5)).await.unwrap_err();
        assert!(!error.is_transient(), "{refusal}: {error}");
    }
}
