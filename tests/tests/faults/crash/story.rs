//! Plays a story around crashes, and checks the result once everything is quiet again.

mod rebuild;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _};
use gantry_api::{BuildCreate, Run, Task, TaskCreate, Timer};
use gantry_domain::id::RunId;
use gantry_domain::run::{RunState, RunStatus};
use gantry_seams::blobs::Blobs as _;
use gantry_seams::deliveries::{self, Ledger, Part};
use gantry_seams::runs::{self, RunFilter};
use gantry_seams::store::Store;
use gantry_tests::git_server::{GitServer, TestRepository};
use serde_json::{Value, json};

use super::site::{Mode, Site};
use super::{Crashes, Old, Story};
use crate::evidence::{self, MANY};
use crate::ledger::{Delivery, Hook};
use crate::parts::Parts;
use crate::report::Report;
use crate::round::{PlannedTask, REGISTRY, create_tasks_and_hook, move_branch, quiet};
use crate::verdict::Judge;

/// The time limit until nothing changes.
const QUIET_WITHIN: Duration = Duration::from_secs(60);

/// More candidates than one commit decides.
const CANDIDATES: usize = 66;

/// Bodies of this size are kept in the object store.
const LARGE: usize = deliveries::LARGE_BODY;

/// The repository of quick builds.
const QUICK: &str = "quick";

/// The task with a timer.
const TIMED: &str = "timed";

/// Plays a story with these crashes, and checks that everything is done in the end.
pub(super) async fn play(
    story: Story,
    crashes: Crashes,
    mode: Mode,
    git: &GitServer,
) -> Result<()> {
    let (_, first) = crashes.first().context("a story has a crash")?;
    let name = format!("{}-{}", mode.as_str(), first.as_str().replace('.', "-"));
    let tasks = story.tasks();
    let repository = create_repository(git, &name, &tasks)?;
    let mut repositories: Vec<String> = tasks.iter().map(|task| task.repository.clone()).collect();
    repositories.push(QUICK.to_owned());
    let rebuilds = story == Story::Rebuild;
    let crashes_later = rebuilds || matches!(story, Story::Forget(_));
    let first: Crashes = if crashes_later { &[] } else { crashes };
    let site = Site::start(mode, &repositories, rebuilds, first).await?;
    let host = Parts::Scripted.registry();
    // What is built on an image is saved when there is one.
    let saved = if rebuilds { &tasks[..1] } else { &tasks[..] };
    let hook = create_tasks_and_hook(&site.client, host, &git.url(&name), saved).await?;
    let (clone_url, sent, requested) = (git.url(&name), Vec::new(), Vec::new());
    let mut scene = Scene { site, hook, tasks, clone_url, sent, requested };
    scene.quiet().await?;
    match story {
        Story::Push | Story::PushToMany => scene.push_and_crash(crashes, &repository).await?,
        Story::Cancel => scene.cancel_and_crash(crashes, &repository).await?,
        Story::Request => scene.ask_and_crash(crashes).await?,
        Story::Wait => scene.wait_and_crash(crashes).await?,
        Story::Rebuild => scene.rebuild_and_crash(crashes, &repository).await?,
        Story::Upload => {
            scene.upload_and_crash(crashes).await?;
            scene.site.forget(Old::Unused, &[]).await?;
        }
        Story::LargePush => {
            scene.push_large_and_crash(crashes, &repository).await?;
            scene.site.forget(Old::Unused, &[]).await?;
        }
        Story::Forget(old) => {
            scene.push(&repository, 0).await?;
            scene.quiet().await?;
            scene.site.forget(old, crashes).await?;
            scene.site.crashes(crashes).await?;
        }
    }
    scene.come_to_rest().await?;
    match story {
        Story::Upload | Story::Forget(Old::Unused) => scene.has_no_objects("uploads").await,
        Story::LargePush => scene.has_no_objects("deliveries").await,
        Story::Forget(Old::Runs) => scene.has_no_runs().await,
        Story::Forget(Old::Bodies) => {
            scene.has_no_bodies().await?;
            scene.judge().await
        }
        Story::Wait => scene.fired_once().await,
        Story::Rebuild => scene.rebuilt_once().await,
        Story::Push | Story::PushToMany | Story::Cancel | Story::Request => scene.judge().await,
    }
}

impl Story {
    fn tasks(self) -> Vec<PlannedTask> {
        let task = |name: &str, is_staged| {
            PlannedTask::new(&Parts::Scripted, name.to_owned(), is_staged, false)
        };
        match self {
            Self::Push | Self::LargePush | Self::Forget(_) => {
                vec![task("b0-0", false), task("b0-1", true)]
            }
            Self::PushToMany => {
                let others = (0..CANDIDATES - 2).map(|number| task(&format!("b1-{number}"), true));
                let first = [task("b0-0", false)].into_iter();
                // Decisions are made in the order of names.
                let mut last = task("z0-0", false);
                last.branch = "b0".to_owned();
                first.chain(others).chain([last]).collect()
            }
            Self::Cancel => {
                let name = "endless-0".to_owned();
                vec![PlannedTask::new(&Parts::Scripted, name, false, true)]
            }
            Self::Request | Self::Upload | Self::Wait => vec![task("b0-0", false)],
            Self::Rebuild => vec![task(rebuild::BASE, true), task(rebuild::WEB, true)],
        }
    }
}

/// Creates a repository with a branch for each task.
fn create_repository(
    git: &GitServer,
    name: &str,
    tasks: &[PlannedTask],
) -> Result<Mutex<TestRepository>> {
    let repository = git.repository(name)?;
    let dockerfile = Parts::Scripted.dockerfile("0.3");
    let files = [
        ("Dockerfile", dockerfile.as_str()),
        ("endless.Dockerfile", dockerfile.as_str()),
        ("file", "first"),
    ];
    let mut branches: Vec<&str> = tasks.iter().map(|task| task.branch.as_str()).collect();
    branches.sort_unstable();
    branches.dedup();
    for branch in branches {
        repository.commit(branch, &files)?;
    }
    Ok(Mutex::new(repository))
}

/// An installation, and what was sent to it.
struct Scene {
    site: Site,
    hook: Hook,
    tasks: Vec<PlannedTask>,
    clone_url: String,
    sent: Vec<Delivery>,
    /// Runs that no push has started.
    requested: Vec<RunId>,
}

impl Scene {
    /// Pushes to the branch of a task.
    async fn push(&mut self, repository: &Mutex<TestRepository>, task: usize) -> Result<()> {
        let mut delivery = self.delivery(repository, task)?;
        delivery.send(&self.site.client, &self.hook).await?;
        self.sent.push(delivery);
        Ok(())
    }

    /// A push that moves the branch of a task.
    fn delivery(&self, repository: &Mutex<TestRepository>, task: usize) -> Result<Delivery> {
        let moved = move_branch(repository, &self.tasks[task].branch)?;
        let id = format!("delivery-{}", self.sent.len() + 1);
        Ok(Delivery::new(id, &self.clone_url, moved))
    }

    async fn push_and_crash(
        &mut self,
        crashes: Crashes,
        repository: &Mutex<TestRepository>,
    ) -> Result<()> {
        let mut delivery = self.delivery(repository, 0)?;
        let client = self.site.client.clone();
        let sending = delivery.send(&client, &self.hook);
        both(sending, self.site.crashes(crashes)).await?;
        self.sent.push(delivery);
        Ok(())
    }

    async fn push_large_and_crash(
        &mut self,
        crashes: Crashes,
        repository: &Mutex<TestRepository>,
    ) -> Result<()> {
        let mut delivery = self.delivery(repository, 0)?.padded(LARGE);
        let answer = delivery.ask(&self.site.client, &self.hook).await?;
        ensure!(answer.is_none(), "it was answered: {answer:?}");
        ensure!(!self.objects("deliveries").await?.is_empty(), "it is not in the object store");
        self.site.crashes(crashes).await
    }

    async fn cancel_and_crash(
        &mut self,
        crashes: Crashes,
        repository: &Mutex<TestRepository>,
    ) -> Result<()> {
        self.push(repository, 0).await?;
        let store = self.site.store.as_ref();
        quiet("build", QUIET_WITHIN, || async {
            let leased = runs::leased(store, 1).await?;
            let builds = leased.iter().any(|run| matches!(run.state, RunState::Running { .. }));
            Ok(if builds { Vec::new() } else { vec!["nothing is built".to_owned()] })
        })
        .await?;
        let run = runs::leased(store, 1).await?.pop().context("it is being built")?.id;
        // The process that should answer crashes.
        let client = self.site.client.clone();
        let asked: Result<Value> = client.post(&format!("runs/{run}/cancel"), &json!({})).await;
        ensure!(asked.is_err(), "it was answered: {asked:?}");
        self.site.crashes(crashes).await
    }

    /// Saves a task with a timer that is due once, at the next minute.
    async fn wait_and_crash(&mut self, crashes: Crashes) -> Result<()> {
        // It must be saved before that.
        let now = self.site.store.now().await?.after(Duration::from_secs(10)).to_utc();
        let next = now + Duration::from_secs(60);
        let schedule = format!("{} {} * * *", next.minute(), next.hour());
        let task = TaskCreate {
            name: TIMED.to_owned(),
            context: format!("{}#{}", self.clone_url, self.tasks[0].branch),
            timers: vec![Timer::new("once", &schedule)],
            ..TaskCreate::default()
        };
        let task = TaskCreate { push: false, ..task };
        let client = self.site.client.clone();
        let _: Task = client.post(&format!("registries/{REGISTRY}/tasks"), &task).await?;
        self.site.crashes(crashes).await
    }

    /// The timer has started one run, which succeeded.
    async fn fired_once(&self) -> Result<()> {
        let all = RunFilter::default();
        let found = runs::list(self.site.store.as_ref(), &all, None, MANY).await?;
        let [run] = found.as_slice() else { bail!("not one run: {found:?}") };
        ensure!(run.cause.timer().is_some(), "{}", run.cause);
        ensure!(run.status() == RunStatus::Succeeded, "{:?}", run.state);
        Ok(())
    }

    async fn ask_and_crash(&mut self, crashes: Crashes) -> Result<()> {
        let build = BuildCreate {
            context: Some(format!("{}#{}", self.clone_url, self.tasks[0].branch)),
            images: vec![format!("{QUICK}:{{{{.Run.ID}}}}")],
            push: true,
            ..BuildCreate::default()
        };
        let client = self.site.client.clone();
        let path = format!("registries/{REGISTRY}/builds");
        let asking = async {
            let run: Run = client.post_until_answered(&path, "the-same", &build).await?;
            Ok(run.id.parse()?)
        };
        self.requested.push(both(asking, self.site.crashes(crashes)).await?);
        Ok(())
    }

    async fn upload_and_crash(&mut self, crashes: Crashes) -> Result<()> {
        let path = format!("registries/{REGISTRY}/uploads");
        let archive = vec![0x1f, 0x8b];
        let answer = self.site.client.post_bytes(&path, "application/gzip", archive).await;
        ensure!(answer.is_err(), "it was answered: {answer:?}");
        ensure!(!self.objects("uploads").await?.is_empty(), "it is not in the object store");
        self.site.crashes(crashes).await
    }

    /// Waits until everything is done, then sends everything again, and checks that nothing changes.
    async fn come_to_rest(&mut self) -> Result<()> {
        self.quiet().await?;
        for delivery in &mut self.sent {
            delivery.repeat(&self.site.client, &self.hook).await?;
        }
        self.quiet().await
    }

    async fn quiet(&self) -> Result<()> {
        let store = self.site.store.as_ref();
        quiet("settle", QUIET_WITHIN, || evidence::open(store)).await
    }

    async fn judge(&self) -> Result<()> {
        let judge = Judge {
            tasks: &self.tasks,
            requested: &self.requested,
            store: self.site.store.as_ref(),
            blobs: &self.site.blobs,
        };
        let mut report = Report::new(0, "crash");
        judge.judge(&self.hook, &self.sent, &mut report).await?;
        let mut runs = runs::list(judge.store, &RunFilter::default(), None, MANY).await?;
        runs.sort_by_key(|run| run.id.number());
        let mut newest = BTreeMap::new();
        for run in &runs {
            let outputs = run.state.done().and_then(|done| done.outcome.product());
            for output in outputs.into_iter().flat_map(|product| &product.outputs) {
                newest.insert(&output.image, (run.id, output.digest.to_string()));
            }
        }
        for (image, (run, made)) in newest {
            let tag = self.site.tag(image);
            if tag.as_ref() != Some(&made) {
                report.fault(format!("{image} is {tag:?}, and {run} made {made}"));
            }
        }
        if report.has_faults() { bail!("{}", report.wrong().join("\n  ")) } else { Ok(()) }
    }

    /// Bodies of deliveries are only in the object store.
    async fn has_no_bodies(&self) -> Result<()> {
        let (store, blobs) = (self.site.store.as_ref(), &self.site.blobs);
        quiet("move bodies", QUIET_WITHIN, || bodies(store)).await?;
        let ledgers = deliveries::ledgers(store).await?;
        let registries: Vec<_> = ledgers.iter().map(|ledger| ledger.registry).collect();
        for delivery in deliveries::list(store, &registries, None, None, MANY).await?.items {
            let path = deliveries::body_blob_path(&delivery).context("it has a body")?;
            blobs.get(&path).await?;
        }
        Ok(())
    }

    /// Nothing is left in this folder of the object store.
    async fn has_no_objects(&self, folder: &str) -> Result<()> {
        quiet("forget what nobody owns", QUIET_WITHIN, || self.objects(folder)).await
    }

    async fn objects(&self, folder: &str) -> Result<Vec<String>> {
        Ok(self.site.blobs.list(folder)?.try_collect().await?)
    }

    /// Runs and their logs are removed.
    async fn has_no_runs(&self) -> Result<()> {
        let (store, blobs) = (self.site.store.as_ref(), &self.site.blobs);
        quiet("forget runs", QUIET_WITHIN, || all_runs(store)).await?;
        let logs: Vec<_> = blobs.list("logs")?.collect().await;
        ensure!(logs.is_empty(), "there are logs of no run: {logs:?}");
        Ok(())
    }
}

async fn bodies(store: &dyn Store) -> Result<Vec<String>> {
    let after = store.now().await?.after(Duration::from_secs(60));
    let mut left = Vec::new();
    for Ledger { registry, .. } in deliveries::ledgers(store).await? {
        let part = Part::WithBody;
        left.extend(deliveries::older_than(store, registry, part, after, None, MANY).await?.items);
    }
    Ok(left.iter().map(|delivery| delivery.id.to_string()).collect())
}

async fn all_runs(store: &dyn Store) -> Result<Vec<String>> {
    let left = runs::list(store, &RunFilter::default(), None, MANY).await?;
    Ok(left.iter().map(|run| run.id.to_string()).collect())
}

/// Repeats a request until it is answered; an unexpected end of the process fails at once.
async fn both<T>(
    sending: impl Future<Output = Result<T>>,
    crashing: impl Future<Output = Result<()>>,
) -> Result<T> {
    let ((), sent) = tokio::try_join!(crashing, sending)?;
    Ok(sent)
}
