//! Decides what follows from a change of an image.

use std::time::Duration;

use futures_util::future::try_join_all;
use gantry_domain::decide::bases::{self, Current};
use gantry_domain::decide::{Candidate, Choice, Rule};
use gantry_domain::event::{ImageMoved, ImagePushed};
use gantry_domain::fact::{Fact, FactKey};
use gantry_domain::id::{TaskId, WaveId};
use gantry_domain::image_version::ImageVersion;
use gantry_domain::image_watch::Watched;
use gantry_domain::scan::NeededImage;
use gantry_domain::task::{Status, Task};
use gantry_domain::timestamp::Timestamp;
use gantry_domain::tracked_image::TrackedImage;
use gantry_domain::wave::{NodeTask, Wave, WaveCause, WaveState};
use gantry_seams::decisions::{Decided, Undecided};
use gantry_seams::image_users::{self, Which};
use gantry_seams::store::{Batch, StoreError};
use gantry_seams::waves::{self, Reached, TASKS_A_COMMIT};
use gantry_seams::{
    Versioned, facts, hooks, image_watches, last_builds, registries, task_images, tasks,
};

use super::{Decider, Progress};

/// How soon a tag is asked for that somebody reported who has proved nothing.
const UNPROVEN: Duration = Duration::from_secs(30);

/// The wave that a change leads to.
enum Led {
    Into(Versioned<Wave>),
    ToNew(Wave),
}

impl Led {
    fn id(&self) -> WaveId {
        match self {
            Self::Into(found) => found.value.id,
            Self::ToNew(wave) => wave.id,
        }
    }
}

impl Decider {
    /// A report that an image was pushed is a hint: the registry is asked.
    pub(super) async fn decide_pushed_image(
        &self,
        found: &Undecided,
        pushed: &ImagePushed,
    ) -> Result<Progress, StoreError> {
        let (store, event) = (self.store.as_ref(), &found.event);
        let Some(registry) = registries::find_exactly(store, &event.registry, event.prefix).await?
        else {
            let rule = Rule::NoRegistry { registry: event.registry.clone() };
            return self.decide_nothing(found, rule).await;
        };
        if let Some(rule) = self.not_for_image(pushed).await? {
            return self.decide_nothing(found, rule).await;
        }
        let Some(image) = TrackedImage::tag_of(&pushed.image) else {
            let what = format!("{pushed}, without a tag,");
            return self.decide_nothing(found, Rule::RecordedOnly { what }).await;
        };
        let pause = if pushed.is_proven { Duration::ZERO } else { UNPROVEN };
        let mut is_watched = false;
        for tracked in image_watches::tracking(store, &[registry.prefix], &pushed.image).await? {
            for by in [Some(registry.prefix), None] {
                let watched = Watched { image: tracked.clone(), by };
                let hastened = if event.id.is_simulated() {
                    image_watches::find(store, &watched).await?.is_some()
                } else {
                    image_watches::hasten(store, &watched, pause).await?
                };
                is_watched |= hastened;
            }
        }
        self.image_looks.asked.notify_one();
        let rule = if is_watched { Rule::RegistryAsked { image } } else { Rule::NoUser { image } };
        self.decide_nothing(found, rule).await
    }

    /// Why a report is not taken: its hook is deleted, or is for other repositories.
    async fn not_for_image(&self, pushed: &ImagePushed) -> Result<Option<Rule>, StoreError> {
        let Some(id) = &pushed.hook else { return Ok(None) };
        let name = format!("{}/{}", pushed.image.host(), pushed.image.repository());
        let (Some(hook), Ok(repository)) =
            (hooks::find(self.store.as_ref(), id).await?, name.parse())
        else {
            let what = format!("{pushed}, by a hook that is deleted,");
            return Ok(Some(Rule::RecordedOnly { what }));
        };
        let may_speak = hook.speaks_for(&repository);
        Ok((!may_speak).then(|| Rule::HookNotForRepository { hook: id.clone(), repository }))
    }

    /// A task that was built on the former content is reached by a wave.
    pub(super) async fn decide_moved_image(
        &self,
        found: &Undecided,
        moved: &ImageMoved,
    ) -> Result<Progress, StoreError> {
        let (store, event) = (self.store.as_ref(), &found.event);
        if registries::find_exactly(store, &event.registry, event.prefix).await?.is_none() {
            let rule = Rule::NoRegistry { registry: event.registry.clone() };
            return self.decide_nothing(found, rule).await;
        }
        let after = found.cursor().map(|task| &task.name);
        let users = image_users::of_image_in(
            store,
            &moved.image,
            Which::All,
            event.prefix,
            &moved.platform,
            after,
            TASKS_A_COMMIT,
        )
        .await?;
        if users.is_empty() && after.is_none() {
            let rule = Rule::NoUser { image: moved.image.clone() };
            return self.decide_nothing(found, rule).await;
        }
        let now = store.now().await?;
        let key = FactKey::image(&event.registry, &moved.platform, &moved.image);
        let fact = facts::find::<ImageVersion>(store, &key).await?.map(|found| found.value);
        let dropped = self.dropped(moved).await?;
        let judged = users.iter().map(|user| async {
            let id = TaskId { registry: event.registry.clone(), name: user.task.clone() };
            let of = NodeTask { prefix: event.prefix, task: id, created: user.created };
            let rule = self.rule_for(&of, moved, fact.as_ref()).await?;
            Ok::<_, StoreError>((of, rule.or_else(|| dropped.clone())))
        });
        let judged = try_join_all(judged).await?;
        let mut batch = Batch::default();
        let reached: Vec<NodeTask> =
            judged.iter().filter(|(_, rule)| rule.is_none()).map(|(of, _)| of.clone()).collect();
        let wave = match reached.is_empty() {
            true => None,
            false => Some(self.lead(found, moved, &mut batch, now).await?),
        };
        let nodes = waves::nodes(store, &reached).await?;
        if let Some(wave) = &wave {
            for task in &reached {
                let of = Reached { task, through: &moved.image, has_moved: true };
                waves::reach(&mut batch, wave.id(), &of, nodes.get(task), now)?;
            }
        }
        let more_after =
            judged.last().filter(|_| users.len() == TASKS_A_COMMIT).map(|(of, _)| of.task.clone());
        let progress = match more_after {
            Some(_) => Progress::CommittedWithMore(Vec::new()),
            None => Progress::Committed(Vec::new()),
        };
        let candidates = judged.into_iter().map(|(of, rule)| {
            let choice = match (rule, &wave) {
                (Some(rule), _) => Choice::No { rule },
                (None, Some(wave)) => Choice::Wave { wave: wave.id() },
                (None, None) => Choice::WouldRun,
            };
            Candidate { task: Some(of.task), choice, other_address: None, files_unknown: None }
        });
        let decided = Decided { candidates: candidates.collect(), nothing: None, more_after };
        let progress = self.record(batch, found, decided, now, progress).await?;
        self.image_looks.moved.notify_one();
        Ok(progress)
    }

    /// Whether the image was pushed by a run of a wave that was dropped.
    async fn dropped(&self, moved: &ImageMoved) -> Result<Option<Rule>, StoreError> {
        let Some(wave) = moved.wave else { return Ok(None) };
        let found = waves::find(self.store.as_ref(), wave).await?;
        let is_dropped =
            found.is_some_and(|found| matches!(found.value.state, WaveState::Dropped { .. }));
        Ok(is_dropped.then_some(Rule::WaveDropped { wave }))
    }

    /// The first rule that says that a task is not rebuilt.
    async fn rule_for(
        &self,
        of: &NodeTask,
        moved: &ImageMoved,
        fact: Option<&Fact<ImageVersion>>,
    ) -> Result<Option<Rule>, StoreError> {
        let store = self.store.as_ref();
        let Some(task) = tasks::find(store, &of.task).await?.filter(|task| of.is(task)) else {
            return Ok(Some(Rule::RecordedOnly {
                what: format!("task {}, which is deleted,", of.task),
            }));
        };
        if task.status == Status::Disabled {
            return Ok(Some(Rule::TaskDisabled));
        }
        let read = task_images::find(store, &task).await?.read;
        let needed = read.map(|read| read.needed.images().to_vec()).unwrap_or_default();
        let policies = &task.recipe.follows;
        let is_it = |it: &&NeededImage| policies.track(&it.image).as_ref() == Some(&moved.image);
        let needed: Vec<_> = needed.iter().filter(is_it).collect();
        if let Some(rule) = uncounted(&task, &needed, moved) {
            return Ok(Some(rule));
        }
        let last = last_builds::find(store, of).await?;
        if let Some(last) = &last
            && last.makes(&moved.image)
        {
            return Ok(Some(Rule::OwnImage));
        }
        let needed: Vec<_> = needed.into_iter().filter(|it| it.image.digest().is_none()).collect();
        let key = (moved.image.clone(), moved.platform.clone());
        let current: Current = fact.into_iter().map(|fact| (key.clone(), fact.clone())).collect();
        let known = std::slice::from_ref(&moved.image);
        let differing = bases::differing(policies, &needed, &current, last.as_ref(), known);
        Ok(match (differing.is_empty(), last) {
            (false, _) => None,
            (true, Some(last)) => Some(Rule::UpToDate { run: last.run }),
            (true, None) => Some(Rule::NoUser { image: moved.image.clone() }),
        })
    }

    /// The wave that a change leads to: that of the run that pushed it, or a new one.
    async fn lead(
        &self,
        found: &Undecided,
        moved: &ImageMoved,
        batch: &mut Batch,
        now: Timestamp,
    ) -> Result<Led, StoreError> {
        let (store, event) = (self.store.as_ref(), &found.event);
        let earlier = found.candidates().iter().find_map(|candidate| match candidate.choice {
            Choice::Wave { wave } => Some(wave),
            Choice::Run { .. } | Choice::WouldRun | Choice::No { .. } => None,
        });
        for wave in [earlier, moved.wave].into_iter().flatten() {
            let Some(found) = waves::find(store, wave).await? else { continue };
            waves::plan_more(batch, &found, &event.id)?;
            return Ok(Led::Into(found));
        }
        let cause = WaveCause {
            event: event.id.clone(),
            image: moved.image.clone(),
            platform: moved.platform.clone(),
            from: moved.before.digest.clone(),
            to: moved.after.digest.clone(),
            run: moved.run,
        };
        let registry = (&event.registry, event.prefix);
        let wave = waves::begin(store, batch, registry, cause, self.canary, now).await?;
        Ok(Led::ToNew(wave))
    }
}

/// Why none of the uses of the image by a task counts, if so.
fn uncounted(task: &Task, uses: &[&NeededImage], moved: &ImageMoved) -> Option<Rule> {
    let Some(trigger) = &task.base_image_trigger else { return Some(Rule::BaseImagesOff) };
    match uses.iter().min_by_key(|it| it.role) {
        Some(needed) => trigger.counts(needed).err(),
        None => Some(Rule::NoUser { image: moved.image.clone() }),
    }
}
