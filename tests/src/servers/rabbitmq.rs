//! A private RabbitMQ, alone or as a node of a cluster on this machine.
//!
//! Debian's `rabbitmq-server` requires its system user and folder, but the script behind it does not. Node name,
//! cookie, ports, data and the port mapper `epmd` are private, so nothing is shared with another broker.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::try_join_all;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;

use super::{free_port, is_open, loopback};
use crate::process::Process;

/// Erlang starts slowly on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(400);

/// The folder of Debian's scripts, which work for any user.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";

/// The password of its user `guest`.
pub const PASSWORD: &str = "guest";

/// A node.
#[derive(Debug)]
pub struct RabbitMq {
    name: String,
    port: u16,
    /// The port for other nodes and `rabbitmqctl`.
    node_port: u16,
    /// The nodes of its cluster.
    peers: Vec<String>,
    process: Option<Process>,
    folder: PathBuf,
    home: Arc<Home>,
}

/// What the nodes of a cluster share: the cookie and the port mapper.
#[derive(Debug)]
struct Home {
    mapper_port: u16,
    _mapper: Process,
    folder: TempDir,
}

/// The length of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueLength {
    /// The queue's name.
    pub name: String,
    /// The number of messages, including claimed ones.
    pub messages: u64,
}

impl RabbitMq {
    /// Starts a node and waits until it answers.
    ///
    /// # Errors
    /// RabbitMQ is not installed, or does not start.
    pub async fn start() -> Result<Self> {
        let mut node = Self::new(&Home::open().await?)?;
        node.start_again().await?;
        Ok(node)
    }

    /// Starts a cluster with this number of nodes.
    ///
    /// # Errors
    /// A node does not start.
    pub async fn start_cluster(nodes: usize) -> Result<Vec<Self>> {
        let home = Home::open().await?;
        let mut cluster: Vec<Self> = (0..nodes).map(|_| Self::new(&home)).collect::<Result<_>>()?;
        let peers: Vec<String> = cluster.iter().map(|node| node.name.clone()).collect();
        for node in &mut cluster {
            node.peers.clone_from(&peers);
        }
        let (first, others) = cluster.split_first_mut().context("at least one node")?;
        // The first node forms the cluster; the others find and join it.
        first.start_again().await?;
        try_join_all(others.iter_mut().map(Self::start_again)).await?;
        let joined = first.joined().await?;
        ensure!(joined == nodes, "{joined} of {nodes} nodes make a cluster");
        Ok(cluster)
    }

    fn new(home: &Arc<Home>) -> Result<Self> {
        let port = free_port();
        let name = format!("gantry-{port}@localhost");
        let folder = home.folder.path().join(&name);
        std::fs::create_dir(&folder)?;
        let (node_port, home) = (free_port(), Arc::clone(home));
        Ok(Self { name, port, node_port, peers: Vec::new(), process: None, folder, home })
    }

    /// Starts it with its former port and data.
    ///
    /// # Errors
    /// It is already running, or does not start.
    pub async fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "it runs");
        std::fs::write(self.config(), self.settings())?;
        let process = Process::spawn(self.command(), &self.folder.join("log"))?;
        let (process, port) = (self.process.insert(process), self.port);
        process.until("answer", START_WITHIN, || is_open(port)).await
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// It is not running.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.take().context("it runs")?.kill().await
    }

    /// Pauses the process.
    ///
    /// # Errors
    /// It is not running.
    pub fn pause(&self) -> Result<()> {
        self.process.as_ref().context("it runs")?.signal(Signal::STOP)
    }

    /// Resumes the process.
    ///
    /// # Errors
    /// It is not running.
    pub fn resume(&self) -> Result<()> {
        self.process.as_ref().context("it runs")?.signal(Signal::CONT)
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Process::pid)
    }

    /// Deletes all data: exchanges, queues and messages.
    ///
    /// # Errors
    /// It is running.
    pub fn wipe(&self) -> Result<()> {
        ensure!(self.process.is_none(), "it runs");
        Ok(std::fs::remove_dir_all(self.folder.join("data"))?)
    }

    /// Raises its memory alarm: it accepts nothing from publishers until [`RabbitMq::has_memory`].
    ///
    /// # Errors
    /// It does not answer.
    pub async fn lacks_memory(&self) -> Result<()> {
        self.control(&["set_vm_memory_high_watermark", "0.00001"]).await.map(drop)
    }

    /// Clears its memory alarm.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn has_memory(&self) -> Result<()> {
        self.control(&["set_vm_memory_high_watermark", "0.4"]).await.map(drop)
    }

    /// All queues with their lengths.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn queues(&self) -> Result<Vec<QueueLength>> {
        let said = self.control(&["list_queues", "--no-table-headers", "name", "messages"]).await?;
        let line = |line: &str| {
            let (name, messages) = line.split_once('\t').context("a name and a number")?;
            Ok(QueueLength { name: name.to_owned(), messages: messages.trim().parse()? })
        };
        said.lines().map(line).collect()
    }

    /// How many nodes of its cluster are running, according to it.
    async fn joined(&self) -> Result<usize> {
        let said = self.control(&["eval", "length(rabbit_nodes:all_running())."]).await?;
        Ok(said.trim().parse()?)
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        loopback(self.port)
    }

    /// `amqp://guest@127.0.0.1:PORT/%2f`
    #[must_use]
    pub fn url(&self) -> String {
        url(self.address())
    }

    async fn control(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.script("rabbitmqctl");
        command.args(["--quiet", "--node", &self.name]).args(arguments).kill_on_drop(true);
        let output = command.output().await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("rabbitmqctl {arguments:?}: {}\n{said}{errors}", output.status);
        }
        Ok(said)
    }

    fn command(&self) -> Command {
        let mut command = self.script("rabbitmq-server");
        command
            .env("RABBITMQ_NODENAME", &self.name)
            .env("RABBITMQ_DIST_PORT", self.node_port.to_string())
            .env("RABBITMQ_CONFIG_FILE", self.config())
            .env("RABBITMQ_MNESIA_BASE", self.folder.join("data"))
            .env("RABBITMQ_MNESIA_DIR", self.folder.join("data/node"))
            .env("RABBITMQ_LOG_BASE", &self.folder)
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.folder.join("plugins"))
            // It runs as the Erlang VM itself instead of supervising it, so that signals reach the VM.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1 +sbwt none");
        command
    }

    fn script(&self, name: &str) -> Command {
        let home = self.home.folder.path();
        let mut command = Command::new(Path::new(SCRIPTS).join(name));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", home)
            .env("RABBITMQ_CONF_ENV_FILE", home.join("none"))
            .env("ERL_EPMD_PORT", self.home.mapper_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .current_dir(home);
        command
    }

    fn config(&self) -> PathBuf {
        self.folder.join("rabbitmq.conf")
    }

    fn settings(&self) -> String {
        let mut settings = format!("listeners.tcp.1 = {}\nlog.file = false\n", self.address());
        settings.push_str("log.console = true\nlog.console.level = warning\n");
        if !self.peers.is_empty() {
            settings.push_str("cluster_formation.peer_discovery_backend = classic_config\n");
        }
        for (number, peer) in self.peers.iter().enumerate() {
            settings.push_str(&format!(
                "cluster_formation.classic_config.nodes.{} = {peer}\n",
                number + 1
            ));
        }
        settings
    }
}

impl Home {
    async fn open() -> Result<Arc<Self>> {
        let folder = tempfile::tempdir()?;
        let cookie = folder.path().join(".erlang.cookie");
        std::fs::write(&cookie, "a-cluster-of-a-test")?;
        let only_mine = std::os::unix::fs::PermissionsExt::from_mode(0o400);
        std::fs::set_permissions(&cookie, only_mine)?;
        let mapper_port = free_port();
        let mut command = Command::new("epmd");
        command.args(["-port", &mapper_port.to_string(), "-address", "127.0.0.1"]);
        command.current_dir(&folder);
        let mut mapper = Process::spawn(command, &folder.path().join("epmd.log"))?;
        mapper.until("answer", START_WITHIN, || is_open(mapper_port)).await?;
        Ok(Arc::new(Self { mapper_port, _mapper: mapper, folder }))
    }
}

/// The URL of a RabbitMQ at `address`, directly or through a proxy.
#[must_use]
pub fn url(address: SocketAddr) -> String {
    format!("amqp://guest@{address}/%2f")
}
