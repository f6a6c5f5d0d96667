//! Image references and digests, by the rules of the distribution reference grammar.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::InvalidText;
use crate::text::{serde_as_text, text_type};

/// The registry that a reference without a host means.
pub const DOCKER_HUB: &str = "docker.io";

text_type!(
    /// `host[:port]` of a registry, lower case.
    RegistryHost,
    "registry host",
    "`host` or `host:port` in lower case, without scheme and path; one word alone, like `registry`, needs its port",
    |text| {
        // In an image's name one word before a `/` is a part of Docker Hub, to engines and to us.
        let is_told_apart = text.contains(['.', ':']) || text == "localhost";
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (text, None),
        };
        (1..=255).contains(&host.len())
            && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._[]:".contains(&b))
            && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
            && is_told_apart
    }
);

text_type!(
    /// A repository's path in its registry: `team/web`.
    Repository,
    "repository",
    "lower-case words of letters, digits and `._-`, separated by `/`, at most 255 characters",
    |text| {
        text.len() <= 255
            && text.split('/').all(|word| {
                let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
                edge(word.bytes().next())
                    && edge(word.bytes().last())
                    && word
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
            })
    }
);

text_type!(
    /// A tag: what may follow `:` in an image reference.
    Tag,
    "tag",
    "1 to 128 letters, digits or `_.-`, not beginning with `.` or `-`",
    |text| {
        (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
            && !text.starts_with(['.', '-'])
    }
);

text_type!(
    /// A content digest: `sha256:` and 64 lower-case hexadecimal digits.
    Digest,
    "digest",
    "`sha256:` and 64 lower-case hexadecimal digits",
    |text| text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
);

/// `registry/repository:tag@digest`, complete: the host is always there, and a tag unless there is a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageReference {
    host: RegistryHost,
    repository: Repository,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl ImageReference {
    /// An image under a tag.
    #[must_use]
    pub fn tagged(host: RegistryHost, repository: Repository, tag: Tag) -> Self {
        Self { host, repository, tag: Some(tag), digest: None }
    }

    /// An image that has no tag.
    #[must_use]
    pub fn by_digest(host: RegistryHost, repository: Repository, digest: Digest) -> Self {
        Self { host, repository, tag: None, digest: Some(digest) }
    }

    /// The registry's host.
    #[must_use]
    pub fn host(&self) -> &RegistryHost {
        &self.host
    }

    /// The path in the registry.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag; `None` only beside a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, if it is pinned.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same image, pinned to `digest`; the tag stays, for people.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// Another tag of the same repository.
    #[must_use]
    pub fn with_tag(&self, tag: Tag) -> Self {
        Self { tag: Some(tag), digest: None, ..self.clone() }
    }

    /// Reads `text` as a build's target: a name without host belongs to `home`.
    ///
    /// A first word is a host when it has a `.` or `:` or is `localhost`, as engines read it.
    ///
    /// # Errors
    /// [`InvalidText`] naming the part that is wrong.
    pub fn parse_in(text: &str, home: &RegistryHost) -> Result<Self, InvalidText> {
        match split_host(text) {
            (Some(host), rest) => Self::from_parts(host.parse()?, rest),
            (None, rest) => Self::from_parts(home.clone(), rest),
        }
    }

    /// Docker Hub has two names, and its own images stand in `library`, which people leave out.
    fn from_parts(host: RegistryHost, rest: &str) -> Result<Self, InvalidText> {
        let is_hub = matches!(host.as_str(), DOCKER_HUB | "index.docker.io");
        let (host, rest) = match is_hub {
            true if rest.contains('/') => (RegistryHost(DOCKER_HUB.to_owned()), Cow::from(rest)),
            true => (RegistryHost(DOCKER_HUB.to_owned()), Cow::from(format!("library/{rest}"))),
            false => (host, Cow::from(rest)),
        };
        let rest = rest.as_ref();
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (rest, None),
        };
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.parse()?)),
            None => (rest, None),
        };
        let tag = match (tag, &digest) {
            (None, None) => Some(Tag("latest".to_owned())),
            (tag, _) => tag,
        };
        Ok(Self { host, repository: repository.parse()?, tag, digest })
    }
}

fn split_host(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            (Some(first), rest)
        }
        _ => (None, text),
    }
}

impl FromStr for ImageReference {
    type Err = InvalidText;

    /// Reads a reference as a `FROM` does: `busybox` is `docker.io/library/busybox:latest`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse_in(text, &RegistryHost(DOCKER_HUB.to_owned()))
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

serde_as_text!(ImageReference);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_completed_as_engines_do() {
        let sha = format!("sha256:{}", "a".repeat(64));
        for (text, read) in [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("docker.io/busybox:1", "docker.io/library/busybox:1".to_owned()),
            ("team/web", "docker.io/team/web:latest".to_owned()),
            ("localhost/web:1", "localhost/web:1".to_owned()),
            ("127.0.0.1:5000/a/b:v1", "127.0.0.1:5000/a/b:v1".to_owned()),
            (&format!("ghcr.io/a/b@{sha}"), format!("ghcr.io/a/b@{sha}")),
            (&format!("ghcr.io/a/b:1@{sha}"), format!("ghcr.io/a/b:1@{sha}")),
        ] {
            assert_eq!(text.parse::<ImageReference>().unwrap().to_string(), read, "{text}");
        }
    }

    #[test]
    fn a_target_without_host_belongs_to_the_home_registry() {
        let home: RegistryHost = "127.0.0.1:5000".parse().unwrap();
        for (text, read) in [
            ("docker.io/web:1", "docker.io/library/web:1"),
            ("index.docker.io/octo/web:1", "docker.io/octo/web:1"),
            ("web:ca1", "127.0.0.1:5000/web:ca1"),
            ("team/web", "127.0.0.1:5000/team/web:latest"),
            ("ghcr.io/team/web:2", "ghcr.io/team/web:2"),
        ] {
            assert_eq!(ImageReference::parse_in(text, &home).unwrap().to_string(), read);
        }
    }

    #[test]
    fn a_host_is_told_from_a_word_of_a_repository() {
        for host in
            ["ghcr.io", "registry:5000", "localhost", "localhost:5000", "[::1]:5000", "10.0.0.1"]
        {
            let image: ImageReference = format!("{host}/team/web:1").parse().unwrap();
            assert_eq!(image.host(), &host.parse().unwrap());
        }
        for word in ["registry", "1", "a-b"] {
            let refused = word.parse::<RegistryHost>().unwrap_err().to_string();
            assert!(refused.contains("needs its port"), "{refused}");
        }
    }

    #[test]
    fn wrong_references_say_which_part_is_wrong() {
        for (text, what) in [
            ("", "repository"),
            ("Web", "repository"),
            ("web:", "tag"),
            ("web:.x", "tag"),
            ("web@sha256:12", "digest"),
            ("web:1:2", "repository"),
            ("ghcr.io:0/web", "registry host"),
            ("a//b", "repository"),
            ("--upload-pack=x", "repository"),
        ] {
            assert_eq!(text.parse::<ImageReference>().unwrap_err().what, what, "{text}");
        }
    }
}
