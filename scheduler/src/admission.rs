//! Moves waiting runs to ready within the limits of their registry and task. A run that keeps waiting records why.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;

use gantry_domain::id::{RunPrefix, TaskId};
use gantry_domain::registry::Registry;
use gantry_domain::run::{Run, RunState, WaitReason};
use gantry_domain::timestamp::Timestamp;
use gantry_ops::metrics::{self, Repair};
use gantry_ops::secret::Keyring;
use gantry_remote::code_host::CodeHost;
use gantry_seams::queue::JobQueues;
use gantry_seams::runs::Limits;
use gantry_seams::store::{SharedStore, Store, StoreError};
use gantry_seams::{registries, runs, tasks};

use crate::secrets::VaultReads;
use crate::sweeper::MISSED_AFTER;

mod readying;

use readying::Admitted;

/// How many waiting runs of a registry are read at once.
const PAGE: usize = 64;

/// How many waiting runs one tick reads after the first page of each registry. A later tick reaches those behind them.
const MOST: usize = 4096;

/// The next page of a registry's waiting runs.
struct NextPage {
    registry: RunPrefix,
    after: Run,
}

/// The state of one tick. Most waiting runs share a registry and a task, so those are read once per tick.
#[derive(Default)]
struct Look {
    now: Timestamp,
    admitted: usize,
    registries: BTreeMap<RunPrefix, Option<Registry>>,
    task_limits: BTreeMap<TaskId, Option<u32>>,
    full_registries: BTreeMap<RunPrefix, WaitReason>,
    full_tasks: BTreeMap<TaskId, WaitReason>,
}

impl Look {
    async fn registry(
        &mut self,
        store: &dyn Store,
        run: &Run,
    ) -> Result<Option<Registry>, StoreError> {
        let prefix = run.id.prefix();
        if let Some(known) = self.registries.get(&prefix) {
            return Ok(known.clone());
        }
        let found = registries::find_exactly(store, &run.registry, prefix).await?;
        self.registries.insert(prefix, found.clone());
        Ok(found)
    }

    async fn limits(
        &mut self,
        store: &dyn Store,
        registry: &Registry,
        task: Option<&TaskId>,
    ) -> Result<Limits, StoreError> {
        let registry = registry.run_limit.get();
        let Some(id) = task else { return Ok(Limits { registry, task: None }) };
        if let Some(known) = self.task_limits.get(id) {
            return Ok(Limits { registry, task: *known });
        }
        let found = tasks::find(store, id).await?.and_then(|task| task.run_limit);
        let task = found.map(NonZeroU32::get);
        self.task_limits.insert(id.clone(), task);
        Ok(Limits { registry, task })
    }

    fn full(&self, run: &Run, task: Option<&TaskId>) -> Option<WaitReason> {
        if run.is_hidden() {
            return None;
        }
        let registry = self.full_registries.get(&run.id.prefix());
        registry.or_else(|| self.full_tasks.get(task?)).cloned()
    }

    fn remember(&mut self, run: &Run, task: Option<TaskId>, reason: WaitReason) {
        if matches!(reason, WaitReason::RegistryLimit { .. }) {
            self.full_registries.insert(run.id.prefix(), reason);
        } else if let (WaitReason::TaskLimit { .. }, Some(task)) = (&reason, task) {
            self.full_tasks.insert(task, reason);
        }
    }
}

/// Admits waiting runs.
#[derive(Clone)]
pub(crate) struct Admitter {
    pub(crate) store: SharedStore,
    pub(crate) jobs: Arc<dyn JobQueues>,
    /// Opens the secrets that a run needs and seals them for its pool.
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) vaults: Arc<VaultReads>,
    /// Gives the tokens of the operator's App.
    pub(crate) code_host: Arc<dyn CodeHost>,
}

impl Admitter {
    /// Like [`Admitter::tick`], but also waits for the vaults and code hosts that are asked.
    pub(crate) async fn tick_and_settle(&self) -> Result<usize, StoreError> {
        let admitted = self.tick().await?;
        Ok(admitted + usize::from(self.vaults.settled().await))
    }

    /// Admits waiting runs: one page of each registry in turn, so that a registry does not wait for the many runs of
    /// another. Returns how many became ready.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tick(&self) -> Result<usize, StoreError> {
        let store = self.store.as_ref();
        let mut look = Look { now: store.now().await?, ..Look::default() };
        let mut pages = VecDeque::new();
        let mut last = None;
        while let Some(registry) = runs::next_waiting_registry(store, last).await? {
            pages.extend(self.admit_page(registry, None, &mut look).await?);
            last = Some(registry);
        }
        for _ in 0..MOST / PAGE {
            let Some(page) = pages.pop_front() else { break };
            pages.extend(self.admit_page(page.registry, Some(&page.after), &mut look).await?);
        }
        Ok(look.admitted)
    }

    /// Admits from one page of a registry. Returns the next page if there may be one.
    async fn admit_page(
        &self,
        registry: RunPrefix,
        after: Option<&Run>,
        look: &mut Look,
    ) -> Result<Option<NextPage>, StoreError> {
        let page = runs::waiting_in(self.store.as_ref(), registry, after, PAGE).await?;
        let is_full = page.len() == PAGE;
        let now = look.now;
        let is_asked_for = |run: &&Run| self.vaults.has(run.id);
        for run in page.iter().filter(|run| is_due(run, now) && !is_asked_for(run)) {
            match self.admit(run, look).await {
                Ok(true) => {
                    look.admitted += 1;
                    let was_missed = was_missed(run, now);
                    metrics::repaired(Repair::RunAdmitted, usize::from(was_missed));
                }
                Ok(false) => {}
                // Its registry or task does not decode. Only this run waits for that.
                Err(StoreError::Undecodable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let last = page.into_iter().last().filter(|_| is_full);
        Ok(last.map(|after| NextPage { registry, after }))
    }

    async fn admit(&self, run: &Run, look: &mut Look) -> Result<bool, StoreError> {
        let (store, task) = (self.store.as_ref(), run.task_id());
        if let Some(reason) = look.full(run, task.as_ref()) {
            self.hold(run, reason).await?;
            return Ok(false);
        }
        if !run.is_signed(self.keyring.as_ref()) {
            self.refuse(run).await?;
            return Ok(false);
        }
        let Some(registry) = look.registry(store, run).await? else {
            let message = format!("registry {} was deleted", run.registry);
            self.give_up(run, message).await?;
            return Ok(false);
        };
        let limits = look.limits(store, &registry, task.as_ref()).await?;
        match self.make_ready(run, registry, limits).await? {
            Admitted::Ready => Ok(true),
            Admitted::Waits | Admitted::Ended => Ok(false),
            Admitted::Full(reason) => {
                look.remember(run, task, reason);
                Ok(false)
            }
        }
    }
}

/// Whether a new run was admitted late, so that its doorbell was probably lost. Runs that wait for a place do not
/// count.
fn was_missed(run: &Run, now: Timestamp) -> bool {
    matches!(&run.state, RunState::Waiting { reason: WaitReason::Admission, since } if now.since(*since) > MISSED_AFTER)
}

/// Whether the run is waiting and its pause is over. A forged index entry may name a run that is not waiting.
fn is_due(run: &Run, now: Timestamp) -> bool {
    matches!(&run.state, RunState::Waiting { reason, .. } if reason.rests_until().is_none_or(|until| until <= now))
}
