//! An installation of real processes that send telemetry: `gantry up`, or the three roles on Redis and RabbitMQ.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use gantry_api::{
    HookCreate, HookCreated, Page, Registry, RegistryCreate, Run, SourceTrigger, Task, TaskCreate,
};
use gantry_domain::platform::Platform;
use gantry_ops::secret::{Keyring, random_hex};
use gantry_tests::backend::Vhost;
use gantry_tests::git_server::{GitServer, TestRepository};
use gantry_tests::github;
use gantry_tests::installation::{Client, Program};
use gantry_tests::real;
use gantry_tests::role::{self, Role, Setting};
use gantry_tests::servers::free_port;
use gantry_tests::servers::redis::Redis;
use tempfile::TempDir;

use crate::collector::KEY;

/// A secret build argument, which no span may contain.
pub(crate) const SECRET: &str = "a-secret-that-no-span-may-have";

pub(crate) struct Installation {
    pub(crate) roles: Vec<Role>,
    client: Client,
    token: String,
    address: SocketAddr,
    git: GitServer,
    /// The servers of the scaled mode.
    _servers: Option<(Redis, Vhost)>,
    _folder: TempDir,
}

/// A task with a source trigger, and its hook.
pub(crate) struct Watched {
    name: String,
    repository: TestRepository,
    head: String,
    hook: HookCreated,
}

fn text(text: impl std::fmt::Display) -> String {
    format!("{:?}", text.to_string())
}

impl Installation {
    /// `gantry up`, optionally with a collector at `otlp`.
    pub(crate) async fn up(otlp: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut settings = settings(otlp);
        settings.push(("server.listen", text(address)));
        let mut role = Role::new(folder.path().join("up"), program("up"), &settings).unwrap();
        role.spawn().unwrap();
        role.until_ready().await.unwrap();
        let token = said_token(&role).await;
        Self::begin(vec![role], &token, address, None, folder).await
    }

    /// Ingress, scheduler and worker as separate processes.
    pub(crate) async fn apart(otlp: Option<&str>) -> Self {
        // An error means that it was already installed.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let ring = Keyring::create(&path("service.key")).unwrap();
        ring.pool_key(&Platform::default().pool()).write(&path("pool.key")).unwrap();
        std::fs::create_dir(path("objects")).unwrap();
        let (redis, vhost) = (Redis::start().await.unwrap(), Vhost::make().await);
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut shared = settings(otlp);
        shared.extend([
            ("store.url", text(redis.url())),
            ("queue.urls", format!("[{:?}]", vhost.address())),
            ("objects.url", text(format!("file://{}", path("objects").display()))),
        ]);
        let role = |name: &str, own: &[Setting]| {
            let all: Vec<Setting> = shared.iter().chain(own).cloned().collect();
            Role::new(path(name), program(name), &all).unwrap()
        };
        let key = ("secrets.key_file", text(path("service.key").display()));
        let pool_key = ("secrets.pool_key_file", text(path("pool.key").display()));
        let listen = ("server.listen", text(address));
        let mut roles = vec![
            role("ingress", &[key.clone(), listen]),
            role("scheduler", &[key]),
            role("worker", &[pool_key]),
        ];
        for role in &mut roles {
            role.spawn().unwrap();
        }
        for role in &mut roles {
            role.until_ready().await.unwrap();
        }
        let token = made_token(&path("ingress").join("gantry.toml"));
        Self::begin(roles, &token, address, Some((redis, vhost)), folder).await
    }

    async fn begin(
        roles: Vec<Role>,
        token: &str,
        address: SocketAddr,
        servers: Option<(Redis, Vhost)>,
        folder: TempDir,
    ) -> Self {
        let client = Client::at(address, token);
        let registry = RegistryCreate {
            name: "demo".to_owned(),
            host: real::registry(),
            credentials: None,
            credential_helper: false,
            run_limit: None,
        };
        let _: Registry = client.post("registries", &registry).await.unwrap();
        let git = GitServer::start().await.unwrap();
        Self {
            roles,
            client,
            token: token.to_owned(),
            address,
            git,
            _servers: servers,
            _folder: folder,
        }
    }

    /// Creates a task on a new repository, with a secret build argument.
    pub(crate) async fn watch(&self) -> Watched {
        let name = format!("web-{}", random_hex::<4>().unwrap().as_str());
        let repository = self.git.repository(&name).unwrap();
        let dockerfile = format!("FROM {}\nARG TOKEN\nRUN echo built\n", real::base_image());
        let head = repository.commit("main", &[("Dockerfile", &dockerfile)]).unwrap();
        let task = TaskCreate {
            name: name.clone(),
            context: format!("{}#main", self.git.url(&name)),
            images: vec![format!("{name}:{{{{.Run.ID}}}}")],
            secret_build_args: [("TOKEN".to_owned(), SECRET.to_owned())].into(),
            source_trigger: Some(SourceTrigger::default()),
            ..TaskCreate::default()
        };
        let _: Task = self.client.post("registries/demo/tasks", &task).await.unwrap();
        let hook = HookCreate { provider: "github".to_owned(), ..HookCreate::default() };
        let hook = self.client.post("registries/demo/hooks", &hook).await.unwrap();
        Watched { name, repository, head, hook }
    }

    /// Sends a signed push with a change, and waits for the end of its run.
    pub(crate) async fn push(&self, watched: &Watched, traceparent: Option<&str>) -> Run {
        let after = watched.repository.commit("main", &[("file", "changed")]).unwrap();
        let body = serde_json::json!({
            "ref": "refs/heads/main", "before": watched.head, "after": after, "created": false,
            "deleted": false, "forced": false, "commits": [],
            "repository": {
                "full_name": "demo/web", "clone_url": self.git.url(&watched.name),
                "default_branch": "main"
            },
            "pusher": {"name": "mona"}, "sender": {"login": "mona"}
        })
        .to_string();
        let status =
            self.deliver(watched, watched.hook.secret.as_ref().unwrap(), traceparent, &body).await;
        assert_eq!(status, 202);
        self.until_ended(watched).await
    }

    async fn until_ended(&self, watched: &Watched) -> Run {
        let path = format!("runs?registry=demo&task={}", watched.name);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
        loop {
            let runs: Page<Run> = self.client.get(&path).await.unwrap();
            match runs.items.first().filter(|run| run.finished.is_some()) {
                Some(run) => return run.clone(),
                None => assert!(std::time::Instant::now() < deadline, "{runs:?} {}", self.words()),
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Requests a run of the task, and waits for its end.
    pub(crate) async fn ask(&self, watched: &Watched, traceparent: &str) -> Run {
        let path = format!("registries/demo/tasks/{}/runs", watched.name);
        let asked = reqwest::Client::new()
            .post(format!("http://{}/api/v1/{path}", self.address))
            .bearer_auth(&self.token)
            .header("traceparent", traceparent);
        assert_eq!(asked.send().await.unwrap().status(), 201);
        self.until_ended(watched).await
    }

    /// Sends a delivery signed with `secret`, which may be wrong. Returns the status.
    pub(crate) async fn deliver(
        &self,
        watched: &Watched,
        secret: &str,
        traceparent: Option<&str>,
        body: &str,
    ) -> u16 {
        let url = format!("http://{}/hooks/github/{}", self.address, watched.hook.hook.id);
        let mut request = reqwest::Client::new().post(url).body(body.to_owned());
        let id = random_hex::<16>().unwrap();
        for (name, value) in github::headers(secret, id.as_str(), body) {
            request = request.header(name, value);
        }
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        request.send().await.unwrap().status().as_u16()
    }

    /// Terminates all processes, and waits for their end.
    pub(crate) async fn end(&mut self) {
        for role in &mut self.roles {
            role.terminate().await.unwrap();
        }
    }

    /// The end of each process's output.
    pub(crate) fn words(&self) -> String {
        self.roles.iter().map(Role::last_words).collect::<Vec<_>>().join("\n---\n")
    }
}

/// The settings of every process.
fn settings(otlp: Option<&str>) -> Vec<Setting> {
    let mut settings = vec![
        ("engine.address", text(real::docker_host())),
        ("outbound.allow", format!("[\"127.0.0.1\", \"http://{}\"]", real::registry())),
        ("worker.min_free", text("0B")),
        ("log.format", text("json")),
    ];
    settings.extend(otlp.map(|url| ("telemetry.otlp", text(url))));
    settings
}

fn program(command: &str) -> Program {
    let header = ("OTEL_EXPORTER_OTLP_HEADERS".to_owned(), format!("x-key={KEY}"));
    Program { path: role::gantry(), arguments: vec![command.to_owned()], environment: vec![header] }
}

/// The token that `gantry up` prints at its first start.
async fn said_token(role: &Role) -> String {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let words = role.last_words();
        let mut lines = words.lines().filter_map(|line| line.trim().strip_prefix("token "));
        match lines.next() {
            Some(token) => return gantry_tests::installation::token_of(token.trim()),
            None => assert!(std::time::Instant::now() < deadline, "{words}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
}

fn made_token(config: &Path) -> String {
    let made = Command::new(role::gantry())
        .args(["store", "admin-token", "--config"])
        .arg(config)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}
