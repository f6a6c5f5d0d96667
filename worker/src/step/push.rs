//! Pushes what was built: under a staging tag first, and only what the registry then shows to be the same image counts.
//!
//! In: an image in the engine, and the digest of the configuration that its build reported. Out: for each repository the
//! manifest that the registry has. Final tags are moved later, by `tags`, to exactly that manifest.
//!
//! Workers share engines and registries, so a tag may change between any two steps here, in either of them. Nothing
//! rests on names: a manifest whose configuration is not the built one is never used.

use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::run::ErrorCode;
use gantry_ops::metrics;
use gantry_ops::secret::Credentials;
use gantry_remote::registry::{RawManifest, RegistryError};
use rand::RngExt as _;
use sha2::{Digest as _, Sha256};
use tokio::time::{Duration, Instant};

use super::build::REGISTRY_WITHIN;
use crate::Worker;
use crate::attempt::Attempt;
use crate::engine::{BuiltImage, EngineError, PushError, STAGING};
use crate::failure::{self, Failure};

/// How many numbers workers have. Many registries never delete a tag, so there are only so many tags in a repository:
/// this times the slots. Two workers with one number cost each other a second push, and then take another number.
const NUMBERS: u32 = 64;

/// How often an image is pushed until the registry has it.
const PUSHES: u32 = 5;

/// How long deleting a staging tag may take.
const DELETE_WITHIN: Duration = Duration::from_secs(3);

/// An image in one repository, under no final tag yet.
pub(crate) struct PushedImage {
    /// The name that it was pushed under. Others may push under it from now on.
    pub(crate) staging: ImageReference,
    /// What was pushed.
    pub(crate) manifest: RawManifest,
}

impl PushedImage {
    /// Whether `image` is a name in the same repository.
    pub(crate) fn is_in_repository_of(&self, image: &ImageReference) -> bool {
        self.staging.host() == image.host() && self.staging.repository() == image.repository()
    }
}

/// The registry has another image than the one that was pushed.
#[derive(Debug, thiserror::Error)]
#[error(
    "after {PUSHES} pushes {staging} is not the image that was built, whose configuration is {built}: no tag was \
     moved; another process pushes under this name, or the engine pushes something else"
)]
struct AnotherImage {
    staging: ImageReference,
    built: Digest,
}

impl Worker {
    /// Pushes to each repository of `images`.
    pub(crate) async fn push_image(
        &self,
        attempt: &Attempt,
        local: &ImageReference,
        built: &BuiltImage,
        images: &[ImageReference],
    ) -> Result<Vec<PushedImage>, Failure> {
        let mut pushed: Vec<PushedImage> = Vec::new();
        for image in images {
            if !pushed.iter().any(|earlier| earlier.is_in_repository_of(image)) {
                pushed.push(self.push_to(attempt, local, built, image).await?);
            }
        }
        Ok(pushed)
    }

    async fn push_to(
        &self,
        attempt: &Attempt,
        local: &ImageReference,
        built: &BuiltImage,
        image: &ImageReference,
    ) -> Result<PushedImage, Failure> {
        let line = format!("pushing to {}/{}", image.host(), image.repository());
        attempt.log.say(Some(&attempt.step), line).await;
        let credentials = attempt.credentials(image);
        let slot = self.hand.slot(attempt.run.id);
        let mut number = number_of(&self.settings.installation, self.settings.id.as_str());
        let mut pushes = 0;
        loop {
            let staging = staging_name(image, number, slot)?;
            pushes += 1;
            let manifest =
                self.push_once(local, &staging, credentials.as_ref(), pushes == PUSHES).await?;
            match manifest {
                Some(manifest) if manifest.config().as_ref() == Some(&built.config) => {
                    metrics::pushed(manifest.image_bytes());
                    return Ok(PushedImage { staging, manifest });
                }
                Some(_) | None if pushes < PUSHES => {
                    tracing::warn!(run.id = %attempt.run.id, "{staging} is not what was pushed there: pushing again");
                    number = rand::rng().random_range(0..NUMBERS);
                }
                Some(_) | None => {
                    let error = AnotherImage { staging, built: built.config.clone() };
                    return Err(Failure::infrastructures(ErrorCode::PushMismatch, &error));
                }
            }
        }
    }

    /// Pushes once and reads what the registry has then; `None` if another process took the name on the way.
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
            // As a rule: another worker of this engine removed the name.
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

    /// Deletes the staging tags, where registries can. Called once the final tags keep the manifests.
    pub(crate) async fn delete_staging(&self, attempt: &Attempt, pushed: &[PushedImage]) {
        for PushedImage { staging, .. } in pushed {
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

/// Nobody may ask for a staging tag: what it points to changes with every push.
pub(super) fn refuse_staging(image: &ImageReference) -> Result<(), Failure> {
    if image.tag().is_some_and(|tag| tag.as_str().starts_with(STAGING)) {
        let message =
            format!("{image}: tags that begin with `{STAGING}` are gantry's own: choose another");
        return Err(Failure::in_words(ErrorCode::ImageNameInvalid, message));
    }
    Ok(())
}

/// A worker's first number: the same after a restart if it has a fixed name.
fn number_of(installation: &str, worker: &str) -> u32 {
    let mut hash = Sha256::new();
    hash.update(installation.as_bytes());
    hash.update([0]);
    hash.update(worker.as_bytes());
    let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
    u32::from_be_bytes([a, b, c, d]) % NUMBERS
}

fn staging_name(image: &ImageReference, number: u32, slot: u32) -> Result<ImageReference, Failure> {
    let tag = format!("{STAGING}{number}-{slot}").parse();
    let tag = tag.map_err(|error| Failure::users(ErrorCode::ImageNameInvalid, &error))?;
    Ok(image.with_tag(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_keeps_its_number_and_every_number_makes_a_tag() {
        assert_eq!(number_of("one", "w"), number_of("one", "w"));
        assert_ne!(number_of("one", "w"), number_of("two", "w"));
        let image: ImageReference = "registry.test/web:1".parse().unwrap();
        for number in 0..NUMBERS {
            let name = staging_name(&image, number, u32::MAX).unwrap();
            assert!(refuse_staging(&name).is_err(), "{name}");
        }
        assert!(refuse_staging(&image).is_ok());
    }
}
