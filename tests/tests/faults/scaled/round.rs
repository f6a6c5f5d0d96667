//! One round: processes over servers receive pushes while both fail, and when all is quiet their state is checked
//! against what was sent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use gantry_api::{
    HookCreate, HookCreated, Registry, RegistryCreate, SourceTrigger, Task, TaskCreate,
};
use gantry_seams::store::SharedStore;
use gantry_tests::installation::Client;
use gantry_tests::kept_registry::{self, KeptRegistry};
use tokio_util::sync::CancellationToken;

use super::driver::{Driver, Sent};
use super::environment::{Environment, Pace, open_store};
use super::plan::Plan;
use super::report::{Played, Report};
use super::roles::Roles;
use super::servers::Servers;
use super::timed::{self, Timed};
use super::verdict;
use crate::base_images::{self, BaseImages};
use crate::evidence;
use crate::ledger::Hook;
use crate::round::quiet;

/// The time limit until nothing changes: longer than the pause of 80 s before a third attempt, which a run may
/// need whose engine was unavailable, even on a busy machine.
const QUIET_WITHIN: Duration = Duration::from_secs(300);

/// The least time of pushing, and the time after the last fault.
const PUSHED_FOR: Duration = Duration::from_secs(12);
const PUSHED_AFTER: Duration = Duration::from_secs(3);

/// The longest pause between two pushes of the base image. Most rebuilds end within it.
const BASE_EVERY: Duration = Duration::from_secs(8);

/// The name of the registry.
pub(crate) const REGISTRY: &str = "reg";

const BRANCHES: usize = 6;

/// A task of a round.
#[derive(Debug, Clone)]
pub(crate) struct PlannedTask {
    pub(crate) name: String,
    pub(crate) branch: String,
    /// Its image with the tag that each run moves.
    pub(crate) latest: String,
}

/// All parts of a round.
pub(crate) struct Round {
    pub(crate) environment: Environment,
    pub(crate) servers: Servers,
    pub(crate) roles: Roles,
    pub(crate) tasks: Vec<PlannedTask>,
    pub(crate) timed: Timed,
    pub(crate) base_images: BaseImages,
    pub(crate) store: SharedStore,
    pub(crate) driver: Driver,
}

/// Plays the round of a seed.
pub(crate) async fn play(seed: u64) -> Report {
    let began = Instant::now();
    let mut report = Report::new(seed);
    let plan = Plan::of(seed);
    match Round::set_up(seed, plan.brokers, Some(Pace::QUICK)).await {
        Ok(mut round) => {
            if let Err(error) = round.play(seed, &plan, &mut report).await {
                report.fault(format!("{error:#}"));
            }
            if report.has_faults() {
                report.note(format!("{plan:#?}\n{}", round.roles.last_words()));
            }
        }
        Err(error) => report.fault(format!("it could not be set up: {error:#}")),
    }
    report.took(began.elapsed());
    report
}

impl Round {
    pub(crate) async fn set_up(seed: u64, brokers: usize, pace: Option<Pace>) -> Result<Self> {
        let (environment, servers) =
            tokio::try_join!(Environment::create(), Servers::start(brokers))?;
        let tasks: Vec<PlannedTask> = planned_tasks();
        let mut names: Vec<String> = tasks.iter().map(|task| task.name.clone()).collect();
        names.push(base_images::MIDDLE.to_owned());
        let repository = environment.git.repository("app")?;
        let dockerfile = format!("FROM {}\nCOPY file /file\n", kept_registry::BASE);
        let mut files = vec![("Dockerfile", dockerfile.as_str()), ("file", "first")];
        let others = base_images::dockerfiles(&dockerfile);
        files.extend(others.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        for branch in branches(&tasks).into_iter().chain([base_images::MIDDLE.to_owned()]) {
            repository.commit(&branch, &files)?;
        }
        base_images::push_first(&environment.registry())?;
        let roles = Roles::start(&environment, &servers, seed, pace, &names).await?;
        let store = open_store(&servers).await?;
        let token = gantry_ingress::issue_admin_token(store.as_ref()).await?;
        let ingresses: Vec<Client> =
            roles.addresses().iter().map(|address| Client::at(*address, token.as_str())).collect();
        let clone_url = environment.git.url("app");
        let hook = create_tasks_and_hook(&ingresses[0], &tasks, &clone_url).await?;
        let timed = (clone_url.as_str(), tasks[0].branch.as_str());
        let timed = Timed::create(&ingresses[0], store.as_ref(), timed).await?;
        let built = tasks.iter().map(|task| (task.name.clone(), task.branch.clone()));
        let built = built.chain([(timed::NAME.to_owned(), tasks[0].branch.clone())]).collect();
        let registry = environment.registry();
        let base_images = BaseImages::create(&ingresses[0], &registry, &clone_url, built).await?;
        let unknown = || base_images.open(store.as_ref());
        quiet("know the heads and images", QUIET_WITHIN, unknown).await?;
        let driver = Driver::new(ingresses, hook, clone_url, repository);
        Ok(Self { environment, servers, roles, tasks, timed, base_images, store, driver })
    }

    async fn play(&mut self, seed: u64, plan: &Plan, report: &mut Report) -> Result<()> {
        let branches = branches(&self.tasks);
        let stop = CancellationToken::new();
        Timed::until_nearly_due().await;
        let sending = self.driver.send(&branches, seed, &stop);
        let clients = &self.driver.ingresses;
        let pushing = self.base_images.push_until(&stop, clients, BASE_EVERY, seed);
        let (servers, roles) = (&mut self.servers, &mut self.roles);
        let failing = async {
            let enough = tokio::time::sleep(PUSHED_FOR);
            let (servers, roles, ()) =
                tokio::join!(servers.suffer(&plan.servers), roles.suffer(&plan.roles), enough);
            tokio::time::sleep(PUSHED_AFTER).await;
            stop.cancel();
            anyhow::Ok(servers?.into_iter().chain(roles?).collect::<Vec<Played>>())
        };
        let (sent, pushed, played) = tokio::join!(sending, pushing, failing);
        let (mut sent, (), played) = (sent?, pushed?, played?);
        // The store is checked in any case, to find out what is lost.
        if let Err(error) = self.come_to_rest(&mut sent).await {
            report.fault(format!("{error:#}"));
        }
        verdict::judge(self, &sent, &played, report).await
    }

    /// Waits until everything is done, then sends everything again, and checks that nothing changes.
    pub(crate) async fn come_to_rest(&mut self, sent: &mut [Sent]) -> Result<()> {
        let store = self.store.as_ref();
        self.timed.stop(store, QUIET_WITHIN).await?;
        quiet("settle", QUIET_WITHIN, || self.base_images.open(store)).await?;
        self.driver.repeat(sent).await?;
        quiet("settle again", QUIET_WITHIN, || evidence::open(store)).await?;
        self.roles.live()
    }

    /// The digest of a task's tag in the registry.
    pub(crate) fn tag(&self, task: &PlannedTask) -> Result<Option<String>> {
        let image = task.latest.parse()?;
        Ok(KeptRegistry::tag_in(&self.environment.registry(), &image)
            .map(|digest| digest.to_string()))
    }
}

/// One task for each branch, and two for the first.
fn planned_tasks() -> Vec<PlannedTask> {
    let mut tasks: Vec<PlannedTask> = (0..BRANCHES).map(|number| planned_task(number, 0)).collect();
    tasks.push(planned_task(0, 1));
    tasks
}

fn planned_task(branch: usize, number: usize) -> PlannedTask {
    let (branch, name) = (format!("b{branch}"), format!("b{branch}-{number}"));
    let latest = format!("{}/{name}:latest", kept_registry::HOST);
    PlannedTask { name, branch, latest }
}

fn branches(tasks: &[PlannedTask]) -> Vec<String> {
    let mut branches: Vec<String> = tasks.iter().map(|task| task.branch.clone()).collect();
    branches.sort();
    branches.dedup();
    branches
}

/// Creates a registry, the tasks and a hook.
async fn create_tasks_and_hook(
    client: &Client,
    tasks: &[PlannedTask],
    clone_url: &str,
) -> Result<Hook> {
    let host = kept_registry::HOST.to_owned();
    let registry = RegistryCreate { name: REGISTRY.to_owned(), host, ..Default::default() };
    let _: Registry = client.post("registries", &registry).await?;
    for task in tasks {
        let mut images = vec![format!("{}:latest", task.name)];
        // Some tasks only move a fixed tag.
        if task.name.ends_with('0') {
            images.push(format!("{}:{{{{.Run.ID}}}}", task.name));
        }
        let saved = TaskCreate {
            name: task.name.clone(),
            context: format!("{clone_url}#{}", task.branch),
            dockerfile: base_images::dockerfile_of(&task.branch),
            images,
            secret_build_args: BTreeMap::from([(
                "TOKEN".to_owned(),
                "not-for-the-store".to_owned(),
            )]),
            source_trigger: Some(SourceTrigger::default()),
            base_image_trigger: Some(base_images::trigger()),
            ..TaskCreate::default()
        };
        let _: Task = client.post(&format!("registries/{REGISTRY}/tasks"), &saved).await?;
    }
    let hook = HookCreate { provider: "github".to_owned(), ..HookCreate::default() };
    let hook: HookCreated = client.post(&format!("registries/{REGISTRY}/hooks"), &hook).await?;
    let secret = hook.secret.context("a hook of GitHub has a secret")?;
    Ok(Hook { id: hook.hook.id, secret })
}
