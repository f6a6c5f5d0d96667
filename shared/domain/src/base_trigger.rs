//! The base image trigger: which images start a task when they change.

use serde::{Deserialize, Serialize};

use crate::decide::Rule;
use crate::image::{DOCKER_HUB, ImageReference};
use crate::pattern::Patterns;
use crate::scan::{ImageRole, NeededImage};
use crate::task::Status;
use crate::text::words;

/// Starts runs when images change that the task needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseImageTrigger {
    /// The trigger's name in the task.
    pub name: String,
    /// Whether it starts runs.
    #[serde(default)]
    pub status: Status,
    /// Which of the task's images count.
    #[serde(default)]
    pub kind: BaseImageKind,
    /// The names of those that count; all do if empty.
    #[serde(default, skip_serializing_if = "Patterns::is_empty")]
    pub images: Patterns,
}

words!(
    /// Which of the images that a task needs count, by what they are needed for.
    #[derive(Default)]
    BaseImageKind, "type of a base image trigger", "`Runtime` or `All`", {
    /// The bases of the images that it builds.
    #[default]
    Runtime = "Runtime",
    /// All images that its builds read, and those that its commands run in.
    All = "All",
});

impl Default for BaseImageTrigger {
    /// The original's: each change of a base starts a run.
    fn default() -> Self {
        Self {
            name: "defaultBaseimageTriggerName".to_owned(),
            status: Status::Enabled,
            kind: BaseImageKind::Runtime,
            images: Patterns::default(),
        }
    }
}

impl BaseImageTrigger {
    /// Whether a change of this image, which the task needs, starts a run.
    ///
    /// # Errors
    /// The [`Rule`] that says no.
    pub fn counts(&self, needed: &NeededImage) -> Result<(), Rule> {
        let image = &needed.image;
        if self.status == Status::Disabled {
            return Err(Rule::BaseImagesOff);
        }
        if image.digest().is_some() {
            return Err(Rule::PinnedImage);
        }
        if self.kind == BaseImageKind::Runtime && needed.role != ImageRole::Runtime {
            return Err(Rule::OnlyBuildtime);
        }
        if !self.images.is_empty() && !names(&self.images, image) {
            return Err(Rule::OtherImage { watched: self.images.to_string() });
        }
        Ok(())
    }
}

/// Whether patterns choose an image, by its whole name or as people write it.
fn names(patterns: &Patterns, image: &ImageReference) -> bool {
    let whole = image.to_string();
    let short = whole.strip_prefix(DOCKER_HUB).and_then(|rest| rest.strip_prefix('/'));
    let short = short.map(|rest| rest.strip_prefix("library/").unwrap_or(rest));
    match short {
        Some(short) => patterns.choose_any(&[&whole, short]),
        None => patterns.choose(&whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Platform;

    fn needed(image: &str, role: ImageRole) -> NeededImage {
        NeededImage {
            image: image.parse().unwrap(),
            role,
            step: "build".parse().unwrap(),
            dockerfile: None,
            platform: Platform::default(),
        }
    }

    fn trigger(kind: BaseImageKind, images: &[&str]) -> BaseImageTrigger {
        let images: Vec<_> = images.iter().map(|text| text.parse().unwrap()).collect();
        let images = images.try_into().unwrap();
        BaseImageTrigger { kind, images, ..BaseImageTrigger::default() }
    }

    #[test]
    fn the_base_of_a_built_image_counts_and_others_only_for_all() {
        let (runtime, all) =
            (trigger(BaseImageKind::Runtime, &[]), trigger(BaseImageKind::All, &[]));
        for (role, by_runtime) in [
            (ImageRole::Runtime, Ok(())),
            (ImageRole::Buildtime, Err(Rule::OnlyBuildtime)),
            (ImageRole::Step, Err(Rule::OnlyBuildtime)),
        ] {
            assert_eq!(runtime.counts(&needed("node:20", role)), by_runtime);
            assert_eq!(all.counts(&needed("node:20", role)), Ok(()));
        }
    }

    #[test]
    fn a_disabled_trigger_counts_nothing() {
        let off = BaseImageTrigger { status: Status::Disabled, ..trigger(BaseImageKind::All, &[]) };
        let image = needed("node:20", ImageRole::Runtime);
        assert_eq!(off.counts(&image), Err(Rule::BaseImagesOff));
    }

    #[test]
    fn an_image_that_is_pinned_by_digest_never_counts() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for pinned in [format!("node@{digest}"), format!("node:20@{digest}")] {
            let counts =
                trigger(BaseImageKind::All, &[]).counts(&needed(&pinned, ImageRole::Runtime));
            assert_eq!(counts, Err(Rule::PinnedImage), "{pinned}");
        }
    }

    #[test]
    fn patterns_match_the_whole_name_and_for_docker_hub_the_short_one() {
        for (patterns, image, is_named) in [
            (&["node:*"][..], "node:20", true),
            (&["docker.io/library/node:20"], "node:20", true),
            (&["docker.io/**"], "node:20", true),
            (&["octo/*"], "octo/web:1", true),
            (&["node:*"], "octo/node:20", false),
            (&["node:*"], "ghcr.io/library/node:20", false),
            (&["ghcr.io/octo/**"], "ghcr.io/octo/base/web:1", true),
            (&["!node:*"], "node:20", false),
            (&["!node:*"], "alpine:3", true),
            (&["docker.io/**", "!node:*"], "node:20", false),
            (&["!node:*", "docker.io/library/node:20"], "node:20", true),
        ] {
            let counts = trigger(BaseImageKind::Runtime, patterns)
                .counts(&needed(image, ImageRole::Runtime));
            let watched = patterns.join(", ");
            let expected = if is_named { Ok(()) } else { Err(Rule::OtherImage { watched }) };
            assert_eq!(counts, expected, "{patterns:?} {image}");
        }
    }

    #[test]
    fn every_type_is_in_its_parsers_error() {
        for word in ["Runtime", "All"] {
            assert_eq!(word.parse::<BaseImageKind>().unwrap().to_string(), word);
            assert!("x".parse::<BaseImageKind>().unwrap_err().rule.contains(word));
        }
    }
}
