//! Asks registries for the tags that tasks use.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_domain::id::RunPrefix;
use gantry_domain::image::{Digest, ImageReference, Tag};
use gantry_domain::image_version::ImageVersion;
use gantry_domain::image_watch::{ImageWatch, Next};
use gantry_domain::platform::Platform;
use gantry_domain::tag_pattern::TagPattern;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::tracked_image::TrackedImage;
use gantry_ops::secret::Credentials;
use gantry_remote::image_registry::{ImageVersions, LookError};
use gantry_seams::store::{Batch, CommitError, StoreError};
use gantry_seams::{Versioned, image_users, image_watches};

use super::{BaseImages, Found, Pusher, Registries};
use crate::secrets::Unread;

/// How many watches one pass begins or claims.
const AT_ONCE: usize = 256;

/// How many registries and platforms of one tag are told of a change.
const MOST_GROUPS: usize = 1024;

/// A claimed watch is due again after this, should its scheduler die.
const CLAIM: Duration = Duration::from_secs(60);

/// How often a group's fact is written again after another scheduler wrote it.
const TRIES: usize = 8;

/// Why a look ended without a result.
enum Failed {
    Registry(LookError),
    /// The credentials cannot be read.
    NoLogin(String),
    /// There is no such tag.
    NoTag,
    /// No tag matches the pattern of a policy.
    NoMatch,
    /// The tags of a policy's repository cannot be listed.
    Unlisted(LookError),
    Store(StoreError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Unread> for Failed {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Refused { message, .. } => Self::NoLogin(message),
            Unread::Away { error, .. } => Self::NoLogin(error),
            Unread::Store(error) => Self::Store(error),
        }
    }
}

impl From<LookError> for Failed {
    fn from(error: LookError) -> Self {
        Self::Registry(error)
    }
}

impl BaseImages {
    /// Begins the watches of tags that tasks have begun to use, and the looks that are due. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn watch(&self) -> Result<usize, StoreError> {
        let store = self.store.as_ref();
        let new = image_users::to_watch(store, AT_ONCE).await?;
        let now = store.now().await?;
        let due = image_watches::due(store, now, AT_ONCE).await?;
        if new.is_empty() && due.is_empty() {
            return Ok(0);
        }
        let registries = Registries::read(store).await?;
        let begun = new.len();
        for image in new {
            let groups = image_users::groups(store, &image, MOST_GROUPS).await?;
            let mut watched = BTreeSet::new();
            for (prefix, _) in &groups {
                watched.insert(registries.watched(store, *prefix, &image).await?);
            }
            for watched in watched {
                image_watches::begin(store, &watched, now).await?;
            }
            let mut batch = Batch::default();
            image_users::watched(&mut batch, &image);
            match store.commit(batch).await {
                Ok(()) | Err(CommitError::Conflict { .. }) => {}
                Err(CommitError::Store(error)) => return Err(error),
            }
        }
        let mut looked = 0;
        for found in due {
            looked += usize::from(self.begin(found, &registries).await?);
        }
        Ok(begun + looked)
    }

    /// Like [`Self::watch`], but also waits for the answers.
    pub(crate) async fn watch_and_settle(&self) -> Result<usize, StoreError> {
        let begun = self.watch().await?;
        Ok(begun + usize::from(self.looks.watches.settled().await))
    }

    async fn begin(
        &self,
        mut found: Versioned<ImageWatch>,
        registries: &Registries,
    ) -> Result<bool, StoreError> {
        let store = self.store.as_ref();
        let watched = found.value.watched.clone();
        let Some(begun) = self.looks.watches.begin(&watched) else { return Ok(false) };
        let is_paused = self.waits(&mut found.value).await?;
        if !is_paused {
            found.value.due = store.now().await?.after(CLAIM);
        }
        let Some(claimed) = image_watches::write(store, found).await? else { return Ok(false) };
        if is_paused {
            // More may be due: if only some waited for the end of the pause, the others would come before them.
            return Ok(true);
        }
        let (looker, registries) = (self.clone(), registries.clone());
        tokio::spawn(async move {
            let _until_it_ends = begun;
            let host = claimed.value.watched.image.host().to_string();
            let Some(_turn) = looker.looks.watches.turn(&host).await else { return };
            let image = claimed.value.watched.image.clone();
            if let Err(error) = looker.look(claimed, &registries).await {
                tracing::warn!(%image, "{image} is looked at again later: {error}");
            }
        });
        Ok(true)
    }

    /// Has a watch wait for the end of its registry's pause. Returns whether there is one.
    async fn waits(&self, watch: &mut ImageWatch) -> Result<bool, StoreError> {
        let store = self.store.as_ref();
        let pause = image_watches::pause_of(store, watch.watched.image.host()).await?;
        if let Some(pause) = &pause {
            watch.due = watch.resumed(store.now().await?, pause.until);
        }
        Ok(pause.is_some())
    }

    /// Asks for one tag, and records what that means.
    async fn look(
        &self,
        mut watch: Versioned<ImageWatch>,
        registries: &Registries,
    ) -> Result<(), StoreError> {
        let store = self.store.as_ref();
        // The pause may have begun while this look waited for its turn.
        if self.waits(&mut watch.value).await? {
            return image_watches::write(store, watch).await.map(drop);
        }
        let watched = watch.value.watched.clone();
        let (mut groups, mut others) = (Vec::new(), BTreeSet::new());
        for group in image_users::groups(store, &watched.image, MOST_GROUPS).await? {
            let by = registries.watched(store, group.0, &watched.image).await?;
            if by == watched {
                groups.push(group);
            } else {
                others.insert(by);
            }
        }
        // The credentials of a registry or of a task were given or taken away since.
        for other in others {
            if image_watches::find(store, &other).await?.is_none() {
                image_watches::begin(store, &other, store.now().await?).await?;
            }
        }
        if groups.is_empty() {
            return image_watches::forget(store, &watch).await;
        }
        match self.ask_with_logins(&mut watch.value, &groups, registries).await {
            Ok(()) => {}
            Err(Failed::Store(error)) => return Err(error),
            Err(Failed::Registry(error)) => {
                self.failed(&mut watch.value, &error, error.to_string()).await?;
            }
            Err(Failed::Unlisted(error)) => {
                let (host, repository) = (watched.image.host(), watched.image.repository());
                let message = format!("the tags of {host}/{repository} cannot be listed: {error}");
                self.failed(&mut watch.value, &error, message).await?;
            }
            Err(Failed::NoLogin(message)) => watch.value.failed(store.now().await?, message, None),
            Err(Failed::NoTag) => {
                let message =
                    format!("there is no {}: what was built on it stays as it is", watched.image);
                watch.value.failed(store.now().await?, message, None);
            }
            Err(Failed::NoMatch) => {
                let message =
                    format!("no tag matches {}: what a source names is used", watched.image);
                watch.value.choose(store.now().await?, None);
                watch.value.failed(store.now().await?, message, None);
            }
        }
        image_watches::write(store, watch).await.map(drop)
    }

    /// A registry did not answer for a watch.
    async fn failed(
        &self,
        watch: &mut ImageWatch,
        error: &LookError,
        message: String,
    ) -> Result<(), StoreError> {
        let pause = self.pause_after(watch.watched.image.host(), error).await?;
        let pause = error.after().or(pause.filter(|_| watch.problem.is_none()));
        watch.failed(self.store.now().await?, message, pause);
        Ok(())
    }

    /// The newest tag that matches a policy, according to the list of the registry.
    async fn newest(
        &self,
        watch: &ImageWatch,
        pattern: &TagPattern,
        credentials: Option<&Credentials>,
    ) -> Result<Tag, Failed> {
        let tracked = &watch.watched.image;
        let (host, repository) = (tracked.host().clone(), tracked.repository().clone());
        let repository = ImageReference::latest(host, repository);
        let answered =
            self.images.tags(&repository, credentials).await.map_err(Failed::Unlisted)?;
        self.keep_to(tracked.host(), answered.allowance).await?;
        let mut listed = answered.value;
        // The tag that was chosen may be among those that were not read.
        if listed.is_cut {
            listed.tags.extend(watch.chosen.as_ref().map(|chosen| chosen.tag.clone()));
        }
        pattern.newest(&listed.tags).cloned().ok_or(Failed::NoMatch)
    }

    /// Asks with the credentials of the watch. If a registry refuses some, others may show the tag.
    async fn ask_with_logins(
        &self,
        watch: &mut ImageWatch,
        groups: &[(RunPrefix, Platform)],
        registries: &Registries,
    ) -> Result<(), Failed> {
        let by = watch.watched.by.and_then(|prefix| registries.find(prefix));
        let logins = match by {
            Some(registry) => self.logins.of_watch(registry, &watch.watched.image).await?,
            None => Vec::new(),
        };
        let Some((last, others)) = logins.split_last() else {
            return self.ask(watch, groups, registries, None).await;
        };
        for credentials in others {
            match self.ask(watch, groups, registries, Some(credentials)).await {
                Err(
                    Failed::Registry(LookError::Unauthorized { .. })
                    | Failed::Unlisted(LookError::Unauthorized { .. }),
                ) => {}
                asked => return asked,
            }
        }
        self.ask(watch, groups, registries, Some(last)).await
    }

    async fn ask(
        &self,
        watch: &mut ImageWatch,
        groups: &[(RunPrefix, Platform)],
        registries: &Registries,
        credentials: Option<&Credentials>,
    ) -> Result<(), Failed> {
        let tracked = watch.watched.image.clone();
        let chosen = match tracked.pattern() {
            Some(pattern) => Some(self.newest(watch, pattern, credentials).await?),
            None => None,
        };
        let image = chosen.clone().map(|tag| tracked.with_tag(tag)).or_else(|| tracked.tagged());
        let image = image.ok_or(Failed::NoMatch)?;
        let is_chosen = watch.chosen.as_ref().map(|it| &it.tag) == chosen.as_ref();
        let answered = self.images.digest(&image, watch.digest.as_ref(), credentials).await?;
        self.keep_to(image.host(), answered.allowance).await?;
        let (now, interval) = (self.store.now().await?, self.settings.interval_of(image.host()));
        let Some(digest) = answered.value else {
            // It is not kept against a list that was cut.
            if is_chosen {
                watch.choose(now, None);
            }
            return Err(Failed::NoTag);
        };
        let mut versions = None;
        let mut next = watch.look(now, &digest, interval);
        // Another tag of the same image.
        if next == Next::Rest && !is_chosen {
            next = Next::Compare;
        }
        if next == Next::Changed {
            let read = self.versions(&image, &digest, groups, credentials).await?;
            let quiet = if read.is_index { self.settings.quiet } else { Duration::ZERO };
            next = watch.changed(now, &digest, quiet);
            versions = Some(read);
        }
        match next {
            Next::Rest | Next::Changed | Next::Wait => Ok(()),
            Next::Compare => {
                let versions = match versions {
                    Some(versions) => versions,
                    None => self.versions(&image, &digest, groups, credentials).await?,
                };
                let of = (watch.watched.image.clone(), chosen.as_ref());
                let has_moved = self.compare(of, &versions, groups, registries, now).await?;
                watch.rested(now, &digest, has_moved, interval);
                watch.choose(now, chosen);
                Ok(())
            }
        }
    }

    async fn versions(
        &self,
        image: &ImageReference,
        digest: &Digest,
        groups: &[(RunPrefix, Platform)],
        credentials: Option<&Credentials>,
    ) -> Result<ImageVersions, Failed> {
        let platforms: BTreeSet<Platform> =
            groups.iter().map(|(_, platform)| platform.clone()).collect();
        let answered = self.images.versions(image, digest, &platforms, credentials).await?;
        self.keep_to(image.host(), answered.allowance).await?;
        Ok(answered.value)
    }

    /// Advances the facts of all registries that use the tag. Returns whether one of them gets other content. A second call
    /// changes nothing.
    async fn compare(
        &self,
        (image, chosen): (TrackedImage, Option<&Tag>),
        versions: &ImageVersions,
        groups: &[(RunPrefix, Platform)],
        registries: &Registries,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut has_moved = false;
        let by_platform: BTreeMap<_, _> = versions.by_platform.iter().collect();
        for (prefix, platform) in groups {
            let (Some(registry), Some(version)) =
                (registries.find(*prefix), by_platform.get(platform))
            else {
                continue;
            };
            let version = ImageVersion { tag: chosen.cloned(), ..(*version).clone() };
            let pusher = Pusher::default();
            let found = Found { registry, image: &image, platform, version, pusher };
            has_moved |= self.tell(&found, now).await?;
        }
        Ok(has_moved)
    }

    /// Advances one fact, with the event that reports it, as of the time `now` of the look, so that the fact is not newer
    /// than its watch. Returns whether the content is another one.
    async fn tell(&self, found: &Found<'_>, now: Timestamp) -> Result<bool, StoreError> {
        let store = self.store.as_ref();
        for _ in 0..TRIES {
            let advanced = self.advance(found, now).await?;
            let mut batch = Batch::default();
            advanced.write_in(&mut batch)?;
            match store.commit(batch).await {
                Ok(()) => {
                    if let Some(event) = &advanced.event {
                        self.announce(event).await;
                    }
                    return Ok(advanced.event.is_some());
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(CommitError::Store(error)) => return Err(error),
            }
        }
        let message = format!("what {} has changes faster than it can be written", found.image);
        Err(StoreError::Unavailable { message })
    }
}
