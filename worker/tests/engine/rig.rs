//! Orders to give, and a way to give them.

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

/// What the contract needs of a build, whatever engine does it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Recipe {
    /// Says this on standard output and succeeds.
    Says(&'static str),
    /// Says `bytes` bytes and succeeds.
    SaysMuch { bytes: u64 },
    /// Says `waiting`, then goes on for hours.
    Hangs,
    /// A step ends with this code.
    Exits(i64),
    /// The order is not one that can be built.
    Nonsense,
}

/// An engine under test.
pub(crate) trait Rig: Send + Sync {
    fn engine(&self) -> Arc<dyn Engine>;
    /// An order whose build does what the recipe says.
    fn order(&self, recipe: Recipe) -> BuildOrder;
    /// Whether anything of this order's build runs still.
    fn runs(&self, order: &BuildOrder) -> bool;
}

/// An order of its own for every call: names, isolation and run differ.
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
        has_frontend: false,
        image,
        labels: BTreeMap::new(),
        build_args: BTreeMap::new(),
        secret_build_args: BTreeMap::new(),
        target: None,
        platform: gantry_domain::platform::Platform::default(),
        no_cache: false,
        isolation: format!("isolated-{number}"),
        registries: BTreeMap::new(),
    }
}

/// What FROM names, stages too.
fn bases(dockerfile: &str) -> BTreeSet<ImageReference> {
    let named = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM "));
    named.filter_map(|rest| rest.split(' ').next()?.parse().ok()).collect()
}

/// A plain tar of these files.
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

/// All that a build said.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) events: Vec<BuildEvent>,
}

impl Told {
    /// What was said on one stream, joined.
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

/// Builds and listens to all of it.
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

/// Waits until it is so.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let asked = Instant::now();
    while !is_so() {
        assert!(asked.elapsed() < Duration::from_secs(30), "waited half a minute for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
