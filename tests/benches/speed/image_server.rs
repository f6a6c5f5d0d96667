//! A registry that has every repository, with one tag. Each image has an empty layer, and content that a push replaces.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::http::Method;
use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIGURATION: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A registry in this process.
pub(crate) struct ImageServer {
    /// Its host, with its port.
    pub(crate) host: SocketAddr,
    images: Data<Images>,
}

#[derive(Default)]
struct Images {
    /// How often each repository was pushed to, if it was.
    pushes: Mutex<HashMap<String, u32>>,
    /// Configurations by digest.
    configurations: Mutex<HashMap<String, Arc<str>>>,
    requests: AtomicUsize,
}

impl ImageServer {
    /// Starts it. It ends with the runtime.
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let host = listener.local_addr()?;
        let images = Data::new(Images::default());
        let shared = images.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(shared.clone())
                .route("/v2/{name:.*}/manifests/{reference}", web::route().to(manifest))
                .route("/v2/{name:.*}/blobs/{digest}", web::get().to(configuration))
        });
        tokio::spawn(server.workers(1).disable_signals().listen(listener)?.run());
        Ok(Self { host, images })
    }

    /// The only tag of a repository.
    pub(crate) fn image(&self, repository: &str) -> String {
        format!("{}/{repository}:1", self.host)
    }

    /// Moves the tag of a repository to other content. Returns its digest.
    pub(crate) fn push(&self, repository: &str) -> String {
        *lock(&self.images.pushes).entry(repository.to_owned()).or_default() += 1;
        digest(&self.images.manifest(repository))
    }

    /// How often manifests were asked for.
    pub(crate) fn requests(&self) -> usize {
        self.images.requests.load(Ordering::Relaxed)
    }
}

impl Images {
    fn manifest(&self, repository: &str) -> String {
        let push = lock(&self.pushes).get(repository).copied().unwrap_or_default();
        let layer = digest(&format!("{repository} {push}"));
        let configuration = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer]},
        })
        .to_string();
        let of = digest(&configuration);
        let part = |kind: &str, digest: &str, size: usize| -> Value {
            json!({"mediaType": kind, "digest": digest, "size": size})
        };
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": part(CONFIGURATION, &of, configuration.len()),
            "layers": [part(LAYER, &layer, 32)],
        });
        lock(&self.configurations).insert(of, configuration.into());
        manifest.to_string()
    }
}

async fn manifest(
    images: Data<Images>,
    path: web::Path<(String, String)>,
    request: HttpRequest,
) -> HttpResponse {
    images.requests.fetch_add(1, Ordering::Relaxed);
    let body = images.manifest(&path.0);
    let mut answer = HttpResponse::Ok();
    answer.content_type(MANIFEST).insert_header(("docker-content-digest", digest(&body)));
    if request.method() == Method::HEAD { answer.finish() } else { answer.body(body) }
}

async fn configuration(images: Data<Images>, path: web::Path<(String, String)>) -> HttpResponse {
    match lock(&images.configurations).get(&path.1) {
        Some(found) => HttpResponse::Ok().content_type(CONFIGURATION).body(found.to_string()),
        None => HttpResponse::NotFound().finish(),
    }
}

fn digest(text: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(text)))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
