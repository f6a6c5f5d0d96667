//! Routes that do the minimum, as upper limits.
//!
//! The HTTP server has as many threads as gantry's ingress, and the store has its group commit. Everything specific to
//! deliveries is left out.

use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::web::{self, Bytes, Data, PayloadConfig};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use gantry_domain::timestamp::Timestamp;
use gantry_local::queues;
use gantry_seams::store::{Batch, CommitError, Entry, Key, Kind, SharedStore};
use gantry_sqlite::{Options, SqliteStore};
use gantry_tests::doubles::store::{CommitHook, HookedStore};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use tokio_util::sync::CancellationToken;

use crate::accept;
use crate::backend::Backend;
use crate::composition::Parts;
use crate::github;
use crate::load;

/// The same limit as for GitHub.
const LARGEST_BODY: usize = 26 << 20;

/// What a route does with a received body.
#[derive(Clone)]
pub(crate) enum Write {
    /// Stores nothing.
    Nothing {
        /// Whether the route checks the signature.
        is_signed: bool,
    },
    /// One record.
    OneRecord(SharedStore),
    /// A batch with the size and shape of gantry's.
    Equal(SharedStore, Arc<Template>),
}

impl Write {
    /// One record with the body, in a store like gantry's.
    pub(crate) async fn one_record(backend: &Backend, folder: &Path) -> Result<Self> {
        Ok(Self::OneRecord(backend.store(folder).await?))
    }

    /// As many records, index entries and bytes as gantry's ingress commits for a push, in a store like gantry's.
    pub(crate) async fn equal_to_gantrys(backend: &Backend, folder: &Path) -> Result<Self> {
        let template = Template::of_gantrys(folder).await?;
        Ok(Self::Equal(backend.store(folder).await?, Arc::new(template)))
    }
}

/// Serves one route at the path of the hook.
pub(crate) async fn serve(listener: TcpListener, write: Write) -> Result<()> {
    let route = Data::new(Route { mac: github::mac()?, write });
    let path = accept::path();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(route.clone())
            .app_data(PayloadConfig::new(LARGEST_BODY))
            .route(&path, web::post().to(receive))
    });
    let threads = std::thread::available_parallelism()?.get();
    Ok(server.workers(threads).disable_signals().listen(listener)?.run().await?)
}

struct Route {
    mac: Hmac<Sha256>,
    write: Write,
}

async fn receive(route: Data<Route>, request: HttpRequest, body: Bytes) -> HttpResponse {
    let written = match &route.write {
        Write::Nothing { is_signed: false } => return HttpResponse::Accepted().finish(),
        Write::Nothing { is_signed: true } if route.is_signed(&request, &body) => Ok(()),
        Write::OneRecord(store) if route.is_signed(&request, &body) => {
            let mut batch = Batch::default();
            batch.create(Key::new(Kind::DeliveryBody, delivery(&request)), body);
            store.commit(batch).await
        }
        Write::Equal(store, template) if route.is_signed(&request, &body) => {
            match store.now().await {
                Ok(now) => store.commit(template.renewed(delivery(&request), now)).await,
                Err(error) => Err(error.into()),
            }
        }
        Write::Nothing { .. } | Write::OneRecord(_) | Write::Equal(..) => {
            return HttpResponse::Unauthorized().finish();
        }
    };
    match written {
        Ok(()) => HttpResponse::Accepted().finish(),
        Err(_) => HttpResponse::ServiceUnavailable().finish(),
    }
}

fn delivery(request: &HttpRequest) -> &str {
    let id = request.headers().get("x-github-delivery").and_then(|id| id.to_str().ok());
    id.unwrap_or_default()
}

impl Route {
    fn is_signed(&self, request: &HttpRequest, body: &[u8]) -> bool {
        let proof = request.headers().get("x-hub-signature-256");
        let digits = proof.and_then(|proof| proof.as_bytes().strip_prefix(b"sha256="));
        let mut tag = [0; 32];
        if digits.is_none_or(|digits| hex::decode_to_slice(digits, &mut tag).is_err()) {
            return false;
        }
        let mut mac = self.mac.clone();
        mac.update(body);
        mac.verify_slice(&tag).is_ok()
    }
}

/// The batch that gantry committed for one delivery, to be repeated for others.
pub(crate) struct Template {
    batch: Batch,
    delivery: String,
    /// The score of its entries in time-ordered indexes.
    received: i64,
}

impl Template {
    /// Lets gantry's ingress accept one push, and records its commit.
    async fn of_gantrys(folder: &Path) -> Result<Self> {
        let folder = folder.join("gantry");
        let stop = CancellationToken::new();
        let store = SqliteStore::open(folder.join("gantry.db"), Options::default())?;
        let recorder = Arc::new(Recorder::default());
        let store = HookedStore::shared(Arc::new(store), Arc::clone(&recorder));
        let parts = Parts::on(store, queues(&stop), &folder).await?;
        parts.set_up("registry.test").await?;

        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let serving = parts.serve(listener, stop.clone());
        let sending = async {
            let status = load::send_one(address, &accept::signed_push()?).await;
            stop.cancel();
            status
        };
        let (served, status) = tokio::join!(serving, sending);
        served?;
        ensure!(status? == 202, "gantry did not accept a push");
        let batch = recorder.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Self::read(batch.context("what is accepted is committed")?)
    }

    fn read(batch: Batch) -> Result<Self> {
        let ids = batch.put.iter().find(|(key, _)| key.kind == Kind::Delivery);
        let (_, delivery) =
            ids.and_then(|(key, _)| key.id.rsplit_once('/')).context("a delivery is committed")?;
        let delivery = delivery.to_owned();
        let received = batch.index.iter().map(|(_, entry)| entry.score.abs()).max();
        Ok(Self { received: received.context("it is indexed")?, delivery, batch })
    }

    /// The same batch for another delivery: equal in records, entries and bytes, with `now` as the time in its index
    /// entries.
    fn renewed(&self, delivery: &str, now: Timestamp) -> Batch {
        let (before, now) = (self.received.to_string(), now.as_millis());
        let rename =
            |text: &str| text.replace(&self.delivery, delivery).replace(&before, &now.to_string());
        let key = |key: &Key| Key::new(key.kind, rename(&key.id));
        let score = |score: i64| match score {
            score if score == self.received => now,
            score if score == -self.received => -now,
            score => score,
        };
        let batch = &self.batch;
        Batch {
            expect: batch.expect.iter().map(|(of, expected)| (key(of), *expected)).collect(),
            put: batch.put.iter().map(|(of, bytes)| (key(of), bytes.clone())).collect(),
            delete: batch.delete.iter().map(key).collect(),
            index: batch
                .index
                .iter()
                .map(|(index, entry)| {
                    let member = rename(&entry.member);
                    (index.clone(), Entry { score: score(entry.score), member })
                })
                .collect(),
            unindex: batch
                .unindex
                .iter()
                .map(|(index, member)| (index.clone(), rename(member)))
                .collect(),
        }
    }
}

/// Records the last commit to a store.
#[derive(Default)]
struct Recorder(Mutex<Option<Batch>>);

#[async_trait]
impl CommitHook for Recorder {
    async fn before(&self, batch: &Batch) -> Result<(), CommitError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(batch.clone());
        Ok(())
    }
}
