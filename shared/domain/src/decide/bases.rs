//! Decides whether a task is up to date with the images that it uses. Pure: what the images are now is passed in.

use std::collections::BTreeMap;

use crate::cause::MovedBase;
use crate::fact::Fact;
use crate::image::Digest;
use crate::image_version::ImageVersion;
use crate::lineage::{BaseImage, BaseRole, FollowedTag};
use crate::platform::Platform;
use crate::scan::{ImageRole, NeededImage};
use crate::tracked_image::{TagPolicies, TrackedImage};
use crate::wave::LastBuild;

/// What images are now for a platform.
pub type Current = BTreeMap<(TrackedImage, Platform), Fact<ImageVersion>>;

/// The images that differ from what the task was last built on, among those that count. `moved` are images that are known
/// to have changed since then: of an image that the last build did not use, or if there was none, only these differ.
#[must_use]
pub fn differing(
    policies: &TagPolicies,
    counted: &[&NeededImage],
    current: &Current,
    last: Option<&LastBuild>,
    moved: &[TrackedImage],
) -> Vec<MovedBase> {
    let mut differing: Vec<MovedBase> = Vec::new();
    for needed in counted {
        let Some(image) = policies.track(&needed.image) else { continue };
        let key = (image, needed.platform.clone());
        let Some(now) = current.get(&key).and_then(|fact| fact.value.as_ref()) else { continue };
        let (image, platform) = key;
        let used = last.and_then(|last| last.used(&image, &platform));
        let differs = match used {
            Some(used) => used.digest != now.digest && used.content.as_ref() != Some(&now.content),
            None => moved.contains(&image),
        };
        if differs && !differing.iter().any(|it| it.image == image) {
            let from = used.map(|used| used.digest.clone());
            differing.push(MovedBase { image, from, to: now.digest.clone() });
        }
    }
    differing
}

/// Those of the differing images that the last build has seen with content that they are not known to have had. They may
/// have changed since their tags were asked for, and what is known of them may be older than what was used.
#[must_use]
pub fn unknown<'a>(
    differing: &'a [MovedBase],
    current: &Current,
    last: &LastBuild,
) -> Vec<&'a TrackedImage> {
    let is_known = |moved: &&MovedBase| {
        let facts = current.iter().filter(|((image, _), _)| *image == moved.image);
        facts.into_iter().all(|((image, platform), fact)| {
            let used = last.used(image, platform).map(|used| used.content.as_ref());
            let seen = fact.former.iter().filter_map(|former| former.value.as_ref());
            let mut seen = seen.chain(&fact.value);
            used.is_none_or(|used| seen.any(|seen| used == Some(&seen.content)))
        })
    };
    differing.iter().filter(|moved| !is_known(moved)).map(|moved| &moved.image).collect()
}

/// The images that a run of the task is to use: all of which it is known what they are now, so that what is decided is what
/// is built.
#[must_use]
pub fn pins(policies: &TagPolicies, needed: &[NeededImage], current: &Current) -> Vec<BaseImage> {
    let mut pins: Vec<BaseImage> = Vec::new();
    for needed in needed {
        let Some(tracked) = policies.track(&needed.image) else { continue };
        if pins.iter().any(|pin| pin.image == needed.image) {
            continue;
        }
        let Some((now, digest)) = newest(current, &tracked) else { continue };
        let follows = now.tag.clone().map(|tag| FollowedTag { policy: tracked.clone(), tag });
        let role = match needed.role {
            ImageRole::Runtime => BaseRole::Runtime,
            ImageRole::Buildtime | ImageRole::Step => BaseRole::Buildtime,
        };
        let image = needed.image.clone();
        pins.push(BaseImage { image, digest, role, follows });
    }
    pins
}

/// What an image is now, and the digest that has it for all platforms that are known: that of the index which listed the
/// platform that changed last.
fn newest<'a>(current: &'a Current, image: &TrackedImage) -> Option<(&'a ImageVersion, Digest)> {
    let of_image = current.iter().filter(|((it, _), _)| it == image);
    let known = of_image.filter_map(|(_, fact)| Some((fact.since, fact.value.as_ref()?)));
    let is_single = known.clone().count() == 1;
    let (_, newest) = known.max_by_key(|(since, _)| *since)?;
    let index = newest.index.as_ref().filter(|_| !is_single);
    Some((newest, index.unwrap_or(&newest.digest).clone()))
}

/// The images that policies have chosen, for a run that nothing else pins: whichever tags its source names.
#[must_use]
pub fn followed(policies: &TagPolicies, current: &Current) -> Vec<BaseImage> {
    let chosen = policies.as_slice().iter().filter_map(|policy| {
        let (now, digest) = newest(current, policy.image())?;
        let tag = now.tag.clone()?;
        Some(BaseImage {
            image: policy.image().with_tag(tag.clone()),
            digest,
            role: BaseRole::Buildtime,
            follows: Some(FollowedTag { policy: policy.image().clone(), tag }),
        })
    });
    chosen.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::{FactKey, advanced_image};
    use crate::timestamp::Timestamp;
    use crate::tracked_image::TagPolicy;
    use crate::wave::UsedImage;

    fn digest(letter: char) -> Digest {
        format!("sha256:{}", letter.to_string().repeat(64)).parse().unwrap()
    }

    fn version(manifest: char, content: char) -> ImageVersion {
        let content = digest(content).as_str().parse().unwrap();
        ImageVersion { digest: digest(manifest), content, index: None, tag: None }
    }

    fn node() -> TrackedImage {
        "node:20".parse().unwrap()
    }

    fn node_on_amd64() -> (TrackedImage, Platform) {
        (node(), Platform::default())
    }

    fn needed() -> NeededImage {
        NeededImage {
            image: node().tagged().unwrap(),
            role: ImageRole::Runtime,
            step: "build".parse().unwrap(),
            dockerfile: None,
            platform: Platform::default(),
        }
    }

    fn current(version: ImageVersion) -> Current {
        let key = FactKey::image(&"reg".parse().unwrap(), &Platform::default(), &node());
        [(node_on_amd64(), advanced_image(None, &key, version, Timestamp::default()))].into()
    }

    fn last(used: Option<ImageVersion>) -> LastBuild {
        let used = used.map(|it| UsedImage {
            image: node(),
            platform: Platform::default(),
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

    fn differs(last: Option<&LastBuild>, now: ImageVersion, moved: &[TrackedImage]) -> bool {
        let needed = needed();
        !differing(&TagPolicies::default(), &[&needed], &current(now), last, moved).is_empty()
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
    fn content_that_an_image_is_not_known_to_have_had_may_be_newer() {
        let before = current(version('a', '1'))[&node_on_amd64()].clone();
        let after =
            advanced_image(Some(&before), &before.key, version('b', '2'), Timestamp::default());
        let now = Current::from([(node_on_amd64(), after)]);
        let is_unknown = |used: Option<ImageVersion>| {
            let (needed, last) = (needed(), last(used));
            let none = TagPolicies::default();
            let differing = differing(&none, &[&needed], &now, Some(&last), &[node()]);
            !unknown(&differing, &now, &last).is_empty()
        };
        assert!(is_unknown(Some(version('c', '3'))));
        assert!(!is_unknown(Some(version('a', '1'))), "it was used before the change");
        assert!(!is_unknown(Some(version('b', '2'))), "it is the same");
        assert!(!is_unknown(None), "it was not used");
    }

    #[test]
    fn a_run_is_pinned_to_all_images_that_are_known() {
        let mut unknown = needed();
        unknown.image = "golang:1".parse().unwrap();
        let none = TagPolicies::default();
        let pins = pins(&none, &[needed(), unknown, needed()], &current(version('a', '1')));
        let pins: Vec<_> = pins.iter().map(|it| (it.image.clone(), it.digest.clone())).collect();
        assert_eq!(pins, [(needed().image, digest('a'))]);
    }

    #[test]
    fn a_build_for_several_platforms_differs_by_each_and_is_pinned_to_the_newest_index() {
        let arm: Platform = "linux/arm64".parse().unwrap();
        let on_arm = NeededImage { platform: arm.clone(), ..needed() };
        let of = |index: char, it: ImageVersion| ImageVersion { index: Some(digest(index)), ..it };
        let fact = |platform: &Platform, version: ImageVersion, at: i64| {
            let key = FactKey::image(&"reg".parse().unwrap(), platform, &node());
            advanced_image(None, &key, version, Timestamp::from_millis(at))
        };
        let now = Current::from([
            (node_on_amd64(), fact(&Platform::default(), of('d', version('a', '1')), 1)),
            ((node(), arm.clone()), fact(&arm, of('e', version('b', '2')), 2)),
        ]);
        let used = |platform: &Platform, it: ImageVersion| UsedImage {
            image: node(),
            platform: platform.clone(),
            digest: digest('d'),
            content: Some(it.content),
        };
        let mut last = last(Some(version('a', '1')));
        let none = TagPolicies::default();
        let (own, other) = (needed(), on_arm.clone());
        let differs =
            |last: &LastBuild| !differing(&none, &[&own, &other], &now, Some(last), &[]).is_empty();
        last.used.push(used(&arm, version('b', '2')));
        assert!(!differs(&last));
        last.used[1] = used(&arm, version('c', '3'));
        assert!(differs(&last), "it has other content for arm64");

        let both = pins(&none, &[needed(), on_arm], &now);
        let both: Vec<_> = both.iter().map(|pin| pin.digest.clone()).collect();
        assert_eq!(both, [digest('e')], "the index that has both");
    }

    #[test]
    fn a_run_uses_the_tag_that_a_policy_chose_in_place_of_the_written_one() {
        let policy: TagPolicy = "node:20.*".parse().unwrap();
        let policies: TagPolicies = vec![policy.clone()].try_into().unwrap();
        let key = FactKey::image(&"reg".parse().unwrap(), &Platform::default(), policy.image());
        let chosen = ImageVersion { tag: "20.12.1".parse().ok(), ..version('a', '1') };
        let fact = advanced_image(None, &key, chosen, Timestamp::default());
        let chosen: Current = [((policy.image().clone(), Platform::default()), fact)].into();
        let none = Current::default();
        let mut slim = needed();
        slim.image = "node:20-slim".parse().unwrap();
        let pins = pins(&policies, &[needed(), slim], &chosen);
        let [pin] = &pins[..] else { panic!("{pins:?}") };
        assert_eq!((&pin.image, &pin.digest), (&needed().image, &digest('a')));
        let followed = pin.follows.as_ref().unwrap().to_string();
        assert_eq!(followed, "docker.io/library/node:20.* → 20.12.1");
        assert_eq!(super::followed(&policies, &chosen)[0].image, "node:20.12.1".parse().unwrap());
        assert_eq!(super::followed(&policies, &none), [], "no tag matches");
        assert_eq!(super::pins(&policies, &[needed()], &none), []);
    }
}
