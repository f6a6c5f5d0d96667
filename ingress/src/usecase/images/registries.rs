//! The registries that the caller sees, and what their tasks need and make.

use std::collections::{BTreeMap, BTreeSet};

use gantry_domain::id::{RegistryName, RunPrefix, TaskId};
use gantry_domain::image::ImageReference;
use gantry_domain::image_watch::Watched;
use gantry_domain::registry::Registry;
use gantry_domain::tracked_image::TrackedImage;
use gantry_domain::wave::NodeTask;
use gantry_seams::image_users::{self, User, Which};
use gantry_seams::store::{From, Store, StoreError};
use gantry_seams::{image_watches, last_builds, registries};

use crate::access::{Allowed, Read};
use crate::refusal::Refusal;

/// How many registries are read.
const MOST_REGISTRIES: usize = 10_000;

/// Of how many registries on other hosts than an image's its policies are looked for.
const MOST_OTHERS: usize = 64;

/// On how many hosts of registries a name without a host is looked for.
const MOST_HOSTS: usize = 16;

/// The registries that the caller sees.
pub(super) struct VisibleRegistries {
    by_prefix: BTreeMap<RunPrefix, Registry>,
    is_bound: bool,
}

impl VisibleRegistries {
    pub(super) async fn read(
        store: &dyn Store,
        allowed: &Allowed<Read>,
    ) -> Result<Self, StoreError> {
        let mut found = Vec::new();
        match allowed.bound_to() {
            None => found = registries::list(store, None, MOST_REGISTRIES).await?,
            Some(bound) => {
                for (name, prefix) in bound {
                    found.extend(registries::find_exactly(store, name, *prefix).await?);
                }
            }
        }
        let by_prefix = found.into_iter().map(|registry| (registry.prefix, registry)).collect();
        Ok(Self { by_prefix, is_bound: allowed.bound_to().is_some() })
    }

    pub(super) fn name_of(&self, prefix: RunPrefix) -> Option<&RegistryName> {
        self.by_prefix.get(&prefix).map(|registry| &registry.name)
    }

    /// The prefixes to look below, one after another: a caller who is not bound sees all at once.
    pub(super) fn prefixes(&self) -> Vec<Option<RunPrefix>> {
        match self.is_bound {
            true => self.by_prefix.keys().copied().map(Some).collect(),
            false => vec![None],
        }
    }

    /// The watch that tells a registry what a tag has. `logged_in` are those of which a task that uses it has a login for its
    /// host.
    pub(super) fn watch_of(
        &self,
        prefix: RunPrefix,
        image: &TrackedImage,
        logged_in: &BTreeSet<RunPrefix>,
    ) -> Option<Watched> {
        let registry = self.by_prefix.get(&prefix)?;
        Some(registry.watch_of(image, logged_in.contains(&prefix)))
    }

    /// The watches that tell the registries what a tag has.
    pub(super) fn watches_of(
        &self,
        image: &TrackedImage,
        logged_in: &BTreeSet<RunPrefix>,
    ) -> BTreeSet<Watched> {
        let watch_of =
            |registry: &Registry| registry.watch_of(image, logged_in.contains(&registry.prefix));
        self.by_prefix.values().map(watch_of).collect()
    }

    /// The task of a user of an image.
    pub(super) fn task_of(&self, user: &User) -> Option<NodeTask> {
        let registry = self.name_of(user.registry)?.clone();
        let task = TaskId { registry, name: user.task.clone() };
        Some(NodeTask { prefix: user.registry, task, created: user.created })
    }

    /// The tasks that need an image, at most `limit`, and whether there are more.
    pub(super) async fn users(
        &self,
        store: &dyn Store,
        image: &TrackedImage,
        which: Which,
        limit: usize,
    ) -> Result<(Vec<User>, bool), StoreError> {
        let mut users = Vec::new();
        for prefix in self.prefixes() {
            let room = limit + 1 - users.len();
            let found = match prefix {
                Some(prefix) => image_users::in_registry(store, image, which, prefix, room).await?,
                None => image_users::of_image(store, image, which, From::Start, room).await?.0,
            };
            users.extend(found);
            if users.len() > limit {
                break;
            }
        }
        let is_cut = users.len() > limit;
        users.truncate(limit);
        users.retain(|user| self.by_prefix.contains_key(&user.registry));
        Ok((users, is_cut))
    }

    /// The tasks that make an image.
    pub(super) async fn makers(
        &self,
        store: &dyn Store,
        image: &TrackedImage,
    ) -> Result<Vec<NodeTask>, StoreError> {
        let mut makers = Vec::new();
        for prefix in self.prefixes() {
            makers.extend(last_builds::makers(store, image, prefix).await?);
        }
        makers.retain(|task| self.by_prefix.contains_key(&task.prefix));
        Ok(makers)
    }

    /// What a name may mean, as in a Dockerfile first. Without a host it may also be a registry's, as in the names that a
    /// task pushes.
    pub(super) fn meanings(&self, text: &str) -> Result<Vec<ImageReference>, Refusal> {
        let first: ImageReference =
            text.parse().map_err(|error| Refusal::invalid("image", format!("{error}")))?;
        let hosts: BTreeSet<_> = self.by_prefix.values().map(|registry| &registry.host).collect();
        let mut meanings = vec![first];
        for host in hosts.into_iter().take(MOST_HOSTS) {
            let other = ImageReference::parse_in(text, host).ok();
            meanings.extend(other.filter(|other| !meanings.contains(other)));
        }
        Ok(meanings)
    }

    /// What may track an image for the registries: its tag, and the policies that it matches.
    pub(super) async fn tracking(
        &self,
        store: &dyn Store,
        image: &ImageReference,
    ) -> Result<BTreeSet<TrackedImage>, StoreError> {
        // Tasks of any registry may have a login there.
        let (mut own, others): (Vec<&Registry>, Vec<&Registry>) =
            self.by_prefix.values().partition(|registry| registry.host == *image.host());
        own.extend(others.into_iter().take(MOST_OTHERS));
        let own: Vec<RunPrefix> = own.iter().map(|registry| registry.prefix).collect();
        image_watches::tracking(store, &own, image).await
    }

    /// The policies that a text may mean, or else the tags.
    fn tracked(&self, text: &str) -> Result<Vec<TrackedImage>, Refusal> {
        let is_policy = |image: &TrackedImage| image.pattern().is_some();
        let Some(policy) = text.parse().ok().filter(is_policy) else {
            let images = self.meanings(text)?;
            return Ok(images.iter().filter_map(TrackedImage::tag_of).collect());
        };
        let hosts: BTreeSet<_> = self.by_prefix.values().map(|registry| &registry.host).collect();
        let others = hosts.into_iter().take(MOST_HOSTS);
        let others = others.filter_map(|host| format!("{host}/{text}").parse().ok());
        Ok([policy].into_iter().chain(others).collect())
    }

    /// The tag or policy that a name means, of those that tasks need or make.
    pub(super) async fn known(
        &self,
        store: &dyn Store,
        text: &str,
    ) -> Result<TrackedImage, Refusal> {
        for image in self.tracked(text)? {
            let (users, _) = self.users(store, &image, Which::All, 1).await?;
            if !users.is_empty() || !self.makers(store, &image).await?.is_empty() {
                return Ok(image);
            }
        }
        Err(Refusal::NotFound { what: "image that a task needs or makes", name: text.to_owned() })
    }
}
