//! Looks at the repositories of tasks, for changes that no webhook reported.
//!
//! In: the watches that are due, the heads of their repositories, the stored facts. Out: an event for each head that
//! differs from its fact, which is decided like a push. A change that a webhook reports as well starts one run.

use std::sync::Arc;
use std::time::Duration;

use gantry_domain::decide::matcher;
use gantry_domain::event::{Event, EventKind, Push, PushedRef};
use gantry_domain::fact::{self, Fact, FactKey};
use gantry_domain::id::EventId;
use gantry_domain::pull_request::ChangedFiles;
use gantry_domain::registry::Registry;
use gantry_domain::source::{CommitId, GitUrl, Source};
use gantry_domain::task::Task;
use gantry_domain::trigger::PollInterval;
use gantry_ops::secret::Keyring;
use gantry_remote::code_host::{CodeHost, Heads, RepositoryAccess};
use gantry_seams::queue::{EventAccepted, Queue};
use gantry_seams::store::{Batch, SharedStore, StoreError};
use gantry_seams::watches::{self, Watch};
use gantry_seams::{Versioned, events, facts, tasks};
use sha2::{Digest as _, Sha256};

use crate::beside::{Beside, Bounds};

/// How many watches one pass moves on.
const AT_ONCE: usize = 64;

/// How many changes of one repository one look reports. The others are found by the next one.
const MOST_CHANGES: usize = 64;

/// How many branches and tags of one repository are compared.
const MOST_HEADS: usize = 4096;

/// How many facts one commit learns.
const FACTS_A_COMMIT: usize = 100;

/// The pause before a host that did not answer is asked again, unless the task's own is shorter.
const AWAY: Duration = Duration::from_secs(300);

/// A host that is slow has more urgent questions to answer.
const BOUNDS: Bounds = Bounds { a_host: 2, at_once: 16, most: 256 };

/// The looks that are in progress.
#[derive(Debug)]
pub struct Looks(Arc<Beside<String>>);

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
    pub(crate) looks: Arc<Looks>,
    /// How often the repository of a task is looked at that does not say so itself.
    pub(crate) interval: Duration,
}

impl Reconciler {
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
        let Some(task) = tasks::find(store, &found.value.task).await? else { return Ok(false) };
        let Some(begun) = self.looks.0.begin(&task.id.to_string()) else { return Ok(false) };
        let own = task.source_trigger.as_ref().and_then(|trigger| trigger.poll);
        let pause = own.map_or(self.interval, PollInterval::duration);
        let Some(watch) = watches::claim(store, found, pause).await? else { return Ok(false) };
        let Source::Git(git) = &task.recipe.source else { return Ok(false) };
        let (looker, url) = (self.clone(), git.url.clone());
        tokio::spawn(async move {
            let _until_it_ends = begun;
            let Some(_turn) = looker.looks.0.turn(&url.host()).await else { return };
            if let Err(error) = looker.look(&watch, &task, &url).await {
                tracing::warn!(task.name = %task.id, "the repository of task {} is looked at again later: {error}", task.id);
            }
        });
        Ok(true)
    }

    /// Compares the heads of a task's repository with the facts.
    async fn look(&self, watch: &Watch, task: &Task, url: &GitUrl) -> Result<(), StoreError> {
        let token = task
            .git_token
            .as_ref()
            .map(|sealed| self.keyring.open(&Registry::seals_for(task.prefix), sealed));
        let token = match token.transpose() {
            Ok(token) => token,
            Err(error) => {
                tracing::warn!(task.name = %task.id, "the token of task {} does not open: {error}", task.id);
                return Ok(());
            }
        };
        let heads =
            match self.code_host.heads(RepositoryAccess { url, token: token.as_ref() }).await {
                Ok(heads) => heads,
                Err(error) => {
                    tracing::warn!(task.name = %task.id, "task {}: {error}", task.id);
                    return self.look_soon(watch).await;
                }
            };
        let mut learned = Vec::new();
        let mut changes = Vec::new();
        for moved in self.watched(task, url, &heads) {
            let key = FactKey::moved(&task.id.registry, &moved.repository(), &moved.reference);
            let known = facts::find::<CommitId>(self.store.as_ref(), &key).await?;
            match known.as_ref().map(|known| &known.value) {
                Some(fact) if fact.value == moved.after => {}
                // What is there at the first look is no news: a task that is saved starts nothing.
                Some(_) if !watch.has_looked => {}
                Some(fact) => {
                    changes.push((
                        key,
                        fact.generation,
                        Push { before: fact.value.clone(), ..moved },
                    ));
                }
                None if !watch.has_looked => learned.push((key, moved.after)),
                None => changes.push((key, 0, moved)),
            }
        }
        self.learn(watch, learned).await?;
        changes.truncate(MOST_CHANGES);
        for (key, generation, push) in changes {
            self.report(task, &key, generation, push).await?;
        }
        Ok(())
    }

    /// The heads that the task's trigger watches, and watched ones that are gone, as pushes to them.
    fn watched(&self, task: &Task, url: &GitUrl, heads: &Heads) -> Vec<Push> {
        let push = |reference: PushedRef, after: Option<CommitId>| Push {
            hook: None,
            url: url.clone(),
            reference,
            before: None,
            after,
            default_branch: heads.default_branch.clone(),
            pusher: None,
            changed: ChangedFiles::Unknown { why: "gantry found the change itself".to_owned() },
            asks_to_skip: false,
        };
        let branches = heads
            .branches
            .iter()
            .map(|(name, head)| push(PushedRef::Branch(name.clone()), Some(head.clone())));
        let tags = heads
            .tags
            .iter()
            .map(|(name, head)| push(PushedRef::Tag(name.clone()), Some(head.clone())));
        let own = matcher::watched_branch(task).or_else(|| heads.default_branch.clone());
        let gone = own.filter(|branch| !heads.branches.contains_key(branch));
        let gone = gone.map(|branch| push(PushedRef::Branch(branch), None));
        branches
            .chain(tags)
            .take(MOST_HEADS)
            .chain(gone)
            .filter(|push| matcher::moved_source(push, task).is_ok())
            .collect()
    }

    /// Records heads that were there before anything was reported about them.
    async fn learn(
        &self,
        watch: &Watch,
        heads: Vec<(FactKey, Option<CommitId>)>,
    ) -> Result<(), StoreError> {
        if watch.has_looked {
            return Ok(());
        }
        let now = self.store.now().await?;
        let there = heads.into_iter().filter(|(_, head)| head.is_some()).collect::<Vec<_>>();
        let mut chunks = there.chunks(FACTS_A_COMMIT).peekable();
        loop {
            let mut batch = Batch::default();
            let chunk = chunks.next().unwrap_or_default();
            for (key, head) in chunk {
                let fact: Fact = fact::advanced(None, key, head.clone(), now);
                facts::advance(&mut batch, None, &fact)?;
            }
            let is_last = chunks.peek().is_none();
            let is_done = if is_last {
                watches::looked(self.store.as_ref(), watch, batch).await?
            } else {
                self.store.commit(batch).await.is_ok()
            };
            if !is_done {
                // A push was decided meanwhile, or the task was saved: what is left is learned by the next look.
                return self.look_soon(watch).await;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Reports a change, once.
    async fn report(
        &self,
        task: &Task,
        key: &FactKey,
        generation: u64,
        push: Push,
    ) -> Result<(), StoreError> {
        let head = push.after.as_ref().map_or("gone", CommitId::as_str);
        let of = hex::encode(Sha256::digest(key.as_str()));
        let of = of.get(..24).unwrap_or_default();
        let id: EventId = match format!("found/{of}/{generation}/{head}").parse() {
            Ok(id) => id,
            Err(_) => unreachable!("digits and a commit are an event id"),
        };
        let event = Event {
            id: id.clone(),
            registry: task.id.registry.clone(),
            prefix: task.prefix,
            received: self.store.now().await?,
            trace: None,
            kind: EventKind::Push(push),
        };
        if events::notice(self.store.as_ref(), &event).await? {
            tracing::info!(event.id = %id, task.name = %task.id, "{key} has changed, and no webhook said so");
            if let Err(error) = self.events.publish(EventAccepted { event: id }, None).await {
                tracing::debug!("the decider is not notified and will poll: {error}");
            }
        }
        Ok(())
    }

    /// Makes the watch due again before its time.
    async fn look_soon(&self, watch: &Watch) -> Result<(), StoreError> {
        let now = self.store.now().await?;
        if now.after(AWAY) < watch.due {
            watches::hasten(self.store.as_ref(), watch, AWAY).await?;
        }
        Ok(())
    }
}
