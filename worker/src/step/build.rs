//! The build step: source, Dockerfile, bases, build.
//!
//! In: an attempt. Out: an image in the engine under a name of this attempt alone, and its bases.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_domain::built_on::SourceRead;
use gantry_domain::cause::Cause;
use gantry_domain::id::StepId;
use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::lineage::{BaseImage, BaseRole};
use gantry_domain::platform::Platform;
use gantry_domain::recipe::{ImageBuild, StageName};
use gantry_domain::run::{ErrorCode, Run};
use gantry_domain::source::{CommitId, RefName, Source};
use gantry_domain::template::RunVariables;
use gantry_ops::aside;
use gantry_ops::metrics::Stage;
use gantry_ops::secret::{ExposeSecret, PoolKey};
use gantry_remote::registries::Registries;
use gantry_seams::blobs::SharedBlobs;
use gantry_seams::uploads;
use gantry_taskfile::dockerfile::{BuildInputs, Dockerfile, Role};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::REGISTRY_WITHIN;
use super::build_log;
use super::staging::refuse_staging;
use crate::attempt::Attempt;
use crate::engine::{BuildOrder, BuiltImage, Engine, EngineError};
use crate::failure::{self, Failure};
use crate::source::{Checkout, Sources};
use crate::spans;

/// How many events of a build may wait for the log.
const EVENTS: usize = 256;

pub(crate) struct Builder {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) sources: Sources,
    /// For uploaded contexts.
    pub(crate) uploads: SharedBlobs,
    /// To resolve bases.
    pub(crate) registries: Arc<dyn Registries>,
    pub(crate) pool_key: Arc<PoolKey>,
    pub(crate) installation: String,
}

/// A build step of an attempt.
#[derive(Clone, Copy)]
pub(crate) struct BuildStep<'a> {
    pub(crate) attempt: &'a Attempt,
    pub(crate) id: &'a StepId,
    /// The build in the run's recipe.
    pub(crate) asked: &'a ImageBuild,
}

/// The fetched source of a run.
pub(crate) struct Fetched {
    checkout: Arc<Checkout>,
    read: Option<SourceRead>,
}

impl Fetched {
    /// The fetched commit, if it came from git.
    pub(crate) fn read(&self) -> Option<SourceRead> {
        self.read.clone()
    }
}

/// A build that is ready to start.
pub(crate) struct Planned {
    checkout: Arc<Checkout>,
    order: BuildOrder,
    images: Vec<ImageReference>,
    bases: Vec<BaseImage>,
}

impl Planned {
    /// The final names of the image; empty if it is not to be pushed.
    pub(crate) fn images(&self) -> &[ImageReference] {
        &self.images
    }
}

/// A built image. It is in the engine until this is dropped.
pub(crate) struct Built {
    /// The image's name in the engine.
    pub(crate) local: LocalImage,
    /// The engine's result.
    pub(crate) image: BuiltImage,
    /// The final names of the image; empty if it is not to be pushed.
    pub(crate) images: Vec<ImageReference>,
    /// The bases of the image.
    pub(crate) bases: Vec<BaseImage>,
    /// The commit that was built.
    pub(crate) commit: Option<CommitId>,
}

/// An image of this attempt alone. It is removed from the engine when this is dropped, however the attempt ends.
pub(crate) struct LocalImage {
    engine: Arc<dyn Engine>,
    name: ImageReference,
}

impl LocalImage {
    /// The name in the engine.
    pub(crate) fn name(&self) -> &ImageReference {
        &self.name
    }
}

impl Drop for LocalImage {
    fn drop(&mut self) {
        let (engine, name) = (Arc::clone(&self.engine), self.name.clone());
        tokio::spawn(async move {
            if let Err(error) = engine.remove_image(&name).await {
                tracing::debug!("{name} is removed by the next sweep: {error}");
            }
        });
    }
}

impl Builder {
    /// Fetches the run's source.
    pub(crate) async fn fetch(&self, attempt: &Attempt) -> Result<Fetched, Failure> {
        let source = &attempt.run.recipe.source;
        // An engine that is unavailable before the build costs no attempt. If it fails during the build it does,
        // because the build may be the cause.
        if let Err(error @ EngineError::Unreachable { .. }) = self.engine.info().await {
            return Err(Failure::away(ErrorCode::EngineUnavailable, &error));
        }
        attempt.log.say(None, format!("fetching {source}")).await;
        let checkout = Arc::new(spans::stage(Stage::Fetch, self.fetch_source(attempt)).await?);
        if let Some(commit) = checkout.commit() {
            attempt.log.say(None, format!("at commit {commit}")).await;
        }
        let read = source_read(&attempt.run, &checkout);
        Ok(Fetched { checkout, read })
    }

    /// Determines the image names, and resolves the bases.
    pub(crate) async fn plan(
        &self,
        step: BuildStep<'_>,
        source: Fetched,
    ) -> Result<Planned, Failure> {
        let Fetched { checkout, .. } = source;
        let images = images(step, &checkout)?;
        let build_args = build_args(step, &checkout);
        let pinning = self.pin_bases(step, &checkout, &build_args);
        let (dockerfile, has_frontend, bases) = spans::stage(Stage::Bases, pinning).await?;
        let dockerfile = (dockerfile, has_frontend, bases.as_slice());
        let order = self.order(step, &checkout, dockerfile, build_args, &images)?;
        let images = if step.asked.push { images } else { Vec::new() };
        Ok(Planned { checkout, order, images, bases })
    }

    pub(crate) async fn build(
        &self,
        step: BuildStep<'_>,
        planned: Planned,
    ) -> Result<Built, Failure> {
        let Planned { checkout, order, images, bases } = planned;
        let local = LocalImage { engine: Arc::clone(&self.engine), name: order.image.clone() };
        let image = spans::stage(Stage::Build, self.build_image(step, &checkout, order))
            .await
            .map_err(|error| error.in_step(step.id))?;
        let commit = checkout.commit().cloned();
        Ok(Built { local, image, images, bases, commit })
    }

    async fn fetch_source(&self, attempt: &Attempt) -> Result<Checkout, Failure> {
        let deadline = attempt.deadline;
        let fetched = match &attempt.run.recipe.source {
            Source::Git(git) => {
                let token = attempt.bundle.git_token.as_ref();
                let credentials = token.map(gantry_remote::code_host::git_credentials);
                self.sources.from_git(git, credentials.as_ref(), deadline).await
            }
            Source::Tarball { url, .. } => {
                let query = attempt.bundle.source_query.as_ref();
                let signed = query.map(|query| url.with_query(query.expose_secret()));
                self.sources.from_tarball(signed.as_ref().unwrap_or(url), deadline).await
            }
            Source::Upload { upload, digest } => {
                let archive = self.uploads.get_stream(&uploads::blob_path(upload)).await;
                let archive = archive.map_err(|error| failure::of_upload(upload, &error))?;
                self.sources.from_upload(archive, digest, deadline).await
            }
        };
        fetched.map_err(|error| {
            let failure = failure::of_source(&error);
            match attempt.run.cause {
                // The host itself announced this commit.
                Cause::Push { .. } => failure.unless_behind(),
                Cause::Request { .. } => failure,
            }
        })
    }

    /// Resolves every image that the Dockerfile needs, once, so that the recorded digests are those that are used.
    async fn pin_bases(
        &self,
        step: BuildStep<'_>,
        checkout: &Arc<Checkout>,
        build_args: &BTreeMap<String, String>,
    ) -> Result<(String, bool, Vec<BaseImage>), Failure> {
        let mut arguments = build_args.clone();
        for (name, value) in &step.attempt.bundle.build_args {
            arguments.insert(name.to_string(), value.expose_secret().to_owned());
        }
        let dockerfile =
            read_dockerfile(checkout, step.asked, &step.attempt.run.recipe.platform, arguments)
                .await
                .map_err(|failure| failure.in_step(step.id))?;
        let mut digests: BTreeMap<ImageReference, Digest> = BTreeMap::new();
        let mut bases: Vec<BaseImage> = Vec::new();
        for used in dockerfile.images().iter().filter(|used| used.needed) {
            let digest = match digests.get(&used.image) {
                Some(digest) => digest.clone(),
                None => self.resolve_base(step, &used.image).await?,
            };
            digests.insert(used.image.clone(), digest.clone());
            let role = match used.role {
                Role::Runtime => BaseRole::Runtime,
                Role::BuildTime | Role::Frontend => BaseRole::Buildtime,
            };
            match bases.iter_mut().find(|base| base.image == used.image) {
                Some(base) if role == BaseRole::Runtime => base.role = role,
                Some(_) => {}
                None => bases.push(BaseImage { image: used.image.clone(), digest, role }),
            }
        }
        let has_frontend = dockerfile.images().iter().any(|used| used.role == Role::Frontend);
        Ok((dockerfile.pin(&digests), has_frontend, bases))
    }

    async fn resolve_base(
        &self,
        step: BuildStep<'_>,
        image: &ImageReference,
    ) -> Result<Digest, Failure> {
        let credentials = step.attempt.credentials(image);
        let deadline = Instant::now() + REGISTRY_WITHIN;
        let kept = step.asked.bases.iter().find(|base| base.image == *image);
        let kept = kept.map(|base| image.pinned(base.digest.clone()));
        let digest = self
            .registries
            .resolve(kept.as_ref().unwrap_or(image), credentials.as_ref(), deadline)
            .await
            .map_err(|error| {
                failure::of_registry(&error, ErrorCode::BaseNotFound).in_step(step.id)
            })?;
        step.attempt.log.say(Some(step.id), format!("base {image} is {digest}")).await;
        Ok(digest)
    }

    fn order(
        &self,
        step: BuildStep<'_>,
        checkout: &Checkout,
        (dockerfile, has_frontend, bases): (String, bool, &[BaseImage]),
        build_args: BTreeMap<String, String>,
        images: &[ImageReference],
    ) -> Result<BuildOrder, Failure> {
        let (run, recipe) = (&step.attempt.run, &step.attempt.run.recipe);
        let mut labels = BTreeMap::new();
        labels.insert("org.opencontainers.image.source".to_owned(), recipe.source.to_string());
        labels.insert("org.opencontainers.image.created".to_owned(), run.created.to_string());
        if let Some(commit) = checkout.commit() {
            labels.insert("org.opencontainers.image.revision".to_owned(), commit.to_string());
        }
        Ok(BuildOrder {
            installation: self.installation.clone(),
            run: run.id,
            attempt: step.attempt.number,
            step: step.id.clone(),
            dockerfile,
            bases: bases.iter().map(|base| base.image.pinned(base.digest.clone())).collect(),
            has_frontend,
            image: local_name(step.attempt, images)?,
            labels,
            build_args,
            secret_build_args: step
                .attempt
                .bundle
                .build_args
                .iter()
                .map(|(name, value)| (name.to_string(), value.clone()))
                .collect(),
            target: step.asked.target.as_ref().map(ToString::to_string),
            platform: recipe.platform.clone(),
            no_cache: step.asked.no_cache,
            isolation: self.isolation(step.attempt),
            registries: step.attempt.bundle.registries.clone(),
        })
    }

    /// The isolation of steps: only steps with the same registry, task and secrets share a result. It is a host name
    /// that does not reveal the secrets.
    fn isolation(&self, attempt: &Attempt) -> String {
        // With a secret key, because the steps of a build can read the hash.
        let key = self.pool_key.derive("build isolation");
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()) else {
            unreachable!("HMAC takes a key of any length")
        };
        let mut add = |text: &str| {
            mac.update(&(text.len() as u64).to_be_bytes());
            mac.update(text.as_bytes());
        };
        add(attempt.run.registry.as_str());
        add(attempt.run.task.as_ref().map_or("", |task| task.name.as_str()));
        for (name, value) in &attempt.bundle.build_args {
            add(name.as_str());
            add(value.expose_secret());
        }
        let tag = hex::encode(mac.finalize().into_bytes());
        format!("b{}", tag.get(..24).unwrap_or_default())
    }

    async fn build_image(
        &self,
        step: BuildStep<'_>,
        checkout: &Arc<Checkout>,
        order: BuildOrder,
    ) -> Result<BuiltImage, Failure> {
        let dockerfile = step.asked.dockerfile.clone();
        let ignore = read_aside(checkout, move |checkout| checkout.ignore(&dockerfile))
            .await?
            .map_err(|error| failure::of_context(&error))?;
        let (events, said) = mpsc::channel(EVENTS);
        let building = self.engine.build(order, checkout.pack(ignore), events);
        let writing = build_log::write(step.attempt.log.clone(), step.id.clone(), said);
        let (built, ()) = tokio::join!(building, writing);
        built.map_err(Failure::from)
    }
}

/// The Dockerfile of a checkout, and the images in it.
async fn read_dockerfile(
    checkout: &Arc<Checkout>,
    asked: &ImageBuild,
    platform: &Platform,
    build_args: BTreeMap<String, String>,
) -> Result<Dockerfile, Failure> {
    let (path, target, platform) =
        (asked.dockerfile.clone(), asked.target.clone(), platform.clone());
    read_aside(checkout, move |checkout| {
        let text = checkout.dockerfile(&path).map_err(|error| failure::of_context(&error))?;
        let inputs = BuildInputs {
            build_args: &build_args,
            target: target.as_ref().map(StageName::as_str),
            platform: &platform,
            build_platform: &platform,
        };
        Dockerfile::parse(&text, inputs)
            .map_err(|error| Failure::users(ErrorCode::BuildRefused, &error))
    })
    .await?
}

/// Reads untrusted files of a checkout off the async runtime, so that leases are renewed meanwhile.
async fn read_aside<T: Send + 'static>(
    checkout: &Arc<Checkout>,
    read: impl FnOnce(&Checkout) -> T + Send + 'static,
) -> Result<T, Failure> {
    let checkout = Arc::clone(checkout);
    let read = aside::read(move || read(&checkout)).await;
    read.map_err(|error| Failure::infrastructures(ErrorCode::Internal, &error))
}

/// The image names, with the run's variables replaced.
fn images(step: BuildStep<'_>, checkout: &Checkout) -> Result<Vec<ImageReference>, Failure> {
    let variables = variables(step.attempt, checkout);
    let mut images = Vec::with_capacity(step.asked.images.len());
    for template in &step.asked.images {
        let name = template.render(&variables);
        let image =
            ImageReference::parse_in(&name, &step.attempt.registry.host).map_err(|error| {
                let message = format!("the image `{template}` is `{name}` in this run: {error}");
                Failure::in_words(ErrorCode::ImageNameInvalid, message)
            })?;
        refuse_staging(&image)?;
        if !images.contains(&image) {
            images.push(image);
        }
    }
    Ok(images)
}

fn build_args(step: BuildStep<'_>, checkout: &Checkout) -> BTreeMap<String, String> {
    let variables = variables(step.attempt, checkout);
    let arguments = &step.asked.build_args;
    arguments.iter().map(|(name, value)| (name.to_string(), value.render(&variables))).collect()
}

fn variables<'a>(attempt: &'a Attempt, checkout: &'a Checkout) -> RunVariables<'a> {
    let run = &attempt.run;
    RunVariables {
        id: run.id,
        registry: &attempt.registry.host,
        date: run.created,
        platform: &run.recipe.platform,
        commit: checkout.commit(),
        branch: branch(attempt).or(checkout.branch()),
        task: run.task.as_ref().map(|task| &task.name),
    }
}

/// What was fetched, if it came from git.
fn source_read(run: &Run, checkout: &Checkout) -> Option<SourceRead> {
    let Source::Git(git) = &run.recipe.source else { return None };
    let commit = checkout.commit()?.clone();
    // The branch of a commit that was requested by its id is not known.
    let branch = checkout.branch().filter(|branch| branch.as_str() != commit.as_str()).cloned();
    Some(SourceRead { repository: git.url.key(), branch, commit })
}

/// The branch that a push moved, or that of the repeated run. The checkout is a commit and has none.
fn branch(attempt: &Attempt) -> Option<&RefName> {
    match &attempt.run.cause {
        gantry_domain::cause::Cause::Push { branch, .. } => Some(branch),
        gantry_domain::cause::Cause::Request { branch, .. } => branch.as_ref(),
    }
}

/// The name in the engine. It is unique to this attempt, so that no other build can replace it.
fn local_name(attempt: &Attempt, images: &[ImageReference]) -> Result<ImageReference, Failure> {
    let repository = images.first().map_or("unnamed", |image| image.repository().as_str());
    let name = format!("gantry.local/{repository}:{}-{}", attempt.run.id, attempt.number);
    name.parse().map_err(|error| Failure::users(ErrorCode::ImageNameInvalid, &error))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::source::{UnpackLimits, unpack};

    use super::*;

    /// A source with one file.
    async fn checkout(name: &str, text: &str) -> Arc<Checkout> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        archive.append_data(&mut header, name, text.as_bytes()).unwrap();
        let archive = std::io::Cursor::new(archive.into_inner().unwrap());
        let most = 1 << 20;
        let limits = UnpackLimits { archive_bytes: most, unpacked_bytes: most, entries: 10 };
        let deadline = Instant::now() + Duration::from_secs(60);
        let folder = tempfile::tempdir().unwrap();
        Arc::new(unpack(archive, folder, limits, deadline).await.unwrap())
    }

    #[tokio::test]
    async fn the_runtime_is_free_while_a_strangers_rules_are_read() {
        let rules = format!("{}\n", "?".repeat(60)).repeat(100);
        let checkout = checkout(".dockerignore", &rules).await;
        let mut turns = 0;
        let others = async {
            loop {
                turns += 1;
                tokio::task::yield_now().await;
            }
        };
        let path = "Dockerfile".parse().unwrap();
        // A read on this runtime's only thread would finish before the other branch is polled once.
        tokio::select! {
            biased;
            read = read_aside(&checkout, move |checkout| checkout.ignore(&path).map(drop)) => {
                read.unwrap().unwrap();
            }
            () = others => {}
        }
        assert!(turns > 0);
    }
}
