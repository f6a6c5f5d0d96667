//! Moves waiting runs to ready, in their order and within their limits. A run that reaches a limit records which.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use gantry_domain::decide::order::{Class, Turns};
use gantry_domain::id::{GroupName, PoolName, RunPrefix, TaskId};
use gantry_domain::platform::Platform;
use gantry_domain::registry::Registry;
use gantry_domain::run::{Run, RunState, WaitReason};
use gantry_domain::timestamp::Timestamp;
use gantry_domain::worker::Workforce;
use gantry_ops::metrics::{self, Repair};
use gantry_ops::secret::Keyring;
use gantry_remote::code_host::CodeHost;
use gantry_seams::queue::JobQueues;
use gantry_seams::runs::{Limits, Round, TurnsOf};
use gantry_seams::store::{SharedStore, Store, StoreError};
use gantry_seams::{registries, runs, tasks, workers};

use crate::logins::Logins;
use crate::sweeper::MISSED_AFTER;

mod pool;
mod readying;

use pool::PoolTick;
use readying::Admitted;

/// How many runs of a class are ready at once in a pool without workers, which shows that it has none.
const READY_WITHOUT_WORKERS: usize = 16;

/// How many ready runs of a pool are read.
const READY: usize = 1024;

/// How many waiting runs of a lane are read at once.
const PAGE: usize = 16;

/// How many pages one tick reads. A later tick goes on after the lanes that were served last.
const PAGES: usize = 1024;

/// The state of one tick. Most waiting runs share a registry and a task, so those are read once per tick.
struct Look {
    now: Timestamp,
    workforce: Workforce,
    admitted: usize,
    pages_left: usize,
    /// How many runs of each class may still become ready in a pool. As many as there are slots may be ready: then no slot
    /// stays empty, and the runs that become ready next are still to be chosen when a slot is free.
    rooms: BTreeMap<PoolName, BTreeMap<Class, usize>>,
    registries: BTreeMap<RunPrefix, Option<Registry>>,
    task_limits: BTreeMap<TaskId, Option<u32>>,
    full_registries: BTreeMap<RunPrefix, WaitReason>,
    full_tasks: BTreeMap<TaskId, WaitReason>,
    full_groups: BTreeMap<(RunPrefix, GroupName), WaitReason>,
    /// Those that have changed are stored at the end.
    turns: BTreeMap<TurnsOf, Turns>,
    changed_turns: BTreeSet<TurnsOf>,
}

impl Look {
    async fn begin(store: &dyn Store) -> Result<Self, StoreError> {
        let workforce = workers::workforce(store).await?;
        Ok(Self {
            now: workforce.now,
            workforce,
            admitted: 0,
            pages_left: PAGES,
            rooms: BTreeMap::new(),
            registries: BTreeMap::new(),
            task_limits: BTreeMap::new(),
            full_registries: BTreeMap::new(),
            full_tasks: BTreeMap::new(),
            full_groups: BTreeMap::new(),
            turns: BTreeMap::new(),
            changed_turns: BTreeSet::new(),
        })
    }

    /// The pools that runs wait for, under the pools that they go to now: those of a platform without workers go to a pool
    /// that emulates it.
    async fn pools(
        &self,
        store: &dyn Store,
    ) -> Result<BTreeMap<PoolName, Vec<PoolName>>, StoreError> {
        let mut pools: BTreeMap<PoolName, Vec<PoolName>> = BTreeMap::new();
        let mut round = Round::of_pools();
        while let Some(name) = round.next(store).await? {
            // A malformed name in the index names no pool.
            let Ok(waited_for) = name.parse::<PoolName>() else { continue };
            let platform = Platform::of_pool(&waited_for);
            let pool = platform.map(|platform| self.workforce.pool_for(&platform.into()));
            pools.entry(pool.unwrap_or_else(|| waited_for.clone())).or_default().push(waited_for);
        }
        Ok(pools)
    }

    /// Reads how many runs of each class may still become ready in a pool.
    async fn read_room(&mut self, store: &dyn Store, pool: &PoolName) -> Result<(), StoreError> {
        if self.rooms.contains_key(pool) {
            return Ok(());
        }
        let slots = match self.workforce.slots(pool) {
            0 => READY_WITHOUT_WORKERS,
            slots => slots as usize,
        };
        let mut room: BTreeMap<Class, usize> =
            Class::ALL.iter().map(|class| (*class, slots)).collect();
        for ready in runs::ready_in(store, pool, READY).await? {
            let left = room.entry(ready.class()).or_default();
            *left = left.saturating_sub(1);
        }
        self.rooms.insert(pool.clone(), room);
        Ok(())
    }

    fn has_room(&self, pool: &PoolName, class: Class) -> bool {
        let room = self.rooms.get(pool).and_then(|room| room.get(&class));
        room.is_some_and(|room| *room > 0)
    }

    fn take_room(&mut self, pool: &PoolName, class: Class) {
        if let Some(room) = self.rooms.get_mut(pool).and_then(|room| room.get_mut(&class)) {
            *room = room.saturating_sub(1);
        }
    }

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

    async fn turns(&mut self, store: &dyn Store, of: &TurnsOf) -> Result<&Turns, StoreError> {
        if !self.turns.contains_key(of) {
            self.turns.insert(of.clone(), runs::find_turns(store, of).await?);
        }
        Ok(self.turns.entry(of.clone()).or_default())
    }

    fn change_turns(&mut self, of: TurnsOf, change: impl FnOnce(&mut Turns)) {
        change(self.turns.entry(of.clone()).or_default());
        self.changed_turns.insert(of);
    }

    /// Turns are only fair, so it is enough to store them once.
    async fn end(self, store: &dyn Store) -> Result<usize, StoreError> {
        for of in &self.changed_turns {
            let turns = self.turns.get(of).cloned().unwrap_or_default();
            runs::record_turns(store, of, &turns).await?;
        }
        Ok(self.admitted)
    }

    fn full(&self, run: &Run, task: Option<&TaskId>) -> Option<WaitReason> {
        if run.is_hidden() {
            return None;
        }
        let prefix = run.id.prefix();
        let task = || self.full_tasks.get(task?);
        let group = || self.full_groups.get(&(prefix, run.concurrency_group.clone()?));
        self.full_registries.get(&prefix).or_else(task).or_else(group).cloned()
    }

    fn remember(&mut self, run: &Run, task: Option<TaskId>, reason: WaitReason) {
        let prefix = run.id.prefix();
        match (&reason, task) {
            (WaitReason::RegistryLimit { .. }, _) => {
                self.full_registries.insert(prefix, reason);
            }
            (WaitReason::TaskLimit { .. }, Some(task)) => {
                self.full_tasks.insert(task, reason);
            }
            (WaitReason::Group { group, .. }, _) => {
                self.full_groups.insert((prefix, group.clone()), reason);
            }
            // Other runs of its registry and task may become ready.
            _ => {}
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
    /// Reads what is not in the run's record.
    pub(crate) logins: Logins,
    /// Gives the tokens of the operator's App.
    pub(crate) code_host: Arc<dyn CodeHost>,
}

impl Admitter {
    /// Like [`Admitter::tick`], but also waits for the vaults and code hosts that are asked.
    pub(crate) async fn tick_and_settle(&self) -> Result<usize, StoreError> {
        let admitted = self.tick().await?;
        Ok(admitted + usize::from(self.logins.vaults.settled().await))
    }

    /// Makes the best waiting runs ready, as many in each pool as its workers will take next. Returns how many became
    /// ready.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tick(&self) -> Result<usize, StoreError> {
        let store = self.store.as_ref();
        let mut look = Look::begin(store).await?;
        for (pool, waited_for) in look.pools(store).await? {
            PoolTick::begin(self, &pool, &waited_for, &mut look).await?.fill().await?;
        }
        look.end(store).await
    }

    async fn admit(
        &self,
        run: &Run,
        pool: &PoolName,
        look: &mut Look,
    ) -> Result<Admitted, StoreError> {
        let (store, task) = (self.store.as_ref(), run.task_id());
        if let Some(reason) = look.full(run, task.as_ref()) {
            self.hold(run, reason.clone()).await?;
            return Ok(Admitted::Full(reason));
        }
        if !run.is_signed(self.keyring.as_ref()) {
            return self.refuse(run).await;
        }
        let Some(registry) = look.registry(store, run).await? else {
            return self.give_up(run, format!("registry {} was deleted", run.registry)).await;
        };
        let limits = look.limits(store, &registry, task.as_ref()).await?;
        let admitted = self.make_ready(run, pool, registry, limits).await?;
        match &admitted {
            Admitted::Ready => {
                look.admitted += 1;
                metrics::repaired(Repair::RunAdmitted, usize::from(was_missed(run, look.now)));
            }
            Admitted::Full(reason) => look.remember(run, task, reason.clone()),
            Admitted::Asked | Admitted::Waits | Admitted::Ended => {}
        }
        Ok(admitted)
    }
}

/// Whether a new run was admitted late, so that its doorbell was probably lost. Runs that wait for a place do not
/// count.
fn was_missed(run: &Run, now: Timestamp) -> bool {
    matches!(&run.state, RunState::Waiting { reason: WaitReason::Admission, since } if now.since(*since) > MISSED_AFTER)
}
