//! A registry over HTTP with the images of a test.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gantry_domain::image::{Digest, ImageReference};
use http_body_util::Full;
use hyper::Response;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::registry::{Asked, scripted_asked, status};

pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIGURATION: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The content of the repository `team/web`.
#[derive(Clone)]
pub(super) struct Content {
    /// Type and body, by `manifests/REFERENCE` and `blobs/DIGEST`.
    stored: BTreeMap<String, (&'static str, Bytes)>,
    /// Headers of every answer.
    pub(super) headers: Vec<(&'static str, &'static str)>,
    /// Whether answers have `Docker-Content-Digest`.
    pub(super) sends_digests: bool,
}

impl Default for Content {
    fn default() -> Self {
        Self { stored: BTreeMap::new(), headers: Vec::new(), sends_digests: true }
    }
}

/// The configuration of an image for `platform` with one layer, built at `created`.
pub(super) fn configuration(platform: &str, created: &str) -> Value {
    let mut words = platform.split('/');
    let (os, architecture) = (words.next().unwrap(), words.next().unwrap());
    let mut configuration = json!({
        "os": os, "architecture": architecture, "created": created,
        "config": {"Env": ["PATH=/bin"], "Labels": {"gantry.run": created}},
        "history": [{"created": created, "created_by": "COPY . ."}],
        "rootfs": {"type": "layers", "diff_ids": [digest_of(b"a file")]},
    });
    if let Some(variant) = words.next() {
        configuration["variant"] = json!(variant);
    }
    configuration
}

pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    let hex: String =
        digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}").parse().unwrap()
}

impl Content {
    /// Stores a manifest of any kind under its digest and a tag.
    pub(super) fn manifest(&mut self, tag: &str, media_type: &'static str, body: &Value) -> Digest {
        let body = Bytes::from(body.to_string());
        let digest = digest_of(&body);
        self.store(&format!("manifests/{tag}"), media_type, body.clone());
        self.store(&format!("manifests/{digest}"), media_type, body);
        digest
    }

    /// Stores the manifest of an image with this configuration, and one layer.
    pub(super) fn image(&mut self, tag: &str, configuration: &Value) -> Digest {
        let body = Bytes::from(configuration.to_string());
        let config =
            json!({"mediaType": CONFIGURATION, "digest": digest_of(&body), "size": body.len()});
        self.store(&format!("blobs/{}", digest_of(&body)), "application/octet-stream", body);
        let layer = json!({"mediaType": LAYER, "digest": digest_of(b"a layer"), "size": 7});
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
        self.manifest(tag, MANIFEST, &manifest)
    }

    /// Stores an index with these platforms, each followed by its attestation as BuildKit writes it. Returns the digests
    /// of the index and of the platforms' manifests.
    pub(super) fn index(
        &mut self,
        tag: &str,
        platforms: &[&str],
        created: &str,
    ) -> (Digest, Vec<Digest>) {
        let mut entries = Vec::new();
        let mut manifests = Vec::new();
        for platform in platforms {
            let built = configuration(platform, created);
            let digest = self.image("of-an-index", &built);
            let mut stated = json!({"os": built["os"], "architecture": built["architecture"]});
            if let Some(variant) = built.get("variant") {
                stated["variant"] = variant.clone();
            }
            entries.push(entry(&digest, &stated, &json!({})));
            let about = json!({
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": digest,
            });
            let unknown = json!({"os": "unknown", "architecture": "unknown"});
            entries.push(entry(&digest_of(b"an attestation"), &unknown, &about));
            manifests.push(digest);
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        (self.manifest(tag, INDEX, &index), manifests)
    }

    pub(super) fn store(&mut self, path: &str, media_type: &'static str, body: Bytes) {
        self.stored.insert(path.to_owned(), (media_type, body));
    }

    pub(super) fn remove(&mut self, path: &str) {
        self.stored.remove(path).unwrap();
    }

    fn answer(&self, asked: &Asked) -> Response<Full<Bytes>> {
        let path = asked.path.strip_prefix("/v2/team/web/").unwrap_or_default();
        let mut answer = status(200);
        for (name, value) in &self.headers {
            answer = answer.header(*name, *value);
        }
        let Some((media_type, body)) = self.stored.get(path.split('?').next().unwrap()) else {
            return answer.status(404).body(Full::default()).unwrap();
        };
        let digest = digest_of(body);
        if asked.if_none_match == format!("\"{digest}\"") {
            return answer.status(304).body(Full::default()).unwrap();
        }
        if self.sends_digests {
            answer = answer.header("docker-content-digest", digest.as_str());
        }
        answer.header("content-type", *media_type).body(Full::new(body.clone())).unwrap()
    }
}

fn entry(digest: &Digest, platform: &Value, annotations: &Value) -> Value {
    json!({
        "mediaType": MANIFEST, "digest": digest, "size": 7,
        "platform": platform, "annotations": annotations,
    })
}

/// A registry that answers requests.
pub(super) struct Server {
    /// `127.0.0.1:PORT`
    pub(super) host: String,
    answered: Arc<Mutex<Vec<(String, u16)>>>,
}

impl Server {
    pub(super) async fn start(content: Content) -> Self {
        Self::answering(content, |_| None).await
    }

    /// A registry that answers with `first`, if that is `Some`.
    pub(super) async fn answering(
        content: Content,
        first: impl Fn(&Asked) -> Option<Response<Full<Bytes>>> + Send + Sync + 'static,
    ) -> Self {
        let answered = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&answered);
        let host = scripted_asked(move |asked| {
            let answer = first(asked).unwrap_or_else(|| content.answer(asked));
            let request = format!("{} {}", asked.method, asked.path);
            record.lock().unwrap().push((request, answer.status().as_u16()));
            answer
        })
        .await;
        Self { host, answered }
    }

    /// A registry that answers only requests with a token, and counts the tokens that it gives.
    pub(super) async fn with_tokens(content: Content, tokens: Arc<AtomicUsize>) -> Self {
        let here = Arc::new(Mutex::new(String::new()));
        let realm = Arc::clone(&here);
        let server = Self::answering(content, move |asked| {
            if asked.path.starts_with("/token?") {
                let number = tokens.fetch_add(1, Ordering::SeqCst);
                let body = json!({"token": format!("t{number}"), "expires_in": 300}).to_string();
                return Some(status(200).body(Full::from(body)).unwrap());
            }
            if asked.authorization.starts_with("Bearer t") {
                return None;
            }
            let realm =
                format!("Bearer realm=\"http://{}/token\",service=\"r\"", realm.lock().unwrap());
            let answer = status(401).header("www-authenticate", realm);
            Some(answer.body(Full::default()).unwrap())
        })
        .await;
        here.lock().unwrap().clone_from(&server.host);
        server
    }

    pub(super) fn image(&self, tag: &str) -> ImageReference {
        format!("{}/team/web:{tag}", self.host).parse().unwrap()
    }

    /// `METHOD path` of each request so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.answered.lock().unwrap().iter().map(|(request, _)| request.clone()).collect()
    }

    /// The status of each answer so far.
    pub(super) fn statuses(&self) -> Vec<u16> {
        self.answered.lock().unwrap().iter().map(|(_, status)| *status).collect()
    }

    pub(super) fn assert_no_layer_was_requested(&self) {
        let layer = digest_of(b"a layer");
        let requests = self.requests();
        assert!(!requests.iter().any(|request| request.contains(layer.as_str())), "{requests:#?}");
    }
}
