//! The HTTP server: webhooks become events, and users call the API.
//!
//! In: webhooks, and what people and programs ask for. Out: events that the scheduler decides, and runs that were asked
//! for by name. Knows neither scheduler nor worker: what it tells them, it writes to the store, and rings.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, Service as _};
use actix_web::{App, HttpServer, web};
use futures_util::future::try_join_all;
use gantry_ops::health::Health;
use gantry_ops::secret::{Keyring, SecretError};
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

/// How many connections one listener has at most. Whoever comes then waits until one ends. A head that is not whole yet
/// takes up to 128 KiB.
const MOST_CONNECTIONS: usize = 4096;

/// How long a store and an answer may take, beside what comes of the request.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// How long requests under way may take once gantry stops.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// What the operator decides.
#[derive(Debug, Clone)]
pub struct IngressSettings {
    /// What senders and people are told to reach gantry by; the bound address if `None`.
    pub public_url: Option<Url>,
    /// How many bytes of hooks' bodies may be held at once, and 16 KiB for each request. At least one of 25 MiB.
    pub body_budget: u64,
    /// The largest upload, in bytes.
    pub upload_limit: u64,
    /// How many bytes all uploads of one registry may take together.
    pub uploads_limit: u64,
    /// With fewer bytes free where objects are, no upload is taken.
    pub min_free: u64,
    /// Serve TLS with these files; plain HTTP if `None`.
    pub tls: Option<TlsFiles>,
    /// Threads that answer, for each listener.
    pub threads: usize,
    /// How long a request's head may take.
    pub head_patience: Duration,
    /// How long a hook's body may take from its first to its last byte.
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

/// What the server needs.
pub struct Ingress {
    /// The truth.
    pub store: SharedStore,
    /// The doorbells.
    pub queues: Queues,
    /// Uploads, logs, old bodies.
    pub blobs: SharedBlobs,
    /// What secrets are sealed with.
    pub keyring: Arc<Keyring>,
    /// What the process needs, for `/readyz`.
    pub health: Health,
    /// What the operator decides.
    pub settings: IngressSettings,
}

/// The sockets, bound by the caller.
#[derive(Debug)]
pub struct Listeners {
    /// For the API; for hooks too, unless they have their own.
    pub api: TcpListener,
    /// For hooks alone.
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

/// Serves until `stop` is cancelled, then answers what is under way and ends.
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
    // Only handlers hold it from here: the ringer ends when the last of them is gone.
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
    // Every handler is gone, and with it every doorbell: what still waits is rung, and no longer than a moment.
    if tokio::time::timeout(LAST_ANSWERS, ringing).await.is_err() {
        tracing::warn!("the queue did not take the last doorbells; the sweeper rings them again");
    }
    served?;
    Ok(())
}
