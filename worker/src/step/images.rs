//! The images that the steps of an attempt have built.
//!
//! Their names are known to this attempt alone. In the engine each has a name of its own, so that no other build of
//! any run can replace or remove it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_domain::InvalidText;
use gantry_domain::id::{RunId, StepId};
use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::lineage::{BaseImage, BaseRole};
use gantry_domain::platform::Platform;
use tokio::sync::{Notify, OnceCell};

use crate::engine::{Engine, LOCAL_HOST};
use crate::graph::WholeBuild;

/// The images of an attempt, by their names. They are in the engine until this is dropped.
#[derive(Default)]
pub(crate) struct Images {
    state: Mutex<State>,
    /// A build step has ended.
    ended: Notify,
}

#[derive(Default)]
struct State {
    built: BTreeMap<ImageReference, BuiltLegs>,
    /// Those without a name, too.
    all: Vec<Arc<Built>>,
    /// The digests that the legs of builds have resolved, by step and image.
    resolved: BTreeMap<(StepId, ImageReference), Arc<OnceCell<Digest>>>,
    /// The names of running build steps, once for each.
    building: Vec<ImageReference>,
    /// How many builds have got a name in the engine.
    named: u32,
}

/// The legs of a build that are done.
struct BuiltLegs {
    whole: WholeBuild,
    legs: Vec<Arc<Built>>,
}

impl BuiltLegs {
    fn none_of(whole: &WholeBuild) -> Self {
        Self { whole: whole.clone(), legs: Vec::new() }
    }

    /// All legs, in the order of their platforms; `None` while one is missing.
    fn all(&self) -> Option<Vec<Arc<Built>>> {
        let leg =
            |platform: &Platform| self.legs.iter().find(|leg| leg.platform == *platform).cloned();
        self.whole.platforms.iter().map(leg).collect()
    }
}

/// A running build step, with all its attempts, until this is dropped.
pub(crate) struct Building<'a> {
    images: &'a Images,
    names: &'a [ImageReference],
}

impl Drop for Building<'_> {
    fn drop(&mut self) {
        let mut state = self.images.state();
        for name in self.names {
            if let Some(place) = state.building.iter().position(|other| other == name) {
                state.building.swap_remove(place);
            }
        }
        drop(state);
        self.images.ended.notify_waiters();
    }
}

impl Images {
    /// Says that a step builds images with these names until the result is dropped.
    pub(crate) fn begin<'a>(&'a self, names: &'a [ImageReference]) -> Building<'a> {
        self.state().building.extend_from_slice(names);
        Building { images: self, names }
    }

    /// Adds an image, a leg of `whole`. It replaces those of other builds with the same names, and an earlier one of the
    /// same leg.
    pub(crate) fn add(&self, names: &[ImageReference], whole: &WholeBuild, built: Arc<Built>) {
        let mut state = self.state();
        for name in names {
            let legs = state.built.entry(name.clone());
            let legs = legs.or_insert_with(|| BuiltLegs::none_of(whole));
            if legs.whole != *whole {
                *legs = BuiltLegs::none_of(whole);
            }
            legs.legs.retain(|leg| leg.platform != built.platform);
            legs.legs.push(Arc::clone(&built));
        }
        state.all.push(built);
    }

    /// The images that a step has built under this name: one for each of its platforms, in their order. `None` while one
    /// is missing.
    pub(crate) fn find(&self, name: &ImageReference) -> Option<Vec<Arc<Built>>> {
        self.state().built.get(name).and_then(BuiltLegs::all)
    }

    /// The image that a step has built under this name, for this platform if it has it, else for its first one.
    pub(crate) fn find_for(
        &self,
        name: &ImageReference,
        platform: &Platform,
    ) -> Option<Arc<Built>> {
        let legs = self.find(name)?;
        let own = legs.iter().find(|leg| leg.platform == *platform);
        own.or(legs.first()).cloned()
    }

    /// A digest that all legs of a build use: `resolve` is called for the first of them, and again only after it failed.
    pub(crate) async fn resolved_once<E>(
        &self,
        whole: &WholeBuild,
        image: &ImageReference,
        resolve: impl Future<Output = Result<Digest, E>>,
    ) -> Result<Digest, E> {
        let key = (whole.step.clone(), image.clone());
        let known = Arc::clone(self.state().resolved.entry(key).or_default());
        known.get_or_try_init(|| resolve).await.cloned()
    }

    /// The image that a step has built under this name, or builds now. A step without `when` waits only for the one written
    /// before it, and the build that its author means may be another one that still runs.
    pub(crate) async fn find_or_wait(&self, name: &ImageReference) -> Option<Vec<Arc<Built>>> {
        loop {
            let ended = self.ended.notified();
            if let Some(built) = self.find(name) {
                return Some(built);
            }
            if !self.state().building.contains(name) {
                return None;
            }
            ended.await;
        }
    }

    /// The bases of all images, each once.
    pub(crate) fn bases(&self) -> Vec<BaseImage> {
        let state = self.state();
        let mut bases = Bases::default();
        state.all.iter().flat_map(|built| &built.bases).for_each(|base| bases.add(base.clone()));
        bases.into_vec()
    }

    /// Removes all images from the engine, the last first: an image may be the base of a later one.
    pub(crate) async fn remove(self) {
        let State { built, all, .. } =
            self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        drop(built);
        for built in all.into_iter().rev().filter_map(Arc::into_inner) {
            built.local.remove().await;
        }
    }

    /// A name in the engine for the next build of a step, like `gantry.local/web:ca1-1-2-build`: the second one of
    /// attempt 1 of run `ca1`. A step that is tried again gets another name, because the removal of what its failed build
    /// has left may still be on its way.
    ///
    /// # Errors
    /// The step builds an image whose repository is too long for it.
    pub(crate) fn local_name(
        &self,
        (run, attempt): (RunId, u32),
        step: &StepId,
        names: &[ImageReference],
    ) -> Result<ImageReference, InvalidText> {
        let mut state = self.state();
        state.named += 1;
        let (number, first) = (state.named, names.first());
        let repository = first.map_or("unnamed", |image| image.repository().as_str());
        format!("{LOCAL_HOST}/{repository}:{run}-{attempt}-{number}-{step}").parse()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bases, each once. One that is a part of the result stays so.
#[derive(Default)]
pub(crate) struct Bases(Vec<BaseImage>);

impl Bases {
    pub(crate) fn add(&mut self, new: BaseImage) {
        let same = |base: &&mut BaseImage| base.image == new.image && base.digest == new.digest;
        match self.0.iter_mut().find(same) {
            Some(base) if new.role == BaseRole::Runtime => base.role = new.role,
            Some(_) => {}
            None => self.0.push(new),
        }
    }

    pub(crate) fn find(&self, image: &ImageReference) -> Option<&BaseImage> {
        self.0.iter().find(|base| base.image == *image)
    }

    pub(crate) fn into_vec(self) -> Vec<BaseImage> {
        self.0
    }
}

/// A built image. It is in the engine until this is dropped.
pub(crate) struct Built {
    /// The image's name in the engine.
    pub(crate) local: LocalImage,
    /// The digest of its configuration. Of an image that gantry has not built, the engine's id, which may be the digest of
    /// its manifest.
    pub(crate) id: Digest,
    /// Its platform.
    pub(crate) platform: Platform,
    /// The bases of the image.
    pub(crate) bases: Vec<BaseImage>,
}

/// A name in the engine of one build alone. It is removed from the engine when this is dropped, however the build ends.
pub(crate) struct LocalImage {
    engine: Arc<dyn Engine>,
    name: ImageReference,
    is_removed: bool,
}

impl LocalImage {
    /// For a name of [`Images::local_name`].
    pub(crate) fn new(engine: Arc<dyn Engine>, name: ImageReference) -> Self {
        Self { engine, name, is_removed: false }
    }

    /// The name in the engine.
    pub(crate) fn name(&self) -> &ImageReference {
        &self.name
    }

    async fn remove(mut self) {
        self.is_removed = true;
        remove(self.engine.as_ref(), &self.name).await;
    }
}

impl Drop for LocalImage {
    fn drop(&mut self) {
        if self.is_removed {
            return;
        }
        let (engine, name) = (Arc::clone(&self.engine), self.name.clone());
        tokio::spawn(async move { remove(engine.as_ref(), &name).await });
    }
}

async fn remove(engine: &dyn Engine, name: &ImageReference) {
    if let Err(error) = engine.remove_image(name).await {
        tracing::debug!("{name} is removed by the next sweep: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_image_that_is_being_built_is_waited_for_until_the_build_ends() {
        let images = Images::default();
        let (web, other) = ("web:1".parse().unwrap(), "other:1".parse().unwrap());
        assert!(images.find_or_wait(&web).await.is_none(), "nobody builds it");
        let names = [web];
        let building = images.begin(&names);
        assert!(images.find_or_wait(&other).await.is_none());
        let waiting = images.find_or_wait(&names[0]);
        let ending = async {
            tokio::task::yield_now().await;
            drop(building);
        };
        let (found, ()) = tokio::join!(waiting, ending);
        assert!(found.is_none(), "the build has failed");
    }

    #[test]
    fn no_two_builds_of_an_attempt_have_one_name_in_the_engine() {
        let (images, web) = (Images::default(), "web:1".parse().unwrap());
        let (run, step) = ("ca1".parse().unwrap(), "build".parse().unwrap());
        let name = |names: &[ImageReference]| {
            images.local_name((run, 2), &step, names).unwrap().to_string()
        };
        assert_eq!(name(&[web]), "gantry.local/library/web:ca1-2-1-build");
        assert_eq!(name(&[]), "gantry.local/unnamed:ca1-2-2-build");
    }
}
