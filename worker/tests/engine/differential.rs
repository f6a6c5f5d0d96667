//! The images that gantry finds in a Dockerfile are the ones that the engine loads.
//!
//! gantry reads, and an engine builds, a corpus of unusual spellings and Dockerfiles generated from a seed; every image
//! exists in the engine's registry. `GANTRY_TEST_DOCKERFILES=SEED:COUNT` selects another seed, and how many to
//! generate.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, stream};
use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::platform::Platform;
use gantry_taskfile::dockerfile::{BuildInputs, Dockerfile, DockerfileError, Role};
use gantry_worker::engine::docker::DockerEngine;
use gantry_worker::engine::{BuildError, BuildOrder, BuiltImage};

use crate::engine::OwnEngine;
use crate::rig::{build, context, order, tar};
use crate::tested::{Tested, on_each_engine, setting};
use registry::EveryImage;

mod corpus;
mod generated;
mod registry;

on_each_engine! { slow on the default engine: the_images_that_are_found_in_a_dockerfile_are_those_that_the_engine_loads }

/// Takes a few seconds.
const SEED: u64 = 1;
const COUNT: usize = 8;

/// Megabytes, in memory: such small builds would only wait for the disk.
const DISK: Option<u32> = Some(256);

/// The number of concurrent builds.
const AT_ONCE: usize = 8;

/// A Dockerfile, and the other inputs that determine which images it needs.
#[derive(Debug, Clone, Default)]
pub(super) struct Case {
    text: String,
    build_args: BTreeMap<String, String>,
    target: Option<String>,
}

impl Case {
    fn read(&self) -> Result<Dockerfile, DockerfileError> {
        let platform = Platform::default();
        let inputs = BuildInputs {
            build_args: &self.build_args,
            target: self.target.as_deref(),
            platform: &platform,
            build_platform: &platform,
        };
        Dockerfile::parse(&self.text, inputs)
    }

    /// The text as gantry would send it, but without digests.
    fn read_text(&self) -> String {
        self.read().unwrap().replace(&BTreeMap::new())
    }

    fn order(&self, text: &str) -> BuildOrder {
        let mut order = order("registry.test", text);
        order.bases.clear();
        order.build_args = self.build_args.clone();
        order.target = self.target.clone();
        order
    }

    /// As a worker creates it.
    fn order_pinned(
        &self,
        text: &str,
        digests: &BTreeMap<ImageReference, Digest>,
        has_frontend: bool,
    ) -> BuildOrder {
        let mut order = self.order(text);
        order.bases = digests.iter().map(|(image, digest)| image.pinned(digest.clone())).collect();
        order.has_frontend = has_frontend;
        order
    }
}

/// How an engine handled a Dockerfile.
struct Said {
    loaded: BTreeSet<ImageReference>,
    built: Result<BuiltImage, BuildError>,
}

/// Finds out which images the engine loads: each build stops at one unknown image, and is repeated with that one known.
async fn ask(engine: &DockerEngine, case: &Case) -> Said {
    let mut order = case.order(&case.read_text());
    // The engine resolves a frontend itself.
    order.has_frontend = true;
    let mut loaded = BTreeSet::new();
    loop {
        let built = build(engine, order.clone(), context(tar(&[("f", b"")]))).await.0;
        let Some(image) = built.as_ref().err().and_then(foreign) else {
            return Said { loaded, built };
        };
        assert!(loaded.insert(image.clone()), "{image} is known");
        order.bases.insert(image);
    }
}

/// The image because of which gantry stopped a build.
fn foreign(error: &BuildError) -> Option<ImageReference> {
    let message = error.to_string();
    let (_, image) = message.split_once("it loads the image ")?;
    Some(image.split(',').next()?.parse().unwrap())
}

/// The difference between what gantry finds in `case` and what the engine loads, if any.
async fn difference(engine: &DockerEngine, case: &Case) -> Option<String> {
    let file = case.read().ok()?;
    let needed = || file.images().iter().filter(|used| used.needed);
    let mut found: BTreeSet<_> = needed().map(|used| used.image.clone()).collect();
    let frontend = needed().find(|used| used.role == Role::Frontend);
    let digest =
        |image: &ImageReference| image.digest().cloned().unwrap_or_else(|| registry::digest(image));
    let digests: BTreeMap<_, _> =
        found.iter().map(|image| (image.clone(), digest(image))).collect();
    let replaced =
        digests.iter().map(|(image, digest)| (image.clone(), image.pinned(digest.clone())));
    let text = file.replace(&replaced.collect());
    let pinned = case.order_pinned(&text, &digests, frontend.is_some());
    if let Some(frontend) = frontend {
        // The registry's image is not really a frontend, so the engine stops there.
        found = [frontend.image.clone()].into();
    }
    let Said { loaded, built } = ask(engine, case).await;
    // An engine may refuse the file before it loads any image.
    let is_refused = loaded.is_empty() && matches!(built, Err(BuildError::Refused { .. }));
    if loaded != found && !is_refused {
        return Some(format!("found {}\nloads {}\n{built:?}", list(&found), list(&loaded)));
    }
    let built = build(engine, pinned, context(tar(&[("f", b"")]))).await.0;
    let foreign = built.as_ref().err().and_then(foreign)?;
    Some(format!("found {}, and loads {foreign} where they are pinned", list(&found)))
}

fn list(images: &BTreeSet<ImageReference>) -> String {
    images.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn cases() -> Vec<Case> {
    let asked = setting("GANTRY_TEST_DOCKERFILES");
    let (seed, count) = match asked.as_deref().map(|asked| asked.split_once(':').unwrap()) {
        Some((seed, count)) => (seed.parse().unwrap(), count.parse().unwrap()),
        None => (SEED, COUNT),
    };
    corpus::cases().into_iter().chain(generated::cases(seed).take(count)).collect()
}

async fn the_images_that_are_found_in_a_dockerfile_are_those_that_the_engine_loads(on: Tested) {
    let own = OwnEngine::start("differential", on.dockerd(), DISK).await;
    let _registry = EveryImage::serve(own.listen());
    let engine = DockerEngine::connect(own.socket().to_str().unwrap()).unwrap();
    let cases = cases();
    let differences: Vec<String> = stream::iter(&cases)
        .map(async |case| Some(format!("{case:?}\n{}", difference(&engine, case).await?)))
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}
