//! Registries in memory, with base images, moved tags, and failures on demand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use gantry_domain::image::{Digest, ImageReference, RegistryHost};
use gantry_domain::image_version::{ContentKey, ImageVersion};
use gantry_domain::platform::Platform;
use gantry_ops::secret::{Credentials, ExposeSecret as _};
use gantry_remote::image_registry::{
    Allowance, Answered, Asked, ImageRegistry, ImageVersions, LookError, TagList,
};
use gantry_remote::registries::Registries;
use gantry_remote::registry::{RawManifest, RegistryError};
use gantry_worker::engine::scripted::ScriptedEngine;
use sha2::Digest as _;
use tokio::time::Instant;

/// Registries that accept what a scripted engine pushed.
#[derive(Clone)]
pub struct MemoryRegistries {
    engine: ScriptedEngine,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    tags: BTreeMap<ImageReference, Digest>,
    late_write: Option<(ImageReference, Digest)>,
    password: Option<String>,
    failures: VecDeque<u16>,
    indexes: BTreeMap<Digest, BTreeMap<Platform, ImageVersion>>,
    contents: BTreeMap<Digest, ContentKey>,
    looks: BTreeMap<ImageReference, usize>,
    look_failures: BTreeMap<RegistryHost, LookError>,
    allowance: Option<Allowance>,
}

impl MemoryRegistries {
    /// Registries that contain only what `engine` pushes.
    #[must_use]
    pub fn new(engine: ScriptedEngine) -> Self {
        Self { engine, state: Arc::default() }
    }

    /// Adds an image with this digest.
    pub fn have(&self, image: &str, digest: &Digest) {
        let image = image.parse().expect("an image reference");
        self.state().tags.insert(image, digest.clone());
    }

    /// Moves a tag to a new index with these platforms, each with this content: a word. Each index has another digest, as if
    /// it was built anew, but platforms with the same word have the same content.
    pub fn have_index(&self, image: &str, contents: &[(&str, &str)]) -> Digest {
        let mut state = self.state();
        let build = state.indexes.len();
        let digest = |what: &str| sha256(&format!("{image} {what} {build}")).parse::<Digest>();
        let version = |(platform, content): &(&str, &str)| {
            let version = ImageVersion {
                digest: digest(platform).expect("a digest"),
                content: sha256(content).parse().expect("a key"),
            };
            (platform.parse::<Platform>().expect("a platform"), version)
        };
        let by_platform = contents.iter().map(version).collect();
        let top = digest("index").expect("a digest");
        state.indexes.insert(top.clone(), by_platform);
        state.tags.insert(image.parse().expect("an image reference"), top.clone());
        top
    }

    /// What an index has for a platform.
    #[must_use]
    pub fn version(&self, index: &Digest, platform: &str) -> ImageVersion {
        self.state().indexes[index][&platform.parse().expect("a platform")].clone()
    }

    /// Moves a tag to a manifest that was pushed before.
    pub fn move_to(&self, image: &str, digest: &Digest) {
        self.state().tags.insert(image.parse().expect("an image reference"), digest.clone());
    }

    /// Makes the content of a manifest that of another one.
    pub fn alike(&self, digest: &Digest, other: &Digest) {
        let content = self.state().content(other);
        self.state().contents.insert(digest.clone(), content);
    }

    /// Deletes a tag.
    pub fn remove(&self, image: &str) {
        self.state().tags.remove(&image.parse().expect("an image reference"));
    }

    /// Fails all looks at images of a host like this; `None` ends that.
    pub fn fail_looks(&self, host: &str, error: Option<LookError>) {
        let host = host.parse().expect("a host");
        match error {
            Some(error) => drop(self.state().look_failures.insert(host, error)),
            None => drop(self.state().look_failures.remove(&host)),
        }
    }

    /// The allowance that all further answers to looks tell.
    pub fn allow(&self, allowance: Option<Allowance>) {
        self.state().allowance = allowance;
    }

    /// How often it was asked what a tag has.
    #[must_use]
    pub fn looks(&self, image: &str) -> usize {
        let image = image.parse().expect("an image reference");
        self.state().looks.get(&image).copied().unwrap_or_default()
    }

    /// Requires this password from now on.
    pub fn demand(&self, password: &str) {
        self.state().password = Some(password.to_owned());
    }

    /// Answers the next requests with these statuses.
    pub fn fail(&self, statuses: impl IntoIterator<Item = u16>) {
        self.state().failures.extend(statuses);
    }

    /// The current digest of a tag.
    #[must_use]
    pub fn tag(&self, image: &str) -> Option<Digest> {
        let image = image.parse().expect("an image reference");
        self.state().tags.get(&image).cloned()
    }

    /// After the next write of this tag, writes this digest: the late write of an attempt that counted as dead.
    pub fn overwrite_next(&self, image: &str, digest: &Digest) {
        let image = image.parse().expect("an image reference");
        self.state().late_write = Some((image, digest.clone()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(
        &self,
        host: &RegistryHost,
        what: &str,
        credentials: Option<&Credentials>,
    ) -> Result<MutexGuard<'_, State>, RegistryError> {
        let mut state = self.state();
        let given = credentials.map(|credentials| credentials.password.expose_secret().to_owned());
        if let Some(status) = state.failures.pop_front() {
            return Err(RegistryError::Unavailable {
                host: host.clone(),
                what: what.to_owned(),
                status: status.try_into().expect("a status"),
                retry_after: None,
            });
        }
        if state.password.is_some() && state.password != given {
            return Err(RegistryError::Unauthorized {
                host: host.clone(),
                what: what.to_owned(),
                message: "authentication required".to_owned(),
            });
        }
        Ok(state)
    }
}

#[async_trait]
impl Registries for MemoryRegistries {
    async fn check(
        &self,
        host: &RegistryHost,
        credentials: Option<&Credentials>,
        _deadline: Instant,
    ) -> Result<(), RegistryError> {
        self.answer(host, "its API", credentials).map(drop)
    }

    async fn resolve(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
        _deadline: Instant,
    ) -> Result<Digest, RegistryError> {
        let what = image.to_string();
        let state = self.answer(image.host(), &what, credentials)?;
        if let Some(digest) = image.digest() {
            return Ok(digest.clone());
        }
        state
            .tags
            .get(image)
            .cloned()
            .or_else(|| self.engine.pushed(image))
            .ok_or_else(|| RegistryError::NotFound { host: image.host().clone(), what })
    }

    async fn manifest(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<RawManifest, RegistryError> {
        let digest = self.resolve(image, credentials, deadline).await?;
        let bytes = self.engine.manifest(&digest).ok_or_else(|| RegistryError::NotFound {
            host: image.host().clone(),
            what: image.to_string(),
        })?;
        let media_type = "application/vnd.docker.distribution.manifest.v2+json".to_owned();
        Ok(RawManifest { media_type, bytes, digest })
    }

    async fn put_tag(
        &self,
        image: &ImageReference,
        manifest: &RawManifest,
        credentials: Option<&Credentials>,
        _deadline: Instant,
    ) -> Result<(), RegistryError> {
        let mut state = self.answer(image.host(), &image.to_string(), credentials)?;
        state.tags.insert(image.clone(), manifest.digest.clone());
        if let Some((image, digest)) = state.late_write.take_if(|(late, _)| late == image) {
            state.tags.insert(image, digest);
        }
        Ok(())
    }

    async fn delete_tag(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
        _deadline: Instant,
    ) -> Result<(), RegistryError> {
        let mut state = self.answer(image.host(), &image.to_string(), credentials)?;
        state.tags.remove(image);
        Ok(())
    }
}

impl State {
    /// What a manifest consists of: each manifest of something else, unless a test says otherwise.
    fn content(&self, digest: &Digest) -> ContentKey {
        let known = self.contents.get(digest).cloned();
        known.unwrap_or_else(|| sha256(digest.as_str()).parse().expect("a key"))
    }
}

#[async_trait]
impl ImageRegistry for MemoryRegistries {
    async fn digest(
        &self,
        image: &ImageReference,
        _known: Option<&Digest>,
        _credentials: Option<&Credentials>,
    ) -> Asked<Option<Digest>> {
        let mut state = self.state();
        *state.looks.entry(image.clone()).or_default() += 1;
        if let Some(error) = state.look_failures.get(image.host()) {
            return Err(error.clone());
        }
        let digest = state.tags.get(image).cloned().or_else(|| self.engine.pushed(image));
        Ok(Answered { value: digest, allowance: state.allowance })
    }

    async fn versions(
        &self,
        image: &ImageReference,
        digest: &Digest,
        platforms: &BTreeSet<Platform>,
        _credentials: Option<&Credentials>,
    ) -> Asked<ImageVersions> {
        let state = self.state();
        if let Some(error) = state.look_failures.get(image.host()) {
            return Err(error.clone());
        }
        let versions = match state.indexes.get(digest) {
            Some(index) => {
                let mut by_platform = index.clone();
                by_platform.retain(|platform, _| platforms.contains(platform));
                ImageVersions { is_index: true, by_platform }
            }
            None => {
                let version =
                    ImageVersion { digest: digest.clone(), content: state.content(digest) };
                let by_platform = platforms.iter().map(|it| (it.clone(), version.clone()));
                ImageVersions { is_index: false, by_platform: by_platform.collect() }
            }
        };
        Ok(Answered { value: versions, allowance: state.allowance })
    }

    async fn tags(
        &self,
        image: &ImageReference,
        _credentials: Option<&Credentials>,
    ) -> Asked<TagList> {
        let state = self.state();
        let is_of = |it: &&ImageReference| {
            it.host() == image.host() && it.repository() == image.repository()
        };
        let tags = state.tags.keys().filter(is_of).filter_map(|it| it.tag().cloned()).collect();
        Ok(Answered { value: TagList { tags, is_cut: false }, allowance: state.allowance })
    }
}

fn sha256(text: &str) -> String {
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(text)))
}

/// Looks at other registries of tests, in which each manifest consists of something else.
pub struct LooksOf(Arc<dyn Registries>);

impl LooksOf {
    /// Looks at these.
    #[must_use]
    pub fn new(registries: Arc<dyn Registries>) -> Self {
        Self(registries)
    }
}

#[async_trait]
impl ImageRegistry for LooksOf {
    async fn digest(
        &self,
        image: &ImageReference,
        _known: Option<&Digest>,
        credentials: Option<&Credentials>,
    ) -> Asked<Option<Digest>> {
        let value = self.0.resolve(image, credentials, Instant::now()).await.ok();
        Ok(Answered { value, allowance: None })
    }

    async fn versions(
        &self,
        _image: &ImageReference,
        digest: &Digest,
        platforms: &BTreeSet<Platform>,
        _credentials: Option<&Credentials>,
    ) -> Asked<ImageVersions> {
        let content = sha256(digest.as_str()).parse().expect("a key");
        let version = ImageVersion { digest: digest.clone(), content };
        let by_platform = platforms.iter().map(|it| (it.clone(), version.clone())).collect();
        Ok(Answered { value: ImageVersions { is_index: false, by_platform }, allowance: None })
    }

    async fn tags(
        &self,
        _image: &ImageReference,
        _credentials: Option<&Credentials>,
    ) -> Asked<TagList> {
        Ok(Answered { value: TagList::default(), allowance: None })
    }
}
