//! An installation whose servers require passwords, with all places where it could leak one.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_ops::secret::random_hex;
use gantry_tests::backend::Vhost;
use gantry_tests::installation::Program;
use gantry_tests::real;
use gantry_tests::role::{self, Role, Setting};
use gantry_tests::servers::free_port;
use gantry_tests::servers::redis::Redis;
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::canary;
use super::vault::Vault;
use crate::collector::{Collector, KEY};

/// A queue that receives a copy of every message.
const SPY: &str = "spy";

pub(super) struct SecuredInstallation {
    pub(super) api: String,
    /// The secrets from the operator.
    pub(super) secrets: Vec<(&'static str, String)>,
    /// Where the store keeps records.
    pub(super) where_records_are: String,
    folder: TempDir,
    roles: Vec<Role>,
    servers: Option<Servers>,
}

struct Servers {
    redis: Redis,
    redis_folder: PathBuf,
    vhost: Vhost,
    user: String,
    bucket: String,
}

fn text(text: impl std::fmt::Display) -> String {
    format!("{:?}", text.to_string())
}

impl SecuredInstallation {
    pub(super) async fn embedded(collector: &Collector, vault: &Vault) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("keys/vault");
        std::fs::create_dir(folder.path().join("keys")).unwrap();
        std::fs::write(&token, &vault.token).unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut settings = settings(collector);
        settings.push(("server.listen", text(listen)));
        settings.extend(vault.settings(token.to_str().unwrap()));
        let program = program("up", Vec::new());
        let mut role = Role::new(folder.path().join("up"), program, &settings).unwrap();
        role.spawn().unwrap();
        role.until_ready().await.unwrap();
        let key = std::fs::read_to_string(folder.path().join("up/data/secret.key")).unwrap();
        Self {
            api: format!("http://{listen}/api/v1"),
            secrets: vec![
                ("service key", key.trim().to_owned()),
                ("key of the collector", KEY.to_owned()),
                ("token of the vault", vault.token.clone()),
            ],
            where_records_are: "gantry.db".to_owned(),
            folder,
            roles: vec![role],
            servers: None,
        }
    }

    pub(super) async fn apart(collector: &Collector, vault: &Vault) -> Self {
        let _already = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let made = |arguments: &[&str]| {
            let made = std::process::Command::new(role::gantry()).args(arguments).output().unwrap();
            assert!(made.status.success(), "{made:?}");
        };
        std::fs::create_dir(path("keys")).unwrap();
        let (key, pool_key) = (path("keys/service.key"), path("keys/pool.key"));
        let (key, pool_key) = (key.to_str().unwrap(), pool_key.to_str().unwrap());
        made(&["secret", "key", "--to", key]);
        let setting = format!("secrets.key_file={key}");
        made(&["secret", "pool-key", "linux-amd64", "--set", &setting, "--to", pool_key]);

        let (redis_password, amqp_password, s3_secret) =
            (canary("redis"), canary("amqp"), canary("s3"));
        let servers = Servers::start(&redis_password, &amqp_password).await;
        let passwords =
            [("redis", &redis_password), ("amqp", &amqp_password), ("vault", &vault.token)];
        for (name, password) in passwords {
            std::fs::write(path("keys").join(name), password).unwrap();
        }
        let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let vhost = servers.vhost.address();
        let vhost = vhost.strip_prefix("amqp://").unwrap();
        let mut shared = settings(collector);
        shared.extend([
            ("store.url", text(servers.redis.url())),
            ("store.password_file", text(path("keys/redis").display())),
            ("queue.urls", format!("[\"amqp://{}@{vhost}\"]", servers.user)),
            ("queue.password_file", text(path("keys/amqp").display())),
            ("objects.url", text(format!("s3://{}", servers.bucket))),
            ("objects.endpoint", text(real::s3())),
        ]);
        let environment = [("AWS_ACCESS_KEY_ID", "canary"), ("AWS_SECRET_ACCESS_KEY", &s3_secret)];
        let environment: Vec<_> =
            environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let role = |name: &str, own: Setting| {
            let mut all = shared.clone();
            all.push(own);
            if name == "ingress" {
                all.push(("server.listen", text(listen)));
            }
            if name == "scheduler" {
                all.extend(vault.settings(path("keys/vault").to_str().unwrap()));
            }
            Role::new(path(name), program(name, environment.clone()), &all).unwrap()
        };
        let mut roles = vec![
            role("ingress", ("secrets.key_file", text(key))),
            role("scheduler", ("secrets.key_file", text(key))),
            role("worker", ("secrets.pool_key_file", text(pool_key))),
        ];
        for role in &mut roles {
            role.spawn().unwrap();
        }
        for role in &mut roles {
            role.until_ready().await.unwrap();
        }
        servers.listen_in().await;
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        let lines = |path: &str| read(path).lines().last().unwrap().trim().to_owned();
        Self {
            api: format!("http://{listen}/api/v1"),
            secrets: vec![
                ("service key", lines(key)),
                ("pool key", lines(pool_key)),
                ("Redis password", redis_password),
                ("RabbitMQ password", amqp_password),
                ("S3 secret", s3_secret),
                ("token of the vault", vault.token.clone()),
                ("key of the collector", KEY.to_owned()),
            ],
            where_records_are: "Redis".to_owned(),
            folder,
            roles,
            servers: Some(servers),
        }
    }

    /// An admin token, as an operator gets it from the store.
    pub(super) async fn admin_token(&self) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.servers.is_none() {
            let words = std::fs::read_to_string(self.folder.path().join("up/log")).unwrap();
            let said = words.lines().find_map(|line| line.trim().strip_prefix("token "));
            if let Some(token) = said {
                return gantry_tests::installation::token_of(token.trim());
            }
            assert!(Instant::now() < deadline, "the first start says it");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let made = std::process::Command::new(role::gantry())
            .args(["store", "admin-token", "--config"])
            .arg(self.folder.path().join("ingress/gantry.toml"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    /// The metrics.
    pub(super) async fn metrics(&self) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        for role in &self.roles {
            for path in ["metrics", "readyz", "healthz"] {
                let url = format!("http://{}/{path}", role.telemetry());
                let answer = reqwest::get(&url).await.unwrap().bytes().await.unwrap();
                assert!(!answer.is_empty(), "{url}");
                all.push((url, answer.to_vec()));
            }
        }
        all
    }

    /// The content of the servers.
    pub(super) async fn servers(&self) -> Vec<(String, Vec<u8>)> {
        match &self.servers {
            Some(servers) => servers.hold().await,
            None => Vec::new(),
        }
    }

    pub(super) async fn end(&mut self) {
        for role in &mut self.roles {
            role.terminate().await.unwrap();
        }
    }

    /// All files except keys and passwords, and the output of a first start without its token.
    pub(super) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        read_all(self.folder.path(), &mut all);
        assert!(all.iter().any(|(name, bytes)| name.ends_with("/log") && bytes.len() > 1000));
        // The client's configuration and the keys are meant to contain secrets, and are private.
        let is_for_secrets = |name: &str| {
            let own = name.ends_with("/client.toml")
                || name.ends_with(".key")
                || name.ends_with("/admin-token");
            assert!(!own || mode(name) == 0o600, "{name} has mode {:o}", mode(name));
            own || name.contains("/keys/")
        };
        all.retain(|(name, _)| !is_for_secrets(name));
        for (_, bytes) in all.iter_mut().filter(|(name, _)| name.ends_with("/log")) {
            let words = String::from_utf8_lossy(bytes).into_owned();
            let kept = words.lines().filter(|line| !line.trim().starts_with("token "));
            *bytes = kept.collect::<Vec<_>>().join("\n").into_bytes();
        }
        all
    }
}

fn mode(file: &str) -> u32 {
    std::fs::metadata(file).unwrap().permissions().mode() & 0o777
}

fn read_all(folder: &Path, all: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => read_all(&entry.path(), all),
            false => all.push((
                entry.path().display().to_string(),
                std::fs::read(entry.path()).unwrap_or_default(),
            )),
        }
    }
}

/// The settings of every process.
fn settings(collector: &Collector) -> Vec<Setting> {
    vec![
        ("engine.address", text(real::docker_host())),
        (
            "outbound.allow",
            format!("[\"127.0.0.1\", \"http://{}\", \"http://127.0.0.1\"]", real::registry()),
        ),
        ("worker.min_free", text("0B")),
        ("log.format", text("json")),
        // The most verbose level.
        ("log.level", text("trace")),
        ("telemetry.otlp", text(collector.url())),
    ]
}

fn program(command: &str, mut environment: Vec<(String, String)>) -> Program {
    environment.push(("OTEL_EXPORTER_OTLP_HEADERS".to_owned(), format!("x-key={KEY}")));
    Program { path: role::gantry(), arguments: vec![command.to_owned()], environment }
}

impl Servers {
    async fn start(redis_password: &str, amqp_password: &str) -> Self {
        let redis_folder = tempfile::tempdir().unwrap();
        let kept = redis_folder.path().to_owned();
        let redis = Redis::start_in(redis_folder).await.unwrap();
        let set = format!("CONFIG SET requirepass {redis_password}\r\n");
        assert_eq!(call(&redis, &set).await, b"+OK\r\n");
        let (vhost, user) =
            (Vhost::make().await, format!("canary-{}", random_hex::<6>().unwrap().as_str()));
        let servers = Self {
            redis,
            redis_folder: kept,
            vhost,
            bucket: format!("canary-{}", random_hex::<6>().unwrap().as_str()),
            user,
        };
        let permissions = json!({"configure": ".*", "write": ".*", "read": ".*"});
        let made = json!({"password": amqp_password, "tags": ""});
        servers.put(&format!("users/{}", servers.user), made).await;
        servers.put(&format!("permissions/{}/{}", servers.name(), servers.user), permissions).await;
        let bucket = format!("{}/{}", real::s3(), servers.bucket);
        assert!(Client::new().put(bucket).send().await.unwrap().status().is_success());
        servers
    }

    fn name(&self) -> String {
        self.vhost.address().rsplit('/').next().unwrap().to_owned()
    }

    fn broker(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/api/{path}", real::rabbitmq_api());
        Client::new().request(method, url).basic_auth("guest", Some("guest"))
    }

    async fn put(&self, path: &str, body: Value) {
        let put = self.broker(reqwest::Method::PUT, path).json(&body).send().await.unwrap();
        assert!(put.status().is_success(), "{path}: {put:?}");
    }

    /// Binds a queue to all exchanges.
    async fn listen_in(&self) {
        let vhost = self.name();
        self.put(&format!("queues/{vhost}/{SPY}"), json!({"durable": true})).await;
        let bindings = self.broker(reqwest::Method::GET, &format!("bindings/{vhost}"));
        let bindings: Vec<Value> = bindings.send().await.unwrap().json().await.unwrap();
        let of_gantry: Vec<_> =
            bindings.iter().filter(|binding| binding["source"].as_str() != Some("")).collect();
        assert!(!of_gantry.is_empty(), "{bindings:?}");
        for binding in of_gantry {
            let path =
                format!("bindings/{vhost}/e/{}/q/{SPY}", binding["source"].as_str().unwrap());
            let body = json!({"routing_key": binding["routing_key"]});
            let bound = self.broker(reqwest::Method::POST, &path).json(&body);
            assert!(bound.send().await.unwrap().status().is_success(), "{path}");
        }
    }

    async fn hold(&self) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        read_all(&self.redis_folder, &mut all);
        let is_kept =
            |(name, bytes): &(String, Vec<u8>)| name.contains(".aof") && !bytes.is_empty();
        assert!(all.iter().any(is_kept), "Redis keeps nothing");
        for (name, _) in &mut all {
            *name = format!("Redis: {name}");
        }
        let ask = json!({"count": 10_000, "ackmode": "ack_requeue_false", "encoding": "base64"});
        let path = format!("queues/{}/{SPY}/get", self.name());
        let answer = self.broker(reqwest::Method::POST, &path).json(&ask).send().await.unwrap();
        let messages: Vec<Value> = answer.json().await.unwrap();
        assert!(messages.len() > 3, "{messages:?}");
        for message in messages {
            let payload = STANDARD.decode(message["payload"].as_str().unwrap()).unwrap();
            all.push(("a message".to_owned(), payload));
            all.push(("a message's properties".to_owned(), message.to_string().into_bytes()));
        }
        for path in ["queues", "exchanges", "bindings"] {
            let answer = self.broker(reqwest::Method::GET, &format!("{path}/{}", self.name()));
            let answer = answer.send().await.unwrap().bytes().await.unwrap();
            all.push((format!("RabbitMQ's {path}"), answer.to_vec()));
        }
        let bucket = format!("{}/{}", real::s3(), self.bucket);
        let listed =
            reqwest::get(format!("{bucket}?list-type=2")).await.unwrap().text().await.unwrap();
        let keys: Vec<&str> = listed
            .split("<Key>")
            .skip(1)
            .map(|rest| rest.split("</Key>").next().unwrap())
            .collect();
        assert!(!keys.is_empty(), "{listed}");
        for key in keys {
            let object = reqwest::get(format!("{bucket}/{key}")).await.unwrap();
            all.push((format!("object {key}"), object.bytes().await.unwrap().to_vec()));
        }
        all
    }
}

impl Drop for Servers {
    /// The vhost is deleted by its own guard; the user on a separate thread, because the test's runtime is about to
    /// end.
    fn drop(&mut self) {
        let gone = self.broker(reqwest::Method::DELETE, &format!("users/{}", self.user));
        let _removed = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(gone.send()).ok()
        })
        .join();
    }
}

async fn call(redis: &Redis, command: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(redis.address()).await.unwrap();
    stream.write_all(command.as_bytes()).await.unwrap();
    let mut answer = vec![0; 512];
    let read = stream.read(&mut answer).await.unwrap();
    answer.truncate(read);
    answer
}

/// What a run pushed: manifest, configuration, layers.
pub(super) async fn image(run: &Value) -> Vec<Vec<u8>> {
    let image = &run["images"][0];
    let name = image["image"].as_str().unwrap();
    let (repository, _) = name.split_once('/').unwrap().1.rsplit_once(':').unwrap();
    let base = format!("http://{}/v2/{repository}", real::registry());
    let types = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json";
    let mut parts = Vec::new();
    let mut digests = vec![format!("manifests/{}", image["digest"].as_str().unwrap())];
    while let Some(path) = digests.pop() {
        let part = Client::new().get(format!("{base}/{path}")).header("accept", types);
        let part = part.send().await.unwrap();
        assert!(part.status().is_success(), "{path}: {part:?}");
        let part = part.bytes().await.unwrap().to_vec();
        if let Ok(manifest) = serde_json::from_slice::<Value>(&part) {
            let of = |place: &Value, kind: &str| {
                place["digest"].as_str().map(|digest| format!("{kind}/{digest}"))
            };
            digests.extend(of(&manifest["config"], "blobs"));
            let each = |name: &str| manifest[name].as_array().cloned().unwrap_or_default();
            digests.extend(each("layers").iter().filter_map(|layer| of(layer, "blobs")));
            digests.extend(each("manifests").iter().filter_map(|one| of(one, "manifests")));
        }
        parts.push(part);
    }
    assert!(parts.len() >= 3, "{run}");
    parts
}
