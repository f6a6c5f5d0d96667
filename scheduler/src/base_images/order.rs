//! Which nodes come before a node, and what happens where they come before each other.
//!
//! A task that is saved closes no circle, but the files of sources may. Then the first task of the circle by name begins, and
//! each is built once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use gantry_domain::cause::MovedBase;
use gantry_domain::fact::FactKey;
use gantry_domain::image_version::ImageVersion;
use gantry_domain::run::Run;
use gantry_domain::tracked_image::TrackedImage;
use gantry_domain::wave::{LastBuild, Node, NodeState, NodeTask, UsedImage};
use gantry_seams::store::StoreError;
use gantry_seams::waves::Seen;
use gantry_seams::{Versioned, facts, last_builds, runs, waves};

use super::BaseImages;
use super::steps::Uses;

/// How many tasks that are before each other are followed.
const MOST_FOLLOWED: usize = 64;

/// The tasks that make what others use, as one pass has found them: each look at a node follows the same ones.
#[derive(Default)]
pub(super) struct Followed(Mutex<BTreeMap<NodeTask, Vec<NodeTask>>>);

impl Followed {
    fn find(&self, task: &NodeTask) -> Option<Vec<NodeTask>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(task).cloned()
    }

    fn remember(&self, task: &NodeTask, makers: Vec<NodeTask>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(task.clone(), makers);
    }
}

/// Whether a node has to wait for others.
pub(super) enum Blocked {
    No,
    /// Some of those before it will begin or end.
    ByNodes,
    /// All of those before it wait for each other. This one of them begins.
    ByCircle {
        first: NodeTask,
    },
}

impl BaseImages {
    /// Whether a task before this one has an open node. Nodes that only wait for each other are not waited for: the first
    /// of them by name begins.
    pub(super) async fn blocked(
        &self,
        task: &NodeTask,
        uses: &Uses,
        seen: &mut Seen,
        followed: &Followed,
    ) -> Result<Blocked, StoreError> {
        let blockers = self.blockers(task, uses).await?;
        if blockers.is_empty() {
            return Ok(Blocked::No);
        }
        blockers.iter().for_each(|node| seen.node(node));
        if !self.all_wait(&blockers).await? {
            return Ok(Blocked::ByNodes);
        }
        let (mut reached, mut open) = (BTreeSet::new(), blockers);
        while let Some(blocker) = open.pop() {
            let of = blocker.value.task;
            if !reached.insert(of.clone()) {
                continue;
            }
            let makers = match followed.find(&of) {
                Some(makers) => makers,
                None => {
                    let Ok(uses) = self.uses(&of).await? else { return Ok(Blocked::ByNodes) };
                    let makers = self.makers(&of, &uses).await?;
                    followed.remember(&of, makers.clone());
                    makers
                }
            };
            let further = self.open_of(&makers).await?;
            let may_begin = further.is_empty() || !self.all_wait(&further).await?;
            if may_begin || reached.len() > MOST_FOLLOWED {
                return Ok(Blocked::ByNodes);
            }
            open.extend(further);
        }
        Ok(match reached.pop_first() {
            Some(first) if first == *task => Blocked::No,
            Some(first) => Blocked::ByCircle { first },
            None => Blocked::ByNodes,
        })
    }

    /// The open nodes of the tasks that make what this one uses.
    async fn blockers(
        &self,
        task: &NodeTask,
        uses: &Uses,
    ) -> Result<Vec<Versioned<Node>>, StoreError> {
        self.open_of(&self.makers(task, uses).await?).await
    }

    async fn open_of(&self, tasks: &[NodeTask]) -> Result<Vec<Versioned<Node>>, StoreError> {
        Ok(waves::nodes(self.store.as_ref(), tasks).await?.into_values().collect())
    }

    pub(super) async fn makers(
        &self,
        task: &NodeTask,
        uses: &Uses,
    ) -> Result<Vec<NodeTask>, StoreError> {
        let mut makers = BTreeSet::new();
        for image in uses.tracked() {
            makers.extend(last_builds::makers_of(self.store.as_ref(), &image, task).await?);
        }
        Ok(makers.into_iter().collect())
    }

    /// The run that a node waits for.
    pub(super) async fn run_of(&self, node: &Node) -> Result<Option<Run>, StoreError> {
        match &node.state {
            NodeState::Building { run } => runs::find(self.store.as_ref(), *run).await,
            NodeState::Waiting { .. } => Ok(None),
        }
    }

    /// Whether no run is in progress for any of these nodes: they wait for others, or are looked at soon.
    async fn all_wait(&self, nodes: &[Versioned<Node>]) -> Result<bool, StoreError> {
        for node in nodes {
            if self.run_of(&node.value).await?.is_some_and(|run| !is_over(&run)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a wave has built a task, and the images that have moved since were themselves built on that: in a circle, each
    /// build would lead to the next one without an end.
    pub(super) async fn is_repeated(
        &self,
        node: &Versioned<Node>,
        moved: &[MovedBase],
        last: Option<&LastBuild>,
    ) -> Result<bool, StoreError> {
        let Some(last) = last else { return Ok(false) };
        let Some(run) = runs::find(self.store.as_ref(), last.run).await? else { return Ok(false) };
        if !run.cause.wave().is_some_and(|wave| node.value.waves.contains(&wave)) {
            return Ok(false);
        }
        for moved in moved {
            if !self.is_built_on(&moved.image, &node.value.task, last).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether an image was built, also through others, on what the last build of a task made.
    async fn is_built_on(
        &self,
        image: &TrackedImage,
        task: &NodeTask,
        last: &LastBuild,
    ) -> Result<bool, StoreError> {
        let store = self.store.as_ref();
        let mut open = last_builds::makers_of(store, image, task).await?;
        let mut reached = BTreeSet::new();
        while let Some(maker) = open.pop() {
            if reached.len() > MOST_FOLLOWED || !reached.insert(maker.clone()) {
                continue;
            }
            let Some(build) = last_builds::find(store, &maker).await? else { continue };
            for used in self.still_current(&maker, &build).await? {
                if last.makes(&used.image) {
                    return Ok(true);
                }
                open.extend(last_builds::makers_of(store, &used.image, task).await?);
            }
        }
        Ok(false)
    }

    /// What a build has used of images that have not changed since.
    async fn still_current<'a>(
        &self,
        task: &NodeTask,
        build: &'a LastBuild,
    ) -> Result<Vec<&'a UsedImage>, StoreError> {
        let key =
            |used: &UsedImage| FactKey::image(&task.task.registry, &used.platform, &used.image);
        let keys: Vec<FactKey> = build.used.iter().map(key).collect();
        let facts = facts::find_all::<ImageVersion>(self.store.as_ref(), &keys).await?;
        let is_current = |used: &UsedImage| {
            let now = facts.get(&key(used)).and_then(|fact| fact.value.value.as_ref());
            now.is_some_and(|now| {
                used.digest == now.digest || used.content.as_ref() == Some(&now.content)
            })
        };
        Ok(build.used.iter().filter(|used| is_current(used)).collect())
    }
}

/// Whether a run has ended, and what it used and made is recorded.
pub(super) fn is_over(run: &Run) -> bool {
    run.state.done().is_some() && !run.is_unsettled()
}
