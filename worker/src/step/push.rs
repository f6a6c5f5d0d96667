//! Pushes the image: first under a staging tag, and then checks that the registry has the same image.
//!
//! In: an image in the engine, and the configuration's digest from its build; of an image for several platforms each leg.
//! Out: for each repository the manifest in the registry, or an index of the manifests of all legs. The final tags are moved later, by `tags`, to exactly that manifest.
//!
//! Workers share engines and registries, so a tag may change between any two steps here, in either of them. So names
//! are not trusted: a manifest with another configuration than the built one is never used.

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_domain::id::{StepId, WorkerId};
use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::lineage::{BaseImage, ChildImage, OutputImage};
use gantry_domain::platform::Platform;
use gantry_domain::run::{ErrorCode, LegOf};
use gantry_ops::metrics;
use gantry_ops::secret::Credentials;
use gantry_remote::registries::Registries;
use gantry_remote::registry::{IndexEntry, RawManifest, RegistryError};
use rand::RngExt as _;
use tokio::time::{Duration, Instant};

use super::REGISTRY_WITHIN;
use super::images::{Built, Images, LocalImage};
use super::staging::{NUMBERS, name_of_split, number_of, staging_name};
use crate::attempt::Attempt;
use crate::engine::{Engine, EngineError, PushError};
use crate::failure::{self, Failure};
use crate::graph::WholeBuild;

/// How often an image is pushed until the registry has it.
const PUSHES: u32 = 5;

/// The time limit for deleting a staging tag.
const DELETE_WITHIN: Duration = Duration::from_secs(3);

/// An image in one repository, without final tags yet.
pub(crate) struct PushedImage {
    /// The pushed image; of an index its images, in the order of the platforms.
    pub(crate) legs: Vec<PushedLeg>,
    /// What the final tags will point to: the manifest of the only leg, or an index of all.
    pub(crate) manifest: RawManifest,
    /// The final tags that it is to get.
    pub(crate) images: Vec<ImageReference>,
}

/// An image for one platform in a repository.
pub(crate) struct PushedLeg {
    /// The name that it was pushed under. From now on other workers may push under it.
    pub(crate) staging: ImageReference,
    /// The pushed manifest.
    pub(crate) manifest: RawManifest,
    /// The image's id, like [`Built::id`].
    pub(crate) id: Digest,
    /// Its platform.
    pub(crate) platform: Platform,
    /// Its bases.
    pub(crate) bases: Vec<BaseImage>,
}

/// A leg of a split run that has ended well.
pub(crate) struct JoinedLeg {
    pub(crate) platform: Platform,
    pub(crate) bases: Vec<BaseImage>,
    /// What it has pushed, under staging tags.
    pub(crate) outputs: Vec<OutputImage>,
}

impl PushedImage {
    /// The images of an index; none if it is a single image.
    pub(crate) fn children(&self) -> Vec<ChildImage> {
        let child = |leg: &PushedLeg| ChildImage {
            platform: leg.platform.clone(),
            digest: leg.manifest.digest.clone(),
        };
        if self.legs.len() == 1 { Vec::new() } else { self.legs.iter().map(child).collect() }
    }

    /// Whether it is this image in the repository of `image`.
    fn is_for(&self, built: &[Arc<Built>], image: &ImageReference) -> bool {
        let same = |leg: &PushedLeg, built: &Arc<Built>| {
            leg.id == built.id
                && leg.staging.host() == image.host()
                && leg.staging.repository() == image.repository()
        };
        self.legs.len() == built.len()
            && self.legs.iter().zip(built).all(|(leg, built)| same(leg, built))
    }
}

/// The registry has another image than the one that was pushed.
#[derive(Debug, thiserror::Error)]
#[error(
    "after {PUSHES} pushes {staging} is not the image that was built, which is {built}: no tag was \
     moved; another process pushes under this name, or the engine pushes something else"
)]
struct AnotherImage {
    staging: ImageReference,
    built: Digest,
}

/// Whether this is the image with this id: the digest of its configuration, or of itself.
fn is_image(manifest: &RawManifest, id: &Digest) -> bool {
    manifest.config().as_ref() == Some(id) || manifest.digest == *id
}

fn not_built(image: &ImageReference) -> Failure {
    let message = format!(
        "no step before it has built {image}: add `-t {image}` to a build step that it waits for"
    );
    Failure::in_words(ErrorCode::ImageNotFound, message)
}

pub(crate) struct Pusher {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) registries: Arc<dyn Registries>,
    pub(crate) installation: String,
    pub(crate) worker: WorkerId,
}

impl Pusher {
    /// Checks the credentials for each registry that will be pushed to, before the build rather than after it.
    pub(crate) async fn try_credentials(
        &self,
        attempt: &Attempt,
        images: impl Iterator<Item = &ImageReference>,
    ) -> Result<(), Failure> {
        let mut asked = BTreeSet::new();
        for image in images.filter(|image| asked.insert(image.host())) {
            let credentials = attempt.credentials(image);
            self.registries
                .check(image.host(), credentials.as_ref(), Instant::now() + REGISTRY_WITHIN)
                .await
                .map_err(|error| failure::of_registry(&error, ErrorCode::RegistryUnavailable))?;
        }
        Ok(())
    }

    /// Pushes images that earlier steps have made, each to the repository of its name, without final tags. Only in a run
    /// that `has_socket` of the engine may a command have made them.
    pub(crate) async fn push(
        &self,
        attempt: &Attempt,
        step: &StepId,
        images: &[ImageReference],
        (built, has_socket): (&Images, bool),
    ) -> Result<Vec<PushedImage>, Failure> {
        let mut pushed: Vec<PushedImage> = Vec::new();
        for image in images {
            let built = match built.find_or_wait(image).await {
                Some(built) => built,
                None if has_socket => vec![self.take_over(attempt, step, image, built).await?],
                None => return Err(not_built(image)),
            };
            match pushed.iter_mut().find(|earlier| earlier.is_for(&built, image)) {
                Some(earlier) => earlier.images.push(image.clone()),
                None => pushed.push(self.push_to(attempt, step, built, image).await?),
            }
        }
        Ok(pushed)
    }

    /// Takes over an image that a command has made with the engine's socket: it loses its name, and gets one of this step
    /// alone, so that no other run can replace it any more.
    async fn take_over(
        &self,
        attempt: &Attempt,
        step: &StepId,
        image: &ImageReference,
        images: &Images,
    ) -> Result<Arc<Built>, Failure> {
        if self.engine.image_id(image).await?.is_none() {
            return Err(not_built(image));
        }
        let (owner, names) = ((attempt.run.id, attempt.number), std::slice::from_ref(image));
        let local = images.local_name(owner, step, names);
        let local = local.map_err(|error| Failure::users(ErrorCode::ImageNameInvalid, &error))?;
        self.engine.tag(image, &local).await?;
        let local = LocalImage::new(Arc::clone(&self.engine), local);
        let id = self.engine.image_id(local.name()).await?.ok_or_else(|| not_built(image))?;
        self.engine.remove_image(image).await?;
        let platform = attempt.run.recipe.platforms.first().clone();
        let whole = WholeBuild { step: step.clone(), platforms: platform.clone().into() };
        let built = Arc::new(Built { local, id, platform, bases: Vec::new() });
        images.add(names, &whole, Arc::clone(&built));
        Ok(built)
    }

    /// Pushes an image to the repository of `image`, and stores the index of one for several platforms there.
    async fn push_to(
        &self,
        attempt: &Attempt,
        step: &StepId,
        built: Vec<Arc<Built>>,
        image: &ImageReference,
    ) -> Result<PushedImage, Failure> {
        let line = format!("pushing to {}/{}", image.host(), image.repository());
        attempt.log.say(Some(step), line).await;
        let mut legs = Vec::with_capacity(built.len());
        for (place, built) in built.into_iter().enumerate() {
            legs.push(self.push_leg(attempt, built, image, place).await?);
        }
        let manifest = match legs.as_slice() {
            [only] => only.manifest.clone(),
            several => self.put_index(attempt, several, image).await?,
        };
        Ok(PushedImage { legs, manifest, images: vec![image.clone()] })
    }

    /// Reads what the legs of a split run have pushed to the repository of `image`, and stores the index of it there. In the
    /// order of the platforms; each leg with its outputs.
    pub(crate) async fn join(
        &self,
        attempt: &Attempt,
        legs: &[JoinedLeg],
        image: &ImageReference,
    ) -> Result<PushedImage, Failure> {
        let credentials = attempt.credentials(image);
        let is_there = |output: &&OutputImage| {
            output.image.host() == image.host() && output.image.repository() == image.repository()
        };
        let mut pushed = Vec::with_capacity(legs.len());
        for JoinedLeg { platform, bases, outputs } in legs {
            let output = outputs.iter().find(is_there).ok_or_else(|| not_built(image))?;
            let pinned = image.pinned(output.digest.clone());
            let deadline = Instant::now() + REGISTRY_WITHIN;
            let manifest = self.registries.manifest(&pinned, credentials.as_ref(), deadline).await;
            let manifest = manifest
                .map_err(|error| failure::of_registry(&error, ErrorCode::RegistryUnavailable))?;
            pushed.push(PushedLeg {
                staging: output.image.clone(),
                id: manifest.digest.clone(),
                manifest,
                platform: platform.clone(),
                bases: bases.clone(),
            });
        }
        let manifest = self.put_index(attempt, &pushed, image).await?;
        Ok(PushedImage { legs: pushed, manifest, images: vec![image.clone()] })
    }

    /// Makes the index of images in the repository of `image`, which has no tag yet.
    async fn put_index(
        &self,
        attempt: &Attempt,
        legs: &[PushedLeg],
        image: &ImageReference,
    ) -> Result<RawManifest, Failure> {
        let entries: Vec<IndexEntry<'_>> = legs
            .iter()
            .map(|leg| IndexEntry { platform: &leg.platform, manifest: &leg.manifest })
            .collect();
        let index = RawManifest::index(&entries);
        let children: Vec<Digest> = legs.iter().map(|leg| leg.manifest.digest.clone()).collect();
        let (credentials, deadline) =
            (attempt.credentials(image), Instant::now() + REGISTRY_WITHIN);
        let credentials = credentials.as_ref();
        let put = self.registries.put_index(image, &index, &children, credentials, deadline).await;
        match put {
            Ok(()) => Ok(index),
            // An image was deleted since it was pushed: another attempt pushes it again.
            Err(error @ RegistryError::NotFound { .. }) => {
                Err(Failure::infrastructures(ErrorCode::RegistryUnavailable, &error))
            }
            Err(error) => Err(failure::of_registry(&error, ErrorCode::RegistryUnavailable)),
        }
    }

    /// Pushes the leg at this place among those of its image.
    async fn push_leg(
        &self,
        attempt: &Attempt,
        built: Arc<Built>,
        image: &ImageReference,
        place: usize,
    ) -> Result<PushedLeg, Failure> {
        let credentials = attempt.credentials(image);
        let split = attempt.run.purpose.leg_of();
        let worker = || number_of(&self.installation, self.worker.as_str());
        let of_run = |of: &LegOf| number_of(&self.installation, &of.run.to_string());
        let mut number = split.map_or_else(worker, of_run);
        let mut pushes = 0;
        loop {
            let staging = match split {
                Some(of) => name_of_split(image, number, of.place)?,
                None => staging_name(image, number, attempt.slot, place)?,
            };
            pushes += 1;
            let manifest = self
                .push_once(built.local.name(), &staging, credentials.as_ref(), pushes == PUSHES)
                .await?;
            match manifest {
                Some(manifest) if is_image(&manifest, &built.id) => {
                    metrics::pushed(manifest.image_bytes());
                    return Ok(PushedLeg {
                        staging,
                        manifest,
                        id: built.id.clone(),
                        platform: built.platform.clone(),
                        bases: built.bases.clone(),
                    });
                }
                Some(_) | None if pushes < PUSHES => {
                    tracing::warn!(run.id = %attempt.run.id, "{staging} is not what was pushed there: pushing again");
                    number = rand::rng().random_range(0..NUMBERS);
                }
                Some(_) | None => {
                    let error = AnotherImage { staging, built: built.id.clone() };
                    return Err(Failure::infrastructures(ErrorCode::PushMismatch, &error));
                }
            }
        }
    }

    /// Pushes once, and reads what the registry has then; `None` if another process replaced the name meanwhile.
    async fn push_once(
        &self,
        local: &ImageReference,
        staging: &ImageReference,
        credentials: Option<&Credentials>,
        is_last: bool,
    ) -> Result<Option<RawManifest>, Failure> {
        self.engine.tag(local, staging).await?;
        let pushed = self.engine.push(staging, credentials).await;
        if let Err(error) = self.engine.remove_image(staging).await {
            tracing::debug!("{staging} is removed by the next sweep: {error}");
        }
        match pushed {
            Ok(()) => {}
            // The usual cause is that another worker of this engine removed the name.
            Err(PushError::Engine(EngineError::Refused { .. })) if !is_last => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let deadline = Instant::now() + REGISTRY_WITHIN;
        match self.registries.manifest(staging, credentials, deadline).await {
            Ok(manifest) => Ok(Some(manifest)),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(failure::of_registry(&error, ErrorCode::RegistryUnavailable)),
        }
    }

    /// Deletes the staging tags, if registries support it. Called once the final tags keep the manifests alive.
    pub(crate) async fn delete_staging(&self, attempt: &Attempt, pushed: &[PushedImage]) {
        for PushedLeg { staging, .. } in pushed.iter().flat_map(|image| &image.legs) {
            let credentials = attempt.credentials(staging);
            let deadline = Instant::now() + DELETE_WITHIN;
            if let Err(error) =
                self.registries.delete_tag(staging, credentials.as_ref(), deadline).await
            {
                tracing::debug!("{staging} stays and will be used again: {error}");
            }
        }
    }
}
