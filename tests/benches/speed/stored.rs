//! Creates runs directly in a store, without the events that usually lead to them.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gantry_domain::decide::planner::{self, RunDraft};
use gantry_domain::id::{RegistryName, RunId, RunPrefix, UploadId};
use gantry_domain::image;
use gantry_domain::platforms::Platforms;
use gantry_domain::recipe::{ImageBuild, Recipe, RunTimeout, Work};
use gantry_domain::signature::{RunSignature, Signer};
use gantry_domain::source::Source;
use gantry_seams::runs::{self, Limits};
use gantry_seams::store::{Batch, SharedStore};
use gantry_seams::uploads::{self, Upload};
use sha2::{Digest as _, Sha256};

use crate::composition::Parts;
use crate::context::Context;

/// The number of runs that one commit creates.
const A_COMMIT: usize = 64;

/// The token that started the runs.
pub(crate) const BY: &str = "t1";

/// Signs with an invalid signature, so that no scheduler makes these runs ready.
struct Nobody;

impl Signer for Nobody {
    fn sign(&self, _: &[u8]) -> RunSignature {
        match "0".repeat(64).parse() {
            Ok(signature) => signature,
            Err(_) => unreachable!("these are 64 hexadecimal digits"),
        }
    }

    fn vouches_for(&self, _: &[u8], _: &RunSignature) -> bool {
        false
    }
}

/// Creates at least `count` waiting runs.
pub(crate) async fn create(
    store: &SharedStore,
    registry: &RegistryName,
    build: &Recipe,
    count: usize,
) -> Result<Vec<RunId>> {
    create_signed(store, registry, build, count, &Nobody).await
}

async fn create_signed(
    store: &SharedStore,
    registry: &RegistryName,
    build: &Recipe,
    count: usize,
    signer: &dyn Signer,
) -> Result<Vec<RunId>> {
    let draft = draft(registry, build)?;
    let mut ids = Vec::new();
    while ids.len() < count {
        let (now, prefix) = (store.now().await?, RunPrefix::nth(0));
        let creation = runs::Creation::begin(store.as_ref(), Batch::default(), prefix, signer, now);
        let mut creation = creation.await?;
        for _ in 0..A_COMMIT {
            ids.push(creation.add(draft.clone(), None)?.id);
        }
        store.commit(creation.finish()).await.context("nobody else creates runs")?;
    }
    Ok(ids)
}

/// Creates ready runs. Commits for the same registry conflict, so each registry has few runs.
pub(crate) async fn create_ready(store: &SharedStore, count: usize) -> Result<()> {
    let build = build("https://github.com/example/hello.git#main".parse()?)?;
    let mut registries = Vec::new();
    for number in 0..count.div_ceil(A_COMMIT) {
        let registry = format!("registry{number}").parse()?;
        registries.push(create(store, &registry, &build, A_COMMIT).await?);
    }
    let all_at_once = registries.into_iter().map(|runs| make_ready(store, runs));
    stream::iter(all_at_once).buffer_unordered(16).try_for_each(|()| async { Ok(()) }).await
}

/// Makes runs ready, one after the other.
pub(crate) async fn make_ready(store: &SharedStore, runs: Vec<RunId>) -> Result<()> {
    let limits = Limits { registry: u32::MAX, task: None };
    let pool = Platforms::default().pool();
    for run in runs {
        runs::ready(store.as_ref(), run, &pool, None, limits).await?;
    }
    Ok(())
}

/// Creates ready runs that a scripted engine can build: their context is uploaded.
pub(crate) async fn create_buildable(
    parts: &Parts,
    registry: &RegistryName,
    count: usize,
) -> Result<()> {
    let build = buildable(parts, registry).await?;
    let runs = create(&parts.store, registry, &build, count).await?;
    make_ready(&parts.store, runs).await
}

/// Creates runs that a scheduler admits and a scripted engine builds.
pub(crate) async fn create_waiting(
    parts: &Parts,
    registry: &RegistryName,
    count: usize,
) -> Result<()> {
    let build = buildable(parts, registry).await?;
    create_signed(&parts.store, registry, &build, count, parts.keyring.as_ref()).await.map(drop)
}

/// A recipe that a scripted engine can build, with its context uploaded.
async fn buildable(parts: &Parts, registry: &RegistryName) -> Result<Recipe> {
    let context: Bytes = Context::new("FROM scratch\n")?.archive()?;
    let id: UploadId = "bench".parse()?;
    let digest: image::Digest =
        format!("sha256:{}", hex::encode(Sha256::digest(&context))).parse()?;
    let upload = Upload {
        id: id.clone(),
        registry: registry.clone(),
        by: BY.parse()?,
        bytes: context.len() as u64,
        digest: digest.clone(),
        created: parts.store.now().await?,
    };
    parts.blobs.put(&uploads::blob_path(&id), context).await?;
    uploads::create(parts.store.as_ref(), &upload).await?;
    build(Source::Upload { upload: id, digest })
}

/// A recipe for an image that is not pushed.
pub(crate) fn build(source: Source) -> Result<Recipe> {
    Ok(Recipe {
        source,
        platforms: Platforms::default(),
        timeout: RunTimeout::default(),
        work: Work::Build(ImageBuild {
            dockerfile: "Dockerfile".parse()?,
            images: vec!["hello:{{.Run.ID}}".parse()?],
            build_args: std::collections::BTreeMap::default(),
            secret_build_args: std::collections::BTreeMap::default(),
            target: None,
            push: false,
            no_cache: false,
        }),
        logins: std::collections::BTreeMap::new(),
        follows: gantry_domain::tracked_image::TagPolicies::default(),
        bases: Vec::new(),
        pull_request: None,
    })
}

fn draft(registry: &RegistryName, build: &Recipe) -> Result<RunDraft> {
    let (event, by) = ("request:bench".parse()?, BY.parse()?);
    Ok(planner::for_quick_run(registry.clone(), build.clone(), None, event, by))
}
