//! Finds the facts that runs were built on.
//!
//! In: the commits that workers read for runs that no push started. Out: the facts that had these commits, with their
//! generations. Only then can such a run be ordered against those of pushes, and move a tag.

use std::sync::Arc;

use gantry_domain::built_on::{BuiltOn, FactVersion, SourceRead};
use gantry_domain::event::{Event, EventKind, Push, PushedRef};
use gantry_domain::fact::{Fact, FactKey};
use gantry_domain::id::EventId;
use gantry_domain::pull_request::ChangedFiles;
use gantry_domain::run::Run;
use gantry_domain::source::{RefName, Source};
use gantry_ops::telemetry;
use gantry_seams::queue::{EventAccepted, Queue};
use gantry_seams::runs::RunOpError;
use gantry_seams::store::{SharedStore, StoreError};
use gantry_seams::{decisions, events, facts, runs};

/// How many runs are resolved in one pass.
const MOST: usize = 256;

/// With how many branches of the repository a commit is compared.
const MOST_BRANCHES: usize = 1024;

/// Resolves what running runs are built on.
pub(crate) struct Resolver {
    pub(crate) store: SharedStore,
    pub(crate) events: Arc<dyn Queue<EventAccepted>>,
}

impl Resolver {
    /// Resolves what running runs are built on. Returns how many were resolved.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tick(&self) -> Result<usize, StoreError> {
        let mut resolved = 0;
        for run in runs::unresolved(self.store.as_ref(), MOST).await? {
            let BuiltOn::Read(read) = &run.built_on else { continue };
            match self.resolve_one(&run, read).await {
                Ok(is_resolved) => resolved += usize::from(is_resolved),
                // Only this run waits for the quarantined record.
                Err(StoreError::Undecodable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(resolved)
    }

    async fn resolve_one(&self, run: &Run, read: &SourceRead) -> Result<bool, StoreError> {
        let Some(built_on) = self.compare(run, read).await? else { return Ok(false) };
        match runs::resolve_built_on(self.store.as_ref(), run.id, read, built_on).await {
            Ok(()) => Ok(true),
            Err(RunOpError::Store(error)) => Err(error),
            // The run was deleted meanwhile.
            Err(_) => Ok(false),
        }
    }

    /// The facts of a commit; `None` until an event about its branch is decided.
    async fn compare(&self, run: &Run, read: &SourceRead) -> Result<Option<BuiltOn>, StoreError> {
        let store = self.store.as_ref();
        if let Some(branch) = &read.branch {
            let key = FactKey::branch(&run.registry, &read.repository, branch);
            let fact = facts::find(store, &key).await?.map(|found| found.value);
            if let Some(built_on) = built_on(fact.as_slice(), read) {
                return Ok(Some(built_on));
            }
            // The run may have read a push before its hook arrived.
            if self.is_to_be_asked(run, read, branch).await? {
                return Ok(None);
            }
        }
        let facts =
            facts::of_repository(store, &run.registry, &read.repository, MOST_BRANCHES).await?;
        Ok(Some(built_on(&facts, read).unwrap_or(BuiltOn::Unknown)))
    }

    /// Whether an event about the branch is still to be decided. The first call records that event.
    async fn is_to_be_asked(
        &self,
        run: &Run,
        read: &SourceRead,
        branch: &RefName,
    ) -> Result<bool, StoreError> {
        let (Ok(id), Source::Git(git)) = (event_id(run, read), &run.recipe.source) else {
            return Ok(false);
        };
        if events::find(self.store.as_ref(), &id).await?.is_some() {
            return decisions::is_undecided(self.store.as_ref(), &id).await;
        }
        let push = Push {
            hook: None,
            url: git.url.clone(),
            reference: PushedRef::Branch(branch.clone()),
            before: None,
            after: Some(read.commit.clone()),
            default_branch: None,
            pusher: None,
            changed: ChangedFiles::default(),
            asks_to_skip: false,
        };
        let event = Event {
            id: id.clone(),
            registry: run.registry.clone(),
            prefix: run.id.prefix(),
            received: self.store.now().await?,
            trace: run.trace.clone(),
            kind: EventKind::Push(push),
        };
        if events::notice(self.store.as_ref(), &event).await? {
            let message = EventAccepted { event: id };
            let sent = self.events.publish(message, telemetry::current_trace()).await;
            if let Err(error) = sent {
                tracing::debug!("the decider is not notified and will poll: {error}");
            }
        }
        Ok(true)
    }
}

/// One id per commit: another attempt of the run may read another commit.
fn event_id(run: &Run, read: &SourceRead) -> Result<EventId, gantry_domain::InvalidText> {
    format!("run/{}/{}", run.id, read.commit).parse()
}

/// The facts that had the commit, each with the newest generation that had it.
fn built_on(facts: &[Fact], read: &SourceRead) -> Option<BuiltOn> {
    let known = facts.iter().filter_map(|fact| {
        let generation = fact.generation_of(&read.commit)?;
        Some(FactVersion { fact: fact.key.clone(), generation })
    });
    let facts: Vec<FactVersion> = known.collect();
    (!facts.is_empty()).then_some(BuiltOn::Facts { facts })
}
