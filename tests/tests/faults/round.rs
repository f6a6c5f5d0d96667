//! One round: an installation is set up, pushes are delivered to it while it is killed and restarted, and when all is
//! quiet its state is checked against what was delivered.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::try_join_all;
use gantry_api::{
    DeliveryDetails, Event, HookCreate, HookCreated, Page, Registry, RegistryCreate, Run,
    SourceTrigger, Task, TaskCreate,
};
use gantry_sqlite::{Options, SqliteStore};
use gantry_tests::git_server::{GitServer, TestRepository};
use gantry_tests::installation::{Client, Installation, saved_event};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::base_images::{self, BaseImages};
use crate::evidence;
use crate::ledger::{Delivery, Hook, Push};
use crate::parts::Parts;
use crate::plan::{self, Plan};
use crate::report::Report;
use crate::verdict;

/// The time limit until nothing changes.
const QUIET_WITHIN: Duration = Duration::from_secs(60);

/// The additional time limit for cleaning up.
const CLEAN_WITHIN: Duration = Duration::from_secs(20);

/// The time limit for reports: one that a killed process was sending is sent again once its claim of 40 s is over.
const REPORTED_WITHIN: Duration = Duration::from_secs(60);

/// The time limit for rebuilds and everything before them. A tag that a killed process was asking for is asked for again
/// after 60 s, and an event waits for three minutes if its code host may return an older head.
const REBUILT_WITHIN: Duration = Duration::from_secs(270);

/// The longest pause between two pushes of the base image.
const BASE_EVERY: Duration = Duration::from_millis(1200);

/// The polling interval.
const LOOK: Duration = Duration::from_millis(40);

/// The name of the registry.
pub(crate) const REGISTRY: &str = "reg";

/// A secret in every run, whose removal is checked.
const SECRET: &str = "not-for-the-store";

/// A round that is being played.
pub(crate) struct Round {
    pub(crate) seed: u64,
    pub(crate) parts: Parts,
    pub(crate) tasks: Vec<PlannedTask>,
    plan: Plan,
    folder: TempDir,
    git: GitServer,
    repository: Arc<Mutex<TestRepository>>,
}

/// A task, and the images of its runs.
#[derive(Debug, Clone)]
pub(crate) struct PlannedTask {
    pub(crate) name: String,
    pub(crate) branch: String,
    /// Its image with the tag that each run moves.
    pub(crate) latest: String,
    pub(crate) repository: String,
    images: Vec<String>,
    /// Its Dockerfile, if that has another name than usual.
    dockerfile: Option<String>,
    /// Whether its builds run until they are cancelled.
    pub(crate) hangs: bool,
}

/// Plays the round of a seed.
pub(crate) async fn play(seed: u64) -> Report {
    let began = Instant::now();
    let parts = Parts::of(seed);
    let name = parts.name();
    let mut report = Report::new(seed, name);
    match Round::set_up(seed, parts).await {
        Ok(round) => {
            let mut installation = Installation::new(round.folder.path().join("log"));
            if let Err(error) = round.play(&mut installation, &mut report).await {
                report.fault(format!("{error:#}"));
            }
            if report.has_faults() {
                report.note(installation.last_words());
            }
        }
        Err(error) => report.fault(format!("it could not be set up: {error:#}")),
    }
    report.took(began.elapsed());
    report
}

impl Round {
    async fn set_up(seed: u64, parts: Parts) -> Result<Self> {
        let plan = Plan::of(seed, parts.scale());
        let git = GitServer::start().await?;
        let repository = git.repository("app")?;
        let folder = tempfile::tempdir()?;
        let mut tasks = Vec::new();
        let mut branches = Vec::new();
        for (number, branch) in plan.branches.iter().enumerate() {
            branches.push(format!("b{number}"));
            for task in 0..branch.tasks {
                tasks.push(PlannedTask::new(&parts, format!("b{number}-{task}"), task > 0, false));
            }
        }
        if parts.can_hang() {
            branches.push("endless".to_owned());
            tasks.push(PlannedTask::new(&parts, "endless-0".to_owned(), false, true));
        }
        if parts.has_base_images() {
            branches.push(base_images::MIDDLE.to_owned());
            tasks.iter_mut().for_each(|it| it.dockerfile = base_images::dockerfile_of(&it.branch));
        }
        let (quick, endless) = (parts.dockerfile("0.3"), parts.dockerfile("600"));
        let mut files = vec![("Dockerfile", quick.as_str()), ("endless.Dockerfile", &endless)];
        let others = base_images::dockerfiles(&quick);
        files.extend(others.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        files.push(("file", "first"));
        for branch in &branches {
            repository.commit(branch, &files)?;
        }
        parts.prepare(&folder.path().join("data")).await?;
        let repository = Arc::new(Mutex::new(repository));
        Ok(Self { seed, parts, tasks, plan, folder, git, repository })
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    async fn play(&self, installation: &mut Installation, report: &mut Report) -> Result<()> {
        let mut random = StdRng::seed_from_u64(self.seed);
        if let Some(moment) = self.plan.first_kill {
            self.spawn(installation, &mut random)?;
            tokio::time::sleep(moment).await;
            installation.kill().await?;
        }
        self.spawn(installation, &mut random)?;
        installation.until_up().await?;
        let client = installation.client();
        let store = SqliteStore::open(self.data().join("gantry.db"), Options::default())?;
        if self.parts.has_base_images() {
            base_images::push_first(&self.registry())?;
        }
        let hook = self.create_tasks_and_hook(&client).await?;
        let mut base_images = self.base_images(&client, &store).await?;

        let ids = random.random::<u64>();
        let stop = CancellationToken::new();
        let sending = self.send_all(&client, &hook, ids);
        let killing = self.kill_and_start(installation, &mut random);
        let playing = async {
            let played = tokio::join!(sending, killing);
            stop.cancel();
            played
        };
        let clients = [client.clone()];
        let pushing = async {
            let Some(images) = &mut base_images else { return Ok(()) };
            images.push_until(&stop, &clients, BASE_EVERY, self.seed).await
        };
        let ((sent, killed), pushed) = tokio::join!(playing, pushing);
        killed?;
        pushed?;
        let mut sent = sent?;
        report.kills = self.plan.kills.len() + usize::from(self.plan.first_kill.is_some());

        let pid = installation.pid().context("it runs")?;
        // The store is checked in any case, to find out what is lost.
        let base_images = base_images.as_ref();
        let rest = self.come_to_rest(&client, &hook, &mut sent, pid, base_images, &store);
        if let Err(error) = rest.await {
            report.fault(format!("{error:#}"));
        }
        installation.kill().await?;
        verdict::judge(self, &hook, &sent, base_images, report).await
    }

    /// The folder of the scripted registry.
    fn registry(&self) -> PathBuf {
        self.data().join("registry")
    }

    /// The base image, if it changes. On return it is known which tasks are built on it.
    async fn base_images(
        &self,
        client: &Client,
        store: &SqliteStore,
    ) -> Result<Option<BaseImages>> {
        if !self.parts.has_base_images() {
            return Ok(None);
        }
        let tasks =
            self.tasks.iter().map(|task| (task.name.clone(), task.branch.clone())).collect();
        let (registry, clone_url) = (self.registry(), self.git.url("app"));
        let images = BaseImages::create(client, &registry, &clone_url, tasks).await?;
        quiet("know the images", QUIET_WITHIN, || images.open(store)).await?;
        Ok(Some(images))
    }

    /// Waits until everything is done, then sends everything again, and checks that nothing changes.
    async fn come_to_rest(
        &self,
        client: &Client,
        hook: &Hook,
        sent: &mut [Delivery],
        pid: u32,
        base_images: Option<&BaseImages>,
        store: &SqliteStore,
    ) -> Result<()> {
        self.end_endless(client).await?;
        quiet("settle", QUIET_WITHIN, || self.unsettled(client, hook, sent)).await?;
        if let Some(images) = base_images {
            quiet("rebuild", REBUILT_WITHIN, || images.open(store)).await?;
        }
        for delivery in &mut *sent {
            delivery.repeat(client, hook).await?;
        }
        quiet("settle again", QUIET_WITHIN, || self.unsettled(client, hook, sent)).await?;
        quiet("tag", CLEAN_WITHIN, || self.misplaced_tags(client, sent)).await?;
        let foreign = self.foreign_images(client, sent).await?;
        ensure!(
            foreign.is_empty(),
            "runs pushed what they did not build:\n  {}",
            foreign.join("\n  ")
        );
        quiet("clean up", CLEAN_WITHIN, || self.left(pid)).await?;
        quiet("seal its logs and send its reports", REPORTED_WITHIN, || evidence::open(store)).await
    }

    fn spawn(&self, installation: &mut Installation, random: &mut StdRng) -> Result<()> {
        let mut repositories: Vec<String> =
            self.tasks.iter().map(|task| task.repository.clone()).collect();
        repositories.push(base_images::MIDDLE.to_owned());
        let program = self.parts.program(&self.data(), &self.plan, &repositories, random.random());
        installation.spawn(&program)
    }

    /// Creates a registry, the tasks and a hook. On return the heads of the branches are known.
    async fn create_tasks_and_hook(&self, client: &Client) -> Result<Hook> {
        let hook =
            create_tasks_and_hook(client, self.parts.registry(), &self.git.url("app"), &self.tasks)
                .await?;
        quiet("know the heads", QUIET_WITHIN, || self.unknown_heads(client)).await?;
        Ok(hook)
    }

    async fn unknown_heads(&self, client: &Client) -> Result<Vec<String>> {
        let mut unknown = Vec::new();
        for task in &self.tasks {
            let saved: Task =
                client.get(&format!("registries/{REGISTRY}/tasks/{}", task.name)).await?;
            let event = saved_event(&format!("{REGISTRY}/{}", task.name), &saved.created);
            let event: Event = client.get(&format!("events/{event}")).await?;
            if event.decision.is_none() {
                unknown.push(format!("the head of {}", task.branch));
            }
        }
        Ok(unknown)
    }

    async fn send_all(&self, client: &Client, hook: &Hook, ids: u64) -> Result<Vec<Delivery>> {
        let named = self.plan.branches.iter().enumerate();
        let mut sending: Vec<_> = named
            .map(|(number, branch)| {
                let id = format!("{ids:016x}-b{number}");
                self.send_to(client, hook, id, format!("b{number}"), &branch.pushes)
            })
            .collect();
        if self.parts.can_hang() {
            let id = format!("{ids:016x}-endless");
            sending.push(self.send_to(
                client,
                hook,
                id,
                "endless".to_owned(),
                &[plan::Push::AT_ONCE],
            ));
        }
        Ok(try_join_all(sending).await?.into_iter().flatten().collect())
    }

    /// Pushes to one branch, each push after the previous one was accepted, because code hosts keep their order.
    async fn send_to(
        &self,
        client: &Client,
        hook: &Hook,
        id: String,
        branch: String,
        pushes: &[plan::Push],
    ) -> Result<Vec<Delivery>> {
        let mut sent = Vec::new();
        for (number, push) in pushes.iter().enumerate() {
            tokio::time::sleep(push.pause).await;
            let moved = self.move_branch(&branch).await?;
            let mut delivery = Delivery::new(format!("{id}-{number}"), &self.git.url("app"), moved);
            if push.is_doubled {
                delivery.send_doubled(client, hook).await?;
            } else {
                delivery.send(client, hook).await?;
            }
            sent.push(delivery);
        }
        Ok(sent)
    }

    async fn move_branch(&self, branch: &str) -> Result<Push> {
        let (repository, branch) = (Arc::clone(&self.repository), branch.to_owned());
        tokio::task::spawn_blocking(move || move_branch(&repository, &branch)).await?
    }

    async fn kill_and_start(
        &self,
        installation: &mut Installation,
        random: &mut StdRng,
    ) -> Result<()> {
        for moment in &self.plan.kills {
            tokio::time::sleep(*moment).await;
            installation.kill().await?;
            self.spawn(installation, random)?;
        }
        installation.until_up().await
    }

    /// Cancels the runs that would never end.
    async fn end_endless(&self, client: &Client) -> Result<()> {
        let endless: Vec<&PlannedTask> = self.tasks.iter().filter(|task| task.hangs).collect();
        let missing = || async {
            let mut missing = Vec::new();
            for task in &endless {
                let path = format!("runs?registry={REGISTRY}&task={}", task.name);
                let runs: Page<Run> = client.get(&path).await?;
                for run in &runs.items {
                    let _: Value =
                        client.post(&format!("runs/{}/cancel", run.id), &json!({})).await?;
                }
                if runs.items.is_empty() {
                    missing.push(format!("a run of {}", task.name));
                }
            }
            Ok(missing)
        };
        quiet("start what never ends", QUIET_WITHIN, missing).await
    }

    /// Undecided events, and runs that have not ended.
    async fn unsettled(
        &self,
        client: &Client,
        hook: &Hook,
        sent: &[Delivery],
    ) -> Result<Vec<String>> {
        let mut unsettled = Vec::new();
        for delivery in sent {
            let path = format!("hooks/{}/deliveries/{}", hook.id, delivery.id);
            let details: DeliveryDetails = client.get(&path).await?;
            let is_decided = |event: &Event| event.decision.as_ref().is_some_and(|it| it.is_final);
            if !details.events.iter().all(is_decided) {
                unsettled.push(format!("delivery {} is undecided", delivery.id));
            }
        }
        let open = self.runs(client).await?.into_iter();
        let open = open.filter(|run| ["Queued", "Started", "Running"].contains(&&*run.status));
        unsettled.extend(open.map(|run| format!("run {} is {}", run.id, run.status)));
        Ok(unsettled)
    }

    async fn runs(&self, client: &Client) -> Result<Vec<Run>> {
        let page: Page<Run> = client.get(&format!("runs?registry={REGISTRY}&limit=500")).await?;
        Ok(page.items)
    }

    /// Tags that do not point to the image of the newest push.
    async fn misplaced_tags(&self, client: &Client, sent: &[Delivery]) -> Result<Vec<String>> {
        let mut misplaced = Vec::new();
        let runs = self.runs(client).await?;
        for task in self.tasks.iter().filter(|task| !task.hangs) {
            let newest = sent.iter().rfind(|delivery| delivery.push.branch == task.branch);
            let newest = &newest.context("each branch was pushed to")?.push.after;
            let is_newest = |run: &&Run| {
                run.task.as_deref() == Some(&task.name) && run.commit.as_ref() == Some(newest)
            };
            // A run that lost its worker too often has no image; the verdict checks whether that is justified.
            let Some(run) = runs.iter().find(is_newest).filter(|run| run.status == "Succeeded")
            else {
                continue;
            };
            let pushed = run.images.iter().find(|output| output.image == task.latest);
            let pushed = pushed.map(|output| output.digest.as_str());
            let tagged = self.parts.tag(&self.data(), &task.latest).await?;
            let digest = tagged.as_ref().map(|tagged| tagged.digest.as_str());
            let commit = tagged.as_ref().and_then(|tagged| tagged.commit.as_ref());
            if pushed.is_none() || digest != pushed || commit.is_some_and(|it| it != newest) {
                misplaced.push(format!(
                    "{} is {tagged:?}, not the image {pushed:?} of run {} at {newest}",
                    task.latest, run.id
                ));
            }
        }
        Ok(misplaced)
    }

    /// Pushed images with the files of another commit than their run's.
    async fn foreign_images(&self, client: &Client, sent: &[Delivery]) -> Result<Vec<String>> {
        let mut foreign = Vec::new();
        for run in self.runs(client).await? {
            let mut pushes = sent.iter().map(|delivery| &delivery.push);
            let own = pushes.find(|push| Some(&push.after) == run.commit.as_ref());
            let Some(push) = own else { continue };
            for output in &run.images {
                let file = self.parts.file(output).await?;
                if file.is_some_and(|file| file != content(&push.branch, &push.before)) {
                    foreign.push(format!("{output:?} of run {} of {push:?}", run.id));
                }
            }
        }
        Ok(foreign)
    }

    /// What dead processes left in the engine, on the disk, and as processes.
    async fn left(&self, pid: u32) -> Result<Vec<String>> {
        let mut left = self.parts.left().await?;
        let checkouts = std::fs::read_dir(self.data().join("work/checkouts"))?;
        left.extend(checkouts.flatten().map(|entry| entry.path().display().to_string()));
        let data = self.data().display().to_string();
        left.extend(processes_on(&data, pid).into_iter().map(|pid| format!("process {pid}")));
        Ok(left)
    }
}

impl PlannedTask {
    pub(crate) fn new(parts: &Parts, name: String, is_staged: bool, hangs: bool) -> Self {
        let branch = name.split('-').next().unwrap_or_default().to_owned();
        let repository = parts.repository(&name);
        let mut images = vec![format!("{repository}:latest")];
        // Some tasks only move a fixed tag.
        if !is_staged {
            images.push(format!("{repository}:{{{{.Run.ID}}}}"));
        }
        let latest = format!("{}/{repository}:latest", parts.registry());
        let dockerfile = hangs.then(|| "endless.Dockerfile".to_owned());
        Self { name, branch, latest, repository, images, dockerfile, hangs }
    }
}

/// Creates a registry, the tasks and a hook.
pub(crate) async fn create_tasks_and_hook(
    client: &Client,
    host: String,
    clone_url: &str,
    tasks: &[PlannedTask],
) -> Result<Hook> {
    let registry = RegistryCreate { name: REGISTRY.to_owned(), host, ..Default::default() };
    let _: Registry = client.post("registries", &registry).await?;
    for task in tasks {
        create_task(client, clone_url, task).await?;
    }
    let hook = HookCreate { provider: "github".to_owned(), ..HookCreate::default() };
    let hook: HookCreated = client.post(&format!("registries/{REGISTRY}/hooks"), &hook).await?;
    let secret = hook.secret.context("a hook of GitHub has a secret")?;
    Ok(Hook { id: hook.hook.id, secret })
}

/// Creates a task.
pub(crate) async fn create_task(
    client: &Client,
    clone_url: &str,
    task: &PlannedTask,
) -> Result<()> {
    let saved = TaskCreate {
        name: task.name.clone(),
        context: format!("{clone_url}#{}", task.branch),
        dockerfile: task.dockerfile.clone(),
        images: task.images.clone(),
        secret_build_args: BTreeMap::from([("TOKEN".to_owned(), SECRET.to_owned())]),
        source_trigger: Some(SourceTrigger::default()),
        base_image_trigger: Some(base_images::trigger()),
        ..TaskCreate::default()
    };
    let _: Task = client.post(&format!("registries/{REGISTRY}/tasks"), &saved).await?;
    Ok(())
}

/// Pushes another commit to a branch.
pub(crate) fn move_branch(repository: &Mutex<TestRepository>, branch: &str) -> Result<Push> {
    let repository = repository.lock().unwrap();
    let before = repository.git(&["ls-remote", "origin", &format!("refs/heads/{branch}")])?;
    let before = before.split_whitespace().next().context("the branch is there")?.to_owned();
    let after = repository.commit(branch, &[("file", &content(branch, &before))])?;
    Ok(Push { branch: branch.to_owned(), before, after })
}

/// The content of a commit's file, unique to the commit.
fn content(branch: &str, before: &str) -> String {
    format!("{branch} after {before}\n")
}

/// Processes other than `pid` that work in a folder, or have it in their arguments.
fn processes_on(folder: &str, pid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let others = pids.filter(|other| *other != pid && *other != std::process::id());
    others
        .filter(|other| {
            let process = PathBuf::from(format!("/proc/{other}"));
            let says = |file| std::fs::read(process.join(file)).unwrap_or_default();
            [says("cmdline"), says("environ")]
                .iter()
                .any(|bytes| String::from_utf8_lossy(bytes).contains(folder))
        })
        .collect()
}

/// Waits until `open` returns nothing.
pub(crate) async fn quiet<F: Future<Output = Result<Vec<String>>>>(
    what: &str,
    within: Duration,
    open: impl Fn() -> F,
) -> Result<()> {
    let began = Instant::now();
    loop {
        let left = open().await?;
        if left.is_empty() {
            return Ok(());
        }
        if began.elapsed() > within {
            bail!("it did not {what} within {within:?}:\n  {}", left.join("\n  "));
        }
        tokio::time::sleep(LOOK).await;
    }
}
