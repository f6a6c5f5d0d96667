//! What images are now, according to their registries.
//!
//! In: an image, and the credentials for its registry. Out: the digest of its tag, what it consists of for each
//! platform, and how many more requests the registry allows. Never reads a layer. A failed look is not repeated here:
//! its caller puts it off.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use gantry_domain::image::{Digest, ImageReference, Tag};
use gantry_domain::image_version::ImageVersion;
use gantry_domain::platform::Platform;
use gantry_ops::secret::Credentials;

mod error;
mod look;
mod remote;
mod stored;

pub use error::LookError;
pub use remote::RemoteImageRegistry;

pub use crate::registry::Allowance;

/// Registries, asked for what images are.
#[async_trait]
pub trait ImageRegistry: Send + Sync {
    /// The digest of the image's tag now; `None` if there is no such tag. One `HEAD` request, which Docker Hub does not
    /// count, and a `GET` only if the registry's answer to it has no digest.
    ///
    /// If the digest is `known`, the registry is asked whether it is still the current one.
    ///
    /// # Errors
    /// [`LookError`].
    async fn digest(
        &self,
        image: &ImageReference,
        known: Option<&Digest>,
        credentials: Option<&Credentials>,
    ) -> Asked<Option<Digest>>;

    /// What the manifest or index `digest` of the image's repository has for each of these platforms. A platform that it
    /// does not have is left out.
    ///
    /// # Errors
    /// [`LookError`]; [`LookError::Gone`] if the repository no longer has the digest.
    async fn versions(
        &self,
        image: &ImageReference,
        digest: &Digest,
        platforms: &BTreeSet<Platform>,
        credentials: Option<&Credentials>,
    ) -> Asked<ImageVersions>;

    /// The tags of the image's repository; none if there is no such repository.
    ///
    /// # Errors
    /// [`LookError`].
    async fn tags(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
    ) -> Asked<TagList>;
}

/// The answer of a registry, or why there is none.
pub type Asked<T> = Result<Answered<T>, LookError>;

/// The answer of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered<T> {
    /// What was asked for.
    pub value: T,
    /// How many more requests the registry allows, if it says so.
    pub allowance: Option<Allowance>,
}

/// What a manifest or index has for the platforms that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageVersions {
    /// Whether it is an index. The manifests of an index are often pushed one after the other, each followed by a new
    /// index.
    pub is_index: bool,
    /// Its version for each platform that it has.
    pub by_platform: BTreeMap<Platform, ImageVersion>,
}

/// The tags of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagList {
    /// The tags, in the registry's order.
    pub tags: Vec<Tag>,
    /// Whether there are more than were read.
    pub is_cut: bool,
}
