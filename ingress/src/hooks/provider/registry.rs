//! Reports of pushed images: what the formats of registries have in common.

use std::fmt::Display;

use gantry_domain::event::{EventKind, ImagePushed};
use gantry_domain::id::HookId;
use gantry_domain::image::{Digest, ImageReference, RegistryHost, Repository, Tag};

use crate::hooks::verify::Scheme;

/// The proof of registries that can be told a fixed header: the secret itself.
pub(super) const BEARER: Scheme<'static> =
    Scheme::Secret { header: "authorization", prefix: "Bearer " };

/// What to know about senders that can only be told an address.
pub(super) const ADDRESS_IS_ALL: &str = "It signs nothing: whoever knows this URL can send to it, so keep it secret. What it reports only makes gantry ask the registry sooner than it would by itself";

/// The media types of manifests and indexes. Registries report other blobs too.
pub(super) const MANIFESTS: [&str; 6] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// A report that an image was pushed, in the words of a body.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) host: RegistryHost,
    pub(super) repository: &'a str,
    /// Some registries write the digest here if there is no tag.
    pub(super) tag: Option<&'a str>,
    pub(super) digest: Option<&'a str>,
    pub(super) media_type: Option<&'a str>,
}

impl Report<'_> {
    /// The event of a sender that proved that it knows the hook's secret.
    ///
    /// # Errors
    /// Why it names no image.
    pub(super) fn proven(self, hook: &HookId) -> Result<EventKind, String> {
        self.event(hook, true)
    }

    /// The event of a sender that only knows the hook's address.
    ///
    /// # Errors
    /// Why it names no image.
    pub(super) fn unproven(self, hook: &HookId) -> Result<EventKind, String> {
        self.event(hook, false)
    }

    fn event(self, hook: &HookId, is_proven: bool) -> Result<EventKind, String> {
        let repository: Repository = self.repository.parse().map_err(text)?;
        let (as_tag, tag) = match self.tag.filter(|tag| !tag.is_empty()) {
            Some(digest) if digest.starts_with("sha256:") => (Some(digest), None),
            tag => (None, tag),
        };
        let tag: Option<Tag> = tag.map(str::parse).transpose().map_err(text)?;
        let digest = self.digest.filter(|digest| !digest.is_empty()).or(as_tag);
        let digest: Option<Digest> = digest.map(str::parse).transpose().map_err(text)?;
        let named = match (tag, &digest) {
            (Some(tag), _) => format!("{}/{repository}:{tag}", self.host),
            (None, Some(digest)) => format!("{}/{repository}@{digest}", self.host),
            (None, None) => return Err("it names neither a tag nor a digest".to_owned()),
        };
        // As a whole, host and repository may still be too long.
        let image: ImageReference = named.parse().map_err(text)?;
        Ok(EventKind::ImagePushed(ImagePushed {
            hook: Some(hook.clone()),
            image,
            digest,
            media_type: self.media_type.filter(|it| MANIFESTS.contains(it)).map(str::to_owned),
            is_proven,
        }))
    }
}

/// The registry that was pushed to, by the name in the body. If that is missing, or a bare name that only resolves in the
/// registry's network, it is the login server of the hook's registry.
///
/// # Errors
/// Why there is no host.
pub(super) fn host_of(
    named: Option<&str>,
    home: Option<&RegistryHost>,
) -> Result<RegistryHost, String> {
    let named = named.unwrap_or_default();
    let is_word = named.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    match (named.parse(), home) {
        (Err(_), Some(home)) if is_word => Ok(home.clone()),
        (parsed, _) => parsed.map_err(text),
    }
}

/// Splits `host/repository`; the host is `None` without a `/`.
pub(super) fn split_host(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((host, repository)) => (Some(host), repository),
        None => (None, name),
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}
