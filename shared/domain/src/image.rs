//! Image references and digests, by the grammar of the distribution project.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::InvalidText;
use crate::text::{serde_as_text, text_type};

/// The registry of references without a host.
pub const DOCKER_HUB: &str = "docker.io";

/// What Docker Hub is called in Docker's own configuration and in the protocol of credential helpers.
const DOCKER_HUB_SERVER: &str = "https://index.docker.io/v1/";

/// The hosts of Docker Hub's registry; image names use `docker.io`.
const DOCKER_HUB_NAMES: [&str; 3] = [DOCKER_HUB, "index.docker.io", "registry-1.docker.io"];

/// The `host[:port]` of a registry, in lower case. Docker Hub is always `docker.io`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistryHost(String);

impl RegistryHost {
    /// The normalized host.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What Docker calls it where credentials are kept: Docker Hub has an address there, others their host.
    #[must_use]
    pub fn docker_server(&self) -> &str {
        match self.as_str() {
            DOCKER_HUB => DOCKER_HUB_SERVER,
            host => host,
        }
    }
}

impl FromStr for RegistryHost {
    type Err = InvalidText;

    /// Hosts are case-insensitive.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let host = text.to_ascii_lowercase();
        if !is_registry_host(&host) {
            return Err(InvalidText::new(
                "registry host",
                text,
                "`host` or `host:port`, without scheme and path; one word alone, like `registry`, needs its port",
            ));
        }
        Ok(Self(if DOCKER_HUB_NAMES.contains(&host.as_str()) {
            DOCKER_HUB.to_owned()
        } else {
            host
        }))
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(RegistryHost);

/// Matches `domain` of the reference grammar, with a valid port.
fn is_registry_host(text: &str) -> bool {
    // In an image's name, a single word before a `/` is a part of Docker Hub's path, for engines and for gantry.
    let is_told_apart = text.contains(['.', ':']) || text == "localhost";
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_name = |host: &str| {
        host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
    };
    let is_address = |host: &str| {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
    };
    is_told_apart
        && text.len() <= 255
        && (is_name(host) || is_address(host))
        && port.is_none_or(|port| {
            port.bytes().all(|b| b.is_ascii_digit())
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
}

/// The longest `host/repository` of the reference grammar.
const LONGEST_NAME: usize = 255;

text_type!(
    /// The path of a repository in its registry, like `team/web`.
    Repository,
    "repository",
    "words of lower-case letters and digits, with `.`, `_`, `__` or dashes between them, separated by `/`, at most 255 \
     characters",
    |text| text.len() <= LONGEST_NAME && text.split('/').all(is_path_component)
);

/// Matches `path-component` of the reference grammar: letters and digits, with single separators in between.
fn is_path_component(word: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = word.split(is_alphanumeric).filter(|separator| !separator.is_empty());
    word.starts_with(is_alphanumeric)
        && word.ends_with(is_alphanumeric)
        && separators.into_iter().all(|separator| {
            matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

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

/// A complete reference, `registry/repository:tag@digest`. The host is always set, and so is a tag unless there is a
/// digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageReference {
    host: RegistryHost,
    repository: Repository,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl ImageReference {
    /// An image with a tag.
    #[must_use]
    pub fn tagged(host: RegistryHost, repository: Repository, tag: Tag) -> Self {
        Self { host, repository, tag: Some(tag), digest: None }
    }

    /// A repository, as in a `FROM` without a tag.
    #[must_use]
    pub fn latest(host: RegistryHost, repository: Repository) -> Self {
        Self::tagged(host, repository, Tag("latest".to_owned()))
    }

    /// An image with a digest and no tag.
    #[must_use]
    pub fn by_digest(host: RegistryHost, repository: Repository, digest: Digest) -> Self {
        Self { host, repository, tag: None, digest: Some(digest) }
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

    /// The tag; `None` only if there is a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, if the reference is pinned.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same image pinned to `digest`. The tag stays, for people.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The same image without its digest; `None` if it has no tag.
    #[must_use]
    pub fn unpinned(&self) -> Option<Self> {
        self.tag.as_ref().map(|tag| self.with_tag(tag.clone()))
    }

    /// The same repository with another tag.
    #[must_use]
    pub fn with_tag(&self, tag: Tag) -> Self {
        Self { tag: Some(tag), digest: None, ..self.clone() }
    }

    /// Parses the target of a build. A name without a host belongs to `home`.
    ///
    /// As in engines, the first word is a host if it contains `.` or `:`, or is `localhost`.
    ///
    /// # Errors
    /// [`InvalidText`] for the part that is wrong.
    pub fn parse_in(text: &str, home: &RegistryHost) -> Result<Self, InvalidText> {
        match split_host(text) {
            (Some(host), rest) => Self::from_parts(host.parse()?, rest),
            (None, rest) => Self::from_parts(home.clone(), rest),
        }
    }

    /// Docker Hub's official images are in `library`, which people leave out.
    fn from_parts(host: RegistryHost, text: &str) -> Result<Self, InvalidText> {
        let is_library = host.as_str() == DOCKER_HUB && !text.contains('/') && !text.is_empty();
        let rest = if is_library { Cow::from(format!("library/{text}")) } else { Cow::from(text) };
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
        let repository: Repository = repository.parse()?;
        if host.as_str().len() + 1 + repository.as_str().len() > LONGEST_NAME {
            return Err(InvalidText::new(
                "image name",
                text,
                "host and repository have at most 255 characters together",
            ));
        }
        Ok(Self { host, repository, tag, digest })
    }
}

fn split_host(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first.eq_ignore_ascii_case("localhost") =>
        {
            (Some(first), rest)
        }
        _ => (None, text),
    }
}

impl FromStr for ImageReference {
    type Err = InvalidText;

    /// Parses a reference as in `FROM`: `busybox` is `docker.io/library/busybox:latest`.
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
    fn hosts_are_distinguished_from_repository_words() {
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
    fn hosts_are_normalized() {
        for (text, read) in [
            ("MyRegistry.azurecr.io/team/web:V1", "myregistry.azurecr.io/team/web:V1"),
            ("LocalHost/web:1", "localhost/web:1"),
            ("LocalHost:5000/busybox:1", "localhost:5000/busybox:1"),
            ("Registry:5000/web", "registry:5000/web:latest"),
            ("Docker.IO/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/octo/web:1", "docker.io/octo/web:1"),
            ("registry-1.docker.io/busybox:1", "docker.io/library/busybox:1"),
            ("[::1]:5000/web:1", "[::1]:5000/web:1"),
        ] {
            assert_eq!(text.parse::<ImageReference>().unwrap().to_string(), read, "{text}");
        }
        let hub: RegistryHost = "registry-1.docker.io".parse().unwrap();
        assert_eq!(hub.as_str(), DOCKER_HUB);
        for refused in
            ["a_b.example", "-a.example", "a..b", "a.example:+80", "[x]:1", "https://a.b"]
        {
            assert!(refused.parse::<RegistryHost>().is_err(), "{refused}");
        }
    }

    #[test]
    fn repositories_follow_the_grammar_of_the_distribution_specification() {
        let longest = format!("ghcr.io/{}", "a".repeat(LONGEST_NAME - 8));
        for text in ["a", "a.b", "a_b", "a__b", "a-b", "a---b", "a/b.c/d_e", "0/1", &longest] {
            assert!(text.parse::<ImageReference>().is_ok(), "{text}");
        }
        let too_long = format!("{longest}a");
        for text in
            ["a..b", "a___b", "a._b", "a.-b", "a-_b", "a_", "-a", "a/", "/a", "aB", "ä", &too_long]
        {
            assert!(text.parse::<ImageReference>().is_err(), "{text}");
        }
    }

    #[test]
    fn wrong_references_say_which_part_is_wrong() {
        for (text, what) in [
            ("", "repository"),
            ("Web", "repository"),
            ("docker.io/", "repository"),
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
