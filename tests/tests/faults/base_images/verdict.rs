//! The verdict on rebuilds, when all is quiet: the newest image of each task is built on the newest images, and each
//! rebuild was necessary and used what was new when it began.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use gantry_domain::id::RunId;
use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::run::Run;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::wave::{NodeEnd, Wave, WaveTask};
use gantry_seams::store::{From, Store};
use gantry_seams::{registries, waves};
use gantry_tests::kept_registry::KeptRegistry;

use super::{BASE, BaseImages, FIRST_MIDDLE, MIDDLE, MIDDLE_IMAGE, digest};
use crate::evidence::MANY;

/// How long before a run's creation a scheduler may have read what its images are: the record of a wave that began within
/// this time may have been written later.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// What was found about the rebuilds of a round.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rebuilds {
    /// The runs of waves.
    pub(crate) rebuilt: usize,
    /// Rebuilds that are missing.
    pub(crate) lost: Vec<String>,
    /// Rebuilds of what was up to date.
    pub(crate) doubled: Vec<String>,
    /// Rebuilds on an old image.
    pub(crate) stale: Vec<String>,
}

/// The digests of images.
type Digests = BTreeMap<&'static str, Digest>;

/// A run of a task.
#[derive(Debug, Clone)]
struct Build {
    run: RunId,
    task: String,
    created: Timestamp,
    is_of_wave: bool,
    /// What it was built on, of the images that change; `None` if it did not succeed.
    used: Option<Digests>,
}

/// What tags had during a round, and have now.
#[derive(Debug, Default)]
struct Images {
    /// Oldest first.
    versions: BTreeMap<&'static str, Vec<Digest>>,
    newest: Digests,
    /// When waves began because of a version.
    began: Vec<(Digest, Timestamp)>,
}

impl Images {
    /// The number of a version, from the oldest.
    fn number(&self, image: &str, version: &Digest) -> Option<usize> {
        self.versions.get(image)?.iter().position(|it| it == version)
    }

    /// Whether a version is older than another one.
    fn is_older(&self, image: &str, version: &Digest, other: &Digest) -> bool {
        let (number, other) = (self.number(image, version), self.number(image, other));
        number.zip(other).is_some_and(|(number, other)| number < other)
    }

    /// A version that is newer than this one, and that a wave had begun for before this time.
    fn newer_before(&self, image: &str, version: &Digest, time: Timestamp) -> Option<&Digest> {
        let before = self.began.iter().filter(|(_, began)| began.after(READ_WITHIN) < time);
        before.map(|(newer, _)| newer).find(|newer| self.is_older(image, version, newer))
    }
}

impl Rebuilds {
    /// Judges the runs of each task, which are in the order of their creation.
    fn of(tasks: &BTreeMap<String, Vec<&'static str>>, builds: &[Build], images: &Images) -> Self {
        let mut rebuilds = Self::default();
        for (task, on) in tasks {
            let mut last: Option<(RunId, &Digests)> = None;
            let mut gave_up = false;
            for build in builds.iter().filter(|build| build.task == *task) {
                rebuilds.rebuilt += usize::from(build.is_of_wave);
                let Some(used) = &build.used else {
                    gave_up |= build.is_of_wave;
                    continue;
                };
                if build.is_of_wave {
                    rebuilds.add(build, used, last, images);
                }
                (last, gave_up) = (Some((build.run, used)), false);
            }
            for image in on.iter().filter(|_| !gave_up) {
                let used = last.and_then(|(_, used)| used.get(image));
                let newest = images.newest.get(image);
                if used.is_none() || used != newest {
                    let run = last.map(|(run, _)| run.to_string());
                    rebuilds.lost.push(format!(
                        "{task} was built on {used:?} by {run:?} last, and {image} is {newest:?}"
                    ));
                }
            }
        }
        rebuilds
    }

    /// Judges a run of a wave, which came after the run `last`.
    fn add(
        &mut self,
        build: &Build,
        used: &Digests,
        last: Option<(RunId, &Digests)>,
        images: &Images,
    ) {
        let Build { run, task, created, .. } = build;
        if let Some((former, before)) = last.filter(|(_, before)| *before == used) {
            self.doubled
                .push(format!("{run} built {task} on {before:?} again, which {former} had used"));
        }
        for (image, version) in used {
            let before = last.and_then(|(_, before)| before.get(image));
            let newer = before.filter(|before| images.is_older(image, version, before));
            if let Some(newer) = newer.or_else(|| images.newer_before(image, version, *created)) {
                self.stale.push(format!(
                    "{run} built {task} on {image} at {version}, and {newer} was newer already"
                ));
            }
        }
    }

    /// Judges the ends of the tasks of a wave. `gave_up` tells whether a run lost its worker too often.
    fn add_wave(&mut self, wave: &Wave, tasks: &[WaveTask], gave_up: bool) {
        if !wave.state.is_over() {
            self.lost.push(format!("wave {} is {:?}", wave.id, wave.state));
        }
        for WaveTask { task, end, .. } in tasks {
            match end {
                Some(NodeEnd::Built { .. } | NodeEnd::UsedBy { .. } | NodeEnd::Unchanged) => {}
                Some(NodeEnd::Failed { .. } | NodeEnd::NotBuilt { .. }) if gave_up => {}
                Some(NodeEnd::Failed { .. } | NodeEnd::NotBuilt { .. }) | None => {
                    self.lost.push(format!("{} in wave {}: {end:?}", task.task, wave.id));
                }
            }
        }
    }
}

impl BaseImages {
    /// Compares the runs and waves in the store with what was pushed.
    pub(crate) async fn judge(&self, store: &dyn Store, runs: &[Run]) -> Result<Rebuilds> {
        let mut runs: Vec<&Run> = runs.iter().collect();
        runs.sort_by_key(|run| run.id.number());
        let mut found = Vec::new();
        for registry in registries::list(store, None, MANY).await? {
            found.extend(waves::list(store, registry.prefix, None, MANY).await?);
        }
        ensure!(found.len() < MANY, "there are more waves than are read");
        let builds: Vec<Build> = runs.iter().filter_map(|run| self.build(run)).collect();
        let mut rebuilds = Rebuilds::of(&self.tasks, &builds, &self.images(&runs, &found)?);
        let gave_up = builds.iter().any(|build| build.used.is_none());
        for wave in &found {
            let (tasks, _) = waves::tasks(store, wave.id, From::Start, MANY).await?;
            rebuilds.add_wave(wave, &tasks, gave_up);
        }
        Ok(rebuilds)
    }

    /// What is to be known about a run, if it is of a task that is rebuilt.
    fn build(&self, run: &Run) -> Option<Build> {
        let task = run.task.as_ref()?.name.to_string();
        let on = self.tasks.get(&task)?;
        let product = run.state.done().and_then(|done| done.outcome.product());
        let used = product.map(|product| {
            let of = |image: &str| product.bases.iter().find(|it| it.image.to_string() == image);
            on.iter().filter_map(|image| Some((*image, of(image)?.digest.clone()))).collect()
        });
        let is_of_wave = run.cause.wave().is_some();
        Some(Build { run: run.id, task, created: run.created, is_of_wave, used })
    }

    fn images(&self, runs: &[&Run], waves: &[Wave]) -> Result<Images> {
        let image: ImageReference = MIDDLE_IMAGE.parse()?;
        let of_middle = runs
            .iter()
            .filter(|run| run.task.as_ref().is_some_and(|task| task.name.to_string() == MIDDLE));
        let products = of_middle.filter_map(|run| run.state.done()?.outcome.product());
        let outputs = products.flat_map(|product| &product.outputs);
        let made = outputs.filter(|output| output.image == image).map(|it| it.digest.clone());
        let middle = [digest(FIRST_MIDDLE)].into_iter().chain(made).collect();
        let mut newest = Digests::new();
        for image in [BASE, MIDDLE_IMAGE] {
            let tag = KeptRegistry::tag_in(&self.registry, &image.parse()?);
            newest.extend(tag.map(|digest| (image, digest)));
        }
        Ok(Images {
            versions: [(BASE, self.pushed.clone()), (MIDDLE_IMAGE, middle)].into(),
            newest,
            began: waves.iter().map(|wave| (wave.cause.to.clone(), wave.created)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::version;
    use super::*;

    const TASK: &str = "web";

    /// A run on a version of the base image.
    fn push(run: u64, number: usize) -> Build {
        Build {
            run: format!("ca{run}").parse().unwrap(),
            task: TASK.to_owned(),
            created: Timestamp::from_millis(i64::try_from(run).unwrap() * 60_000),
            is_of_wave: false,
            used: Some([(BASE, version(number))].into()),
        }
    }

    fn rebuild(run: u64, number: usize) -> Build {
        Build { is_of_wave: true, ..push(run, number) }
    }

    fn failed(build: Build) -> Build {
        Build { used: None, ..build }
    }

    /// The counts of rebuilt, lost, doubled and stale, if the base image has three versions, and the second was known when
    /// the third run was created.
    fn judged(builds: &[Build]) -> [usize; 4] {
        let images = Images {
            versions: [(BASE, (0..3).map(version).collect())].into(),
            newest: [(BASE, version(2))].into(),
            began: vec![(version(1), Timestamp::from_millis(150_000))],
        };
        let tasks = [(TASK.to_owned(), vec![BASE])].into();
        let Rebuilds { rebuilt, lost, doubled, stale } = Rebuilds::of(&tasks, builds, &images);
        [rebuilt, lost.len(), doubled.len(), stale.len()]
    }

    #[test]
    fn one_rebuild_for_each_change_is_right() {
        assert_eq!(judged(&[push(1, 0), rebuild(2, 1), rebuild(3, 2)]), [2, 0, 0, 0]);
        assert_eq!(judged(&[rebuild(1, 2)]), [1, 0, 0, 0], "changes may be joined");
    }

    #[test]
    fn pushes_are_built_on_whatever_there_is() {
        assert_eq!(judged(&[push(1, 0), push(2, 0), push(3, 2), push(4, 2)]), [0, 0, 0, 0]);
    }

    #[test]
    fn a_task_that_is_not_built_on_the_newest_image_lost_a_rebuild() {
        assert_eq!(judged(&[push(1, 0), rebuild(2, 1)]), [1, 1, 0, 0]);
        assert_eq!(judged(&[]), [0, 1, 0, 0]);
    }

    #[test]
    fn a_rebuild_of_what_is_up_to_date_is_doubled() {
        assert_eq!(judged(&[push(1, 0), rebuild(2, 2), rebuild(3, 2)]), [2, 0, 1, 0]);
        assert_eq!(judged(&[push(1, 2), rebuild(2, 2)]), [1, 0, 1, 0]);
    }

    #[test]
    fn a_rebuild_on_an_older_image_than_the_run_before_is_stale() {
        assert_eq!(judged(&[push(1, 1), rebuild(2, 0), rebuild(3, 2)]), [2, 0, 0, 1]);
    }

    #[test]
    fn a_rebuild_on_an_image_that_had_changed_before_it_began_is_stale() {
        assert_eq!(judged(&[push(1, 0), rebuild(3, 0), rebuild(4, 2)]), [2, 0, 1, 1]);
        assert_eq!(judged(&[rebuild(3, 0), rebuild(4, 2)]), [2, 0, 0, 1]);
        assert_eq!(judged(&[rebuild(2, 0), rebuild(4, 2)]), [2, 0, 0, 0]);
    }

    #[test]
    fn a_rebuild_that_lost_its_worker_too_often_is_not_lost() {
        assert_eq!(judged(&[push(1, 0), failed(rebuild(2, 2))]), [1, 0, 0, 0]);
        assert_eq!(judged(&[push(1, 0), failed(rebuild(2, 1)), push(3, 1)]), [1, 1, 0, 0]);
    }
}
