//! The staging tags, under which images are pushed before they get their final tags.

use gantry_domain::image::ImageReference;
use gantry_domain::run::ErrorCode;
use sha2::{Digest as _, Sha256};

use crate::engine::STAGING;
use crate::failure::Failure;

/// How many numbers workers have. Many registries never delete a tag, so the number of tags in a repository is limited
/// to this times the slots, and
/// for images for several platforms times those. Two workers with the same number cause each other a second push, and then take another
/// number.
pub(super) const NUMBERS: u32 = 64;

/// Users may not request a staging tag, since it changes with every push.
pub(crate) fn refuse_staging(image: &ImageReference) -> Result<(), Failure> {
    if image.tag().is_some_and(|tag| tag.as_str().starts_with(STAGING)) {
        let message =
            format!("{image}: tags that begin with `{STAGING}` are gantry's own: choose another");
        return Err(Failure::in_words(ErrorCode::ImageNameInvalid, message));
    }
    Ok(())
}

/// A worker's first number; the same after a restart if the worker has a fixed name.
pub(super) fn number_of(installation: &str, worker: &str) -> u32 {
    let mut hash = Sha256::new();
    hash.update(installation.as_bytes());
    hash.update([0]);
    hash.update(worker.as_bytes());
    let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
    u32::from_be_bytes([a, b, c, d]) % NUMBERS
}

/// The staging tag for the leg of a run that was split: not that of a slot, whose next run may begin before the index is
/// made. Legs of different runs that have the same number cause each other a second push, and then take another number.
pub(super) fn name_of_split(
    image: &ImageReference,
    number: u32,
    leg: usize,
) -> Result<ImageReference, Failure> {
    tagged(image, format!("{STAGING}{number}-leg-{leg}"))
}

pub(super) fn staging_name(
    image: &ImageReference,
    number: u32,
    slot: u32,
    leg: usize,
) -> Result<ImageReference, Failure> {
    // The first leg has the tag of an image for one platform. The others keep their own until the index has its tags:
    // a registry may delete a manifest without one.
    let leg = if leg == 0 { String::new() } else { format!("-{leg}") };
    tagged(image, format!("{STAGING}{number}-{slot}{leg}"))
}

fn tagged(image: &ImageReference, tag: String) -> Result<ImageReference, Failure> {
    let tag = tag.parse();
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
            let name = staging_name(&image, number, u32::MAX, 7).unwrap();
            assert!(refuse_staging(&name).is_err(), "{name}");
        }
        assert!(refuse_staging(&image).is_ok());
    }
}
