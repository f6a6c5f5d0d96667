//! Registries in memory, with base images, moved tags, and failures on demand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use gantry_domain::image::{Digest, ImageReference, RegistryHost};
use gantry_domain::image_version::{ContentKey, ImageVersion};
use gantry_domain::platform::Platform;
use gantry_domain::timestamp::Timestamp;
use gantry_ops::secret::{Credentials, ExposeSecret as _};
use gantry_remote::image_registry::{
    Allowance, Answered, Asked, ImageRegistry, ImageVersions, LookError, TagList,
};
use gantry_remote::registries::Registries;
use gantry_remote::registry::{RawManifest, RegistryError};
use gantry_seams::clock::ManualClock;
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
    limit: Option<Limit>,
    listings: Vec<(String, Option<String>)>,
    given: Vec<(RegistryHost, Option<Credentials>)>,
    /// The indexes that were put.
    manifests: BTreeMap<Digest, RawManifest>,
    /// Whether the next index lists a manifest that is gone.
    loses_next_child: bool,
}

/// How many requests of looks are answered in each window of time.
struct Limit {
    clock: ManualClock,
    most: u64,
    window: Duration,
    since: Timestamp,
    used: u64,
    refused: u64,
}

impl Limit {
    /// A request: what is left after it, or the time until the window ends.
    fn take(&mut self) -> Result<Allowance, Duration> {
        let now = self.clock.now();
        while now >= self.since.after(self.window) {
            (self.since, self.used) = (self.since.after(self.window), 0);
        }
        let resets_in = self.since.after(self.window).since(now);
        if self.used >= self.most {
            self.refused += 1;
            return Err(resets_in);
        }
        self.used += 1;
        Ok(Allowance { remaining: self.most - self.used, resets_in })
    }
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
        let top = digest("index").expect("a digest");
        let version = |(platform, content): &(&str, &str)| {
            let version = ImageVersion {
                digest: digest(platform).expect("a digest"),
                content: sha256(content).parse().expect("a key"),
                index: Some(top.clone()),
                tag: None,
            };
            (platform.parse::<Platform>().expect("a platform"), version)
        };
        let by_platform = contents.iter().map(version).collect();
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

    /// The index that was put with this digest.
    #[must_use]
    pub fn index(&self, digest: &Digest) -> Option<RawManifest> {
        self.state().manifests.get(digest).cloned()
    }

    /// Makes the first manifest of the next index vanish before it is listed.
    pub fn lose_next_child(&self) {
        self.state().loses_next_child = true;
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

    /// Answers so many requests of looks in each window from now on, tells in each answer how many are left, and refuses
    /// the others until the window ends. `used` have been used by somebody else already.
    pub fn limit(&self, clock: &ManualClock, most: u64, window: Duration, used: u64) {
        let (since, refused) = (clock.now(), 0);
        let limit = Limit { clock: clock.clone(), most, window, since, used, refused };
        self.state().limit = Some(limit);
    }

    /// How many requests the limit has refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.state().limit.as_ref().map_or(0, |limit| limit.refused)
    }

    /// Counts a request of a look. Others are made before it is answered.
    async fn count(&self, image: &ImageReference) -> Result<Option<Allowance>, LookError> {
        let taken = {
            let mut state = self.state();
            let allowance = state.allowance;
            state.limit.as_mut().map_or(Ok(allowance), |limit| limit.take().map(Some))
        };
        tokio::task::yield_now().await;
        taken.map_err(|after| LookError::Limited {
            image: Box::new(image.clone()),
            after: Some(after),
        })
    }

    /// How often it was asked what a tag has.
    #[must_use]
    pub fn looks(&self, image: &str) -> usize {
        let image = image.parse().expect("an image reference");
        self.state().looks.get(&image).copied().unwrap_or_default()
    }

    /// Who has asked for the tags of a repository, each time: the name of a user, if there was one.
    #[must_use]
    pub fn listings(&self, repository: &str) -> Vec<Option<String>> {
        let state = self.state();
        let own = state.listings.iter().filter(|(name, _)| name == repository);
        own.map(|(_, user)| user.clone()).collect()
    }

    /// The credentials that were given, with the hosts that they were given for. Clears the list.
    #[must_use]
    pub fn take_given(&self) -> Vec<(RegistryHost, Option<Credentials>)> {
        std::mem::take(&mut self.state().given)
    }

    fn record(&self, host: &RegistryHost, credentials: Option<&Credentials>) {
        self.state().given.push((host.clone(), credentials.cloned()));
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
        self.record(host, credentials);
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
        if let Some(index) = self.state().manifests.get(&digest) {
            return Ok(index.clone());
        }
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

    async fn put_index(
        &self,
        image: &ImageReference,
        index: &RawManifest,
        children: &[Digest],
        credentials: Option<&Credentials>,
        _deadline: Instant,
    ) -> Result<(), RegistryError> {
        let mut state = self.answer(image.host(), &image.to_string(), credentials)?;
        let loses_first = std::mem::take(&mut state.loses_next_child);
        let is_gone = |child: &Digest| loses_first || self.engine.manifest(child).is_none();
        if let Some(lost) = children.iter().find(|child| is_gone(child)) {
            let what = format!("{}/{}@{lost}", image.host(), image.repository());
            return Err(RegistryError::NotFound { host: image.host().clone(), what });
        }
        let parsed: serde_json::Value = serde_json::from_slice(&index.bytes).expect("JSON");
        let entries = parsed["manifests"].as_array().expect("a list").iter();
        let by_platform = entries.map(|entry| {
            let word = |name: &str| entry["platform"][name].as_str();
            let words = ["os", "architecture", "variant"].into_iter().filter_map(word);
            let platform: Platform =
                words.collect::<Vec<_>>().join("/").parse().expect("a platform");
            let digest: Digest =
                entry["digest"].as_str().expect("a text").parse().expect("a digest");
            let content = state.content(&digest);
            (
                platform,
                ImageVersion { digest, content, index: Some(index.digest.clone()), tag: None },
            )
        });
        let by_platform = by_platform.collect();
        state.indexes.insert(index.digest.clone(), by_platform);
        state.manifests.insert(index.digest.clone(), index.clone());
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
        credentials: Option<&Credentials>,
    ) -> Asked<Option<Digest>> {
        self.record(image.host(), credentials);
        *self.state().looks.entry(image.clone()).or_default() += 1;
        let allowance = self.count(image).await?;
        let state = self.state();
        if let Some(error) = state.look_failures.get(image.host()) {
            return Err(error.clone());
        }
        let digest = state.tags.get(image).cloned().or_else(|| self.engine.pushed(image));
        Ok(Answered { value: digest, allowance })
    }

    async fn versions(
        &self,
        image: &ImageReference,
        digest: &Digest,
        platforms: &BTreeSet<Platform>,
        credentials: Option<&Credentials>,
    ) -> Asked<ImageVersions> {
        self.record(image.host(), credentials);
        let allowance = self.count(image).await?;
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
                let content = state.content(digest);
                let version =
                    ImageVersion { digest: digest.clone(), content, index: None, tag: None };
                let by_platform = platforms.iter().map(|it| (it.clone(), version.clone()));
                ImageVersions { is_index: false, by_platform: by_platform.collect() }
            }
        };
        Ok(Answered { value: versions, allowance })
    }

    async fn tags(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
    ) -> Asked<TagList> {
        let repository = format!("{}/{}", image.host(), image.repository());
        self.record(image.host(), credentials);
        let user = credentials.map(|credentials| credentials.username.clone());
        self.state().listings.push((repository, user));
        let allowance = self.count(image).await?;
        let state = self.state();
        if let Some(error) = state.look_failures.get(image.host()) {
            return Err(error.clone());
        }
        let is_of = |it: &&ImageReference| {
            it.host() == image.host() && it.repository() == image.repository()
        };
        let tags = state.tags.keys().filter(is_of).filter_map(|it| it.tag().cloned()).collect();
        Ok(Answered { value: TagList { tags, is_cut: false }, allowance })
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
        let version = ImageVersion { digest: digest.clone(), content, index: None, tag: None };
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
