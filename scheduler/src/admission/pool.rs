//! Admission to one pool: class after class, and within a class a run of each registry in turn, of each of its tasks in
//! turn. A pool also gets the runs of platforms without workers that its engines emulate. The work is bounded, however many
//! runs wait: a lane's first runs are read when it is its turn.

use std::collections::BTreeMap;

use gantry_domain::decide::order::Class;
use gantry_domain::id::{PoolName, RunPrefix};
use gantry_domain::run::{Run, RunState, WaitReason};
use gantry_domain::timestamp::Timestamp;
use gantry_seams::runs::{self, Lane, Round, TurnsOf};
use gantry_seams::store::StoreError;

use super::readying::Admitted;
use super::{Admitter, Look, PAGE};

/// What a lane had to offer.
enum Served {
    /// A run became ready, or will when its secrets are read.
    Run,
    /// No run of it may become ready now.
    Nothing,
    /// No run of its registry may.
    RegistryFull,
}

/// One tick in one pool.
pub(super) struct PoolTick<'a> {
    admitter: &'a Admitter,
    pool: &'a PoolName,
    /// The pools whose runs it gets.
    waited_for: &'a [PoolName],
    look: &'a mut Look,
    /// Whether runs of a class wait in a registry for a pool.
    waiting: BTreeMap<(PoolName, RunPrefix, Class), bool>,
}

impl<'a> PoolTick<'a> {
    pub(super) async fn begin(
        admitter: &'a Admitter,
        pool: &'a PoolName,
        waited_for: &'a [PoolName],
        look: &'a mut Look,
    ) -> Result<Self, StoreError> {
        look.read_room(admitter.store.as_ref(), pool).await?;
        Ok(Self { admitter, pool, waited_for, look, waiting: BTreeMap::new() })
    }

    /// Fills the room of each class, the best class first.
    pub(super) async fn fill(mut self) -> Result<(), StoreError> {
        for class in Class::ALL {
            while self.has_room(class) && self.serve_pools(class).await? {}
        }
        Ok(())
    }

    /// Serves each pool whose runs this one gets, in turn. Returns whether one had a run.
    async fn serve_pools(&mut self, class: Class) -> Result<bool, StoreError> {
        let [first, others @ ..] = self.waited_for else { return Ok(false) };
        if others.is_empty() {
            return self.serve_registries(first, class).await;
        }
        let (store, of) = (self.admitter.store.as_ref(), TurnsOf::Lent(self.pool.clone()));
        let last = self.look.turns(store, &of).await?.last(class);
        let next = last.map_or(0, |last| self.waited_for.partition_point(|it| it.as_str() <= last));
        let (before, after) = self.waited_for.split_at(next);
        let mut has_served = false;
        for waited_for in after.iter().chain(before) {
            if self.has_room(class) && self.serve_registries(waited_for, class).await? {
                self.look
                    .change_turns(of.clone(), |turns| turns.served(class, waited_for.as_str()));
                has_served = true;
            }
        }
        Ok(has_served)
    }

    fn has_room(&self, class: Class) -> bool {
        self.look.has_room(self.pool, class) && self.look.pages_left > 0
    }

    /// Serves each registry once. Returns whether one had a run.
    async fn serve_registries(
        &mut self,
        waited_for: &PoolName,
        class: Class,
    ) -> Result<bool, StoreError> {
        let (store, of) = (self.admitter.store.as_ref(), TurnsOf::Pool(waited_for.clone()));
        let start = self.look.turns(store, &of).await?.last(class).map(str::to_owned);
        let mut round = Round::of_registries(waited_for, class, start.as_deref());
        let mut has_served = false;
        while self.has_room(class)
            && let Some(name) = round.next(store).await?
        {
            // A malformed name in the index names no registry.
            let Ok(registry) = name.parse() else { continue };
            let is_served = self.serve_registry(waited_for, registry, class).await?;
            has_served |= is_served;
            if is_served || self.look.pages_left == 0 {
                self.look.change_turns(of.clone(), |turns| turns.served(class, &name));
            }
        }
        Ok(has_served)
    }

    /// Admits a run of the class, or of one that was passed over too often in this registry. Returns whether there was
    /// one.
    async fn serve_registry(
        &mut self,
        waited_for: &PoolName,
        registry: RunPrefix,
        class: Class,
    ) -> Result<bool, StoreError> {
        let (store, of) = (self.admitter.store.as_ref(), TurnsOf::Registry(registry));
        let overdue = self.look.turns(store, &of).await?.overdue(class);
        if let Some(overdue) = overdue.filter(|overdue| self.has_room(*overdue))
            && self.serve_tasks(waited_for, registry, overdue).await?
        {
            return Ok(true);
        }
        if !self.serve_tasks(waited_for, registry, class).await? {
            return Ok(false);
        }
        for worse in [Class::Push, Class::Timer, Class::Wave] {
            if worse > class
                && self.has_room(worse)
                && self.is_waiting(waited_for, registry, worse).await?
            {
                self.look.change_turns(of.clone(), |turns| turns.passed(worse));
            }
        }
        Ok(true)
    }

    async fn is_waiting(
        &mut self,
        waited_for: &PoolName,
        registry: RunPrefix,
        class: Class,
    ) -> Result<bool, StoreError> {
        let asked = (waited_for.clone(), registry, class);
        if let Some(known) = self.waiting.get(&asked) {
            return Ok(*known);
        }
        let mut tasks = Round::of_tasks(waited_for, class, registry, None);
        let is_waiting = tasks.next(self.admitter.store.as_ref()).await?.is_some();
        self.waiting.insert(asked, is_waiting);
        Ok(is_waiting)
    }

    /// Admits one run of the class from the first task in turn that has one. Returns whether there was one.
    async fn serve_tasks(
        &mut self,
        waited_for: &PoolName,
        registry: RunPrefix,
        class: Class,
    ) -> Result<bool, StoreError> {
        if class != Class::Scan && self.look.full_registries.contains_key(&registry) {
            // The whole runs of legs are among those that fill it.
            let legs = Lane::of_legs(waited_for.clone(), class, registry);
            return Ok(matches!(self.serve_lane(&legs).await?, Served::Run));
        }
        let (store, of) = (self.admitter.store.as_ref(), TurnsOf::Registry(registry));
        let start = self.look.turns(store, &of).await?.last(class).map(str::to_owned);
        let mut round = Round::of_tasks(waited_for, class, registry, start.as_deref());
        while self.look.pages_left > 0
            && let Some(task) = round.next(store).await?
        {
            let lane = Lane { pool: waited_for.clone(), class, registry, task };
            match self.serve_lane(&lane).await? {
                Served::Run => {
                    self.look.change_turns(of, |turns| turns.served(class, &lane.task));
                    return Ok(true);
                }
                Served::Nothing => {}
                Served::RegistryFull => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Admits the first run of a lane that may become ready.
    async fn serve_lane(&mut self, lane: &Lane) -> Result<Served, StoreError> {
        let mut after = None;
        while self.look.pages_left > 0 {
            let store = self.admitter.store.as_ref();
            let page = runs::waiting_in(store, lane, after.as_ref(), PAGE).await?;
            if page.is_empty() {
                break;
            }
            self.look.pages_left -= 1;
            for run in &page {
                if rests_until(run).is_some_and(|until| until > self.look.now) {
                    // The runs of a lane are ordered by when they are due.
                    return Ok(Served::Nothing);
                }
                if let Some(served) = self.serve_run(run).await? {
                    return Ok(served);
                }
            }
            if page.len() < PAGE {
                break;
            }
            after = page.into_iter().last();
        }
        Ok(Served::Nothing)
    }

    /// The pool that a run goes to. One that builds for several platforms goes where all of them are.
    async fn pool_for(&mut self, run: &Run) -> Result<PoolName, StoreError> {
        let platforms = &run.recipe.platforms;
        if !platforms.are_several() {
            return Ok(self.pool.clone());
        }
        let pool = self.look.workforce.pool_for(platforms);
        self.look.read_room(self.admitter.store.as_ref(), &pool).await?;
        Ok(pool)
    }

    /// Admits a run. `None` if it cannot become ready, but others of its lane may.
    async fn serve_run(&mut self, run: &Run) -> Result<Option<Served>, StoreError> {
        // A forged index entry may name a run that is not waiting.
        let is_waiting = matches!(run.state, RunState::Waiting { .. });
        if !is_waiting || self.admitter.logins.vaults.has(run.id) {
            return Ok(None);
        }
        let pool = self.pool_for(run).await?;
        if !self.look.has_room(&pool, run.class()) {
            return Ok(None);
        }
        match self.admitter.admit(run, &pool, self.look).await {
            Ok(Admitted::Ready | Admitted::Asked) => {
                self.look.take_room(&pool, run.class());
                Ok(Some(Served::Run))
            }
            Ok(Admitted::Full(WaitReason::RegistryLimit { .. })) => Ok(Some(Served::RegistryFull)),
            Ok(Admitted::Full(WaitReason::TaskLimit { .. })) => Ok(Some(Served::Nothing)),
            // Its registry or task does not decode. Only this run waits for that.
            Ok(Admitted::Full(_) | Admitted::Waits | Admitted::Ended)
            | Err(StoreError::Undecodable { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The end of a waiting run's pause, if it has one.
fn rests_until(run: &Run) -> Option<Timestamp> {
    match &run.state {
        RunState::Waiting { reason, .. } => reason.rests_until(),
        RunState::Ready { .. }
        | RunState::Started { .. }
        | RunState::Running { .. }
        | RunState::Done(_) => None,
    }
}
