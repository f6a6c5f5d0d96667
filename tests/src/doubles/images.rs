//! Image registries that a test fills, and that fail when it says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use gantry_domain::image::{Digest, ImageReference, RegistryHost};
use gantry_domain::image_version::{ContentKey, ImageVersion};
use gantry_domain::platform::Platform;
use gantry_ops::secret::Credentials;
use gantry_remote::image_registry::{
    Allowance, Answered, Asked, ImageRegistry, ImageVersions, LookError, TagList,
};
use sha2::{Digest as _, Sha256};

/// The registries of a test. Clones are the same registries.
#[derive(Clone, Default)]
pub struct FakeImageRegistry(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    tags: BTreeMap<ImageReference, Digest>,
    stored: BTreeMap<Digest, ImageVersions>,
    failures: BTreeMap<RegistryHost, LookError>,
    allowance: Option<Allowance>,
    requests: BTreeMap<ImageReference, usize>,
    builds: u64,
}

impl FakeImageRegistry {
    /// Moves a tag to a new index with these platforms, each with this content: a word. Every index has another digest,
    /// as if it was built anew, but platforms with the same word have the same content.
    pub fn set(&self, image: &str, contents: &[(&str, &str)]) -> Digest {
        self.push(image, true, contents)
    }

    /// Moves a tag to a new manifest for one platform.
    pub fn set_manifest(&self, image: &str, platform: &str, content: &str) -> Digest {
        self.push(image, false, &[(platform, content)])
    }

    /// Deletes a tag. What it pointed to stays.
    pub fn remove(&self, image: &str) {
        self.state().tags.remove(&reference(image));
    }

    /// Deletes a manifest or index, but no tag.
    pub fn forget(&self, digest: &Digest) {
        self.state().stored.remove(digest);
    }

    /// Fails all looks at a host like this, until [`FakeImageRegistry::recover`].
    pub fn fail(&self, host: &str, error: LookError) {
        self.state().failures.insert(host.parse().expect("a host"), error);
    }

    /// Answers looks at a host again.
    pub fn recover(&self, host: &str) {
        self.state().failures.remove(&host.parse().expect("a host"));
    }

    /// The allowance of all further answers.
    pub fn allow(&self, allowance: Option<Allowance>) {
        self.state().allowance = allowance;
    }

    /// The looks at an image so far, of any kind, including failed ones.
    #[must_use]
    pub fn requests(&self, image: &str) -> usize {
        self.state().requests.get(&reference(image)).copied().unwrap_or_default()
    }

    /// The content of platforms that were set with this word.
    #[must_use]
    pub fn content(word: &str) -> ContentKey {
        sha256(word).parse().expect("a content key")
    }

    fn push(&self, image: &str, is_index: bool, contents: &[(&str, &str)]) -> Digest {
        let mut state = self.state();
        state.builds += 1;
        let build = state.builds;
        let digest = |what: &str| sha256(&format!("{what} of build {build}")).parse();
        let top: Digest = digest("index").expect("a digest");
        let version = |(platform, content): &(&str, &str)| {
            let own = digest(platform).expect("a digest");
            let digest = if is_index { own } else { top.clone() };
            let version = ImageVersion { digest, content: Self::content(content) };
            (platform.parse().expect("a platform"), version)
        };
        let by_platform = contents.iter().map(version).collect();
        state.stored.insert(top.clone(), ImageVersions { is_index, by_platform });
        state.tags.insert(reference(image), top.clone());
        top
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a look, and fails it if the test said so.
    fn look<T>(&self, image: &ImageReference, answer: impl FnOnce(&State) -> T) -> Asked<T> {
        let mut state = self.state();
        *state.requests.entry(image.clone()).or_default() += 1;
        match state.failures.get(image.host()) {
            Some(error) => Err(error.clone()),
            None => Ok(Answered { value: answer(&state), allowance: state.allowance }),
        }
    }
}

#[async_trait]
impl ImageRegistry for FakeImageRegistry {
    async fn digest(
        &self,
        image: &ImageReference,
        _known: Option<&Digest>,
        _credentials: Option<&Credentials>,
    ) -> Asked<Option<Digest>> {
        self.look(image, |state| state.tags.get(image).cloned())
    }

    async fn versions(
        &self,
        image: &ImageReference,
        digest: &Digest,
        platforms: &BTreeSet<Platform>,
        _credentials: Option<&Credentials>,
    ) -> Asked<ImageVersions> {
        let answered = self.look(image, |state| state.stored.get(digest).cloned())?;
        let Some(mut versions) = answered.value else {
            return Err(LookError::Gone { image: Box::new(image.clone()), digest: digest.clone() });
        };
        versions.by_platform.retain(|platform, _| platforms.contains(platform));
        Ok(Answered { value: versions, allowance: answered.allowance })
    }

    async fn tags(
        &self,
        image: &ImageReference,
        _credentials: Option<&Credentials>,
    ) -> Asked<TagList> {
        self.look(image, |state| {
            let of_repository = state.tags.keys().filter(|tagged| {
                tagged.host() == image.host() && tagged.repository() == image.repository()
            });
            let tags = of_repository.filter_map(|tagged| tagged.tag().cloned()).collect();
            TagList { tags, is_cut: false }
        })
    }
}

fn reference(image: &str) -> ImageReference {
    image.parse().expect("an image reference")
}

fn sha256(text: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(text)))
}
