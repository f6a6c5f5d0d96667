//! gantry in this process, with the real engine, used over HTTP as by its users.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use gantry_domain::id::RunId;
use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::platform::Platform;
use gantry_ops::secret::Credentials;
use gantry_tests::real;
use gantry_worker::engine::{
    BuildError, BuildEvent, BuildOrder, BuiltImage, ContextStream, Engine, EngineError, EngineInfo,
    Leftover, PushError,
};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::Request;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::http::request;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::composition::{Parts, REGISTRY};
use crate::context::TAR;
use crate::exchange::{begin, exchange};
use crate::process;

/// A running gantry.
pub(crate) struct Gantry {
    /// Its components.
    pub(crate) parts: Parts,
    /// The address where it listens.
    pub(crate) address: SocketAddr,
    /// The completed builds of its engine.
    pub(crate) builds: mpsc::UnboundedReceiver<SeenBuild>,
    token: String,
    stop: CancellationToken,
    loops: JoinSet<()>,
    _folder: TempDir,
}

/// A build as observed between gantry and the engine.
#[derive(Debug)]
pub(crate) struct SeenBuild {
    /// The run of the build.
    pub(crate) run: RunId,
    /// When gantry requested it.
    pub(crate) asked: Instant,
    /// When the engine reported the first event.
    pub(crate) first_event: Option<Instant>,
    /// When the engine reported the last event.
    pub(crate) said: Instant,
    /// When the engine's call returned.
    pub(crate) done: Instant,
}

impl Gantry {
    /// Starts gantry with an empty folder and the real registry.
    pub(crate) async fn start() -> Result<Self> {
        let folder = process::folder()?;
        let stop = CancellationToken::new();
        let parts = Parts::open(folder.path(), &stop).await?;
        parts.set_up(&real::registry()).await?;
        let token = gantry_ingress::bootstrap_admin_token(parts.store.as_ref()).await?;
        let token = token.context("it is new")?.to_string();
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;

        let (seen, builds) = mpsc::unbounded_channel();
        let engine = Arc::new(Watched { engine: parts.engine()?, seen });
        let serving = parts.serve(listener, stop.clone());
        let mut loops = JoinSet::new();
        loops.spawn(parts.scheduler().run(stop.clone()));
        loops.spawn(parts.worker(engine)?.run(stop.clone()));
        loops.spawn(async move {
            if let Err(error) = serving.await {
                crate::report::say(format_args!("gantry does not serve: {error}"));
            }
        });
        Ok(Self { parts, address, builds, token, stop, loops, _folder: folder })
    }

    /// Sends a JSON request to its API.
    pub(crate) async fn ask(&self, path: &str, body: &Value) -> Result<Value> {
        let body = Full::new(Bytes::from(serde_json::to_vec(body)?));
        self.post(path, "application/json", body).await
    }

    /// Uploads a context and starts a build without push.
    pub(crate) async fn build(&self, context: Bytes) -> Result<RunId> {
        self.build_of(Full::new(context)).await
    }

    /// The same, with a streamed context.
    pub(crate) async fn build_stream<E>(
        &self,
        context: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> Result<RunId>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        self.build_of(StreamBody::new(context.map_ok(Frame::data))).await
    }

    async fn build_of<B>(&self, context: B) -> Result<RunId>
    where
        B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
    {
        let upload = self.post(&format!("/registries/{REGISTRY}/uploads"), TAR, context).await?;
        let build = json!({"upload": upload["id"], "images": ["bench"], "push": false});
        let run = self.ask(&format!("/registries/{REGISTRY}/builds"), &build).await?;
        Ok(run["id"].as_str().context("a run has an id")?.parse()?)
    }

    /// Follows a run's log as it grows.
    pub(crate) async fn follow(&self, run: RunId) -> Result<LiveLog> {
        let request = self.request(Request::get(format!("/api/v1/runs/{run}/log/events")));
        let answer = begin(self.connect().await?, request.body(Full::<Bytes>::default())?).await?;
        Ok(LiveLog(answer.into_body()))
    }

    async fn post<B>(&self, path: &str, kind: &str, body: B) -> Result<Value>
    where
        B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
    {
        let request = self.request(Request::post(format!("/api/v1{path}")));
        let request = request.header(CONTENT_TYPE, kind).body(body)?;
        let answer = exchange(self.connect().await?, request).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    fn request(&self, request: request::Builder) -> request::Builder {
        let proof = format!("Bearer {}", self.token);
        request.header(HOST, "gantry").header(AUTHORIZATION, proof)
    }

    async fn connect(&self) -> Result<TcpStream> {
        Ok(TcpStream::connect(self.address).await?)
    }

    /// A token that may do everything.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Stops it gracefully.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while self.loops.join_next().await.is_some() {}
    }
}

/// A live log.
pub(crate) struct LiveLog(Incoming);

impl LiveLog {
    /// The next bytes; `None` once the run has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.0.frame().await.transpose()?.map(Frame::into_data) {
                None => return Ok(None),
                Some(Ok(bytes)) => return Ok(Some(bytes)),
                Some(Err(_no_data)) => {}
            }
        }
    }
}

/// The real engine, with the times of its requests and events recorded.
struct Watched {
    engine: Arc<dyn Engine>,
    seen: mpsc::UnboundedSender<SeenBuild>,
}

#[async_trait]
impl Engine for Watched {
    async fn ping(&self) -> Result<(), EngineError> {
        self.engine.ping().await
    }

    async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.engine.info().await
    }

    async fn platforms(&self) -> Result<Vec<Platform>, EngineError> {
        self.engine.platforms().await
    }

    async fn build(
        &self,
        order: BuildOrder,
        context: ContextStream,
        events: mpsc::Sender<BuildEvent>,
    ) -> Result<BuiltImage, BuildError> {
        let run = order.run;
        let asked = Instant::now();
        let (mut first_event, mut last) = (None, asked);
        let (said, mut saying) = mpsc::channel(64);
        let pass_on = async {
            while let Some(event) = saying.recv().await {
                last = Instant::now();
                first_event.get_or_insert(last);
                let _gone = events.send(event).await;
            }
        };
        let (built, ()) = tokio::join!(self.engine.build(order, context, said), pass_on);
        let _gone =
            self.seen.send(SeenBuild { run, asked, first_event, said: last, done: Instant::now() });
        built
    }

    async fn tag(&self, image: &ImageReference, name: &ImageReference) -> Result<(), EngineError> {
        self.engine.tag(image, name).await
    }

    async fn image_id(&self, image: &ImageReference) -> Result<Option<Digest>, EngineError> {
        self.engine.image_id(image).await
    }

    async fn push(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
    ) -> Result<(), PushError> {
        self.engine.push(image, credentials).await
    }

    async fn remove_image(&self, image: &ImageReference) -> Result<(), EngineError> {
        self.engine.remove_image(image).await
    }

    async fn leftovers(&self, installation: &str) -> Result<Vec<Leftover>, EngineError> {
        self.engine.leftovers(installation).await
    }

    async fn remove(&self, leftover: &Leftover) -> Result<(), EngineError> {
        self.engine.remove(leftover).await
    }

    async fn prune_cache(&self, keep_bytes: u64) -> Result<u64, EngineError> {
        self.engine.prune_cache(keep_bytes).await
    }
}
