//! Build orders, and a way to execute them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gantry_domain::id::RunId;
use gantry_domain::image::ImageReference;
use gantry_worker::engine::{
    BuildError, BuildEvent, BuildOrder, BuiltImage, ContextStream, Engine, OutputStream,
};
use tokio::sync::mpsc;

/// The builds that the contract needs, independent of the engine.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Recipe {
    /// Prints this text to standard output and succeeds.
    Says(&'static str),
    /// Prints `bytes` bytes and succeeds.
    SaysMuch { bytes: u64 },
    /// Prints `waiting`, and then runs for hours.
    Hangs,
    /// A step exits with this code.
    Exits(i64),
    /// The order cannot be built.
    Nonsense,
}

/// An engine under test.
pub(crate) trait Rig: Send + Sync {
    fn engine(&self) -> Arc<dyn Engine>;
    /// An order whose build follows the recipe.
    fn order(&self, recipe: Recipe) -> BuildOrder;
    /// Whether any process of this order's build is still running.
    fn runs(&self, order: &BuildOrder) -> bool;
}

/// A new order: names, isolation and run differ on every call.
pub(crate) fn order(registry: &str, dockerfile: &str) -> BuildOrder {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = u64::from(std::process::id()) * 1000 + NEXT.fetch_add(1, Ordering::Relaxed);
    let run: RunId = format!("ca{number}").parse().unwrap();
    let image: ImageReference = format!("{registry}/engine-test:{run}").parse().unwrap();
    BuildOrder {
        installation: format!("test-{number}"),
        run,
        attempt: 1,
        step: "build".parse().unwrap(),
        dockerfile: dockerfile.to_owned(),
        bases: bases(dockerfile),
        has_local_base: false,
        has_frontend: false,
        image,
        labels: BTreeMap::new(),
        build_args: BTreeMap::new(),
        secret_build_args: BTreeMap::new(),
        secrets: BTreeMap::new(),
        frontend: BTreeMap::new(),
        target: None,
        platform: gantry_domain::platform::Platform::default(),
        no_cache: false,
        cache: None,
        isolation: format!("isolated-{number}"),
        registries: BTreeMap::new(),
    }
}

/// The names after `FROM`, including those of stages.
fn bases(dockerfile: &str) -> BTreeSet<ImageReference> {
    let named = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM "));
    named.filter_map(|rest| rest.split(' ').next()?.parse().ok()).collect()
}

/// An uncompressed tar of these files.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, text) in files {
        let mut header = tokio_tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        header.set_cksum();
        archive.extend(header.as_bytes());
        archive.extend(*text);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.extend([0; 1024]);
    archive
}

/// A context from memory.
pub(crate) fn context(bytes: Vec<u8>) -> ContextStream {
    Box::pin(std::io::Cursor::new(bytes))
}

/// All events of a build.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) events: Vec<BuildEvent>,
}

impl Told {
    /// The output on one stream, joined.
    pub(crate) fn output(&self, wanted: OutputStream) -> String {
        let bytes: Vec<u8> = self
            .events
            .iter()
            .filter_map(|event| match event {
                BuildEvent::Output { stream, bytes, .. } if *stream == wanted => Some(bytes),
                BuildEvent::Output { .. }
                | BuildEvent::Started { .. }
                | BuildEvent::Completed { .. } => None,
            })
            .flat_map(|bytes| bytes.iter())
            .copied()
            .collect();
        String::from_utf8(bytes).unwrap()
    }
}

/// Builds, and collects all events.
pub(crate) async fn build(
    engine: &dyn Engine,
    order: BuildOrder,
    context: ContextStream,
) -> (Result<BuiltImage, BuildError>, Told) {
    let (events, mut received) = mpsc::channel(16);
    let listen = async {
        let mut told = Told::default();
        while let Some(event) = received.recv().await {
            told.events.push(event);
        }
        told
    };
    tokio::join!(engine.build(order, context, events), listen)
}

/// Waits until `is_so` returns true.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let asked = Instant::now();
    while !is_so() {
        assert!(asked.elapsed() < Duration::from_secs(30), "waited half a minute for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
