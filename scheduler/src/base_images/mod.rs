//! Base images: what their tags have now, and which tasks are rebuilt when that changes.
//!
//! - `watch` asks registries for the tags that tasks use, and reports what has come to rest with other content.
//! - `ended` records what ended runs used and made. What they pushed is a change like any other.
//! - `waves` finds what a change may reach, and builds it in order: `steps` tells what is next for a task of it, and `order`
//!   which others come before it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_domain::event::{Event, EventKind, ImageMoved};
use gantry_domain::fact::{Fact, FactKey, advanced_image};
use gantry_domain::id::{EventId, RunId, RunPrefix, WaveId};
use gantry_domain::image::RegistryHost;
use gantry_domain::image_version::ImageVersion;
use gantry_domain::image_watch::Watched;
use gantry_domain::platform::Platform;
use gantry_domain::registry::Registry;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::tracked_image::TrackedImage;
use gantry_ops::secret::Keyring;
use gantry_remote::image_registry::{Allowance, ImageRegistry, LookError};
use gantry_seams::image_users::{self, Which};
use gantry_seams::image_watches::{self, RegistryPause};
use gantry_seams::queue::{EventAccepted, Queue, RunsMoved};
use gantry_seams::store::{Batch, SharedStore, Store, StoreError};
use gantry_seams::{Versioned, events, facts, registries};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::beside::{Beside, Bounds};
use crate::logins::Logins;

mod ended;
mod order;
mod steps;
mod watch;
mod waves;

/// How many registries of gantry one pass knows.
const MOST_REGISTRIES: usize = 10_000;

/// A registry answers a look quickly, and limits how many it answers.
const BOUNDS: Bounds = Bounds { a_host: 8, at_once: 32, most: 512 };

/// The pause of a registry that does not answer, before anything asks it again.
const AWAY: Duration = Duration::from_secs(10);

/// The pause of a registry that limits requests and does not say for how long.
const LIMITED: Duration = Duration::from_secs(300);

/// How many requests of a registry's limit are left: for the looks that are in progress here and in another scheduler, and
/// for others who share the limit.
const RESERVE: u64 = 2 * BOUNDS.a_host as u64;

/// The questions to registries that are in progress.
#[derive(Debug)]
pub struct ImageLooks {
    watches: Arc<Beside<Watched>>,
    runs: Arc<Beside<RunId>>,
    /// Rings when a tag is to be asked for at once.
    pub(crate) asked: Notify,
    /// Rings when a wave or a run of one may have moved.
    pub(crate) moved: Notify,
}

impl Default for ImageLooks {
    fn default() -> Self {
        Self {
            watches: Arc::new(Beside::new(BOUNDS)),
            runs: Arc::new(Beside::new(BOUNDS)),
            asked: Notify::new(),
            moved: Notify::new(),
        }
    }
}

/// The settings about base images.
#[derive(Debug, Clone)]
pub struct BaseImageSettings {
    /// How often a tag is asked for.
    pub interval: Duration,
    /// How often tags of these registries are asked for instead.
    pub intervals: BTreeMap<RegistryHost, Duration>,
    /// How long the tag of an index must rest before its change counts.
    pub quiet: Duration,
    /// How many tasks of a wave must succeed before the others begin; 0 for none.
    pub canary: u32,
}

impl BaseImageSettings {
    /// How often a tag of this registry is asked for.
    fn interval_of(&self, host: &RegistryHost) -> Duration {
        self.intervals.get(host).copied().unwrap_or(self.interval)
    }
}

/// Watches images, and builds what uses them.
#[derive(Clone)]
pub(crate) struct BaseImages {
    pub(crate) store: SharedStore,
    pub(crate) events: Arc<dyn Queue<EventAccepted>>,
    pub(crate) runs_moved: Arc<dyn Queue<RunsMoved>>,
    /// Signs runs.
    pub(crate) keyring: Arc<Keyring>,
    /// Finds the credentials for registries.
    pub(crate) logins: Logins,
    pub(crate) images: Arc<dyn ImageRegistry>,
    pub(crate) looks: Arc<ImageLooks>,
    pub(crate) settings: BaseImageSettings,
}

/// The registries of gantry.
#[derive(Debug, Clone, Default)]
struct Registries(Arc<BTreeMap<RunPrefix, Registry>>);

impl Registries {
    async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let all = registries::list(store, None, MOST_REGISTRIES).await?;
        Ok(Self(Arc::new(all.into_iter().map(|registry| (registry.prefix, registry)).collect())))
    }

    fn find(&self, prefix: RunPrefix) -> Option<&Registry> {
        self.0.get(&prefix)
    }

    /// Which watch tells a registry of gantry what a tag has: its own, if it has credentials for the tag's registry, or one of
    /// its tasks that use the tag has.
    async fn watched(
        &self,
        store: &dyn Store,
        prefix: RunPrefix,
        image: &TrackedImage,
    ) -> Result<Watched, StoreError> {
        let Some(registry) = self.find(prefix) else {
            return Ok(Watched { image: image.clone(), by: None });
        };
        let users = image_users::in_registry(store, image, Which::LoggedIn, prefix, 1).await?;
        Ok(registry.watch_of(image, !users.is_empty()))
    }
}

/// Who pushed what a tag has now.
#[derive(Debug, Clone, Copy, Default)]
struct Pusher {
    run: Option<RunId>,
    wave: Option<WaveId>,
}

/// A tag of which it was found out what it has for one platform.
struct Found<'a> {
    registry: &'a Registry,
    image: &'a TrackedImage,
    platform: &'a Platform,
    version: ImageVersion,
    pusher: Pusher,
}

/// What a registry of gantry knows about a tag after a look.
struct Advanced {
    known: Option<Versioned<Fact<ImageVersion>>>,
    after: Fact<ImageVersion>,
    /// The event that reports other content.
    event: Option<Event>,
}

impl Advanced {
    fn write_in(&self, batch: &mut Batch) -> Result<(), StoreError> {
        facts::advance(batch, self.known.as_ref(), &self.after)?;
        match &self.event {
            Some(event) => events::observe(batch, event),
            None => Ok(()),
        }
    }
}

impl BaseImages {
    /// What is known about a tag.
    async fn fact(
        &self,
        registry: &Registry,
        platform: &Platform,
        image: &TrackedImage,
    ) -> Result<Option<Fact<ImageVersion>>, StoreError> {
        let key = FactKey::image(&registry.name, platform, image);
        Ok(facts::find(self.store.as_ref(), &key).await?.map(|found| found.value))
    }

    /// What follows for the facts from what a tag has.
    async fn advance(&self, found: &Found<'_>, now: Timestamp) -> Result<Advanced, StoreError> {
        let Found { registry, image, platform, version, pusher } = found;
        let key = FactKey::image(&registry.name, platform, image);
        let known = facts::find::<ImageVersion>(self.store.as_ref(), &key).await?;
        let before = known.as_ref().map(|known| &known.value);
        let after = advanced_image(before, &key, version.clone(), now);
        let has_moved = before.is_some_and(|before| before.generation < after.generation);
        let was = before.and_then(|before| before.value.clone()).filter(|_| has_moved);
        let event = was.map(|was| Event {
            id: event_id(&key, registry.prefix, after.generation),
            registry: registry.name.clone(),
            prefix: registry.prefix,
            received: now,
            trace: gantry_ops::telemetry::current_trace(),
            kind: EventKind::ImageMoved(ImageMoved {
                image: (*image).clone(),
                platform: (*platform).clone(),
                before: was,
                after: version.clone(),
                fact: key,
                generation: after.generation,
                wave: pusher.wave,
                run: pusher.run,
            }),
        });
        Ok(Advanced { known, after, event })
    }

    async fn announce(&self, event: &Event) {
        let message = EventAccepted { event: event.id.clone() };
        if let Err(error) = self.events.publish(message, event.trace.clone()).await {
            tracing::debug!("the decider is not notified and will poll: {error}");
        }
    }

    /// Keeps to the limit of a registry that tells how many requests are left.
    async fn keep_to(
        &self,
        host: &RegistryHost,
        allowance: Option<Allowance>,
    ) -> Result<(), StoreError> {
        match allowance {
            Some(Allowance { remaining, resets_in }) if remaining <= RESERVE => {
                let why = format!("it allows {remaining} more requests for now");
                self.pause(host, resets_in, why).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Has nothing asked of a registry that does not want it or does not answer. Returns the pause, if there is one.
    async fn pause_after(
        &self,
        host: &RegistryHost,
        error: &LookError,
    ) -> Result<Option<Duration>, StoreError> {
        let pause = match error {
            LookError::Limited { after, .. } => after.unwrap_or(LIMITED),
            LookError::Unavailable { after, .. } => after.unwrap_or(AWAY),
            LookError::Unreachable { .. } => AWAY,
            LookError::Unauthorized { .. }
            | LookError::Unreadable { .. }
            | LookError::Refused { .. }
            | LookError::Moved { .. }
            | LookError::Gone { .. } => return Ok(None),
        };
        self.pause(host, pause, error.to_string()).await?;
        Ok(Some(pause))
    }

    async fn pause(
        &self,
        host: &RegistryHost,
        pause: Duration,
        why: String,
    ) -> Result<(), StoreError> {
        let until = self.store.now().await?.after(pause);
        tracing::info!(registry = %host, "{host} is not asked for images until {until}: {why}");
        image_watches::pause(self.store.as_ref(), host, &RegistryPause { until, why }).await
    }
}

/// One id for each generation of a fact.
fn event_id(key: &FactKey, registry: RunPrefix, generation: u64) -> EventId {
    let of = hex::encode(Sha256::digest(key.as_str()));
    let of = of.get(..24).unwrap_or_default();
    match format!("image:{registry}:{of}:{generation}").parse() {
        Ok(id) => id,
        Err(_) => unreachable!("letters, digits and a number are an event id"),
    }
}
