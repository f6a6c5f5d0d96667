//! Artifacts in a registry: unpacked as `oras pull` does it, from a registry that may send anything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gantry_domain::image::{Digest, ImageReference};
use gantry_ops::secret::{Credentials, SecretString};
use gantry_worker::source::{Checkout, SourceError, UnpackError};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::archives::{archive, file};
use super::{TestSources, digest_of, soon, sources};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What a registry answers, by path: a body and its media type, or where it redirects to.
#[derive(Default)]
struct Content {
    bodies: HashMap<String, (String, Vec<u8>)>,
    redirects: HashMap<String, String>,
    /// Paths, and what was sent as `Authorization`.
    asked: Vec<(String, Option<String>)>,
    is_private: bool,
}

#[derive(Clone)]
struct Registry {
    host: String,
    content: Arc<Mutex<Content>>,
}

impl Registry {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let content = Arc::new(Mutex::new(Content::default()));
        let registry = Self { host, content };
        let served = registry.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = served.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request: Request<hyper::body::Incoming>| {
                        let answer = served.answer(&request);
                        async move { answer }
                    });
                    let _gone = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        registry
    }

    fn answer<T>(&self, request: &Request<T>) -> hyper::http::Result<Response<Full<Bytes>>> {
        let mut content = self.content.lock().unwrap();
        let path = request.uri().path().to_owned();
        let sent = request.headers().get("authorization");
        let sent = sent.map(|value| value.to_str().unwrap().to_owned());
        content.asked.push((path.clone(), sent.clone()));
        let response = Response::builder();
        if content.is_private && sent.is_none() {
            let response = response.status(401).header("WWW-Authenticate", "Basic realm=\"x\"");
            return response.body(Full::default());
        }
        if let Some(to) = content.redirects.get(&path) {
            return response.status(307).header("Location", to).body(Full::default());
        }
        match content.bodies.get(&path) {
            Some((media_type, body)) => {
                response.header("Content-Type", media_type).body(Bytes::from(body.clone()).into())
            }
            None => response.status(404).body(Full::default()),
        }
    }

    fn image(&self, tag: &str) -> ImageReference {
        format!("{}/src:{tag}", self.host).parse().unwrap()
    }

    fn blob(&self, bytes: Vec<u8>) -> Digest {
        let digest = digest_of(&bytes);
        self.put(&format!("/v2/src/blobs/{digest}"), "application/octet-stream", bytes);
        digest
    }

    fn put(&self, path: &str, media_type: &str, body: Vec<u8>) {
        let mut content = self.content.lock().unwrap();
        content.bodies.insert(path.to_owned(), (media_type.to_owned(), body));
    }

    /// Pushes an artifact of these layers.
    fn push(&self, tag: &str, layers: &[Value]) -> Digest {
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers});
        let manifest = manifest.to_string().into_bytes();
        let digest = digest_of(&manifest);
        self.put(&format!("/v2/src/manifests/{tag}"), MANIFEST, manifest);
        digest
    }

    fn layer(&self, title: &str, bytes: &[u8]) -> Value {
        let digest = self.blob(bytes.to_vec());
        json!({"digest": digest, "annotations": {"org.opencontainers.image.title": title}})
    }

    fn folder(&self, title: &str, bytes: &[u8]) -> Value {
        let mut layer = self.layer(title, bytes);
        layer["annotations"]["io.deis.oras.content.unpack"] = json!("true");
        layer
    }
}

async fn fetch(
    rig: &TestSources,
    image: &ImageReference,
    credentials: Option<&Credentials>,
) -> Result<(Checkout, Digest), SourceError> {
    rig.sources.from_artifact(image, credentials, soon()).await
}

fn text(checkout: &Checkout, path: &str) -> String {
    std::fs::read_to_string(checkout.root().join(path)).unwrap()
}

#[tokio::test]
async fn an_artifact_has_its_files_and_its_unpacked_folders() {
    let (rig, registry) = (sources(0), Registry::start().await);
    let unnamed = json!({"digest": registry.blob(b"not fetched".to_vec())});
    let layers = [
        registry.layer("Dockerfile", b"FROM scratch\n"),
        registry.layer("conf/a.json", b"{}"),
        registry.layer("source.tar", &archive(&[file("inside", "x")])),
        registry.folder("app", &archive(&[file("app/main.c", "int main;"), file("app/x", "y")])),
        unnamed,
    ];
    let pushed = registry.push("1", &layers);
    let (checkout, digest) = fetch(&rig, &registry.image("1"), None).await.unwrap();
    assert_eq!(digest, pushed);
    assert_eq!(text(&checkout, "Dockerfile"), "FROM scratch\n");
    assert_eq!(text(&checkout, "conf/a.json"), "{}");
    assert_eq!(text(&checkout, "app/main.c"), "int main;");
    assert!(checkout.root().join("source.tar").is_file(), "a file stays as it is");
    assert_eq!(checkout.commit(), None);
}

#[tokio::test]
async fn an_artifact_that_breaks_a_rule_is_refused() {
    let (rig, registry) = (sources(0), Registry::start().await);
    let refused = async |layers: &[Value]| {
        registry.push("bad", layers);
        fetch(&rig, &registry.image("bad"), None).await.unwrap_err()
    };
    for title in ["../out", "/etc/out", "a/../../out", ".", ""] {
        let error = refused(&[registry.layer(title, b"x")]).await;
        assert!(matches!(&error, SourceError::Unpack(UnpackError::Unsafe { .. })), "{error}");
    }
    let behind = registry.folder("d", &archive(&[super::archives::entry(b'2', "l", "/tmp", "")]));
    let error = refused(&[behind, registry.layer("l/out", b"x")]).await;
    assert!(error.to_string().contains("lies behind a link"), "{error}");

    let half = vec![b'x'; 600 << 10];
    let error = refused(&[registry.layer("a", &half), registry.layer("b", &half)]).await;
    assert!(error.to_string().contains("more than 1 MiB of bytes"), "{error}");
    let many: Vec<_> = (0..101).map(|n| registry.layer(&format!("f{n}"), b"")).collect();
    let error = refused(&many).await;
    assert!(error.to_string().contains("more than 100 of files"), "{error}");

    // An image, an index, and what is no manifest at all.
    let image = json!({"digest": registry.blob(b"layer".to_vec())});
    let error = refused(&[image]).await;
    assert!(error.to_string().contains("has no files"), "{error}");
    for body in [json!({"mediaType": INDEX, "manifests": []}), json!([]), json!({"layers": [1]})] {
        registry.put("/v2/src/manifests/odd", INDEX, body.to_string().into_bytes());
        let error = fetch(&rig, &registry.image("odd"), None).await.unwrap_err();
        assert!(matches!(error, SourceError::NoArtifact { .. }), "{error}");
    }
    assert!(std::fs::read_dir(rig.folder.path()).unwrap().all(|it| {
        let name = it.unwrap().file_name();
        name == "checkouts" || name == "mirrors"
    }));
}

#[tokio::test]
async fn a_layer_that_is_not_the_one_of_its_digest_is_refused() {
    let (rig, registry) = (sources(0), Registry::start().await);
    for title in ["f", "\u{1b}[2Jf"] {
        let layer = registry.layer(title, b"as pushed");
        let digest = layer["digest"].as_str().unwrap();
        registry.put(&format!("/v2/src/blobs/{digest}"), "text/plain", b"exchanged".to_vec());
        registry.push("1", &[layer]);
        let error = fetch(&rig, &registry.image("1"), None).await.unwrap_err();
        let told = error.to_string();
        assert!(matches!(error, SourceError::OtherLayer { .. }) && !error.is_transient(), "{told}");
        assert!(!told.chars().any(char::is_control), "{told:?}");
    }
}

#[tokio::test]
async fn an_absent_artifact_or_layer_is_not_found() {
    let (rig, registry) = (sources(0), Registry::start().await);
    let absent = json!({
        "digest": digest_of(b"absent"), "annotations": {"org.opencontainers.image.title": "f"},
    });
    registry.push("half", &[absent]);
    for tag in ["none", "half"] {
        let error = fetch(&rig, &registry.image(tag), None).await.unwrap_err();
        assert!(error.to_string().contains("is not in"), "{error}");
        assert!(!error.is_transient() && !error.is_away());
    }
}

#[tokio::test]
async fn the_credentials_stay_with_the_registry_and_a_redirect_stays_within_the_guard() {
    let (rig, registry, storage) = (sources(0), Registry::start().await, Registry::start().await);
    registry.content.lock().unwrap().is_private = true;
    let layer = registry.layer("f", b"kept elsewhere");
    let path = format!("/v2/src/blobs/{}", layer["digest"].as_str().unwrap());
    registry.push("1", &[layer]);
    storage.put("/signed", "text/plain", b"kept elsewhere".to_vec());
    let to = format!("http://localhost:{}/signed", storage.host.rsplit_once(':').unwrap().1);
    registry.content.lock().unwrap().redirects.insert(path.clone(), to);
    let credentials = Credentials {
        username: "ann".to_owned(),
        password: SecretString::from("needle".to_owned()),
    };
    let image = registry.image("1");

    // `localhost` is not among the permitted hosts of these sources.
    let error = fetch(&rig, &image, Some(&credentials)).await.unwrap_err();
    assert!(error.to_string().contains("outbound.allow"), "{error}");
    assert!(storage.content.lock().unwrap().asked.is_empty());

    let to = format!("http://{}/signed", storage.host);
    registry.content.lock().unwrap().redirects.insert(path, to);
    let (checkout, _) = fetch(&rig, &image, Some(&credentials)).await.unwrap();
    assert_eq!(text(&checkout, "f"), "kept elsewhere");
    assert_eq!(storage.content.lock().unwrap().asked, [("/signed".to_owned(), None)]);

    registry.content.lock().unwrap().asked.clear();
    let error = fetch(&rig, &image, None).await.unwrap_err();
    assert!(error.to_string().contains("refused access"), "{error}");
    let content = registry.content.lock().unwrap();
    assert!(content.asked.iter().all(|(_, sent)| sent.is_none()), "{:?}", content.asked);
}

#[tokio::test]
async fn a_private_or_unlisted_registry_is_not_contacted() {
    let rig = sources(0);
    for name in ["127.0.0.2:9/src:1", "localhost:9/src:1", "169.254.169.254:80/src:1"] {
        let error = fetch(&rig, &name.parse().unwrap(), None).await.unwrap_err();
        assert!(error.to_string().ends_with("to `outbound.allow`"), "{name}: {error}");
        assert!(!error.is_transient());
    }
}
