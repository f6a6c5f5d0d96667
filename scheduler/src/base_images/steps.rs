//! Finds out what is next for a node: it waits, begins a run, or ends.

use std::collections::BTreeSet;
use std::time::Duration;

use gantry_domain::base_trigger::BaseImageTrigger;
use gantry_domain::built_on::FactVersion;
use gantry_domain::cause::{BuiltHead, MovedBase};
use gantry_domain::decide::bases::{self, Current};
use gantry_domain::decide::planner::WaveBuild;
use gantry_domain::fact::{Fact, FactKey};
use gantry_domain::id::RunId;
use gantry_domain::image_version::ImageVersion;
use gantry_domain::image_watch::{ImageWatch, Watched};
use gantry_domain::lineage::BaseImage;
use gantry_domain::platform::Platform;
use gantry_domain::run::{Run, RunStatus};
use gantry_domain::scan::NeededImage;
use gantry_domain::source::{CommitId, RefKind};
use gantry_domain::task::{Status, Task};
use gantry_domain::timestamp::Timestamp;
use gantry_domain::tracked_image::{TagPolicies, TrackedImage};
use gantry_domain::wave::{Node, NodeEnd, NodeTask, Wave, WaveState};
use gantry_seams::store::StoreError;
use gantry_seams::waves::Seen;
use gantry_seams::{Versioned, facts, image_watches, last_builds, runs, task_images, tasks, waves};

use super::BaseImages;
use super::order::{Blocked, Followed, is_over};

/// How many runs of a task that have not ended are looked at.
const MOST_OPEN: usize = 64;

/// The shortest pause before a node is looked at again whose images are changing.
const SHORTEST_REST: Duration = Duration::from_secs(1);

/// How often a node starts a run of its task before it gives up.
const MOST_STARTED: u32 = 8;

/// What is next for a node.
pub(super) enum Step {
    /// There is no node.
    Gone,
    /// Nothing, until something changes of what was seen.
    Leave(Seen),
    /// Nothing, until one of these waves changes: they let nothing begin, or wait for their canaries.
    Hold { by: Vec<Versioned<Wave>>, seen: Seen },
    /// It waits for nodes that wait for each other. One of these begins first, and is looked at now.
    Behind { first: NodeTask, seen: Seen },
    /// An image of its task is changing. It is looked at again when the image has come to rest.
    Rest(Duration),
    /// It waits for this run of its task, which something else started, to end and to be settled.
    Wait(Box<Versioned<Run>>),
    /// The runs of pushes that have waited with it begin, and are built on these images.
    Release { runs: Vec<Versioned<Run>>, bases: Vec<BaseImage> },
    /// A run begins.
    Start(Box<Start>),
    /// It ends.
    End { end: NodeEnd, seen: Seen, freezes: Option<RunId> },
}

/// A run that a node begins.
pub(super) struct Start {
    pub(super) task: Task,
    pub(super) build: WaveBuild,
    /// The waves whose canaries have not succeeded yet.
    pub(super) canaries: Vec<Versioned<Wave>>,
}

/// What the task of a node uses.
pub(super) struct Uses {
    task: Task,
    needed: Vec<NeededImage>,
}

impl Uses {
    fn policies(&self) -> &TagPolicies {
        &self.task.recipe.follows
    }

    /// What is tracked of the images whose changes count.
    pub(super) fn tracked(&self) -> BTreeSet<TrackedImage> {
        let counted = self.counted();
        counted.iter().filter_map(|needed| self.policies().track(&needed.image)).collect()
    }

    /// The images whose changes count.
    fn counted(&self) -> Vec<&NeededImage> {
        let trigger = self.task.base_image_trigger.as_ref();
        let counts =
            |trigger: &BaseImageTrigger, needed: &NeededImage| trigger.counts(needed).is_ok();
        let counted =
            self.needed.iter().filter(|needed| trigger.is_some_and(|it| counts(it, needed)));
        counted.collect()
    }
}

impl BaseImages {
    /// What is next for the node of a task.
    pub(super) async fn next(
        &self,
        task: &NodeTask,
        followed: &Followed,
    ) -> Result<(Option<Versioned<Node>>, Step), StoreError> {
        let store = self.store.as_ref();
        let Some(node) = waves::node(store, task).await? else { return Ok((None, Step::Gone)) };
        let step = self.step(&node, followed).await?;
        Ok((Some(node), step))
    }

    async fn step(&self, node: &Versioned<Node>, followed: &Followed) -> Result<Step, StoreError> {
        let mut seen = Seen::default();
        seen.node(node);
        let waves = self.waves_of(&node.value).await?;
        let by: Vec<_> =
            waves.iter().filter(|wave| !wave.value.state.lets_begin()).cloned().collect();
        if !by.is_empty() {
            return Ok(Step::Hold { by, seen });
        }
        let uses = match self.uses(&node.value.task).await? {
            Ok(uses) => uses,
            Err(why) => return self.not_built(node, seen, why).await,
        };
        let ended = self.run_of(&node.value).await?;
        if ended.as_ref().is_some_and(|run| !is_over(run)) {
            return Ok(Step::Leave(seen));
        }
        match self.blocked(&node.value.task, &uses, &mut seen, followed).await? {
            Blocked::No => {}
            Blocked::ByNodes => return Ok(Step::Leave(seen)),
            Blocked::ByCircle { first } => return Ok(Step::Behind { first, seen }),
        }
        if let Some(pause) = self.rests(&node.value.task, &uses).await? {
            return Ok(Step::Rest(pause));
        }
        let current = self.current(&uses).await?;
        if let Some(step) = self.other_run(node, &uses, &current).await? {
            return Ok(step);
        }
        self.settle_node(node, seen, uses, current, ended, &waves).await
    }

    async fn waves_of(&self, node: &Node) -> Result<Vec<Versioned<Wave>>, StoreError> {
        let mut waves = Vec::new();
        for wave in &node.waves {
            waves.extend(waves::find(self.store.as_ref(), *wave).await?);
        }
        Ok(waves)
    }

    /// What a task uses; why nothing is built of it if it is not to be.
    pub(super) async fn uses(&self, of: &NodeTask) -> Result<Result<Uses, String>, StoreError> {
        let store = self.store.as_ref();
        let Some(task) = tasks::find(store, &of.task).await?.filter(|task| of.is(task)) else {
            return Ok(Err("the task was deleted".to_owned()));
        };
        if task.status == Status::Disabled {
            return Ok(Err(
                "the task is disabled: `gantry task update --status Enabled`".to_owned()
            ));
        }
        let is_on = |trigger: &BaseImageTrigger| trigger.status == Status::Enabled;
        if !task.base_image_trigger.as_ref().is_some_and(is_on) {
            return Ok(Err(gantry_domain::decide::Rule::BaseImagesOff.to_string()));
        }
        let read = task_images::find(store, &task).await?.read;
        let needed = read.map(|read| read.needed.images().to_vec()).unwrap_or_default();
        Ok(Ok(Uses { task, needed }))
    }

    /// How long an image of a task that is changing has still to rest. Two that change at about the same time lead to one
    /// run.
    async fn rests(&self, task: &NodeTask, uses: &Uses) -> Result<Option<Duration>, StoreError> {
        let (store, now) = (self.store.as_ref(), self.store.now().await?);
        let watches = image_watches::find_all(store, &watches_of(task, &uses.tracked())).await?;
        let rests = |watch: &ImageWatch| Some(watch.pending.as_ref()?.rests_at());
        // A registry that does not answer keeps nobody.
        let answers = watches.iter().filter(|watch| watch.problem.is_none());
        let until = answers.filter_map(rests).max();
        Ok(until.map(|until| until.since(now).max(SHORTEST_REST)))
    }

    /// Whether one of these images may have changed since its tag was asked for, because it was not asked for since this
    /// time. Then it is asked for at once.
    async fn may_be_newer(
        &self,
        task: &NodeTask,
        images: Vec<&TrackedImage>,
        since: Timestamp,
    ) -> Result<bool, StoreError> {
        let store = self.store.as_ref();
        let mut may_be = false;
        for watch in image_watches::find_all(store, &watches_of(task, images)).await? {
            // A registry that does not answer keeps nobody.
            if watch.problem.is_none() && watch.asked <= Some(since) {
                may_be = true;
                image_watches::hasten(store, &watch.watched, Duration::ZERO).await?;
            }
        }
        Ok(may_be)
    }

    /// What the images of a task are now.
    async fn current(&self, uses: &Uses) -> Result<Current, StoreError> {
        let Uses { task, needed } = uses;
        let (store, registry) = (self.store.as_ref(), (&task.id.registry, task.prefix));
        let choosing = image_watches::choosing(store, registry, uses.policies()).await?;
        let is_used = |image: &TrackedImage| image.pattern().is_none() || choosing.contains(image);
        let keys: Vec<((TrackedImage, Platform), FactKey)> = needed
            .iter()
            .filter(|needed| needed.image.digest().is_none())
            .filter_map(|needed| {
                let image = uses.policies().track(&needed.image).filter(is_used)?;
                let key = FactKey::image(&task.id.registry, &needed.platform, &image);
                Some(((image, needed.platform.clone()), key))
            })
            .collect();
        let all: Vec<FactKey> = keys.iter().map(|(_, key)| key.clone()).collect();
        let facts = facts::find_all::<ImageVersion>(store, &all).await?;
        let known = keys.into_iter().filter_map(|(of, key)| {
            let fact: &Fact<ImageVersion> = &facts.get(&key)?.value;
            Some((of, fact.clone()))
        });
        Ok(known.collect())
    }

    /// Another run of the task that is built on what its images are now, or was begun before they changed: its end tells
    /// more.
    async fn other_run(
        &self,
        node: &Versioned<Node>,
        uses: &Uses,
        current: &Current,
    ) -> Result<Option<Step>, StoreError> {
        let open = runs::open_of_task(self.store.as_ref(), &node.value.task, MOST_OPEN).await?;
        let (waiting, mut begun): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|run| run.value.state.waits_for_bases());
        if !waiting.is_empty() {
            let bases = bases::pins(uses.policies(), &uses.needed, current);
            return Ok(Some(Step::Release { runs: waiting, bases }));
        }
        Ok(begun.pop().map(|run| Step::Wait(Box::new(run))))
    }

    /// Compares what the task was last built on with what its images are now.
    async fn settle_node(
        &self,
        node: &Versioned<Node>,
        seen: Seen,
        uses: Uses,
        current: Current,
        ended: Option<Run>,
        waves: &[Versioned<Wave>],
    ) -> Result<Step, StoreError> {
        let (store, of) = (self.store.as_ref(), &node.value.task);
        let last = last_builds::find(store, of).await?;
        let counted = uses.counted();
        let moved =
            bases::differing(uses.policies(), &counted, &current, last.as_ref(), &node.value.moved);
        let own =
            ended.filter(|run| run.cause.wave().is_some_and(|it| node.value.waves.contains(&it)));
        if let Some(own) = own.as_ref().filter(|run| run.status() != RunStatus::Succeeded) {
            let freezes = waves.iter().any(|wave| wave.value.canary > 0).then_some(own.id);
            return Ok(Step::End { end: NodeEnd::Failed { run: own.id }, seen, freezes });
        }
        if let Some(last) = &last
            && self.may_be_newer(of, bases::unknown(&moved, &current, last), last.at).await?
        {
            return Ok(Step::Rest(SHORTEST_REST));
        }
        let is_repeated =
            !moved.is_empty() && self.is_repeated(node, &moved, last.as_ref()).await?;
        if moved.is_empty() || is_repeated {
            let later = last.filter(|last| last.at >= node.value.since);
            let end = match (own, later) {
                (Some(own), _) => NodeEnd::Built { run: own.id },
                (None, Some(later)) => NodeEnd::UsedBy { run: later.run },
                (None, None) => return self.unchanged(node, seen, &uses).await,
            };
            return Ok(Step::End { end, seen, freezes: None });
        }
        if waves.iter().all(|wave| matches!(wave.value.state, WaveState::Dropped { .. })) {
            return self.not_built(node, seen, "its wave was dropped".to_owned()).await;
        }
        if node.value.started >= MOST_STARTED {
            let why = format!(
                "it was built {} times, and its images changed each time: look for a circle with `gantry impact`",
                node.value.started
            );
            return self.not_built(node, seen, why).await;
        }
        if let Some(wave) = self.waits_for_canary(waves).await? {
            return Ok(Step::Hold { by: vec![wave.clone()], seen });
        }
        let start = self.start(uses, current, moved, waves).await?;
        Ok(start.map_or(Step::Gone, |start| Step::Start(Box::new(start))))
    }

    /// Ends a node whose task is up to date with its images, unless they were to change and did not.
    async fn unchanged(
        &self,
        node: &Versioned<Node>,
        seen: Seen,
        uses: &Uses,
    ) -> Result<Step, StoreError> {
        for maker in self.makers(&node.value.task, uses).await? {
            for wave in &node.value.waves {
                let of_wave = waves::task(self.store.as_ref(), *wave, &maker).await?;
                let failed = match of_wave.and_then(|it| it.end) {
                    Some(NodeEnd::Failed { run }) => {
                        format!(
                            "{}, whose image it uses, was not rebuilt: run {run} failed",
                            maker.task
                        )
                    }
                    Some(NodeEnd::NotBuilt { .. }) => {
                        format!("{}, whose image it uses, was not rebuilt", maker.task)
                    }
                    _ => continue,
                };
                return Ok(Step::End {
                    end: NodeEnd::NotBuilt { why: failed },
                    seen,
                    freezes: None,
                });
            }
        }
        Ok(Step::End { end: NodeEnd::Unchanged, seen, freezes: None })
    }

    /// Ends a node without a run. Runs of pushes that have waited with it begin first.
    async fn not_built(
        &self,
        node: &Versioned<Node>,
        seen: Seen,
        why: String,
    ) -> Result<Step, StoreError> {
        let open = runs::open_of_task(self.store.as_ref(), &node.value.task, MOST_OPEN).await?;
        let waiting: Vec<_> =
            open.into_iter().filter(|run| run.value.state.waits_for_bases()).collect();
        if !waiting.is_empty() {
            return Ok(Step::Release { runs: waiting, bases: Vec::new() });
        }
        Ok(Step::End { end: NodeEnd::NotBuilt { why }, seen, freezes: None })
    }

    /// The wave whose canaries are still to succeed.
    async fn waits_for_canary<'a>(
        &self,
        waves: &'a [Versioned<Wave>],
    ) -> Result<Option<&'a Versioned<Wave>>, StoreError> {
        for wave in waves.iter().filter(|wave| wave.value.canary > 0) {
            let first = usize::try_from(wave.value.canary).unwrap_or(usize::MAX);
            let (started, built) =
                waves::progress(self.store.as_ref(), wave.value.id, first).await?;
            if started >= first && built < first {
                return Ok(Some(wave));
            }
        }
        Ok(None)
    }

    async fn start(
        &self,
        uses: Uses,
        current: Current,
        moved: Vec<MovedBase>,
        waves: &[Versioned<Wave>],
    ) -> Result<Option<Start>, StoreError> {
        let live = |wave: &&Versioned<Wave>| !matches!(wave.value.state, WaveState::Dropped { .. });
        let Some(wave) = waves.iter().find(live).or(waves.first()) else { return Ok(None) };
        let head = self.head(&uses.task).await?;
        let bases = bases::pins(uses.policies(), &uses.needed, &current);
        let build = WaveBuild {
            wave: wave.value.id,
            event: wave.value.cause.event.clone(),
            moved,
            bases,
            head,
            trace: gantry_ops::telemetry::current_trace(),
        };
        let canaries = waves.iter().filter(|wave| wave.value.canary > 0).cloned().collect();
        Ok(Some(Start { task: uses.task, build, canaries }))
    }

    /// The head of the branch that the task's source names, if the facts have it.
    async fn head(&self, task: &Task) -> Result<Option<BuiltHead>, StoreError> {
        let Some(git) = task.recipe.source.git() else { return Ok(None) };
        let Some(RefKind::Branch(branch)) = git.reference.as_ref().map(|it| it.kind()) else {
            return Ok(None);
        };
        let key = FactKey::branch(&task.id.registry, &git.url.key(), &branch);
        let fact = facts::find::<CommitId>(self.store.as_ref(), &key).await?;
        let Some(fact) = fact.map(|found| found.value) else { return Ok(None) };
        let version = FactVersion { fact: fact.key, generation: fact.generation };
        Ok(fact.value.map(|commit| BuiltHead { branch, commit, fact: version }))
    }
}

/// The watches that may tell a task what images are.
fn watches_of<'a>(
    task: &NodeTask,
    images: impl IntoIterator<Item = &'a TrackedImage>,
) -> Vec<Watched> {
    let of = |image: &'a TrackedImage| {
        [Some(task.prefix), None].map(|by| Watched { image: image.clone(), by })
    };
    images.into_iter().flat_map(of).collect()
}
