//! Records what ended runs used and made: what a run pushed is a change of a tag like any other, known at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_domain::id::WaveId;
use gantry_domain::image::{Digest, ImageReference, Tag};
use gantry_domain::image_version::ImageVersion;
use gantry_domain::lineage::BaseImage;
use gantry_domain::platform::Platform;
use gantry_domain::registry::Registry;
use gantry_domain::run::{Product, Run};
use gantry_domain::scan::NeededImage;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::tracked_image::TrackedImage;
use gantry_domain::wave::{LastBuild, NodeTask, UsedImage};
use gantry_remote::image_registry::LookError;
use gantry_seams::runs::RunOpError;
use gantry_seams::store::{Batch, StoreError};
use gantry_seams::{image_users, image_watches, last_builds, runs, task_images, tasks, waves};

use super::{BaseImages, Found, Pusher, Registries};

/// How many ended runs one pass begins to record.
const AT_ONCE: usize = 256;

/// How many platforms a pushed tag is used for.
const MOST_PLATFORMS: usize = 16;

/// How many tags of a run are recorded.
const MOST_MADE: usize = 64;

/// For how long after its end a run waits for a registry that does not answer. Then its tags are left to their watches.
const PATIENCE: Duration = Duration::from_secs(600);

/// What is known about a run that has ended.
struct Ended {
    run: Run,
    /// The task, if the run does all that a run of it does.
    task: Option<NodeTask>,
    product: Option<Product>,
    /// The wave that its task is in.
    wave: Option<WaveId>,
}

/// What was found out about an ended run.
#[derive(Default)]
struct Learned {
    used: Vec<UsedImage>,
    /// What tags have now, as far as registries have confirmed it, for the platforms that tasks use.
    pushed: Vec<(TrackedImage, Platform, ImageVersion)>,
    /// What tags had when the run resolved them, of those about which nothing is known yet.
    first_seen: Vec<(TrackedImage, Platform, ImageVersion)>,
    /// Tags that are to be asked for soon.
    unclear: BTreeSet<TrackedImage>,
}

/// Why a run cannot be recorded yet.
enum Failed {
    Later(LookError),
    Store(StoreError),
}

impl std::convert::From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl BaseImages {
    /// Begins to record ended runs. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn record_ended(&self) -> Result<usize, StoreError> {
        let store = self.store.as_ref();
        let ended = runs::unsettled(store, AT_ONCE).await?;
        if ended.is_empty() {
            return Ok(0);
        }
        let (registries, mut begun) = (Registries::read(store).await?, 0);
        for run in ended {
            let Some(work) = self.looks.runs.begin(&run.id) else { continue };
            let host = registries.find(run.id.prefix()).map(|registry| registry.host.clone());
            if let Some(host) = &host
                && image_watches::pause_of(store, host).await?.is_some()
                && !is_late(&run, store.now().await?)
            {
                continue;
            }
            begun += 1;
            let (looker, registries) = (self.clone(), registries.clone());
            tokio::spawn(async move {
                let _until_it_ends = work;
                let host = host.map(|host| host.to_string()).unwrap_or_default();
                let Some(_turn) = looker.looks.runs.turn(&host).await else { return };
                let id = run.id;
                if let Err(error) = looker.record_one(run, &registries).await {
                    tracing::warn!(run.id = %id, "what run {id} made is recorded later: {error}");
                }
            });
        }
        Ok(begun)
    }

    /// Like [`Self::record_ended`], but also waits until they are recorded.
    pub(crate) async fn record_ended_and_settle(&self) -> Result<usize, StoreError> {
        let begun = self.record_ended().await?;
        Ok(begun + usize::from(self.looks.runs.settled().await))
    }

    async fn record_one(&self, run: Run, registries: &Registries) -> Result<(), StoreError> {
        let store = self.store.as_ref();
        let task = run.stands_for_task();
        let node = match &task {
            Some(task) => waves::node(store, task).await?,
            None => None,
        };
        let wave = node.and_then(|node| node.value.waves.first().copied()).or(run.cause.wave());
        let product = run.state.done().and_then(|done| done.outcome.product()).cloned();
        let ended = Ended { run, task, product, wave };
        let learned = match self.learn(&ended, registries).await {
            Ok(learned) => learned,
            Err(Failed::Store(error)) => return Err(error),
            Err(Failed::Later(error)) => {
                tracing::info!(run.id = %ended.run.id, "what run {} made is recorded later: {error}", ended.run.id);
                return Ok(());
            }
        };
        let recorded =
            runs::settle(store, ended.run.id, |_| self.batch(&ended, &learned, registries));
        match recorded.await {
            Ok(()) | Err(RunOpError::Absent { .. }) => {}
            Err(RunOpError::Store(error)) => return Err(error),
            Err(_) => return Ok(()),
        }
        self.looks.moved.notify_one();
        for image in &learned.unclear {
            let watched = registries.watched(store, ended.run.id.prefix(), image).await?;
            image_watches::hasten(store, &watched, Duration::ZERO).await?;
        }
        Ok(())
    }

    /// Asks registries about what a run used and made, where that is not known.
    async fn learn(&self, ended: &Ended, registries: &Registries) -> Result<Learned, Failed> {
        let mut learned = Learned::default();
        let Some(product) = &ended.product else { return Ok(learned) };
        let is_late = is_late(&ended.run, self.store.now().await?);
        let bases = if ended.task.is_some() { &product.bases[..] } else { &[] };
        let needed = self.needed(ended).await?;
        for base in bases {
            for platform in platforms_of(&ended.run, base, &needed) {
                let of = (base, &platform);
                self.learn_used(ended, of, registries, is_late, &mut learned).await?;
            }
        }
        self.add_unreported(ended, &needed, registries, &mut learned).await?;
        let mut outputs: BTreeMap<&ImageReference, &Digest> = BTreeMap::new();
        for output in &product.outputs {
            outputs.insert(&output.image, &output.digest);
        }
        for (image, digest) in outputs {
            self.learn_made(ended, image, digest, registries, is_late, &mut learned).await?;
        }
        Ok(learned)
    }

    /// The images that the task needs, as far as they were read.
    async fn needed(&self, ended: &Ended) -> Result<Vec<NeededImage>, StoreError> {
        let Some(of) = &ended.task else { return Ok(Vec::new()) };
        let found = tasks::find(self.store.as_ref(), &of.task).await?;
        let Some(task) = found.filter(|task| of.is(task)) else { return Ok(Vec::new()) };
        let read = task_images::find(self.store.as_ref(), &task).await?.read;
        Ok(read.iter().flat_map(|read| read.needed.images()).cloned().collect())
    }

    /// What a base that was used for a platform consists of for it.
    async fn learn_used(
        &self,
        ended: &Ended,
        (base, platform): (&BaseImage, &Platform),
        registries: &Registries,
        is_late: bool,
        learned: &mut Learned,
    ) -> Result<(), Failed> {
        let store = self.store.as_ref();
        let (image, digest) = (&base.image, &base.digest);
        if image.tag().is_none() || image.digest().is_some() {
            return Ok(());
        }
        let Some(registry) = registries.find(ended.run.id.prefix()) else { return Ok(()) };
        let Some(tracked) = ended.run.recipe.follows.track(image) else { return Ok(()) };
        let fact = self.fact(registry, platform, &tracked).await?;
        let now = fact.as_ref().and_then(|fact| fact.value.as_ref());
        let watched = registries.watched(store, registry.prefix, &tracked).await?;
        let watch = image_watches::find(store, &watched).await?;
        let rests_at = watch.as_ref().zip(fact.as_ref()).and_then(|(watch, fact)| {
            watch.value.digest_at_rest().filter(|_| watch.value.asked >= Some(fact.since))
        });
        let content = match now {
            // No task needs to know.
            _ if watch.is_none() => None,
            // The watch has the digest of the whole image, the fact that of its platform. But a run that pushed the tag
            // advanced only the fact.
            Some(now)
                if now.digest == *digest
                    || now.index.as_ref() == Some(digest)
                    || rests_at == Some(digest) =>
            {
                Some(now.content.clone())
            }
            _ => {
                let version = self.version(&ended.run, (image, digest), platform, registry);
                let version = match version.await {
                    Ok(version) => version,
                    Err(Failed::Later(error)) if is_late || !may_pass(&error) => None,
                    Err(error) => return Err(error),
                };
                let content = version.as_ref().map(|version| version.content.clone());
                match (version, now) {
                    // Which tag a policy chooses, only the list of tags tells.
                    (Some(_), None) if tracked.pattern().is_some() => {}
                    (Some(version), None) => {
                        learned.first_seen.push((tracked.clone(), platform.clone(), version));
                    }
                    (Some(version), Some(now)) if version.content == now.content => {}
                    // Either it has changed back since, or nobody has seen the change yet.
                    (_, Some(_)) => {
                        learned.unclear.insert(tracked.clone());
                    }
                    (None, None) => {}
                }
                content
            }
        };
        let (digest, platform) = (digest.clone(), platform.clone());
        learned.used.push(UsedImage { image: tracked, platform, digest, content });
        Ok(())
    }

    /// Adds the images that commands ran in, of which a run does not report the digests: those that it was pinned to, or
    /// that have not changed since it began.
    async fn add_unreported(
        &self,
        ended: &Ended,
        needed: &[NeededImage],
        registries: &Registries,
        learned: &mut Learned,
    ) -> Result<(), Failed> {
        let Some(registry) = registries.find(ended.run.id.prefix()) else { return Ok(()) };
        let began = ended.run.state.started().unwrap_or(ended.run.created);
        for needed in needed {
            let Some(image) = ended.run.recipe.follows.track(&needed.image) else { continue };
            let is_of_platform = |used: &UsedImage| used.platform == needed.platform;
            let is_known =
                learned.used.iter().any(|used| used.image == image && is_of_platform(used));
            if is_known || needed.image.digest().is_some() {
                continue;
            }
            let Some(fact) = self.fact(registry, &needed.platform, &image).await? else { continue };
            let Some(now) = fact.value.filter(|_| fact.since < began) else { continue };
            let pinned = ended.run.recipe.pin_of(&needed.image);
            if image.pattern().is_some() && pinned.is_none() {
                continue;
            }
            let is_now = pinned.is_none_or(|pinned| {
                pinned.digest == now.digest || Some(&pinned.digest) == now.index.as_ref()
            });
            learned.used.push(UsedImage {
                image,
                platform: needed.platform.clone(),
                digest: pinned.map_or_else(|| now.digest.clone(), |pinned| pinned.digest.clone()),
                content: is_now.then_some(now.content),
            });
        }
        Ok(())
    }

    /// What tracks a tag that a run has moved, and for which platforms: the tag itself, and the policies that choose it or did
    /// so before.
    async fn users_of_made(
        &self,
        ended: &Ended,
        image: &ImageReference,
        registries: &Registries,
    ) -> Result<Vec<(TrackedImage, Platform)>, StoreError> {
        let (store, prefix) = (self.store.as_ref(), ended.run.id.prefix());
        let Some(registry) = registries.find(prefix) else { return Ok(Vec::new()) };
        let mut users = Vec::new();
        for tracked in image_watches::tracking(store, &[prefix], image).await? {
            let groups = image_users::groups(store, &tracked, MOST_PLATFORMS).await?;
            for (_, platform) in groups.into_iter().filter(|(it, _)| *it == prefix) {
                let Some(pattern) = tracked.pattern() else {
                    users.push((tracked.clone(), platform));
                    continue;
                };
                let fact = self.fact(registry, &platform, &tracked).await?;
                let chosen = fact.and_then(|fact| fact.value?.tag);
                let rank = |tag: &Tag| pattern.rank(tag);
                // Before the first look, only the list of tags tells what is the newest.
                if chosen.is_some_and(|chosen| rank(&chosen) <= image.tag().and_then(rank)) {
                    users.push((tracked.clone(), platform));
                }
            }
        }
        Ok(users)
    }

    async fn learn_made(
        &self,
        ended: &Ended,
        image: &ImageReference,
        digest: &Digest,
        registries: &Registries,
        is_late: bool,
        learned: &mut Learned,
    ) -> Result<(), Failed> {
        let Some(registry) = registries.find(ended.run.id.prefix()) else { return Ok(()) };
        let users = self.users_of_made(ended, image, registries).await?;
        let platforms: BTreeSet<Platform> =
            users.iter().map(|(_, platform)| platform.clone()).collect();
        if users.is_empty() {
            return Ok(());
        }
        let asked = async {
            let credentials = self.logins.of_ended(&ended.run, registry, image.host()).await;
            let credentials = credentials.as_ref();
            let now = self.images.digest(image, None, credentials).await?;
            // Another push was later: its own end tells, or the watch.
            if now.value.as_ref() != Some(digest) {
                return Ok(None);
            }
            let versions = self.images.versions(image, digest, &platforms, credentials).await?;
            Ok(Some(versions.value.by_platform))
        };
        match asked.await {
            Ok(Some(versions)) => {
                let made = users.into_iter().filter_map(|(tracked, platform)| {
                    let version = versions.get(&platform)?.clone();
                    let tag = tracked.pattern().and_then(|_| image.tag().cloned());
                    Some((tracked, platform, ImageVersion { tag, ..version }))
                });
                learned.pushed.extend(made);
            }
            Ok(None) => learned.unclear.extend(users.into_iter().map(|(tracked, _)| tracked)),
            Err(error) if is_late || !may_pass(&error) => {
                learned.unclear.extend(users.into_iter().map(|(tracked, _)| tracked));
            }
            Err(error) => {
                self.pause_after(image.host(), &error).await?;
                return Err(Failed::Later(error));
            }
        }
        Ok(())
    }

    /// What a digest that a run has used has for a platform; `None` if it does not have the platform.
    async fn version(
        &self,
        run: &Run,
        (image, digest): (&ImageReference, &Digest),
        platform: &Platform,
        registry: &Registry,
    ) -> Result<Option<ImageVersion>, Failed> {
        let credentials = self.logins.of_ended(run, registry, image.host()).await;
        let platforms = BTreeSet::from([platform.clone()]);
        if let Some(pause) = image_watches::pause_of(self.store.as_ref(), image.host()).await? {
            let cause = format!("it is not asked before {}: {}", pause.until, pause.why);
            let image = Box::new(image.clone());
            return Err(Failed::Later(LookError::Unreachable { image, cause }));
        }
        match self.images.versions(image, digest, &platforms, credentials.as_ref()).await {
            Ok(mut answered) => Ok(answered.value.by_platform.remove(platform)),
            Err(error) => {
                self.pause_after(image.host(), &error).await?;
                Err(Failed::Later(error))
            }
        }
    }

    /// What is recorded about a run in one commit.
    async fn batch(
        &self,
        ended: &Ended,
        learned: &Learned,
        registries: &Registries,
    ) -> Result<Batch, StoreError> {
        let (store, now) = (self.store.as_ref(), self.store.now().await?);
        let mut batch = Batch::default();
        let Some(product) = &ended.product else {
            ended.task.iter().for_each(|task| waves::look_at(&mut batch, task, now));
            return Ok(batch);
        };
        let done = ended.run.state.done();
        let took = done.and_then(|done| Some(done.at.since(done.started?))).unwrap_or_default();
        let last = LastBuild {
            run: ended.run.id,
            used: learned.used.clone(),
            made: made(&ended.run, product),
            took: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            at: done.map_or(now, |done| done.at),
        };
        if let Some(task) = &ended.task {
            waves::look_at(&mut batch, task, now);
            last_builds::record(store, &mut batch, task, &last).await?;
        }
        let Some(registry) = registries.find(ended.run.id.prefix()) else { return Ok(batch) };
        for (image, platform, version) in &learned.first_seen {
            let (version, pusher) = (version.clone(), Pusher::default());
            let found = Found { registry, image, platform, version, pusher };
            let advanced = self.advance(&found, now).await?;
            // Whoever asked for it meanwhile knows more.
            if advanced.known.is_none() {
                advanced.write_in(&mut batch)?;
            }
        }
        for (image, platform, version) in &learned.pushed {
            let pusher = Pusher { run: Some(ended.run.id), wave: ended.wave };
            let version = version.clone();
            let found = Found { registry, image, platform, version, pusher };
            self.advance(&found, now).await?.write_in(&mut batch)?;
        }
        Ok(batch)
    }
}

/// The platforms that a base was used for: those of the steps that name it, or those of the run.
fn platforms_of(run: &Run, base: &BaseImage, needed: &[NeededImage]) -> BTreeSet<Platform> {
    let steps = needed.iter().filter(|needed| needed.image == base.image);
    let of_steps: BTreeSet<Platform> = steps.map(|needed| needed.platform.clone()).collect();
    if of_steps.is_empty() { run.recipe.platforms.iter().cloned().collect() } else { of_steps }
}

/// The tags that a run moved, without those that have another name in each run: nothing is built on them.
fn made(run: &Run, product: &Product) -> Vec<ImageReference> {
    let id = run.id.to_string();
    let is_of_one_run = |image: &ImageReference| {
        image.tag().is_some_and(|tag| tag.as_str().split(['-', '_', '.']).any(|word| word == id))
    };
    let made: BTreeSet<ImageReference> =
        product.outputs.iter().map(|output| output.image.clone()).collect();
    made.into_iter().filter(|image| !is_of_one_run(image)).take(MOST_MADE).collect()
}

/// Whether the registry may answer later.
fn may_pass(error: &LookError) -> bool {
    match error {
        LookError::Limited { .. }
        | LookError::Unreachable { .. }
        | LookError::Unavailable { .. } => true,
        LookError::Unauthorized { .. }
        | LookError::Unreadable { .. }
        | LookError::Refused { .. }
        | LookError::Moved { .. }
        | LookError::Gone { .. } => false,
    }
}

fn is_late(run: &Run, now: Timestamp) -> bool {
    run.state.done().is_some_and(|done| now.since(done.at) > PATIENCE)
}
