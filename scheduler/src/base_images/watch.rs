//! Asks registries for the tags that tasks use.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_domain::id::RunPrefix;
use gantry_domain::image::Digest;
use gantry_domain::image_watch::{ImageWatch, Next, Watched};
use gantry_domain::platform::Platform;
use gantry_ops::secret::Credentials;
use gantry_remote::image_registry::{ImageVersions, LookError};
use gantry_seams::store::{Batch, CommitError, StoreError};
use gantry_seams::{Versioned, image_users, image_watches};

use super::{BaseImages, Found, Pusher, Registries};

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
    /// The credentials do not open.
    Sealed(String),
    /// There is no such tag.
    NoTag,
    Store(StoreError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
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
            let watched: BTreeSet<Watched> =
                groups.iter().map(|(prefix, _)| registries.watched(*prefix, &image)).collect();
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
        let now = store.now().await?;
        let paused = image_watches::pause_of(store, watched.image.host()).await?;
        found.value.due = match &paused {
            Some(pause) => found.value.resumed(pause.until),
            None => now.after(CLAIM),
        };
        let Some(claimed) = image_watches::write(store, found).await? else { return Ok(false) };
        if paused.is_some() {
            return Ok(false);
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

    /// Asks for one tag, and records what that means.
    async fn look(
        &self,
        mut watch: Versioned<ImageWatch>,
        registries: &Registries,
    ) -> Result<(), StoreError> {
        let store = self.store.as_ref();
        let watched = watch.value.watched.clone();
        let mut groups = image_users::groups(store, &watched.image, MOST_GROUPS).await?;
        let mut others = BTreeSet::new();
        groups.retain(|(prefix, _)| {
            let by = registries.watched(*prefix, &watched.image);
            let is_this = by == watched;
            if !is_this {
                others.insert(by);
            }
            is_this
        });
        // The credentials of a registry were given or taken away since.
        for other in others {
            if image_watches::find(store, &other).await?.is_none() {
                image_watches::begin(store, &other, store.now().await?).await?;
            }
        }
        if groups.is_empty() {
            return image_watches::forget(store, &watch).await;
        }
        match self.ask(&mut watch.value, &groups, registries).await {
            Ok(()) => {}
            Err(Failed::Store(error)) => return Err(error),
            Err(Failed::Registry(error)) => {
                let pause = self.pause_after(watched.image.host(), &error).await?;
                let pause = error.after().or(pause.filter(|_| watch.value.problem.is_none()));
                watch.value.failed(store.now().await?, error.to_string(), pause);
            }
            Err(Failed::Sealed(message)) => watch.value.failed(store.now().await?, message, None),
            Err(Failed::NoTag) => {
                let message =
                    format!("there is no {}: what was built on it stays as it is", watched.image);
                watch.value.failed(store.now().await?, message, None);
            }
        }
        image_watches::write(store, watch).await.map(drop)
    }

    async fn ask(
        &self,
        watch: &mut ImageWatch,
        groups: &[(RunPrefix, Platform)],
        registries: &Registries,
    ) -> Result<(), Failed> {
        let image = watch.watched.image.clone();
        let by = watch.watched.by.and_then(|prefix| registries.find(prefix));
        let credentials = self.credentials(by).map_err(Failed::Sealed)?;
        let credentials = credentials.as_ref();
        let answered = self.images.digest(&image, watch.digest.as_ref(), credentials).await?;
        self.keep_to(image.host(), answered.allowance).await?;
        let digest = answered.value.ok_or(Failed::NoTag)?;
        let (now, interval) = (self.store.now().await?, self.settings.interval);
        let mut versions = None;
        let mut next = watch.look(now, &digest, interval);
        if next == Next::Changed {
            let read = self.versions(watch, &digest, groups, credentials).await?;
            let quiet = if read.is_index { self.settings.quiet } else { Duration::ZERO };
            next = watch.changed(now, &digest, quiet);
            versions = Some(read);
        }
        match next {
            Next::Rest | Next::Changed | Next::Wait => Ok(()),
            Next::Compare => {
                let versions = match versions {
                    Some(versions) => versions,
                    None => self.versions(watch, &digest, groups, credentials).await?,
                };
                let has_moved = self.compare(watch, &versions, groups, registries).await?;
                watch.rested(now, &digest, has_moved, interval);
                Ok(())
            }
        }
    }

    async fn versions(
        &self,
        watch: &ImageWatch,
        digest: &Digest,
        groups: &[(RunPrefix, Platform)],
        credentials: Option<&Credentials>,
    ) -> Result<ImageVersions, Failed> {
        let image = &watch.watched.image;
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
        watch: &ImageWatch,
        versions: &ImageVersions,
        groups: &[(RunPrefix, Platform)],
        registries: &Registries,
    ) -> Result<bool, StoreError> {
        let image = &watch.watched.image;
        let mut has_moved = false;
        let by_platform: BTreeMap<_, _> = versions.by_platform.iter().collect();
        for (prefix, platform) in groups {
            let (Some(registry), Some(version)) =
                (registries.find(*prefix), by_platform.get(platform))
            else {
                continue;
            };
            let version = (*version).clone();
            let pusher = Pusher::default();
            let found = Found { registry, image, platform, version, pusher };
            has_moved |= self.tell(&found).await?;
        }
        Ok(has_moved)
    }

    /// Advances one fact, with the event that reports it. Returns whether the content is another one.
    async fn tell(&self, found: &Found<'_>) -> Result<bool, StoreError> {
        let store = self.store.as_ref();
        for _ in 0..TRIES {
            let advanced = self.advance(found, store.now().await?).await?;
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
