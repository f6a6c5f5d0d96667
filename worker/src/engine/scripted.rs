//! A scripted engine for tests.
//!
//! In: scripts, by repository, and the orders of a worker. Out: events, images and failures like those of a real
//! engine. It runs nothing and contacts no registry; what it "pushed" can be read as a manifest.
//!
//! Everything is bounded: it remembers the last [`KEPT_BUILDS`] builds, and of each context the first [`KEPT_CONTEXT`]
//! bytes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_domain::id::RunId;
use gantry_domain::image::{Digest, ImageReference, RegistryHost, Repository};
use gantry_domain::platform::Platform;
use gantry_ops::secret::{Credentials, ExposeSecret as _};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{mpsc, watch};

mod containers;

use super::containers::ContainerOrder;
use super::{
    BuildError, BuildEvent, BuildOrder, BuiltImage, ContextStream, Engine, EngineError, EngineInfo,
    Leftover, LeftoverKind, OutputStream, PushError,
};

/// How many builds are remembered.
pub const KEPT_BUILDS: usize = 1024;
/// How many bytes of each context are remembered.
pub const KEPT_CONTEXT: usize = 64 * 1024;

const LOG_CHUNK: usize = 64 * 1024;
const LOG_LINE: &[u8] = b"a line of sixty-four bytes, which divides a chunk of log evenly\n";

/// The actions of a build, in order. A build whose script ends without a failure succeeds.
#[derive(Debug, Clone)]
pub enum Action {
    /// Writes this output to this stream.
    Output(OutputStream, Bytes),
    /// Writes this many bytes of log, in lines.
    Log {
        /// The number of bytes.
        bytes: u64,
    },
    /// Waits until the test opens the gate.
    Wait(Gate),
    /// Takes this long.
    Work(Duration),
    /// Runs until it is cancelled.
    Hang,
    /// Fails with this exit code, like a `RUN`.
    Exit(i64),
    /// Is refused with this message.
    Refuse(String),
    /// Fails because the engine's disk is full.
    FillDisk,
    /// Makes the engine unavailable, for all calls until [`ScriptedEngine::come_back`].
    GoAway,
}

/// Where a build waits for the test.
#[derive(Debug, Clone)]
pub struct Gate {
    state: Arc<watch::Sender<GateState>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct GateState {
    reached: bool,
    open: bool,
}

impl Default for Gate {
    fn default() -> Self {
        Self { state: Arc::new(watch::Sender::new(GateState::default())) }
    }
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn closed() -> Self {
        Self::default()
    }

    /// Returns once a build waits at the gate.
    pub async fn reached(&self) {
        self.wait(|state| state.reached).await;
    }

    /// Opens the gate for all builds, now and later.
    pub fn open(&self) {
        self.state.send_modify(|state| state.open = true);
    }

    async fn pass(&self) {
        self.state.send_modify(|state| state.reached = true);
        self.wait(|state| state.open).await;
    }

    async fn wait(&self, until: impl FnMut(&GateState) -> bool) {
        // Fails only if the sender is dropped, which `self` holds.
        let mut state = self.state.subscribe();
        let _held = state.wait_for(until).await;
    }
}

/// How a push fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushFailure {
    /// The registry refuses the credentials.
    Unauthorized,
    /// The registry answers 503.
    Registry,
    /// The engine does not answer.
    Engine,
}

/// A build that was requested.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The complete order.
    pub order: BuildOrder,
    /// The first [`KEPT_CONTEXT`] bytes of the context.
    pub context: Bytes,
    /// The whole length of the context in bytes.
    pub context_length: u64,
}

/// The scripted engine. Clones share their state.
#[derive(Debug, Clone, Default)]
pub struct ScriptedEngine {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    running: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    away: bool,
    emulated: Vec<Platform>,
    scripts: HashMap<Repository, VecDeque<Vec<Action>>>,
    push_failures: HashMap<Repository, VecDeque<PushFailure>>,
    asked: VecDeque<Asked>,
    containers: VecDeque<ContainerOrder>,
    images: BTreeMap<ImageReference, Kept>,
    manifests: HashMap<Digest, Bytes>,
    pushed: BTreeMap<ImageReference, Digest>,
    /// What was given for pushes and pulls.
    given: Vec<(RegistryHost, Option<Credentials>)>,
    exchanged_pushes: HashMap<Repository, VecDeque<Digest>>,
    leftovers: Vec<(String, Leftover)>,
}

/// An image in the engine.
#[derive(Debug, Clone)]
struct Kept {
    installation: String,
    owner: (RunId, u32),
    manifest: Bytes,
}

impl ScriptedEngine {
    /// An empty engine, whose builds succeed at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Scripts the next unscripted build of an image of `repository`.
    pub fn script(&self, repository: &Repository, actions: impl IntoIterator<Item = Action>) {
        let actions = actions.into_iter().collect();
        self.state().scripts.entry(repository.clone()).or_default().push_back(actions);
    }

    /// Makes the next push to `repository` fail that is not already scripted to fail.
    pub fn fail_push(&self, repository: &Repository, failure: PushFailure) {
        self.state().push_failures.entry(repository.clone()).or_default().push_back(failure);
    }

    /// The credentials that were given for pushes and pulls, with the hosts that they were given for. Clears the list.
    #[must_use]
    pub fn take_given(&self) -> Vec<(RegistryHost, Option<Credentials>)> {
        std::mem::take(&mut self.state().given)
    }

    /// Makes the engine build for these platforms beside its own, and no others.
    pub fn emulate(&self, platforms: impl IntoIterator<Item = Platform>) {
        self.state().emulated = platforms.into_iter().collect();
    }

    /// Makes the engine unavailable until [`ScriptedEngine::come_back`].
    pub fn go_away(&self) {
        self.state().away = true;
    }

    /// Makes the engine available again.
    pub fn come_back(&self) {
        self.state().away = false;
    }

    /// Adds a leftover, as if a dead attempt had left it.
    pub fn leave(&self, installation: &str, leftover: Leftover) {
        self.state().leftovers.push((installation.to_owned(), leftover));
    }

    /// The requested builds, oldest first.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.iter().cloned().collect()
    }

    /// The containers that ran, oldest first.
    #[must_use]
    pub fn containers(&self) -> Vec<ContainerOrder> {
        self.state().containers.iter().cloned().collect()
    }

    /// The number of running builds.
    #[must_use]
    pub fn running(&self) -> usize {
        *self.shared.running.borrow()
    }

    /// Returns once exactly `count` builds run.
    pub async fn until_running(&self, count: usize) {
        // Fails only if the sender is dropped, which `self` holds.
        let mut running = self.shared.running.subscribe();
        let _held = running.wait_for(|running| *running == count).await;
    }

    /// The images in the engine.
    #[must_use]
    pub fn images(&self) -> Vec<ImageReference> {
        self.state().images.keys().cloned().collect()
    }

    /// After the next push to `repository`, the pushed name has this digest, as if another process had pushed its
    /// image.
    pub fn exchange_push(&self, repository: &Repository, digest: &Digest) {
        let mut state = self.state();
        state.exchanged_pushes.entry(repository.clone()).or_default().push_back(digest.clone());
    }

    /// The digest of the last push of this name.
    #[must_use]
    pub fn pushed(&self, image: &ImageReference) -> Option<Digest> {
        self.state().pushed.get(image).cloned()
    }

    /// The pushed manifest with this digest.
    #[must_use]
    pub fn manifest(&self, digest: &Digest) -> Option<Bytes> {
        self.state().manifests.get(digest).cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn here(&self) -> Result<MutexGuard<'_, State>, EngineError> {
        let state = self.state();
        if state.away { Err(gone()) } else { Ok(state) }
    }

    fn next_script(&self, repository: &Repository) -> Result<Vec<Action>, EngineError> {
        let mut state = self.here()?;
        Ok(state.scripts.get_mut(repository).and_then(VecDeque::pop_front).unwrap_or_default())
    }

    fn remember(&self, asked: Asked) {
        let mut state = self.state();
        if state.asked.len() == KEPT_BUILDS {
            state.asked.pop_front();
        }
        state.asked.push_back(asked);
    }

    fn remember_container(&self, order: &ContainerOrder) {
        let mut state = self.state();
        if state.containers.len() == KEPT_BUILDS {
            state.containers.pop_front();
        }
        state.containers.push_back(order.clone());
    }

    fn keep(&self, order: &BuildOrder) -> Result<BuiltImage, EngineError> {
        let config = config_of(order);
        let id = digest_of(&config);
        let kept = Kept {
            installation: order.installation.clone(),
            owner: (order.run, order.attempt),
            manifest: manifest_of(&id, config.len()),
        };
        self.here()?.images.insert(order.image.clone(), kept);
        Ok(BuiltImage { config: id, uncached: None })
    }

    async fn act(&self, action: Action, says: &Says<'_>) -> Result<(), BuildError> {
        match action {
            Action::Output(stream, bytes) => says.output(stream, bytes).await,
            Action::Log { bytes } => says.log(bytes).await,
            Action::Wait(gate) => gate.pass().await,
            Action::Work(time) => tokio::time::sleep(time).await,
            Action::Hang => std::future::pending().await,
            Action::Exit(exit_code) => {
                let error = format!("exit code: {exit_code}");
                says.completed(Some(error)).await;
                return Err(BuildError::StepFailed { step: STEP.to_owned(), exit_code });
            }
            Action::Refuse(message) => return Err(BuildError::Refused { message }),
            Action::FillDisk => {
                let message = "write /layer: no space left on device".to_owned();
                return Err(BuildError::DiskFull { message });
            }
            Action::GoAway => {
                self.go_away();
                return Err(gone().into());
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Engine for ScriptedEngine {
    async fn ping(&self) -> Result<(), EngineError> {
        self.here().map(drop)
    }

    async fn info(&self) -> Result<EngineInfo, EngineError> {
        let _here = self.here()?;
        Ok(EngineInfo {
            name: "a scripted engine".to_owned(),
            platform: Platform::default(),
            data_root: None,
        })
    }

    async fn platforms(&self) -> Result<Vec<Platform>, EngineError> {
        let emulated = self.here()?.emulated.clone();
        Ok(std::iter::once(Platform::default()).chain(emulated).collect())
    }

    async fn build(
        &self,
        order: BuildOrder,
        context: ContextStream,
        events: mpsc::Sender<BuildEvent>,
    ) -> Result<BuiltImage, BuildError> {
        let script = self.next_script(order.image.repository())?;
        let _running = Running::one_more(&self.shared.running);
        let (context, context_length) =
            read(context).await.map_err(|source| BuildError::Context { source })?;
        self.remember(Asked { order: order.clone(), context, context_length });

        let says = Says { events: &events };
        says.started().await;
        for action in script {
            self.act(action, &says).await?;
        }
        says.completed(None).await;
        Ok(self.keep(&order)?)
    }

    async fn tag(&self, image: &ImageReference, name: &ImageReference) -> Result<(), EngineError> {
        let mut state = self.here()?;
        let Some(kept) = state.images.get(image).cloned() else {
            let message = format!("no such image: {image}");
            return Err(EngineError::Refused { what: "tag an image", message });
        };
        state.images.insert(name.clone(), kept);
        Ok(())
    }

    async fn image_id(&self, image: &ImageReference) -> Result<Option<Digest>, EngineError> {
        let _here = self.here()?;
        // It has every image that a command may use.
        Ok(Some(digest_of(image.to_string().as_bytes())))
    }

    async fn push(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
    ) -> Result<(), PushError> {
        let mut state = self.here()?;
        state.given.push((image.host().clone(), credentials.cloned()));
        let failure = state.push_failures.get_mut(image.repository()).and_then(VecDeque::pop_front);
        let (host, pushed) = (image.host().clone(), image.clone());
        match failure {
            Some(PushFailure::Unauthorized) => {
                let message = "unauthorized: authentication required".to_owned();
                return Err(PushError::Unauthorized { host, image: pushed, message });
            }
            Some(PushFailure::Registry) => {
                let message = "received unexpected HTTP status: 503 Service Unavailable".to_owned();
                return Err(PushError::Registry { host, image: pushed, message });
            }
            Some(PushFailure::Engine) => return Err(gone().into()),
            None => {}
        }
        let Some(kept) = state.images.get(image) else {
            let message = format!("an image does not exist locally with the tag: {image}");
            return Err(EngineError::Refused { what: "push", message }.into());
        };
        let manifest = kept.manifest.clone();
        let digest = digest_of(&manifest);
        state.manifests.insert(digest.clone(), manifest);
        let another =
            state.exchanged_pushes.get_mut(image.repository()).and_then(VecDeque::pop_front);
        state.pushed.insert(image.clone(), another.unwrap_or(digest));
        Ok(())
    }

    async fn remove_image(&self, image: &ImageReference) -> Result<(), EngineError> {
        self.here()?.images.remove(image);
        Ok(())
    }

    async fn leftovers(&self, installation: &str) -> Result<Vec<Leftover>, EngineError> {
        let state = self.here()?;
        let images = state.images.iter().map(|(name, kept)| {
            let owner = Some(kept.owner);
            (
                &kept.installation,
                Leftover { kind: LeftoverKind::Image, id: name.to_string(), owner },
            )
        });
        let left = state.leftovers.iter().map(|(owner, leftover)| (owner, leftover.clone()));
        Ok(images
            .chain(left)
            .filter(|(owner, _)| *owner == installation)
            .map(|(_, it)| it)
            .collect())
    }

    async fn remove(&self, leftover: &Leftover) -> Result<(), EngineError> {
        let mut state = self.here()?;
        state.leftovers.retain(|(_, left)| left != leftover);
        state.images.retain(|name, _| name.to_string() != leftover.id);
        Ok(())
    }

    async fn prune_cache(&self, _keep_bytes: u64) -> Result<u64, EngineError> {
        let _here = self.here()?;
        Ok(0)
    }
}

fn gone() -> EngineError {
    EngineError::Unreachable {
        address: "scripted".to_owned(),
        source: "the script says that it is gone".into(),
    }
}

/// Counts a running build until it is dropped.
struct Running<'a>(&'a watch::Sender<usize>);

impl<'a> Running<'a> {
    fn one_more(running: &'a watch::Sender<usize>) -> Self {
        running.send_modify(|running| *running += 1);
        Self(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

const VERTEX: u32 = 1;
const STEP: &str = "[1/1] RUN script";

/// The only vertex of a scripted build. Events are dropped if nobody listens.
struct Says<'a> {
    events: &'a mpsc::Sender<BuildEvent>,
}

impl Says<'_> {
    async fn send(&self, event: BuildEvent) {
        let _reader_gone = self.events.send(event).await;
    }

    async fn started(&self) {
        self.send(BuildEvent::Started { vertex: VERTEX, name: STEP.to_owned() }).await;
    }

    async fn output(&self, stream: OutputStream, bytes: Bytes) {
        self.send(BuildEvent::Output { vertex: VERTEX, stream, bytes }).await;
    }

    async fn log(&self, bytes: u64) {
        let chunk = Bytes::from(LOG_LINE.repeat(LOG_CHUNK / LOG_LINE.len()));
        let mut rest = bytes;
        while rest > 0 {
            let length = usize::try_from(rest).unwrap_or(usize::MAX).min(chunk.len());
            self.output(OutputStream::Stdout, chunk.slice(..length)).await;
            rest -= length as u64;
        }
    }

    async fn completed(&self, error: Option<String>) {
        let event = BuildEvent::Completed { vertex: VERTEX, cached: false, error, duration_ms: 1 };
        self.send(event).await;
    }
}

async fn read(mut context: ContextStream) -> std::io::Result<(Bytes, u64)> {
    let mut kept = Vec::new();
    (&mut context).take(KEPT_CONTEXT as u64).read_to_end(&mut kept).await?;
    let rest = tokio::io::copy(&mut context, &mut tokio::io::sink()).await?;
    let length = kept.len() as u64 + rest;
    Ok((kept.into(), length))
}

fn digest_of(bytes: &[u8]) -> Digest {
    let text = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
    match text.parse() {
        Ok(digest) => digest,
        Err(_) => unreachable!("a SHA-256 in hex is a digest"),
    }
}

/// A configuration that differs for orders whose images would differ.
fn config_of(order: &BuildOrder) -> Vec<u8> {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update(text.len().to_be_bytes());
        hash.update(text);
    };
    part(&order.dockerfile);
    part(&order.image.to_string());
    part(&order.platform.to_string());
    part(order.target.as_deref().unwrap_or_default());
    part(&order.run.to_string());
    part(&order.attempt.to_string());
    for (key, value) in order.labels.iter().chain(&order.build_args) {
        part(key);
        part(value);
    }
    for (key, value) in &order.secret_build_args {
        part(key);
        part(value.expose_secret());
    }
    format!(r#"{{"made of":"{}"}}"#, hex::encode(hash.finalize())).into_bytes()
}

fn manifest_of(config: &Digest, size: usize) -> Bytes {
    const TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
    let config = serde_json::json!({
        "mediaType": "application/vnd.docker.container.image.v1+json",
        "size": size,
        "digest": config.as_str(),
    });
    let manifest =
        serde_json::json!({"schemaVersion": 2, "mediaType": TYPE, "config": config, "layers": []});
    manifest.to_string().into()
}
