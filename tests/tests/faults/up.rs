//! `gantry up` on the real engine and registry with one task and its hook: the basis for tests of a single fault.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use gantry_api::{
    Event, HookCreate, HookCreated, Page, Registry, RegistryCreate, Run, SourceTrigger, Task,
    TaskCreate,
};
use gantry_domain::platform::Platform;
use gantry_ops::secret::Keyring;
use gantry_tests::backend::Vhost;
use gantry_tests::git_server::{GitServer, TestRepository};
use gantry_tests::installation::{Client, Installation, Program, saved_event};
use gantry_tests::servers::free_port;
use gantry_tests::servers::redis::Redis;
use gantry_tests::{real, role};
use serde_json::Value;
use tempfile::TempDir;

use crate::ledger::{Delivery, Hook};
use crate::round::{move_branch, quiet};

/// The time limit for anything on a busy machine.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);

const BRANCH: &str = "main";

pub(crate) const LAST_SWEEP: &str = "gantry_last_sweep_timestamp_seconds";

/// The service, and the repository of its task.
pub(crate) struct Up {
    pub(crate) installation: Installation,
    pub(crate) client: Client,
    telemetry: SocketAddr,
    hook: Hook,
    git: GitServer,
    repository: Mutex<TestRepository>,
    sent: usize,
    _folder: TempDir,
}

/// An address for `telemetry.listen`.
pub(crate) fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

/// `gantry up` on a data folder, with settings in addition to the common ones.
pub(crate) fn program(data: &Path, telemetry: SocketAddr, own: &[String]) -> Program {
    let usual = [
        format!("engine.address={}", real::docker_host()),
        "outbound.allow=127.0.0.1".to_owned(),
        "worker.min_free=0B".to_owned(),
        "objects.min_free=0B".to_owned(),
        "sweep.interval=250ms".to_owned(),
        "log.format=human".to_owned(),
        format!("telemetry.listen={telemetry}"),
    ];
    let first = ["up", "--listen", "127.0.0.1:0", "--data", &data.display().to_string()];
    let first = first.map(str::to_owned).into_iter();
    let settings = usual.iter().chain(own).flat_map(|set| ["--set".to_owned(), set.clone()]);
    let client = data.with_extension("client.toml").display().to_string();
    Program {
        path: role::gantry(),
        arguments: first.chain(settings).collect(),
        environment: vec![("GANTRY_CONFIG".to_owned(), client)],
    }
}

/// What processes over a Redis share.
pub(crate) struct Scaled {
    folder: TempDir,
    _vhost: Vhost,
    pub(crate) settings: Vec<String>,
}

impl Scaled {
    /// For this Redis, and a vhost of the shared RabbitMQ.
    pub(crate) async fn over(redis: &Redis) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = |name: &str| folder.path().join(name).display().to_string();
        let ring = Keyring::create(&folder.path().join("service.key"))?;
        ring.pool_key(&Platform::default().pool()).write(&folder.path().join("pool.key"))?;
        std::fs::create_dir(folder.path().join("objects"))?;
        let vhost = Vhost::make().await;
        let settings = vec![
            format!("store.url={}", redis.url()),
            format!("queue.urls={}", vhost.address()),
            format!("objects.url=file://{}", file("objects")),
            format!("secrets.key_file={}", file("service.key")),
        ];
        Ok(Self { folder, _vhost: vhost, settings })
    }

    /// The data folder of a process.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Up {
    /// Starts the result of [`program`], and sets it up: a push to the branch builds `dockerfile`, in which `BASE`
    /// is replaced by a base image.
    pub(crate) async fn start(
        program: &Program,
        telemetry: SocketAddr,
        dockerfile: &str,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let git = GitServer::start().await?;
        let repository = git.repository("app")?;
        let dockerfile = dockerfile.replace("BASE", &real::base_image());
        repository.commit(BRANCH, &[("Dockerfile", &dockerfile), ("file", "first")])?;
        let mut installation = Installation::new(folder.path().join("log"));
        installation.start(program).await?;
        let client = installation.client();
        let hook = create_tasks_and_hook(&client, &format!("{}#{BRANCH}", git.url("app"))).await?;
        let repository = Mutex::new(repository);
        Ok(Self {
            installation,
            client,
            telemetry,
            hook,
            git,
            repository,
            sent: 0,
            _folder: folder,
        })
    }

    /// A push that moves the branch, not yet sent.
    pub(crate) fn push(&mut self) -> Result<Delivery> {
        let moved = move_branch(&self.repository, BRANCH)?;
        Ok(Delivery::new(self.next_id(), &self.clone_url(), moved))
    }

    /// A push that changes the Dockerfile, not yet sent.
    pub(crate) fn push_of(&mut self, dockerfile: &str) -> Result<Delivery> {
        let dockerfile = dockerfile.replace("BASE", &real::base_image());
        let repository = self.repository.lock().unwrap();
        let before = repository.git(&["ls-remote", "origin", &format!("refs/heads/{BRANCH}")])?;
        let before = before.split_whitespace().next().unwrap_or_default().to_owned();
        let after = repository.commit(BRANCH, &[("Dockerfile", &dockerfile), ("file", &before)])?;
        drop(repository);
        let push = crate::ledger::Push { branch: BRANCH.to_owned(), before, after };
        Ok(Delivery::new(self.next_id(), &self.clone_url(), push))
    }

    /// A push with a file of these bytes, not yet sent.
    pub(crate) fn push_file(&mut self, bytes: &[u8]) -> Result<Delivery> {
        self.repository.lock().unwrap().write_program("large", bytes)?;
        self.push()
    }

    /// A push to a branch that no task watches, not yet sent.
    pub(crate) fn idle_push(&mut self) -> Delivery {
        let (before, after) = ("a".repeat(40), "b".repeat(40));
        let push = crate::ledger::Push { branch: "nobodys".to_owned(), before, after };
        Delivery::new(self.next_id(), &self.clone_url(), push)
    }

    /// The address of the repository.
    pub(crate) fn clone_url(&self) -> String {
        self.git.url("app")
    }

    fn next_id(&mut self) -> String {
        self.sent += 1;
        format!("delivery-{}", self.sent)
    }

    pub(crate) fn hook(&self) -> Hook {
        self.hook.clone()
    }

    /// Waits until the run of a delivered push has this status. Fails if it ends in another one.
    pub(crate) async fn until_run_is(&self, push: &Delivery, status: &str) -> Result<Run> {
        self.until_run(push, status, |run| run.status == status).await
    }

    /// Waits until an attempt of the run of a delivered push has failed with these words.
    pub(crate) async fn until_attempt_says(&self, push: &Delivery, words: &str) -> Result<Run> {
        let said = |run: &Run| {
            let mut errors = run.attempts.iter().filter_map(|attempt| attempt.error.as_ref());
            errors.any(|error| error.contains(words))
        };
        self.until_run(push, words, said).await
    }

    async fn until_run(
        &self,
        push: &Delivery,
        what: &str,
        is_so: impl Fn(&Run) -> bool,
    ) -> Result<Run> {
        let began = Instant::now();
        loop {
            let runs: Page<Run> = self.client.get("runs?registry=reg").await?;
            let run =
                runs.items.into_iter().find(|run| run.commit.as_ref() == Some(&push.push.after));
            match run {
                Some(run) if is_so(&run) => return Ok(run),
                run if began.elapsed() > WITHIN => {
                    bail!("of no run is true: {what}: {run:?}\n{}", self.installation.last_words())
                }
                _ => tokio::time::sleep(Duration::from_millis(25)).await,
            }
        }
    }

    /// The value of one of its metrics.
    pub(crate) async fn metric(&self, name: &str) -> Result<f64> {
        metric(self.telemetry, name).await
    }

    /// Waits for this many more passes of the sweeper.
    pub(crate) async fn until_swept(&self, times: usize) -> Result<()> {
        let began = Instant::now();
        for _ in 0..times {
            let last = self.metric(LAST_SWEEP).await?;
            while self.metric(LAST_SWEEP).await? == last {
                ensure!(began.elapsed() < WITHIN, "nobody sweeps");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// The answer of `/readyz`: whether it is ready, and the state of each part.
    pub(crate) async fn ready(&self) -> Result<(bool, Value)> {
        let answer = reqwest::get(format!("http://{}/readyz", self.telemetry)).await?;
        Ok((answer.status().is_success(), answer.json().await?))
    }
}

/// The value of a metric of a process, with its labels in the name.
pub(crate) async fn metric(telemetry: SocketAddr, name: &str) -> Result<f64> {
    let text = reqwest::get(format!("http://{telemetry}/metrics")).await?.text().await?;
    let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    let value = lines.find(|(found, _)| *found == name).map(|(_, value)| value.parse());
    Ok(value.context(name.to_owned())??)
}

/// Creates a registry, a task and a hook. On return the head of the task's branch is known: otherwise a first push could
/// be taken for one that the next push has overtaken.
async fn create_tasks_and_hook(client: &Client, context: &str) -> Result<Hook> {
    let registry =
        RegistryCreate { name: "reg".to_owned(), host: real::registry(), ..Default::default() };
    let _: Registry = client.post("registries", &registry).await?;
    let random = gantry_ops::secret::random_hex::<6>()?;
    let task = TaskCreate {
        name: "web".to_owned(),
        context: context.to_owned(),
        images: vec![format!("faults-{}:{{{{.Run.ID}}}}", random.as_str())],
        source_trigger: Some(SourceTrigger::default()),
        ..TaskCreate::default()
    };
    let saved: Task = client.post("registries/reg/tasks", &task).await?;
    let event = format!("events/{}", saved_event("reg/web", &saved.created));
    quiet("know the head", WITHIN, async || {
        let event: Event = client.get(&event).await?;
        Ok(if event.decision.is_none() { vec![event.id] } else { Vec::new() })
    })
    .await?;
    let hook = HookCreate { provider: "github".to_owned(), ..HookCreate::default() };
    let hook: HookCreated = client.post("registries/reg/hooks", &hook).await?;
    let secret = hook.secret.context("a hook of GitHub has a secret")?;
    Ok(Hook { id: hook.hook.id, secret })
}
