//! Decides whether a task is up to date with the images that it uses. Pure: what the images are now is passed in.

use std::collections::BTreeMap;

use crate::cause::MovedBase;
use crate::fact::Fact;
use crate::image::ImageReference;
use crate::image_version::ImageVersion;
use crate::lineage::{BaseImage, BaseRole};
use crate::scan::{ImageRole, NeededImage};
use crate::wave::LastBuild;

/// What images are now, by reference with tag.
pub type Current = BTreeMap<ImageReference, Fact<ImageVersion>>;

/// The images that differ from what the task was last built on, among those that count. `moved` are images that are known
/// to have changed since then: of an image that the last build did not use, or if there was none, only these differ.
#[must_use]
pub fn differing(
    counted: &[&NeededImage],
    current: &Current,
    last: Option<&LastBuild>,
    moved: &[ImageReference],
) -> Vec<MovedBase> {
    let mut differing: Vec<MovedBase> = Vec::new();
    for needed in counted {
        let Some(now) = current.get(&needed.image).and_then(|fact| fact.value.as_ref()) else {
            continue;
        };
        let used = last.and_then(|last| last.used(&needed.image));
        let differs = match used {
            Some(used) => used.digest != now.digest && used.content.as_ref() != Some(&now.content),
            None => moved.contains(&needed.image),
        };
        if differs && !differing.iter().any(|it| it.image == needed.image) {
            differing.push(MovedBase {
                image: needed.image.clone(),
                from: used.map(|used| used.digest.clone()),
                to: now.digest.clone(),
            });
        }
    }
    differing
}

/// The images that a run of the task is to use: all of which it is known what they are now, so that what is decided is what
/// is built.
#[must_use]
pub fn pins(needed: &[NeededImage], current: &Current) -> Vec<BaseImage> {
    let mut pins: Vec<BaseImage> = Vec::new();
    for needed in needed {
        let now = current.get(&needed.image).and_then(|fact| fact.value.as_ref());
        let Some(now) = now.filter(|_| !pins.iter().any(|pin| pin.image == needed.image)) else {
            continue;
        };
        let role = match needed.role {
            ImageRole::Runtime => BaseRole::Runtime,
            ImageRole::Buildtime | ImageRole::Step => BaseRole::Buildtime,
        };
        pins.push(BaseImage { image: needed.image.clone(), digest: now.digest.clone(), role });
    }
    pins
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::{FactKey, advanced_image};
    use crate::image::Digest;
    use crate::platform::Platform;
    use crate::timestamp::Timestamp;
    use crate::wave::UsedImage;

    fn digest(letter: char) -> Digest {
        format!("sha256:{}", letter.to_string().repeat(64)).parse().unwrap()
    }

    fn version(manifest: char, content: char) -> ImageVersion {
        let content = digest(content).as_str().parse().unwrap();
        ImageVersion { digest: digest(manifest), content }
    }

    fn node() -> ImageReference {
        "node:20".parse().unwrap()
    }

    fn needed() -> NeededImage {
        NeededImage {
            image: node(),
            role: ImageRole::Runtime,
            step: "build".parse().unwrap(),
            dockerfile: None,
            platform: Platform::default(),
        }
    }

    fn current(version: ImageVersion) -> Current {
        let key = FactKey::image(&"reg".parse().unwrap(), &Platform::default(), &node());
        [(node(), advanced_image(None, &key, version, Timestamp::default()))].into()
    }

    fn last(used: Option<ImageVersion>) -> LastBuild {
        let used = used.map(|it| UsedImage {
            image: node(),
            digest: it.digest,
            content: Some(it.content),
        });
        LastBuild {
            run: "ca1".parse().unwrap(),
            used: used.into_iter().collect(),
            made: Vec::new(),
            took: 0,
            at: Timestamp::default(),
        }
    }

    fn differs(last: Option<&LastBuild>, now: ImageVersion, moved: &[ImageReference]) -> bool {
        let needed = needed();
        !differing(&[&needed], &current(now), last, moved).is_empty()
    }

    #[test]
    fn a_task_differs_if_an_image_has_other_content_than_its_last_build_used() {
        let built = last(Some(version('a', '1')));
        assert!(!differs(Some(&built), version('a', '1'), &[node()]), "it has changed back");
        assert!(!differs(Some(&built), version('b', '1'), &[node()]), "the content is the same");
        assert!(differs(Some(&built), version('b', '2'), &[]));
    }

    #[test]
    fn an_image_that_was_never_built_on_differs_only_if_it_has_moved_since() {
        let built = last(None);
        for last in [None, Some(&built)] {
            assert!(!differs(last, version('a', '1'), &[]));
            assert!(differs(last, version('a', '1'), &[node()]));
        }
    }

    #[test]
    fn a_run_is_pinned_to_all_images_that_are_known() {
        let mut unknown = needed();
        unknown.image = "golang:1".parse().unwrap();
        let pins = pins(&[needed(), unknown, needed()], &current(version('a', '1')));
        let pins: Vec<_> = pins.iter().map(|it| (it.image.clone(), it.digest.clone())).collect();
        assert_eq!(pins, [(node(), digest('a'))]);
    }
}
