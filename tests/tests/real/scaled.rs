//! An installation of roles: processes over a private Redis, the shared RabbitMQ, and the real engine and registry.

use std::process::Output;
use std::time::{Duration, Instant};

use gantry_tests::backend::Vhost;
use gantry_tests::git_server::GitServer;
use gantry_tests::installation::Program;
use gantry_tests::proxy::Proxy;
use gantry_tests::real;
use gantry_tests::role::{self, Role, Setting};
use gantry_tests::servers::free_port;
use gantry_tests::servers::redis::Redis;
use tempfile::TempDir;
use tokio::process::Command;

/// The time limit for anything on a busy machine.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);

/// What the processes of one installation share.
pub(crate) struct Scaled {
    pub(crate) folder: TempDir,
    pub(crate) redis: Redis,
    /// The proxy to the broker.
    pub(crate) broker: Proxy,
    pub(crate) vhost: Vhost,
    pub(crate) token: String,
}

impl Scaled {
    /// Starts the servers and creates the keys; no process is running yet.
    pub(crate) async fn new() -> Self {
        let _already = rustls::crypto::ring::default_provider().install_default();
        let scaled = Self {
            folder: tempfile::tempdir().unwrap(),
            redis: Redis::start().await.unwrap(),
            broker: Proxy::start(broker().parse().unwrap()).await.unwrap(),
            vhost: Vhost::make().await,
            token: String::new(),
        };
        scaled.ok(&["secret", "key", "--to", "service.key"]).await;
        scaled.pool_key("service.key", "pool.key").await;
        scaled
    }

    pub(crate) async fn pool_key(&self, service_key: &str, to: &str) {
        let mut command = self.program(&["secret", "pool-key", "linux-amd64", "--to", to]);
        command.env("GANTRY_SECRETS_KEY_FILE", service_key);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The settings of all roles, with those of one role.
    pub(crate) fn settings(&self, own: &[Setting]) -> Vec<Setting> {
        let vhost = self.vhost.address();
        let vhost = vhost.rsplit('/').next().unwrap();
        let shared = [
            ("patience", "\"20s\"".to_owned()),
            ("store.url", format!("{:?}", self.redis.url())),
            ("queue.urls", format!("[\"amqp://guest@{}/{vhost}\"]", self.broker.address())),
            ("objects.url", format!("\"file://{}\"", self.path("objects"))),
            ("secrets.key_file", format!("{:?}", self.path("service.key"))),
            ("secrets.pool_key_file", format!("{:?}", self.path("pool.key"))),
            ("engine.address", format!("{:?}", real::docker_host())),
            ("outbound.allow", format!("[\"127.0.0.1\", \"http://{}\"]", real::registry())),
        ];
        let is_shared = |key: &str| own.iter().all(|(other, _)| *other != key);
        let shared = shared.into_iter().filter(|(key, _)| is_shared(key));
        shared.chain(own.iter().cloned()).collect()
    }

    pub(crate) fn role(&self, role: &str, name: &str, own: &[Setting]) -> Role {
        let program = Program {
            path: role::gantry(),
            arguments: vec![role.to_owned()],
            environment: Vec::new(),
        };
        Role::new(self.folder.path().join(name), program, &self.settings(own)).unwrap()
    }

    pub(crate) fn ingress(&self, name: &str) -> (Role, String) {
        let listen = format!("127.0.0.1:{}", free_port());
        let ingress = self.role("ingress", name, &[("server.listen", format!("{listen:?}"))]);
        (ingress, format!("http://{listen}"))
    }

    pub(crate) fn scheduler(&self) -> Role {
        self.role("scheduler", "scheduler", &[])
    }

    pub(crate) fn worker(&self, name: &str) -> Role {
        self.worker_on(name, &real::docker_host())
    }

    /// A worker on the engine at `docker_host`.
    pub(crate) fn worker_on(&self, name: &str, docker_host: &str) -> Role {
        let own =
            [("worker.name", format!("{name:?}")), ("engine.address", format!("{docker_host:?}"))];
        self.role("worker", name, &own)
    }

    /// Creates a token directly in the store, with the settings of the role `name`.
    pub(crate) async fn admit(&mut self, name: &str) {
        let config = self.path(&format!("{name}/gantry.toml"));
        let token = self.ok(&["store", "admin-token", "--config", &config]).await;
        self.token = token.trim().to_owned();
    }

    pub(crate) fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(role::gantry());
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/nonexistent")
            .env("HOME", self.folder.path())
            .env("GANTRY_TOKEN", &self.token)
            .current_dir(self.folder.path())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn ok(&self, arguments: &[&str]) -> String {
        let output = self.program(arguments).output().await.unwrap();
        assert!(output.status.success(), "gantry {arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The JSON answer of the ingress at `url` to a client command.
    pub(crate) async fn ask(&self, url: &str, arguments: &[&str]) -> serde_json::Value {
        let mut command = self.program(arguments);
        let output =
            command.args(["--output", "json"]).env("GANTRY_URL", url).output().await.unwrap();
        assert!(output.status.success(), "gantry {arguments:?}: {}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Creates a task on a repository, with a hook.
    pub(crate) async fn web(&self, url: &str, git: &GitServer, name: &str) -> serde_json::Value {
        let image = format!("{name}:{{{{.Run.ID}}}}");
        let context = format!("{}#main", git.url(name));
        self.ask(url, &["registry", "create", "demo", "--login-server", &real::registry()]).await;
        self.ask(url, &["task", "create", "-n", "web", "-t", &image, "-c", &context]).await;
        self.ask(url, &["hook", "create", "--provider", "github", "--repository", &git.url(name)])
            .await
    }

    /// The first run with this status.
    pub(crate) async fn run(&self, url: &str, status: &str) -> serde_json::Value {
        let deadline = Instant::now() + WITHIN;
        loop {
            let runs = self.ask(url, &["runs", "list"]).await;
            let runs = runs.as_array().unwrap();
            if let Some(run) = runs.iter().find(|run| run["status"] == status) {
                return self.ask(url, &["runs", "show", run["id"].as_str().unwrap()]).await;
            }
            assert!(Instant::now() < deadline, "no run is {status}: {runs:?}");
        }
    }

    /// The exit code and output of a role that must not start. `own` has its settings, one per line.
    pub(crate) async fn refused(&self, role: &str, own: &str) -> (i32, String) {
        let own_keys: Vec<&str> = own.lines().filter_map(|line| line.split(' ').next()).collect();
        let mut config = own.to_owned();
        for (key, value) in self.settings(&[]).iter().filter(|(key, _)| !own_keys.contains(key)) {
            config.push_str(&format!("\n{key} = {value}"));
        }
        std::fs::write(self.path("refused.toml"), config).unwrap();
        let mut command = self.program(&[role, "--config", "refused.toml"]);
        let output = tokio::time::timeout(WITHIN, command.output()).await;
        let output = output.unwrap_or_else(|_| panic!("{role} starts with {own}")).unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// Checks that a role does not start, and its output.
    pub(crate) async fn refuses(&self, role: &str, own: &str, code: i32, words: &[&str]) {
        let (status, said) = self.refused(role, own).await;
        assert_eq!(status, code, "{role} with {own}: {said}");
        for word in words {
            assert!(said.contains(word), "{role} with {own}: no `{word}` in {said}");
        }
    }
}

/// `host:port` of the shared RabbitMQ.
pub(crate) fn broker() -> String {
    let url = real::amqp();
    let address = url.rsplit(['/', '@']).find(|part| !part.is_empty());
    address.unwrap().to_owned()
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{}", gantry_ops::secret::random_hex::<6>().unwrap().as_str())
}
