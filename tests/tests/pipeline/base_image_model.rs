//! Random graphs of images with random changes of their bases, failures, duplicates, and restarts and doubles of the
//! scheduler, against a model of their own: what each image must consist of, and how often it may be built.
//!
//! The part of the worker is played here: a run is taken, the images that it reads are those that it is pinned to or that
//! their tags have, and what it makes is a function of these. So an image that was built on anything stale has a wrong
//! digest in the end. `GANTRY_MODEL_SEED` plays one other story, `GANTRY_MODEL_ROUNDS` more of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_domain::base_trigger::BaseImageKind;
use gantry_domain::id::{LeaseNonce, RunId};
use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::lineage::{BaseImage, BaseRole, OutputImage};
use gantry_domain::platform::Platform;
use gantry_domain::run::{ErrorCode, Outcome, Product, Purpose, Run, RunError};
use gantry_domain::scan::{ImageRole, NeededImage, NeededImages, Scanned};
use gantry_domain::step::Steps;
use gantry_scheduler::Scheduler;
use gantry_seams::runs::{self, Finish};
use gantry_seams::waves;
use gantry_tests::pipeline::{LEASE, REGISTRY, TestPipeline};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use sha2::Digest as _;

/// How many rounds a step may take until nothing moves any more.
const MOST_ROUNDS: usize = 20_000;

/// How many images that nobody makes a story has.
const BASES: usize = 4;

/// A story of a graph.
struct Story {
    gantry: TestPipeline,
    random: StdRng,
    /// What each task is built on, by its number. Only on bases, and on tasks with a lower number.
    graph: Vec<Vec<String>>,
    /// How often each base has changed.
    bases: BTreeMap<String, u64>,
    /// About how many runs are played between two looks of a scheduler.
    runs_a_look: u32,
    /// The tasks whose next run fails.
    failing: BTreeSet<usize>,
    /// The runs that have ended, by task, since the last change.
    ended: BTreeMap<usize, Vec<RunId>>,
}

impl Story {
    async fn begin(seed: u64, tasks: usize) -> Self {
        let gantry = super::start().await;
        let mut random = StdRng::seed_from_u64(seed);
        let bases: BTreeMap<String, u64> =
            (0..BASES).map(|n| (format!("{REGISTRY}/base-{n}:1"), 0)).collect();
        for base in bases.keys() {
            gantry.registries.have(base, &digest(&format!("{base} 0")));
        }
        let names: Vec<&String> = bases.keys().collect();
        let mut graph: Vec<Vec<String>> = Vec::new();
        for task in 0..tasks {
            let mut on = BTreeSet::new();
            for _ in 0..random.random_range(1..=3) {
                let is_base = task == 0 || random.random_ratio(1, 4);
                // Mostly on tasks shortly before, so that there are long chains.
                let near = random.random_range(0..12.min(task).max(1));
                on.insert(match is_base {
                    true => (*names.choose(&mut random).unwrap()).clone(),
                    false => tag(task - 1 - near),
                });
            }
            graph.push(on.into_iter().collect());
        }
        let runs_a_look = 3 + u32::try_from(tasks / 20).unwrap();
        let (failing, ended) = (BTreeSet::new(), BTreeMap::new());
        let story = Self { gantry, random, graph, bases, runs_a_look, failing, ended };
        for task in 0..tasks {
            let all = |of: &mut gantry_domain::task::Task| {
                of.source_trigger = None;
                of.base_image_trigger.as_mut().unwrap().kind = BaseImageKind::All;
            };
            let name = format!("t-{task}");
            story.gantry.task_with(&name, &format!("{name}:latest"), all).await;
        }
        story
    }

    /// Has every task built once, those first that others are built on.
    async fn build_all(&mut self) {
        let mut heights: Vec<usize> = Vec::new();
        for on in &self.graph {
            let below = on.iter().filter_map(|image| number(image)).map(|task| heights[task] + 1);
            heights.push(below.max().unwrap_or(0));
        }
        for height in 0..=heights.iter().max().copied().unwrap_or(0) {
            let of_height = heights.iter().enumerate().filter(|(_, it)| **it == height);
            for (task, _) in of_height {
                let id = format!("reg/t-{task}").parse().unwrap();
                let store = self.gantry.store.as_ref();
                let found = gantry_seams::tasks::find(store, &id).await.unwrap();
                self.gantry.ask(&found.unwrap(), None).await;
            }
            self.settle().await;
        }
        self.look().await;
        self.ended.clear();
    }

    /// Plays until nothing moves any more.
    async fn settle(&mut self) {
        for _ in 0..MOST_ROUNDS {
            let mut moved = self.schedule().await;
            while let Some(run) = self.take().await {
                self.play(run).await;
                moved = true;
                // The scheduler also looks while runs are ready, and no more often than a large story can afford.
                if self.random.random_ratio(1, self.runs_a_look) {
                    break;
                }
            }
            if !moved {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// One or two schedulers, each a new one: none remembers anything.
    async fn schedule(&mut self) -> bool {
        let (one, other): (Scheduler, Scheduler) =
            (self.gantry.scheduler(), self.gantry.scheduler());
        if self.random.random_ratio(1, 4) {
            let (one, other) = tokio::join!(one.tick(), other.tick());
            return one.unwrap() | other.unwrap();
        }
        one.tick().await.unwrap()
    }

    /// Asks registries for all tags, and plays all that follows.
    async fn look(&mut self) {
        self.gantry.clock.advance(Duration::from_secs(3600));
        while self.gantry.scheduler().watch_images().await.unwrap() {}
        self.settle().await;
    }

    async fn take(&self) -> Option<(Run, gantry_domain::attempt::Holder)> {
        let (store, pool) = (self.gantry.store.as_ref(), Platform::default().pool());
        let nonce: LeaseNonce = "1".repeat(32).parse().unwrap();
        let worker = "worker-1".parse().unwrap();
        let taken = runs::take(store, &pool, &worker, &nonce, LEASE).await.unwrap();
        taken.map(|taken| (taken.run, taken.holder))
    }

    /// Plays a run: what it finds, uses and makes.
    async fn play(&mut self, (run, holder): (Run, gantry_domain::attempt::Holder)) {
        let store = self.gantry.store.as_ref();
        let name = run.task.as_ref().unwrap().name.to_string();
        let task: usize = name.strip_prefix("t-").unwrap().parse().unwrap();
        let images = needed(&self.graph[task]);
        let scanned = Scanned::Read { commit: None, images };
        runs::scanned(store, run.id, &holder, &scanned).await.unwrap();
        let steps = Steps::default();
        runs::began(store, run.id, &holder, None, &steps).await.unwrap();
        let outcome = if run.purpose == Purpose::Scan {
            Outcome::Succeeded(Product::default())
        } else if self.failing.remove(&task) {
            let message = "it fails".to_owned();
            let code = ErrorCode::StepFailed;
            Outcome::Failed { error: RunError { code, step: None, exit_code: Some(1), message } }
        } else {
            let bases: Vec<BaseImage> =
                self.graph[task].iter().map(|image| self.used(&run, image)).collect();
            let image: ImageReference = tag(task).parse().unwrap();
            let made = made(task, &bases);
            self.gantry.registries.have(&tag(task), &made);
            Outcome::Succeeded(Product {
                outputs: vec![OutputImage { image, digest: made, children: Vec::new() }],
                bases,
                ..Product::default()
            })
        };
        if run.purpose == Purpose::Execute {
            self.ended.entry(task).or_default().push(run.id);
        }
        runs::finish(store, run.id, &holder, Finish::Outcome(outcome), &steps).await.unwrap();
    }

    /// What a run uses of an image: what it is pinned to, or what its tag has.
    fn used(&self, run: &Run, image: &str) -> BaseImage {
        let reference: ImageReference = image.parse().unwrap();
        let pinned = run.recipe.bases.iter().find(|base| base.image == reference);
        let digest = match pinned {
            Some(base) => base.digest.clone(),
            None => self.gantry.registries.tag(image).expect("it was built before"),
        };
        BaseImage { image: reference, digest, role: BaseRole::Runtime, follows: None }
    }

    /// Moves some bases to something new, or to what they have been.
    fn change_bases(&mut self) -> BTreeSet<String> {
        let names: Vec<String> = self.bases.keys().cloned().collect();
        let count = self.random.random_range(1..=2);
        let changed: BTreeSet<String> =
            (0..count).map(|_| names.choose(&mut self.random).unwrap().clone()).collect();
        for base in &changed {
            let times = self.bases.get_mut(base).unwrap();
            *times += 1;
            self.gantry.registries.have(base, &digest(&format!("{base} {times}")));
        }
        changed
    }

    /// The tasks that are built on any of these images, directly or not.
    fn reached(&self, changed: &BTreeSet<String>) -> BTreeSet<usize> {
        let mut images = changed.clone();
        let mut reached = BTreeSet::new();
        for (task, on) in self.graph.iter().enumerate() {
            if on.iter().any(|image| images.contains(image)) {
                reached.insert(task);
                images.insert(tag(task));
            }
        }
        reached
    }

    /// What every image must be, if all were built from nothing now.
    fn built_from_nothing(&self) -> BTreeMap<String, Digest> {
        let mut digests: BTreeMap<String, Digest> = self
            .bases
            .iter()
            .map(|(base, times)| (base.clone(), digest(&format!("{base} {times}"))))
            .collect();
        for (task, on) in self.graph.iter().enumerate() {
            let bases: Vec<BaseImage> = on
                .iter()
                .map(|image| BaseImage {
                    image: image.parse().unwrap(),
                    digest: digests[image].clone(),
                    role: BaseRole::Runtime,
                    follows: None,
                })
                .collect();
            digests.insert(tag(task), made(task, &bases));
        }
        digests
    }

    fn check_images(&self, seed: u64) {
        for (image, expected) in self.built_from_nothing() {
            let is = self.gantry.registries.tag(&image);
            assert_eq!(is.as_ref(), Some(&expected), "seed {seed}: {image} is stale");
        }
    }

    async fn check_waves_are_over(&self, seed: u64) {
        let store = self.gantry.store.as_ref();
        let all = waves::list(store, TestPipeline::prefix(), None, 1000).await.unwrap();
        for wave in all {
            assert!(wave.state.is_over(), "seed {seed}: {wave:?}");
        }
    }
}

fn tag(task: usize) -> String {
    format!("{REGISTRY}/t-{task}:latest")
}

/// The task that makes an image; `None` if nobody does.
fn number(image: &str) -> Option<usize> {
    let name = image.strip_prefix(&format!("{REGISTRY}/t-"))?;
    name.strip_suffix(":latest")?.parse().ok()
}

fn digest(text: &str) -> Digest {
    let hash = hex::encode(sha2::Sha256::digest(text));
    format!("sha256:{hash}").parse().unwrap()
}

/// What a task makes of these images.
fn made(task: usize, bases: &[BaseImage]) -> Digest {
    let of: Vec<String> = bases.iter().map(|base| base.digest.to_string()).collect();
    digest(&format!("{task} of {}", of.join(" ")))
}

fn needed(images: &[String]) -> NeededImages {
    let mut needed = NeededImages::default();
    for image in images {
        needed.add(NeededImage {
            image: image.parse().unwrap(),
            role: ImageRole::Runtime,
            step: "build".parse().unwrap(),
            dockerfile: None,
            platform: Platform::default(),
        });
    }
    needed
}

/// Changes, one after the other: each reached image is built exactly once, no other one is, and in the end all are what
/// they would be if they were built from nothing.
async fn play_changes(seed: u64, tasks: usize, changes: usize) {
    let mut story = Story::begin(seed, tasks).await;
    story.build_all().await;
    story.check_images(seed);
    for change in 0..changes {
        let changed = story.change_bases();
        story.look().await;
        let reached = story.reached(&changed);
        for (task, runs) in &story.ended {
            assert!(
                reached.contains(task),
                "seed {seed}, {change}: {task} was built in vain: {runs:?}"
            );
            assert_eq!(runs.len(), 1, "seed {seed}, {change}: {task} was built by {runs:?}");
        }
        assert_eq!(story.ended.len(), reached.len(), "seed {seed}, {change}");
        story.check_images(seed);
        story.check_waves_are_over(seed).await;
        story.ended.clear();
    }
}

/// Changes at any time, also while others are being built, and builds that fail: after one last change of all bases, all
/// images are what they would be if they were built from nothing.
async fn play_disorder(seed: u64, tasks: usize, changes: usize) {
    let mut story = Story::begin(seed, tasks).await;
    story.build_all().await;
    for _ in 0..changes {
        story.change_bases();
        story.gantry.clock.advance(Duration::from_secs(3600));
        while story.gantry.scheduler().watch_images().await.unwrap() {}
        if story.random.random_ratio(1, 2) {
            let failing = story.random.random_range(0..tasks);
            story.failing.insert(failing);
        }
        for _ in 0..story.random.random_range(0..12) {
            story.schedule().await;
            if let Some(run) = story.take().await {
                story.play(run).await;
            }
        }
    }
    story.settle().await;
    story.failing.clear();
    let bases: Vec<String> = story.bases.keys().cloned().collect();
    for base in bases {
        let times = story.bases.get_mut(&base).unwrap();
        *times += 1;
        story.gantry.registries.have(&base, &digest(&format!("{base} {times}")));
    }
    story.look().await;
    story.look().await;
    story.check_images(seed);
    story.check_waves_are_over(seed).await;
}

#[allow(clippy::disallowed_methods, reason = "a test has no settings but these")]
fn seeds(standard: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    match (number("GANTRY_MODEL_SEED"), number("GANTRY_MODEL_ROUNDS")) {
        (Some(seed), _) => vec![seed],
        (None, rounds) => (1..=rounds.unwrap_or(standard)).collect(),
    }
}

#[tokio::test]
async fn each_image_that_a_change_reaches_is_built_once_after_what_it_is_built_on() {
    for seed in seeds(3) {
        play_changes(seed, 24, 4).await;
    }
}

#[tokio::test]
async fn changes_and_failures_at_any_time_end_with_what_a_build_from_nothing_makes() {
    for seed in seeds(3) {
        play_disorder(seed, 20, 5).await;
    }
}

mod slow {
    #[tokio::test]
    async fn a_thousand_images_are_built_once_each_in_order() {
        for seed in super::seeds(1) {
            super::play_changes(seed, 1000, 2).await;
        }
    }

    #[tokio::test]
    async fn a_thousand_images_end_with_what_a_build_from_nothing_makes() {
        for seed in super::seeds(1) {
            super::play_disorder(seed, 1000, 5).await;
        }
    }

    #[tokio::test]
    async fn fifty_graphs_end_with_what_a_build_from_nothing_makes() {
        for seed in super::seeds(50) {
            super::play_changes(seed, 40, 4).await;
            super::play_disorder(seed, 40, 8).await;
        }
    }
}
