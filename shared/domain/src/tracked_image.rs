//! What is tracked of an image that a task needs: the tag that its source names, or the newest tag that a policy chooses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::InvalidText;
use crate::image::{ImageReference, RegistryHost, Repository, Tag};
use crate::tag_pattern::TagPattern;
use crate::text::serde_as_text;

/// The most policies of one task.
const MOST_POLICIES: usize = 16;

/// A tag of a repository, or the newest of the tags that match a pattern: `docker.io/library/node:20` or
/// `docker.io/library/node:20.*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackedImage {
    host: RegistryHost,
    repository: Repository,
    tags: Tags,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Tags {
    One(Tag),
    Newest(TagPattern),
}

impl TrackedImage {
    /// The tag of an image, whatever its digest; `None` if it has no tag.
    #[must_use]
    pub fn tag_of(image: &ImageReference) -> Option<Self> {
        let tags = Tags::One(image.tag()?.clone());
        Some(Self { host: image.host().clone(), repository: image.repository().clone(), tags })
    }

    /// The registry's host.
    #[must_use]
    pub fn host(&self) -> &RegistryHost {
        &self.host
    }

    /// The repository's path in the registry.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The pattern, if a policy chooses the tag.
    #[must_use]
    pub fn pattern(&self) -> Option<&TagPattern> {
        match &self.tags {
            Tags::One(_) => None,
            Tags::Newest(pattern) => Some(pattern),
        }
    }

    /// The image, if it is one tag.
    #[must_use]
    pub fn tagged(&self) -> Option<ImageReference> {
        match &self.tags {
            Tags::One(tag) => Some(self.with_tag(tag.clone())),
            Tags::Newest(_) => None,
        }
    }

    /// A tag of the repository.
    #[must_use]
    pub fn with_tag(&self, tag: Tag) -> ImageReference {
        ImageReference::tagged(self.host.clone(), self.repository.clone(), tag)
    }

    /// Whether it may be this image: the tag is its own, or matches its pattern.
    #[must_use]
    pub fn may_be(&self, image: &ImageReference) -> bool {
        self.is_of_repository(image)
            && image.tag().is_some_and(|tag| match &self.tags {
                Tags::One(own) => own == tag,
                Tags::Newest(pattern) => pattern.rank(tag).is_some(),
            })
    }

    fn is_of_repository(&self, image: &ImageReference) -> bool {
        self.host == *image.host() && self.repository == *image.repository()
    }
}

impl FromStr for TrackedImage {
    type Err = InvalidText;

    /// Parses an image as in `FROM`, or one with a pattern in place of the tag.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pattern = text.rsplit_once(':').filter(|(_, last)| {
            !last.contains('/') && last.contains(['*', '^', '~', '<', '>', '='])
        });
        if let Some((name, pattern)) = pattern {
            let image: ImageReference = name.parse()?;
            let is_name = image.tag().is_some_and(|tag| tag.as_str() == "latest")
                && !name.ends_with(":latest")
                && image.digest().is_none();
            if !is_name {
                return Err(InvalidText::new("image", text, "a repository, `:` and one pattern"));
            }
            let (host, repository) = (image.host().clone(), image.repository().clone());
            return Ok(Self { host, repository, tags: Tags::Newest(pattern.parse()?) });
        }
        let image: ImageReference = text.parse()?;
        let refused = || InvalidText::new("image", text, "an image with a tag");
        Self::tag_of(&image).filter(|_| image.digest().is_none()).ok_or_else(refused)
    }
}

impl fmt::Display for TrackedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:", self.host, self.repository)?;
        match &self.tags {
            Tags::One(tag) => tag.fmt(f),
            Tags::Newest(pattern) => pattern.fmt(f),
        }
    }
}

serde_as_text!(TrackedImage);

/// A policy of a task: of a repository, the newest tag that matches a pattern is used and followed, in place of the tags in
/// the source that the pattern covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagPolicy(TrackedImage);

impl FromStr for TagPolicy {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((_, pattern)) = text.rsplit_once(':').filter(|(_, it)| !it.contains('/')) {
            // Its error tells more.
            pattern.parse::<TagPattern>()?;
        }
        let image: TrackedImage = text.parse()?;
        let refused =
            || InvalidText::new("policy of tags", text, "`REPOSITORY:PATTERN`, like `node:20.*`");
        if image.pattern().is_some() { Ok(Self(image)) } else { Err(refused()) }
    }
}

impl fmt::Display for TagPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

serde_as_text!(TagPolicy);

impl TagPolicy {
    /// What is tracked.
    #[must_use]
    pub fn image(&self) -> &TrackedImage {
        &self.0
    }

    fn covers(&self, image: &ImageReference) -> bool {
        let (Some(pattern), Some(tag)) = (self.0.pattern(), image.tag()) else { return false };
        image.digest().is_none() && self.0.is_of_repository(image) && pattern.covers(tag)
    }
}

/// The policies of a task, in order: the first one that covers an image is its policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<TagPolicy>", into = "Vec<TagPolicy>")]
pub struct TagPolicies(Vec<TagPolicy>);

impl TagPolicies {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The policies.
    #[must_use]
    pub fn as_slice(&self) -> &[TagPolicy] {
        &self.0
    }

    /// The policy that an image follows; `None` if it is used as the source names it.
    #[must_use]
    pub fn of(&self, image: &ImageReference) -> Option<&TrackedImage> {
        self.0.iter().find(|policy| policy.covers(image)).map(TagPolicy::image)
    }

    /// What is tracked of an image that the source names; `None` if it has no tag.
    #[must_use]
    pub fn track(&self, image: &ImageReference) -> Option<TrackedImage> {
        self.of(image).cloned().or_else(|| TrackedImage::tag_of(image))
    }
}

impl TryFrom<Vec<TagPolicy>> for TagPolicies {
    type Error = InvalidText;

    fn try_from(policies: Vec<TagPolicy>) -> Result<Self, Self::Error> {
        if policies.len() > MOST_POLICIES {
            let count = format!("{} policies", policies.len());
            return Err(InvalidText::new(
                "list of policies of tags",
                &count,
                "at most 16 policies",
            ));
        }
        Ok(Self(policies))
    }
}

impl From<TagPolicies> for Vec<TagPolicy> {
    fn from(policies: TagPolicies) -> Self {
        policies.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(texts: &[&str]) -> TagPolicies {
        let parsed: Vec<TagPolicy> = texts.iter().map(|text| text.parse().unwrap()).collect();
        parsed.try_into().unwrap()
    }

    #[test]
    fn a_tag_and_a_policy_are_written_like_images() {
        for (text, read) in [
            ("node", "docker.io/library/node:latest"),
            ("node:20", "docker.io/library/node:20"),
            ("node:20.*", "docker.io/library/node:20.*"),
            ("localhost:5000/a/b:>=20 <22", "localhost:5000/a/b:>=20,<22"),
            ("ghcr.io/octo/base:^1.2-slim", "ghcr.io/octo/base:^1.2-slim"),
        ] {
            let image: TrackedImage = text.parse().unwrap();
            assert_eq!(image.to_string(), read);
            assert_eq!(read.parse::<TrackedImage>().unwrap(), image);
        }
        let digest = format!("node@sha256:{}", "a".repeat(64));
        for text in
            [digest.as_str(), "node:20:20.*", "node:latest:20.*", "Node:20.*", "node:*1", ""]
        {
            assert!(text.parse::<TrackedImage>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_policy_says_what_is_wrong_with_it() {
        for (text, what) in [
            ("node:20", "pattern of tags"),
            ("node", "policy of tags"),
            ("localhost:5000/node", "policy of tags"),
            ("Node:20.*", "repository"),
        ] {
            assert_eq!(text.parse::<TagPolicy>().unwrap_err().what, what, "{text}");
        }
        let many = vec!["node:20.*".parse::<TagPolicy>().unwrap(); 17];
        assert!(TagPolicies::try_from(many).is_err());
    }

    #[test]
    fn the_first_policy_that_covers_an_image_is_its_policy() {
        let policies =
            policies(&["node:20.*", "node:20.*-slim", "node:^22", "ghcr.io/octo/base:1.*"]);
        let digest = "a".repeat(64);
        for (image, tracked) in [
            ("node:20", "docker.io/library/node:20.*"),
            ("node:20.11.1", "docker.io/library/node:20.*"),
            ("node:20-slim", "docker.io/library/node:20.*-slim"),
            ("node:22", "docker.io/library/node:^22"),
            ("node:18", "docker.io/library/node:18"),
            ("node", "docker.io/library/node:latest"),
            ("ghcr.io/library/node:20", "ghcr.io/library/node:20"),
            ("ghcr.io/octo/base:1", "ghcr.io/octo/base:1.*"),
            (&format!("node:20@sha256:{digest}"), "docker.io/library/node:20"),
        ] {
            let image: ImageReference = image.parse().unwrap();
            assert_eq!(policies.track(&image).unwrap().to_string(), tracked);
        }
    }
}
