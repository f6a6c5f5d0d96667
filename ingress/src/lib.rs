//! The HTTP server: receives webhooks, and serves the API.
//!
//! In: webhooks, and requests of people and programs. Out: events for the scheduler to decide, and runs that were
//! requested by name. Does not depend on scheduler or worker: it writes to the store and rings doorbells.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, Service as _};
use actix_web::{App, HttpServer, web};
use futures_util::future::try_join_all;
use gantry_ops::health::Health;
use gantry_ops::secret::{Keyring, SecretError};
use gantry_remote::code_host::ProviderApi;
use gantry_remote::webhook::Webhooks;
use gantry_seams::blobs::SharedBlobs;
use gantry_seams::queue::Queues;
use gantry_seams::store::SharedStore;
use tokio_util::sync::CancellationToken;
use url::Url;

mod access;
mod api;
mod clock;
mod connections;
mod doorbell;
mod error;
mod hooks;
mod intake;
mod logs;
mod refusal;
mod routes;
mod state;
mod tls;
mod trace;
mod usecase;
mod view;

pub use access::{IssueError, bootstrap_admin_token, issue_admin_token};
pub use hooks::meaning;
pub use tls::{TlsError, TlsFiles};

use crate::connections::Connections;
use crate::routes::Document;
use crate::state::State;

/// The most connections of one listener; further ones wait until one ends. An incomplete head takes up to 128 KiB.
const MOST_CONNECTIONS: usize = 4096;

/// The time limit for the store and the answer, in addition to receiving the request.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// The time limit for requests in progress at shutdown.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// The settings of an ingress.
#[derive(Debug, Clone)]
pub struct IngressSettings {
    /// The URL that senders and people use; the bound address if `None`.
    pub public_url: Option<Url>,
    /// The most bytes of all hook bodies in memory, and 16 KiB for each request. At least one body of 25 MiB.
    pub body_budget: u64,
    /// The largest upload, in bytes.
    pub upload_limit: u64,
    /// The most bytes that all uploads of one registry may take together.
    pub uploads_limit: u64,
    /// Uploads are refused while the object store has fewer bytes free.
    pub min_free: u64,
    /// The files to serve TLS with; plain HTTP if `None`.
    pub tls: Option<TlsFiles>,
    /// Threads for each listener.
    pub threads: usize,
    /// The time limit for a request's head.
    pub head_patience: Duration,
    /// The time limit for a hook's body, from its first to its last byte.
    pub body_patience: Duration,
}

impl Default for IngressSettings {
    fn default() -> Self {
        Self {
            public_url: None,
            body_budget: 256 << 20,
            upload_limit: 4 << 30,
            uploads_limit: 50 << 30,
            min_free: 0,
            tls: None,
            threads: 2,
            head_patience: Duration::from_secs(5),
            body_patience: Duration::from_secs(30),
        }
    }
}

/// An ingress, ready to serve.
pub struct Ingress {
    /// The store, shared by all roles.
    pub store: SharedStore,
    /// The doorbells.
    pub queues: Queues,
    /// Holds uploads, logs and old bodies.
    pub blobs: SharedBlobs,
    /// Seals secrets.
    pub keyring: Arc<Keyring>,
    /// The APIs of code hosts, which are asked for their webhooks.
    pub providers: Arc<dyn ProviderApi>,
    /// Sends test messages of notifications.
    pub webhooks: Webhooks,
    /// The parts that the process depends on, for `/readyz`.
    pub health: Health,
    /// Its settings.
    pub settings: IngressSettings,
}

/// The bound sockets.
#[derive(Debug)]
pub struct Listeners {
    /// Serves the API, and hooks unless they have their own socket.
    pub api: TcpListener,
    /// Serves only hooks.
    pub hooks: Option<TcpListener>,
}

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A socket cannot be used.
    #[error("cannot serve HTTP")]
    Io(#[from] std::io::Error),
    /// TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system has no random bytes.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The OpenAPI document cannot be written.
    #[error("cannot write the OpenAPI document")]
    Document(#[from] serde_json::Error),
}

/// Serves until `stop` is cancelled, then finishes the requests in progress.
///
/// # Errors
/// [`ServeError`]: nothing was served.
pub async fn run(
    ingress: Ingress,
    listeners: Listeners,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let threads = ingress.settings.threads.max(1);
    let tls = ingress.settings.tls.as_ref();
    let tls = tls.map(tls::server_config).transpose()?;
    let document = Document::write()?;
    let (head_patience, body_patience) =
        (ingress.settings.head_patience, ingress.settings.body_patience);
    let connections = Arc::new(Connections::new(head_patience + body_patience + ANSWERED_WITHIN));
    let hooks_address = listeners.hooks.as_ref().unwrap_or(&listeners.api).local_addr()?;
    let (state, ringer) = State::new(ingress, hooks_address, stop.clone())?;
    let ringing = tokio::spawn(ringer.run());
    let (intake, store) = (Arc::clone(&state.intake), Arc::clone(&state.store));
    let state = web::Data::new(state);

    let hooks_are_apart = listeners.hooks.is_some();
    let mut servers = Vec::new();
    for (listener, has_api, has_hooks) in std::iter::once((listeners.api, true, !hooks_are_apart))
        .chain(listeners.hooks.map(|listener| (listener, false, true)))
    {
        let (state, document) = (state.clone(), document.clone());
        let connections = Arc::clone(&connections);
        let server = HttpServer::new(move || {
            App::new()
                .app_data(state.clone())
                .wrap_fn(|request, app| {
                    let under_way = connections::asked(request.request());
                    let answering = app.call(request);
                    async move {
                        let mut response = answering.await?;
                        connections::answered(&mut response);
                        Ok(response.map_body(|_, body| connections::Body::new(body, under_way)))
                    }
                })
                .configure(|config| {
                    if has_api {
                        routes::api(config, &document);
                    }
                    if has_hooks {
                        routes::hooks(config);
                    }
                })
                .configure(routes::common)
        })
        .workers(threads)
        .max_connections(MOST_CONNECTIONS.div_ceil(threads))
        .client_request_timeout(head_patience)
        .on_connect(move |stream, extensions| connections.admit(stream, extensions))
        .shutdown_timeout(LAST_ANSWERS.as_secs())
        .disable_signals();
        let server = match tls.clone() {
            Some(tls) => server.listen_rustls_0_23(listener, tls)?,
            None => server.listen(listener)?,
        };
        servers.push(server.run());
    }
    // Only handlers hold the state from here, so the ringer ends with the last of them.
    drop(state);

    let handles: Vec<_> = servers.iter().map(Server::handle).collect();
    let stopping = async {
        stop.cancelled().await;
        for handle in handles {
            handle.stop(true).await;
        }
    };
    let serving = try_join_all(servers);
    let watching = connections.keep_looking(&stop);
    let looking = intake.keep_looking(store.as_ref(), &stop);
    let (served, (), (), ()) = tokio::join!(serving, stopping, looking, watching);
    // All handlers are gone, and with them the senders of doorbells. Send what is left, within a limit.
    if tokio::time::timeout(LAST_ANSWERS, ringing).await.is_err() {
        tracing::warn!("the last doorbells were not sent; the sweeper will send them again");
    }
    served?;
    Ok(())
}
