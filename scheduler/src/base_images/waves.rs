//! Builds what a change may reach, in order.
//!
//! While a wave is planned, each task that it reaches is followed through the images that it makes. Then nodes are looked
//! at: at the end of the planning, when a node of a task before them ends, and when a run of their task ends.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use gantry_domain::cause::Cause;
use gantry_domain::decide::planner;
use gantry_domain::id::{RunId, RunPrefix, WaveId};
use gantry_domain::image::ImageReference;
use gantry_domain::run::Run;
use gantry_domain::tracked_image::TrackedImage;
use gantry_domain::wave::{Node, NodeTask, Wave, WaveState};
use gantry_seams::image_users::{self, User, Which};
use gantry_seams::queue::RunsMoved;
use gantry_seams::store::{Batch, CommitError, From, StoreError};
use gantry_seams::waves::{Reached, TASKS_A_COMMIT};
use gantry_seams::{Versioned, decisions, image_watches, last_builds, runs, tasks, waves};

use super::BaseImages;
use super::order::Followed;
use super::steps::{Start, Step};

/// How many waves one pass plans or wakes.
const WAVES_A_PASS: usize = 16;

/// How many nodes are looked at at once. As many runs are begun in one commit.
const AT_ONCE: usize = 16;

/// How many nodes one pass looks at.
const NODES_A_PASS: usize = 512;

/// How often a node is looked at again after a conflict, in one pass.
const TRIES: usize = 4;

/// A node with the run that it begins.
type Beginning = (Versioned<Node>, Start);

impl BaseImages {
    /// Plans waves, and looks at the nodes of which something has changed. Returns how many there were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn advance_waves(&self) -> Result<usize, StoreError> {
        let store = self.store.as_ref();
        let mut moved = 0;
        for wave in waves::planning(store, WAVES_A_PASS).await? {
            moved += usize::from(self.plan(wave).await?);
        }
        for wave in waves::waking(store, WAVES_A_PASS).await? {
            waves::wake(store, wave).await?;
            moved += 1;
        }
        for task in waves::ended(store, NODES_A_PASS).await? {
            self.look_at_followers(&task).await?;
            moved += 1;
        }
        let due = waves::to_look(store, store.now().await?, NODES_A_PASS).await?;
        let tasks: Vec<NodeTask> =
            due.iter().filter_map(|entry| entry.member.parse().ok()).collect();
        let followed = Followed::default();
        for tasks in tasks.chunks(AT_ONCE) {
            self.look_at(tasks, &followed).await?;
            moved += tasks.len();
        }
        moved += waves::close(store, WAVES_A_PASS).await?;
        Ok(moved)
    }

    /// Follows the tasks of a wave through the images that they make. Returns whether there was anything to do.
    async fn plan(&self, wave: WaveId) -> Result<bool, StoreError> {
        let store = self.store.as_ref();
        let Some(found) = waves::find(store, wave).await? else { return Ok(false) };
        let WaveState::Planning { events } = &found.value.state else { return Ok(false) };
        for event in events {
            if decisions::is_undecided(store, event).await? {
                return Ok(false);
            }
        }
        loop {
            let open = waves::unexpanded(store, wave, TASKS_A_COMMIT).await?;
            if open.is_empty() {
                waves::planned(store, &found).await?;
                return Ok(true);
            }
            for task in open {
                self.expand(&found.value, &task).await?;
            }
        }
    }

    /// Reaches the tasks that use what a task makes.
    async fn expand(&self, wave: &Wave, task: &NodeTask) -> Result<(), StoreError> {
        let store = self.store.as_ref();
        let made = last_builds::find(store, task).await?.map(|last| last.made).unwrap_or_default();
        for image in self.tracking(task, &made).await? {
            let mut next = Some(From::Start);
            while let Some(from) = next {
                let (users, more) =
                    image_users::of_image(store, &image, Which::Counted, from, TASKS_A_COMMIT)
                        .await?;
                let followers = followers(users, task, wave);
                self.reach_all(wave, &image, &followers).await?;
                next = more;
            }
        }
        let mut batch = Batch::default();
        waves::expanded(&mut batch, wave.id, task);
        match store.commit(batch).await {
            Ok(()) | Err(CommitError::Conflict { .. }) => Ok(()),
            Err(CommitError::Store(error)) => Err(error),
        }
    }

    /// What may track the images that a task makes.
    async fn tracking(
        &self,
        task: &NodeTask,
        made: &[ImageReference],
    ) -> Result<BTreeSet<TrackedImage>, StoreError> {
        let mut tracked = BTreeSet::new();
        for image in made {
            let registry = [task.prefix];
            tracked.extend(image_watches::tracking(self.store.as_ref(), &registry, image).await?);
        }
        Ok(tracked)
    }

    async fn reach_all(
        &self,
        wave: &Wave,
        through: &TrackedImage,
        tasks: &[NodeTask],
    ) -> Result<(), StoreError> {
        let store = self.store.as_ref();
        loop {
            let (nodes, now) = (waves::nodes(store, tasks).await?, store.now().await?);
            let mut batch = Batch::default();
            for task in tasks {
                let node = nodes.get(task);
                if node.is_some_and(|node| node.value.waves.contains(&wave.id)) {
                    continue;
                }
                let reached = Reached { task, through, has_moved: false };
                waves::reach(&mut batch, wave.id, &reached, node, now)?;
            }
            if batch.is_empty() {
                return Ok(());
            }
            match store.commit(batch).await {
                Ok(()) => return Ok(()),
                Err(CommitError::Conflict { .. }) => {}
                Err(CommitError::Store(error)) => return Err(error),
            }
        }
    }

    /// Has the nodes looked at of the tasks that use what a task makes, whose node has ended.
    async fn look_at_followers(&self, task: &NodeTask) -> Result<(), StoreError> {
        let store = self.store.as_ref();
        let made = last_builds::find(store, task).await?.map(|last| last.made).unwrap_or_default();
        for image in self.tracking(task, &made).await? {
            let mut next = Some(From::Start);
            while let Some(from) = next {
                let (users, more) =
                    image_users::of_image(store, &image, Which::Counted, from, NODES_A_PASS)
                        .await?;
                let tasks = users.into_iter().filter(|user| user.registry == task.prefix);
                let tasks: Vec<NodeTask> = tasks.map(|user| node_task(user, task)).collect();
                let open = waves::nodes(store, &tasks).await?;
                let open: Vec<NodeTask> = open.into_keys().collect();
                waves::look_at_all(store, &open).await?;
                next = more;
            }
        }
        waves::followed(store, task).await
    }

    /// Looks at nodes, and does what is next for each.
    async fn look_at(&self, tasks: &[NodeTask], followed: &Followed) -> Result<(), StoreError> {
        let mut open = tasks.to_vec();
        for _ in 0..TRIES {
            let next = join_all(open.iter().map(|task| Box::pin(self.next(task, followed)))).await;
            let (mut again, mut starts) = (Vec::new(), Vec::new());
            for (task, next) in open.iter().zip(next) {
                match next {
                    Ok((Some(node), Step::Start(start))) => starts.push((node, *start)),
                    Ok((node, step)) => {
                        if !self.take(task, node, step).await? {
                            again.push(task.clone());
                        }
                    }
                    // A person must repair the record. Only this node waits for that.
                    Err(StoreError::Undecodable { key, message }) => {
                        tracing::error!(
                            "the node of {task} waits: {key} does not decode: {message}"
                        );
                        waves::look_later(self.store.as_ref(), task, super::LIMITED).await?;
                    }
                    Err(error) => return Err(error),
                }
            }
            again.extend(self.begin_all(starts).await?);
            if again.is_empty() {
                return Ok(());
            }
            open = again;
        }
        Ok(())
    }

    /// Does what is next for a node. Returns `false` if something has changed since.
    async fn take(
        &self,
        task: &NodeTask,
        node: Option<Versioned<Node>>,
        step: Step,
    ) -> Result<bool, StoreError> {
        let store = self.store.as_ref();
        let Some(node) = node else { return waves::forget_task(store, task).await };
        match step {
            Step::Gone => waves::forget_task(store, task).await,
            Step::Leave(seen) => waves::leave(store, task, seen).await,
            Step::Hold { by, seen } => waves::hold(store, task, seen, &by).await,
            Step::Behind { first, seen } => {
                let is_left = waves::leave(store, task, seen).await?;
                waves::look_at_all(store, &[first]).await?;
                Ok(is_left)
            }
            Step::Rest(pause) => {
                waves::look_later(store, task, pause).await?;
                Ok(true)
            }
            Step::Wait(run) => {
                let mut batch = Batch::default();
                // Its settling has the node looked at, and must not come before this.
                runs::expect(&mut batch, &run);
                waves::build(&mut batch, &node, run.value.id, false)?;
                self.commit(batch).await
            }
            Step::Release { runs, bases } => self.release(&node, runs, bases).await,
            Step::Start(start) => Ok(self.begin_all(vec![(node, *start)]).await?.is_empty()),
            Step::End { end, seen, freezes } => {
                if let Some(run) = freezes {
                    for wave in &node.value.waves {
                        waves::freeze(store, *wave, run).await?;
                    }
                    // The waves have changed.
                    return waves::end(store, &node, waves::Seen::default(), &end).await;
                }
                waves::end(store, &node, seen, &end).await
            }
        }
    }

    /// Lets the runs of pushes begin that have waited with a node.
    async fn release(
        &self,
        node: &Versioned<Node>,
        waiting: Vec<Versioned<Run>>,
        bases: Vec<gantry_domain::lineage::BaseImage>,
    ) -> Result<bool, StoreError> {
        let (store, signer) = (self.store.as_ref(), self.keyring.as_ref());
        let (prefix, now) = (node.value.task.prefix, store.now().await?);
        let Some(last) = waiting.last().map(|run| run.value.id) else { return Ok(true) };
        let mut creation =
            runs::Creation::begin(store, Batch::default(), prefix, signer, now).await?;
        for run in waiting {
            creation.release(run, bases.clone())?;
        }
        let mut batch = creation.finish();
        waves::build(&mut batch, node, last, false)?;
        let is_done = self.commit(batch).await?;
        if is_done {
            self.ring(last).await;
        }
        Ok(is_done)
    }

    /// Begins runs, as many as possible in one commit. Returns the tasks of which something has changed since.
    async fn begin_all(&self, starts: Vec<Beginning>) -> Result<Vec<NodeTask>, StoreError> {
        let mut by_registry: BTreeMap<RunPrefix, Vec<Beginning>> = BTreeMap::new();
        for start in starts {
            by_registry.entry(start.0.value.task.prefix).or_default().push(start);
        }
        let mut again = Vec::new();
        for (prefix, starts) in by_registry {
            let tasks: Vec<NodeTask> = starts.iter().map(|(it, _)| it.value.task.clone()).collect();
            let has_canaries = starts.iter().any(|(_, start)| !start.canaries.is_empty());
            if !has_canaries && self.begin_in(prefix, &starts).await? {
                continue;
            }
            // One of them has changed, or another run got the next number: each for itself.
            for (start, task) in starts.into_iter().zip(tasks) {
                if !self.begin_in(prefix, std::slice::from_ref(&start)).await? {
                    again.push(task);
                }
            }
        }
        Ok(again)
    }

    async fn begin_in(&self, prefix: RunPrefix, starts: &[Beginning]) -> Result<bool, StoreError> {
        let (store, signer) = (self.store.as_ref(), self.keyring.as_ref());
        let now = store.now().await?;
        let mut creation =
            runs::Creation::begin(store, Batch::default(), prefix, signer, now).await?;
        let mut begun = Vec::new();
        for (node, start) in starts {
            let Node { task, started, .. } = &node.value;
            let key = format!("wave/{}/{task}/{started}/{}", start.build.wave, node.version);
            let draft = planner::for_wave(&start.task, start.build.clone());
            begun.push(creation.add(draft, Some(key))?);
        }
        let mut batch = creation.finish();
        for ((node, start), run) in starts.iter().zip(&begun) {
            waves::build(&mut batch, node, run.id, true)?;
            for wave in &start.canaries {
                waves::count_canary(&mut batch, wave)?;
            }
            if !tasks::expect(store, &mut batch, &start.task).await? {
                return Ok(false);
            }
        }
        let is_done = self.commit(batch).await?;
        if is_done {
            for run in &begun {
                if let Cause::BaseImages { wave, .. } = &run.cause {
                    tracing::info!(run.id = %run.id, "wave {wave} started run {}", run.id);
                }
            }
            if let Some(last) = begun.last() {
                self.ring(last.id).await;
            }
        }
        Ok(is_done)
    }

    async fn ring(&self, run: RunId) {
        if let Err(error) = self.runs_moved.publish(RunsMoved { run }, None).await {
            tracing::debug!("admission is not notified and will poll: {error}");
        }
    }

    async fn commit(&self, batch: Batch) -> Result<bool, StoreError> {
        match self.store.commit(batch).await {
            Ok(()) => Ok(true),
            Err(CommitError::Conflict { .. }) => Ok(false),
            Err(CommitError::Store(error)) => Err(error),
        }
    }
}

/// The tasks among users of what a task makes that a wave reaches: those of the same registry, without the task itself.
fn followers(users: Vec<User>, task: &NodeTask, wave: &Wave) -> Vec<NodeTask> {
    let own = users.into_iter().filter(|user| user.registry == wave.id.prefix());
    own.map(|user| node_task(user, task)).filter(|it| it != task).collect()
}

/// A user of an image, in the registry of `task`.
fn node_task(user: User, task: &NodeTask) -> NodeTask {
    let registry = task.task.registry.clone();
    NodeTask {
        prefix: user.registry,
        task: gantry_domain::id::TaskId { registry, name: user.task },
        created: user.created,
    }
}
