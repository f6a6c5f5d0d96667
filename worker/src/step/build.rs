//! The build step: Dockerfile, bases, build. Also fetches sources.
//!
//! In: a build of a graph. Out: an image in the engine under a name of this step alone, and its bases.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_domain::InvalidText;
use gantry_domain::built_on::SourceRead;
use gantry_domain::cause::Cause;
use gantry_domain::id::StepId;
use gantry_domain::image::ImageReference;
use gantry_domain::lineage::{BaseImage, BaseRole};
use gantry_domain::platform::Platform;
use gantry_domain::recipe::{PullRequestBuild, Recipe, StageName};
use gantry_domain::run::{ErrorCode, Split};
use gantry_domain::source::{GitSource, Source, SourcePath};
use gantry_ops::aside;
use gantry_ops::metrics::Stage;
use gantry_ops::secret::{ExposeSecret, PoolKey, SecretString};
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
use super::images::{Bases, Built, Images, LocalImage};
use super::output::Search;
use crate::attempt::Attempt;
use crate::engine::{BuildOrder, BuiltImage, Engine, EngineError};
use crate::failure::{self, Failure};
use crate::graph::{BuildContext, BuildSecret, BuildWork, Graph};
use crate::source::{Checkout, Chosen, ContextError, Sources};
use crate::spans;
use crate::workspace::Workspace;

/// How many events of a build may wait for the log.
const EVENTS: usize = 256;

/// The largest secret that engines take, in bytes.
const LARGEST_SECRET: usize = 500 << 10;

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

/// The source of a run.
pub(crate) struct Fetched {
    pub(crate) files: Arc<Checkout>,
    /// Where the task file, its values and aliases are read: for a fork's run the base, else the same files.
    pub(crate) definition: Arc<Checkout>,
}

impl Fetched {
    fn whole(files: Checkout) -> Self {
        let files = Arc::new(files);
        Self { definition: Arc::clone(&files), files }
    }
}

/// A build step of an attempt.
#[derive(Clone, Copy)]
pub(crate) struct BuildStep<'a> {
    pub(crate) attempt: &'a Attempt,
    pub(crate) id: &'a StepId,
    pub(crate) work: &'a BuildWork,
    pub(crate) workspace: &'a Workspace,
    /// The images that earlier steps have built.
    pub(crate) images: &'a Images,
}

impl BuildStep<'_> {
    fn local_name(&self) -> Result<ImageReference, Failure> {
        let attempt = (self.attempt.run.id, self.attempt.number);
        let name = self.images.local_name(attempt, self.id, &self.work.images);
        name.map_err(|error| Failure::users(ErrorCode::ImageNameInvalid, &error))
    }
}

impl Builder {
    /// Fetches the source of a run whose steps need the engine; `None` if it has no files.
    pub(crate) async fn fetch(&self, attempt: &Attempt) -> Result<Option<Fetched>, Failure> {
        // An engine that is unavailable before the build costs no attempt. If it fails during the build it does,
        // because the build may be the cause.
        let answers = async {
            match self.engine.ping().await {
                Err(error @ EngineError::Unreachable { .. }) => {
                    Err(Failure::away(ErrorCode::EngineUnavailable, &error))
                }
                Ok(()) | Err(_) => Ok(()),
            }
        };
        let ((), fetched) = tokio::try_join!(answers, self.fetch_source(attempt))?;
        Ok(fetched)
    }

    /// The first build for a platform that the engine neither has nor emulates, and that it is refused with. Of the platform
    /// of the worker's pool it is not asked.
    pub(crate) async fn refuses(&self, graph: &Graph) -> Result<Option<Failure>, Failure> {
        let own = Platform::of_pool(self.pool_key.pool());
        let is_own = |platform: &Platform| own.as_ref().is_some_and(|own| own.builds_for(platform));
        let builds = graph.builds().filter(|(_, work)| !is_own(&work.platform));
        let foreign: Vec<(&StepId, &Platform)> =
            builds.map(|(step, work)| (step, &work.platform)).collect();
        if foreign.is_empty() {
            return Ok(None);
        }
        let platforms = self.engine.platforms().await;
        let platforms =
            platforms.map_err(|error| Failure::away(ErrorCode::EngineUnavailable, &error))?;
        let is_refused =
            |(_, platform): &&(_, &Platform)| !platforms.iter().any(|own| own.builds_for(platform));
        let refused = foreign.iter().find(is_refused);
        Ok(refused.map(|(step, platform)| not_built_for(platform).in_step(step)))
    }

    /// The images that a build needs, as they are now. Builds nothing.
    pub(crate) async fn bases(&self, step: BuildStep<'_>) -> Result<Vec<BaseImage>, Failure> {
        let files = self.files(step).await?;
        Ok(spans::stage(Stage::Bases, self.pin_bases(step, &files)).await?.bases)
    }

    /// The request to split an attempt's run, which the pool's key proves.
    pub(crate) fn split(
        &self,
        attempt: &Attempt,
        read: Option<&SourceRead>,
        bases: Vec<BaseImage>,
    ) -> Split {
        let proof = self.pool_key.prove(&attempt.run.split_text(read, &bases));
        Split { bases, pool: self.pool_key.pool().clone(), proof }
    }

    /// Fetches the run's source; `None` if it has no files. Needs no engine.
    pub(crate) async fn fetch_source(&self, attempt: &Attempt) -> Result<Option<Fetched>, Failure> {
        let Recipe { source, pull_request, .. } = &attempt.run.recipe;
        if *source == Source::Nothing {
            return Ok(None);
        }
        attempt.log.say(None, format!("fetching {source}")).await;
        let fetching = async {
            match (source, pull_request) {
                (Source::Git(git), Some(of)) => self.fetch_pull_request(attempt, git, of).await,
                (source, _) => self.fetch_files(attempt, source).await.map(Fetched::whole),
            }
        };
        let fetched = spans::stage(Stage::Fetch, fetching).await;
        let fetched = fetched.map_err(|failure| match attempt.run.cause {
            // The host itself announced this commit.
            Cause::Push { .. } | Cause::PullRequest { .. } => failure.unless_behind(),
            Cause::Saved { .. }
            | Cause::BaseImages { .. }
            | Cause::Timer { .. }
            | Cause::Request { .. } => failure,
        })?;
        if let Some(commit) = fetched.files.commit() {
            attempt.log.say(None, format!("at commit {commit}")).await;
        }
        for line in fetched.files.notes() {
            attempt.log.say(None, line.clone()).await;
        }
        Ok(Some(fetched))
    }

    /// Fetches a pull request. What a fork's run executes is defined by the base: only the files are the fork's.
    async fn fetch_pull_request(
        &self,
        attempt: &Attempt,
        git: &GitSource,
        of: &PullRequestBuild,
    ) -> Result<Fetched, Failure> {
        let token = attempt.bundle.git_token.as_ref();
        let credentials = token.map(gantry_remote::code_host::git_credentials);
        let fetched =
            self.sources.from_pull_request(git, of, credentials.as_ref(), attempt.deadline).await;
        let (files, chosen) = fetched.map_err(|error| failure::of_source(&error))?;
        let PullRequestBuild { number, head, base, .. } = of;
        let line = match chosen {
            Chosen::Merge(_) => format!("pull request {number}: the merge of {head} into {base}"),
            Chosen::Head => format!("pull request {number}: its head {head}"),
            Chosen::HeadWithoutMerge => format!(
                "pull request {number}: its head {head}, because the host has no merge of it into {base}"
            ),
        };
        attempt.log.say(None, line).await;
        let files = Arc::new(files);
        if !of.is_fork {
            return Ok(Fetched { definition: Arc::clone(&files), files });
        }
        let base = GitSource { reference: Some(base.clone()), ..git.clone() };
        attempt.log.say(None, format!("what the run does is read from {base}")).await;
        let definition = self.sources.from_git(&base, credentials.as_ref(), attempt.deadline).await;
        let definition = definition.map_err(|error| failure::of_source(&error))?;
        Ok(Fetched { files, definition: Arc::new(definition) })
    }

    /// Resolves the bases, and builds the image once.
    pub(crate) async fn run(
        &self,
        step: BuildStep<'_>,
        search: &mut Search,
    ) -> Result<Arc<Built>, Failure> {
        let files = self.files(step).await?;
        let pinned = spans::stage(Stage::Bases, self.pin_bases(step, &files)).await?;
        let bases = pinned.bases.clone();
        let secrets = secrets(step).await?;
        let order = self.order(step, pinned, secrets)?;
        let order = BuildOrder { cache: kept_layers(step).await, ..order };
        let local = LocalImage::new(Arc::clone(&self.engine), order.image.clone());
        let building = self.build_image(step, &files, order, search);
        let image = spans::stage(Stage::Build, building).await?;
        if let Some(why) = &image.uncached {
            let line = format!("the registry does not keep the layers: {why}");
            step.attempt.log.say(Some(step.id), line).await;
        }
        let platform = step.work.platform.clone();
        let built = Arc::new(Built { local, id: image.config, platform, bases });
        step.images.add(&step.work.images, &step.work.whole, Arc::clone(&built));
        Ok(built)
    }

    /// The files of the build's context.
    async fn files(&self, step: BuildStep<'_>) -> Result<Arc<Checkout>, Failure> {
        match &step.work.context {
            BuildContext::Workspace(folder) => step.workspace.files(folder).await,
            BuildContext::Remote(source) => {
                step.attempt.log.say(Some(step.id), format!("fetching {source}")).await;
                let fetched = self.fetch_files(step.attempt, source);
                Ok(Arc::new(spans::stage(Stage::Fetch, fetched).await?))
            }
        }
    }

    /// Fetches the run's source, or a context that a step names. The run's secrets are for its own source, and its token
    /// for its own repository.
    pub(crate) async fn fetch_files(
        &self,
        attempt: &Attempt,
        source: &Source,
    ) -> Result<Checkout, Failure> {
        let (own, deadline) = (&attempt.run.recipe.source, attempt.deadline);
        let fetched = match source {
            Source::Git(git) => {
                let is_own = matches!(own, Source::Git(own) if own.url == git.url);
                let host_keys = if is_own { own.host_keys() } else { &git.host_keys };
                let git = &GitSource { host_keys: host_keys.to_vec(), ..git.clone() };
                let token = attempt.bundle.git_token.as_ref().filter(|_| is_own);
                let credentials = token.map(gantry_remote::code_host::git_credentials);
                self.sources.from_git(git, credentials.as_ref(), deadline).await
            }
            Source::Tarball { url, .. } => {
                let query = attempt.bundle.source_query.as_ref().filter(|_| source == own);
                let signed = query.map(|query| url.with_query(query.expose_secret()));
                self.sources.from_tarball(signed.as_ref().unwrap_or(url), deadline).await
            }
            Source::Artifact { image } => {
                let credentials = attempt.credentials(image);
                let fetched =
                    self.sources.from_artifact(image, credentials.as_ref(), deadline).await;
                match fetched {
                    Ok((files, digest)) => {
                        attempt.log.say(None, format!("{source} is {digest}")).await;
                        Ok(files)
                    }
                    Err(error) => Err(error),
                }
            }
            Source::Upload { upload, digest } if source == own => {
                let archive = self.uploads.get_stream(&uploads::blob_path(upload)).await;
                let archive = archive.map_err(|error| failure::of_upload(upload, &error))?;
                self.sources.from_upload(archive, digest, deadline).await
            }
            Source::Upload { .. } | Source::Nothing => {
                let message = format!("`{source}` is no context of a build");
                return Err(Failure::in_words(ErrorCode::SourceRefused, message));
            }
        };
        fetched.map_err(|error| failure::of_source(&error))
    }

    /// Resolves every image that the Dockerfile needs, once, so that the recorded digests are those that are used. An
    /// image that an earlier step has built is used as it is in the engine.
    async fn pin_bases(
        &self,
        step: BuildStep<'_>,
        files: &Arc<Checkout>,
    ) -> Result<Pinned, Failure> {
        let dockerfile = read_dockerfile(files, step.work, all_arguments(step.work)).await?;
        let mut replaced: BTreeMap<ImageReference, ImageReference> = BTreeMap::new();
        let mut bases = Bases::default();
        let (mut loaded, mut has_local_base) = (BTreeSet::new(), false);
        for used in dockerfile.images().iter().filter(|used| used.needed) {
            let role = match used.role {
                Role::Runtime => BaseRole::Runtime,
                Role::BuildTime | Role::Frontend => BaseRole::Buildtime,
            };
            if let Some(built) = step.images.find_for(&used.image, &step.work.platform) {
                has_local_base = true;
                let local = built.local.name().clone();
                loaded.insert(local.clone());
                replaced.insert(used.image.clone(), local);
                for base in &built.bases {
                    let role = if role == BaseRole::Runtime { base.role } else { role };
                    bases.add(BaseImage { role, ..base.clone() });
                }
                continue;
            }
            let base = match bases.find(&used.image).cloned() {
                Some(base) => BaseImage { role, ..base },
                None => self.resolve_base(step, &used.image, role).await?,
            };
            let pinned = used.image.pinned(base.digest.clone());
            loaded.insert(pinned.clone());
            if used.image.digest().is_none() {
                replaced.insert(used.image.clone(), pinned);
            }
            bases.add(base);
        }
        let has_frontend = dockerfile.images().iter().any(|used| used.role == Role::Frontend);
        Ok(Pinned {
            dockerfile: dockerfile.replace(&replaced),
            has_local_base,
            has_frontend,
            loaded,
            bases: bases.into_vec(),
        })
    }

    async fn resolve_base(
        &self,
        step: BuildStep<'_>,
        image: &ImageReference,
        role: BaseRole,
    ) -> Result<BaseImage, Failure> {
        let credentials = step.attempt.credentials(image);
        let deadline = Instant::now() + REGISTRY_WITHIN;
        let pin = step.attempt.run.recipe.pin_of(image);
        let kept = pin.map(|base| image.pinned(base.digest.clone()));
        let follows = pin.and_then(|base| base.follows.clone());
        let asked = kept.as_ref().unwrap_or(image);
        let resolving = async {
            let digest = self.registries.resolve(asked, credentials.as_ref(), deadline).await;
            digest.map_err(|error| failure::of_registry(&error, ErrorCode::BaseNotFound))
        };
        let digest = step.images.resolved_once(&step.work.whole, asked, resolving).await?;
        let chosen = follows.as_ref().map(|followed| format!(", by the policy {followed}"));
        let line = format!("base {image} is {digest}{}", chosen.unwrap_or_default());
        step.attempt.log.say(Some(step.id), line).await;
        Ok(BaseImage { image: image.clone(), digest, role, follows })
    }

    fn order(
        &self,
        step: BuildStep<'_>,
        pinned: Pinned,
        secrets: BTreeMap<String, SecretString>,
    ) -> Result<BuildOrder, Failure> {
        let BuildStep { attempt, work, .. } = step;
        let mut labels = BTreeMap::new();
        let source = &attempt.run.recipe.source;
        if *source != Source::Nothing {
            labels.insert("org.opencontainers.image.source".to_owned(), source.to_string());
        }
        let created = attempt.run.created.to_string();
        labels.insert("org.opencontainers.image.created".to_owned(), created);
        if let Some(commit) = step.workspace.commit() {
            labels.insert("org.opencontainers.image.revision".to_owned(), commit.to_string());
        }
        labels.extend(work.labels.clone());
        Ok(BuildOrder {
            installation: self.installation.clone(),
            run: attempt.run.id,
            attempt: attempt.number,
            step: step.id.clone(),
            dockerfile: pinned.dockerfile,
            bases: pinned.loaded,
            has_local_base: pinned.has_local_base,
            has_frontend: pinned.has_frontend,
            image: step.local_name()?,
            labels,
            build_args: work.build_args.clone(),
            secret_build_args: work.secret_build_args.clone(),
            isolation: self.isolation(step, &secrets),
            secrets,
            frontend: work.frontend.clone(),
            target: work.target.as_ref().map(ToString::to_string),
            platform: work.platform.clone(),
            no_cache: work.no_cache,
            cache: None,
            registries: attempt.bundle.registries.clone(),
        })
    }

    /// The isolation of steps: only steps with the same registry, task, trust and secrets share a result. It is a host name
    /// that does not reveal the secrets.
    fn isolation(&self, step: BuildStep<'_>, secrets: &BTreeMap<String, SecretString>) -> String {
        // With a secret key, because the steps of a build can read the hash.
        let key = self.pool_key.derive("build isolation");
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()) else {
            unreachable!("HMAC takes a key of any length")
        };
        let mut add = |text: &str| {
            mac.update(&(text.len() as u64).to_be_bytes());
            mac.update(text.as_bytes());
        };
        let run = &step.attempt.run;
        add(run.registry.as_str());
        add(run.task.as_ref().map_or("", |task| task.name.as_str()));
        add(if run.is_of_fork() { "fork" } else { "" });
        for (name, value) in step.work.secret_build_args.iter().chain(secrets) {
            add(name);
            add(value.expose_secret());
        }
        let tag = hex::encode(mac.finalize().into_bytes());
        format!("b{}", tag.get(..24).unwrap_or_default())
    }

    async fn build_image(
        &self,
        step: BuildStep<'_>,
        files: &Arc<Checkout>,
        order: BuildOrder,
        search: &mut Search,
    ) -> Result<BuiltImage, Failure> {
        let dockerfile = source_path(step.work)?;
        let ignore = read_aside(files, move |files| files.ignore(&dockerfile))
            .await?
            .map_err(|error| failure::of_context(&error))?;
        let (events, said) = mpsc::channel(EVENTS);
        let building = self.engine.build(order, files.pack(ignore), events);
        let writing = build_log::write(step.attempt.log.clone(), step.id.clone(), said, search);
        let (built, ()) = tokio::join!(building, writing);
        built.map_err(Failure::from)
    }
}

fn not_built_for(platform: &Platform) -> Failure {
    let pool = platform.pool();
    let emulation = match platform.can_be_emulated() {
        true => {
            ", or let this one emulate it: install `qemu-user-static` on its machine, and register it with `binfmt_misc`"
        }
        false => "",
    };
    let message = format!(
        "the engine of this worker does not build for {platform}: start a worker in pool {pool} and run it there with \
         `--platform {platform}`{emulation}"
    );
    Failure::in_words(ErrorCode::BuildRefused, message)
}

/// A Dockerfile whose images are fixed.
struct Pinned {
    dockerfile: String,
    has_local_base: bool,
    has_frontend: bool,
    /// The images that the build may load.
    loaded: BTreeSet<ImageReference>,
    bases: Vec<BaseImage>,
}

fn source_path(work: &BuildWork) -> Result<SourcePath, Failure> {
    let path = work.dockerfile.parse::<SourcePath>();
    path.map_err(|error| Failure::users(ErrorCode::DockerfileNotFound, &error))
}

/// The secrets of a build by id. Those that are files are read from the workspace, as it is now.
async fn secrets(step: BuildStep<'_>) -> Result<BTreeMap<String, SecretString>, Failure> {
    let mut secrets = BTreeMap::new();
    for (id, secret) in &step.work.secrets {
        let value = match secret {
            BuildSecret::Value(value) => value.clone(),
            BuildSecret::File(path) => secret_file(step, id, path).await?,
        };
        secrets.insert(id.clone(), value);
    }
    Ok(secrets)
}

async fn secret_file(step: BuildStep<'_>, id: &str, path: &str) -> Result<SecretString, Failure> {
    let refused = |why: String| {
        let message = format!("the secret `{id}` of the build is a file of the workspace: {why}");
        Failure::in_words(ErrorCode::BuildRefused, message)
    };
    let files = step.workspace.files("").await?;
    let named = path.to_owned();
    let bytes = read_aside(&files, move |files| files.bytes(&named)).await?;
    let bytes = match bytes {
        Err(ContextError::Missing { .. }) => {
            return Err(refused(format!("there is no `{path}`: check `src=`")));
        }
        bytes => bytes.map_err(|error| refused(error.to_string()))?,
    };
    if bytes.len() > LARGEST_SECRET {
        return Err(refused(format!("`{path}` is larger than {} KiB", LARGEST_SECRET >> 10)));
    }
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| refused(format!("`{path}` is no text in UTF-8")))?;
    Ok(SecretString::from(text))
}

/// Where the registry keeps the layers of a step for its later runs: in the repository of its first image, under the same
/// tag as in the original.
async fn kept_layers(step: BuildStep<'_>) -> Option<ImageReference> {
    let BuildStep { attempt, id, work, .. } = step;
    if !work.cache {
        return None;
    }
    let run = &attempt.run;
    let task = run.task.as_ref().map_or("quickrun", |task| task.name.as_str());
    let kept = if run.task.is_some() && run.unchanged_task().is_none() {
        // Its code is another's, and what it leaves would be used by runs of the task.
        Err("a run with overrides keeps its layers in the engine alone".to_owned())
    } else if !work.secrets.is_empty() || !work.secret_build_args.is_empty() {
        // They contain what no image has: the files of all stages.
        Err("a build with secrets keeps its layers in the engine alone".to_owned())
    } else if let Some(image) = work.images.first() {
        let tag = format!("cache_{task}_{id}").parse();
        tag.map(|tag| image.with_tag(tag)).map_err(|error: InvalidText| error.to_string())
    } else {
        Err("a build without `-t` has no repository for its layers".to_owned())
    };
    match kept {
        Ok(kept) => Some(kept),
        Err(why) => {
            attempt.log.say(Some(id), format!("`cache` has no effect: {why}")).await;
            None
        }
    }
}

/// The arguments of a build with the secret ones.
fn all_arguments(work: &BuildWork) -> BTreeMap<String, String> {
    let mut arguments = work.build_args.clone();
    let secrets = work.secret_build_args.iter();
    arguments.extend(secrets.map(|(name, value)| (name.clone(), value.expose_secret().to_owned())));
    arguments
}

/// The Dockerfile of a build, and the images in it with these arguments.
pub(crate) async fn read_dockerfile(
    files: &Arc<Checkout>,
    work: &BuildWork,
    arguments: BTreeMap<String, String>,
) -> Result<Dockerfile, Failure> {
    let (path, target, platform) = (source_path(work)?, work.target.clone(), work.platform.clone());
    read_aside(files, move |files| {
        let text = files.dockerfile(&path).map_err(|error| failure::of_context(&error))?;
        let inputs = BuildInputs {
            build_args: &arguments,
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
pub(crate) async fn read_aside<T: Send + 'static>(
    checkout: &Arc<Checkout>,
    read: impl FnOnce(&Checkout) -> T + Send + 'static,
) -> Result<T, Failure> {
    let checkout = Arc::clone(checkout);
    let read = aside::read(move || read(&checkout)).await;
    read.map_err(|error| Failure::infrastructures(ErrorCode::Internal, &error))
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
