//! Looks at the repositories of tasks, for changes that no webhook reported.
//!
//! In: the watches that are due, what their code hosts have, the stored facts. Out: an event for each head and each pull
//! request that differs from its fact, which is decided like one of a webhook. A change that a webhook reports as well
//! starts one run.

use std::sync::Arc;
use std::time::Duration;

use gantry_domain::event::{Event, EventKind};
use gantry_domain::fact::{self, Fact, FactKey};
use gantry_domain::id::{EventId, TaskId};
use gantry_domain::source::GitUrl;
use gantry_domain::task::Task;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::trigger::PollInterval;
use gantry_ops::secret::Keyring;
use gantry_remote::code_host::{CodeHost, CodeHostError, ProviderApi};
use gantry_seams::place::Place;
use gantry_seams::queue::{EventAccepted, Queue};
use gantry_seams::store::{Batch, SharedStore, StoreError};
use gantry_seams::watches::{self, Part, Watch};
use gantry_seams::{Versioned, due, events, facts, tasks};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::beside::{Beside, Bounds};

mod deliveries;
mod heads;
mod pull_requests;

/// How many watches one pass moves on.
const AT_ONCE: usize = 64;

/// How many watches are due at the start. The others are not long after.
const MOST_WATCHES: usize = 4096;

/// How many tasks of one repository are looked for.
const MOST_TASKS: usize = 1000;

/// How many changes of one repository one look reports. The others are found by the next one.
const MOST_CHANGES: usize = 64;

/// How many facts one commit learns.
const FACTS_A_COMMIT: usize = 100;

/// The pause before a host that did not answer is asked again, unless the repository's own is shorter.
const AWAY: Duration = Duration::from_secs(300);

/// How long a look waits for the decisions of earlier events, and how often it asks for them.
const PATIENCE: Duration = Duration::from_secs(2);
const ASK_EVERY: Duration = Duration::from_millis(20);

/// How many undecided events are read for it.
const MOST_UNDECIDED: usize = 256;

/// The pause before a look is tried again that found earlier events undecided, or facts that had moved meanwhile.
const BEHIND: Duration = Duration::from_secs(5);

/// A host that is slow has more urgent questions to answer.
const BOUNDS: Bounds = Bounds { a_host: 2, at_once: 16, most: 256 };

/// The looks that are in progress.
#[derive(Debug)]
pub struct Looks(Arc<Beside<Place>>);

impl Default for Looks {
    fn default() -> Self {
        Self(Arc::new(Beside::new(BOUNDS)))
    }
}

/// Looks at repositories.
#[derive(Clone)]
pub(crate) struct Reconciler {
    pub(crate) store: SharedStore,
    pub(crate) events: Arc<dyn Queue<EventAccepted>>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) code_host: Arc<dyn CodeHost>,
    pub(crate) providers: Arc<dyn ProviderApi>,
    pub(crate) looks: Arc<Looks>,
    /// How often a repository is looked at of which no task says so itself.
    pub(crate) interval: Duration,
}

/// A repository that is looked at.
struct Looked {
    watch: Watch,
    /// The address of the repository, as a task has it.
    url: GitUrl,
    /// The tasks that watch it, by name; at least one.
    tasks: Vec<Task>,
}

/// A fact that is recorded although nothing was started for it.
struct Learned<V> {
    key: FactKey,
    /// What is stored.
    known: Option<Versioned<Fact<V>>>,
    value: Option<V>,
}

/// Why a look failed.
enum Failed {
    Host(CodeHostError),
    Store(StoreError),
    /// Events that were accepted before the look are undecided.
    Behind,
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Reconciler {
    /// Makes every look due: webhooks may have been lost while no scheduler ran. Returns how many were not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn look_again(&self) -> Result<usize, StoreError> {
        watches::hasten_all(self.store.as_ref(), MOST_WATCHES).await
    }

    /// Begins the looks that are due. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tick(&self) -> Result<usize, StoreError> {
        let (store, now) = (self.store.as_ref(), self.store.now().await?);
        let mut begun = 0;
        for found in watches::due(store, now, AT_ONCE).await? {
            begun += usize::from(self.begin(found).await?);
        }
        Ok(begun)
    }

    /// Like [`Self::tick`], but also waits for the looks.
    pub(crate) async fn tick_and_settle(&self) -> Result<usize, StoreError> {
        let begun = self.tick().await?;
        Ok(begun + usize::from(self.looks.0.settled().await))
    }

    async fn begin(&self, found: Versioned<Watch>) -> Result<bool, StoreError> {
        let store = self.store.as_ref();
        let place = found.value.place.clone();
        let Some(begun) = self.looks.0.begin(&place) else { return Ok(false) };
        // What changes after the watch was read makes the claim fail.
        let tasks =
            tasks::watching(store, place.registry, &place.repository, None, MOST_TASKS).await?;
        let pause = tasks.iter().filter_map(polls).map(PollInterval::duration).min();
        let watch = watches::claim(store, found, pause.unwrap_or(self.interval)).await?;
        let Some(watch) = watch else { return Ok(false) };
        let Some(url) = tasks.iter().find_map(Task::repository).cloned() else {
            watches::forget(store, &watch).await?;
            return Ok(false);
        };
        let looked = Looked { watch, url, tasks };
        let looker = self.clone();
        tokio::spawn(async move {
            let _until_it_ends = begun;
            let Some(_turn) = looker.looks.0.turn(&looked.url.host()).await else { return };
            looker.look(&looked).await;
        });
        Ok(true)
    }

    async fn look(&self, looked: &Looked) {
        let looks = async {
            self.look_at_heads(looked).await?;
            self.look_at_pull_requests(looked).await?;
            self.look_at_deliveries(looked).await
        };
        let done = match looks.await {
            Ok(()) => Ok(()),
            Err(Failed::Host(error)) => {
                let repository = &looked.watch.place.repository;
                tracing::warn!(%repository, "{repository} is looked at again later: {error}");
                self.look_soon(&looked.watch, AWAY).await
            }
            Err(Failed::Behind) => self.look_soon(&looked.watch, BEHIND).await,
            Err(Failed::Store(error)) => Err(error),
        };
        if let Err(error) = done {
            let repository = &looked.watch.place.repository;
            tracing::warn!(%repository, "{repository} is looked at again later: {error}");
        }
    }

    /// Makes the watch due again after `pause`, if that is before its time.
    async fn look_soon(&self, watch: &Watch, pause: Duration) -> Result<(), StoreError> {
        let now = self.store.now().await?;
        if now.after(pause) < watch.due {
            watches::hasten(self.store.as_ref(), watch, pause).await?;
        }
        Ok(())
    }

    /// Waits until the events of the repository that were accepted so far are decided, or put off. Without it, a push that
    /// a webhook reported would be superseded by one that the look found, although both are to be built.
    async fn catch_up(&self, place: &Place) -> Result<(), Failed> {
        let (now, until) = (self.store.now().await?, Instant::now() + PATIENCE);
        while self.is_behind(place, now).await? {
            if Instant::now() > until {
                return Err(Failed::Behind);
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    async fn is_behind(&self, place: &Place, at: Timestamp) -> Result<bool, StoreError> {
        let store = self.store.as_ref();
        for due in due::undecided(store, at, MOST_UNDECIDED).await? {
            let event = match events::find(store, &due.event).await {
                Ok(Some(event)) => event,
                Ok(None) | Err(StoreError::Undecodable { .. }) => continue,
                Err(error) => return Err(error),
            };
            if event.prefix == place.registry
                && event.kind.repository().as_ref() == Some(&place.repository)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The tasks to which nothing that is there already is news.
    async fn newcomers(&self, looked: &Looked, part: Part) -> Result<Vec<TaskId>, StoreError> {
        watches::newcomers(self.store.as_ref(), &looked.watch.place, part, MOST_TASKS).await
    }

    /// Records what is no news, and that the newcomers have seen it. Returns `false` if something changed meanwhile: the
    /// next look learns what is left.
    async fn learn<V: facts::Value>(
        &self,
        looked: &Looked,
        part: Part,
        newcomers: &[TaskId],
        learned: &[Learned<V>],
    ) -> Result<bool, StoreError> {
        let (place, now) = (&looked.watch.place, self.store.now().await?);
        let mut chunks = learned.chunks(FACTS_A_COMMIT).peekable();
        loop {
            let mut batch = Batch::default();
            for Learned { key, known, value } in chunks.next().unwrap_or_default() {
                let stored = known.as_ref().map(|known| &known.value);
                let fact = fact::advanced(stored, key, value.clone(), now);
                facts::advance(&mut batch, known.as_ref(), &fact)?;
                facts::list_if_open(&mut batch, place, &fact);
            }
            let is_last = chunks.peek().is_none();
            let seen: &[TaskId] = if is_last { newcomers } else { &[] };
            if !watches::seen(self.store.as_ref(), &looked.watch, part, seen, batch).await? {
                self.look_soon(&looked.watch, AWAY).await?;
                return Ok(false);
            }
            if is_last {
                return Ok(true);
            }
        }
    }

    /// Reports a change, once.
    async fn report(
        &self,
        looked: &Looked,
        key: &FactKey,
        generation: u64,
        value: &str,
        kind: EventKind,
    ) -> Result<(), StoreError> {
        let Some(task) = looked.tasks.first() else { return Ok(()) };
        let of = hex::encode(Sha256::digest(key.as_str()));
        let of = of.get(..24).unwrap_or_default();
        let id: EventId = match format!("found/{of}/{generation}/{value}").parse() {
            Ok(id) => id,
            Err(_) => unreachable!("digits and a commit are an event id"),
        };
        let event = Event {
            id: id.clone(),
            registry: task.id.registry.clone(),
            prefix: task.prefix,
            received: self.store.now().await?,
            trace: None,
            kind,
        };
        if events::notice(self.store.as_ref(), &event).await? {
            tracing::info!(event.id = %id, "{key} has changed, and no webhook said so");
            if let Err(error) = self.events.publish(EventAccepted { event: id }, None).await {
                tracing::debug!("the decider is not notified and will poll: {error}");
            }
        }
        Ok(())
    }
}

/// How often the task asks to look, if it does.
fn polls(task: &Task) -> Option<PollInterval> {
    task.source_trigger.as_ref().and_then(|trigger| trigger.poll)
}
