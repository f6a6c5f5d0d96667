//! HTTP to events; the users' door.
//!
//! In: webhooks, and what people and programs ask for. Out: events that the scheduler decides, and runs that were asked for
//! by name. Knows neither scheduler nor worker: what it tells them, it writes to the store, and rings.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpServer, web};
use gantry_ops::health::Health;
use gantry_ops::secret::{Keyring, SecretError};
use gantry_seams::blobs::SharedBlobs;
use gantry_seams::queue::Queues;
use gantry_seams::store::SharedStore;
use tokio_util::sync::CancellationToken;
use url::Url;

mod access;
pub mod api;
mod clock;
mod doorbell;
mod error;
mod hooks;
mod intake;
mod logs;
mod routes;
mod state;
mod tls;
mod trace;

pub use access::{IssueError, bootstrap_admin_token, issue_admin_token};
pub use tls::{TlsError, TlsFiles};

use crate::clock::StoreClock;
use crate::doorbell::Doorbells;
use crate::hooks::{ByteBudget, HookDirectory, HookTally};
use crate::intake::Intake;
use crate::logs::Followers;
use crate::routes::Document;
use crate::state::State;

/// How long requests under way may take once gantry stops.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// What the operator decides.
#[derive(Debug, Clone)]
pub struct IngressSettings {
    /// What senders and people are told to reach gantry by; the bound address if `None`.
    pub public_url: Option<Url>,
    /// How many bytes of hooks' bodies may be held at once. At least the largest body, 25 MiB.
    pub body_budget: u64,
    /// The largest upload, in bytes.
    pub upload_limit: u64,
    /// Serve TLS with these files; plain HTTP if `None`.
    pub tls: Option<TlsFiles>,
    /// Threads that answer, for each listener.
    pub threads: usize,
    /// How long a hook's body may take from its first to its last byte.
    pub body_patience: Duration,
}

impl Default for IngressSettings {
    fn default() -> Self {
        Self {
            public_url: None,
            body_budget: 256 << 20,
            upload_limit: 4 << 30,
            tls: None,
            threads: 2,
            body_patience: Duration::from_secs(30),
        }
    }
}

/// Everything that the door needs.
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

/// The door cannot be opened.
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
    let (doorbells, ringer) = Doorbells::new(ingress.queues);
    let ringing = tokio::spawn(ringer.run());
    let intake = Arc::new(Intake::default());
    let (looked_at, store) = (Arc::clone(&intake), Arc::clone(&ingress.store));
    let state = web::Data::new(State {
        store: ingress.store,
        blobs: ingress.blobs,
        keyring: ingress.keyring,
        health: ingress.health,
        clock: StoreClock::default(),
        doorbells,
        hooks: HookDirectory::new()?,
        tally: HookTally::default(),
        budget: ByteBudget::new(ingress.settings.body_budget),
        intake,
        followers: Followers::new(),
        hooks_address: listeners.hooks.as_ref().unwrap_or(&listeners.api).local_addr()?,
        runtime: tokio::runtime::Handle::current(),
        stop: stop.clone(),
        settings: ingress.settings,
    });

    let has_hooks_apart = listeners.hooks.is_some();
    let shared = state.clone();
    let api = HttpServer::new(move || {
        App::new()
            .app_data(shared.clone())
            .configure(|config| routes::api(config, &document))
            .configure(|config| {
                if !has_hooks_apart {
                    routes::hooks(config);
                }
            })
            .configure(routes::common)
    })
    .workers(threads)
    .shutdown_timeout(LAST_ANSWERS.as_secs())
    .disable_signals();
    let api = match tls.clone() {
        Some(tls) => api.listen_rustls_0_23(listeners.api, tls)?,
        None => api.listen(listeners.api)?,
    }
    .run();

    let hooks = match listeners.hooks {
        None => {
            // Only handlers hold it from here: the ringer ends when the last of them is gone.
            drop(state);
            None
        }
        Some(listener) => {
            let hooks = HttpServer::new(move || {
                App::new()
                    .app_data(state.clone())
                    .configure(routes::hooks)
                    .configure(routes::common)
            })
            .workers(threads)
            .shutdown_timeout(LAST_ANSWERS.as_secs())
            .disable_signals();
            let hooks = match tls {
                Some(tls) => hooks.listen_rustls_0_23(listener, tls)?,
                None => hooks.listen(listener)?,
            };
            Some(hooks.run())
        }
    };

    let handles: Vec<_> =
        std::iter::once(api.handle()).chain(hooks.as_ref().map(|hooks| hooks.handle())).collect();
    let stopping = async {
        stop.cancelled().await;
        for handle in handles {
            handle.stop(true).await;
        }
    };
    let serving = async {
        match hooks {
            Some(hooks) => tokio::try_join!(api, hooks).map(drop),
            None => api.await,
        }
    };
    let looking = looked_at.keep_looking(store.as_ref(), &stop);
    let (served, (), ()) = tokio::join!(serving, stopping, looking);
    // Every handler is gone, and with it every doorbell: what still waits is rung, and no longer than a moment.
    if tokio::time::timeout(LAST_ANSWERS, ringing).await.is_err() {
        tracing::warn!("the queue did not take the last doorbells; the sweeper rings them again");
    }
    Ok(served?)
}
