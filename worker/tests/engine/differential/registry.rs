//! A registry in which every image exists, with a single file in it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use gantry_domain::image::{Digest, ImageReference, Tag};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::rig::tar;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

pub(super) struct EveryImage {
    _serving: AbortOnDropHandle<()>,
}

impl EveryImage {
    pub(super) fn serve(listener: TcpListener) -> Self {
        Self { _serving: AbortOnDropHandle::new(tokio::spawn(serve(listener))) }
    }
}

/// The digest of an image. It differs for each name, because engines load equal images only once.
pub(super) fn digest(image: &ImageReference) -> Digest {
    let tag = image.tag().map_or("", Tag::as_str);
    digest_of(&Image::of(image.repository().as_str(), tag).manifest).parse().unwrap()
}

/// All content that was served, by digest.
type Content = Arc<Mutex<HashMap<String, (&'static str, Vec<u8>)>>>;

async fn serve(listener: TcpListener) {
    let content = Content::default();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let content = content.clone();
        let answer = hyper::service::service_fn(move |request| {
            let response = answer(&request, &content);
            async { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(async move {
            // Engines try TLS first.
            let _no_http = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

fn answer(request: &Request<Incoming>, content: &Content) -> Response<Full<Bytes>> {
    let path = request.uri().path().strip_prefix("/v2/").unwrap_or_default();
    let mut content = content.lock().unwrap();
    if let Some((repository, tag)) = path.rsplit_once("/manifests/")
        && !tag.contains(':')
    {
        let Image { manifest, config, layer } = Image::of(repository, tag);
        for (kind, bytes) in [(MANIFEST, manifest), (CONFIG, config), (LAYER, layer)] {
            content.insert(digest_of(&bytes), (kind, bytes));
        }
    }
    let digest = match path.rsplit_once('/') {
        Some((_, digest)) if digest.contains(':') => digest.to_owned(),
        Some((named, tag)) => {
            let repository = named.strip_suffix("/manifests").unwrap_or_default();
            digest_of(&Image::of(repository, tag).manifest)
        }
        None => String::new(),
    };
    let (kind, bytes) = content.get(&digest).cloned().unwrap_or_default();
    let response = Response::builder()
        .header(CONTENT_TYPE, kind)
        .header(DIGEST, digest)
        .header(CONTENT_LENGTH, bytes.len());
    let is_head = request.method() == Method::HEAD;
    response.body(if is_head { Full::default() } else { Full::from(bytes) }).unwrap()
}

struct Image {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
}

impl Image {
    fn of(repository: &str, tag: &str) -> Self {
        // Engines also merge builds with equal layers.
        let files = tar(&[("f", format!("{repository}:{tag}").as_bytes())]);
        let mut layer = GzEncoder::new(Vec::new(), Compression::fast());
        layer.write_all(&files).unwrap();
        let layer = layer.finish().unwrap();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(&files)]},
        });
        let config = config.to_string().into_bytes();
        let blob = |kind, content: &[u8]| serde_json::json!({"mediaType": kind, "size": content.len(), "digest": digest_of(content)});
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": blob(CONFIG, &config), "layers": [blob(LAYER, &layer)],
        });
        Self { manifest: manifest.to_string().into_bytes(), config, layer }
    }
}

fn digest_of(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}
