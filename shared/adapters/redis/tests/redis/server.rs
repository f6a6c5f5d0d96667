//! Servers that a test starts for itself: on loopback, in a temporary folder.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use deadpool_redis::redis::{Client, FromRedisValue, RedisResult, cmd};
use gantry_redis::{RedisOptions, RedisStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The time limit for expected events on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A `redis-server` that is stopped when this is dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) folder: TempDir,
    arguments: Vec<String>,
    process: Child,
    kept: Option<TempDir>,
}

impl Server {
    /// A server that keeps every acknowledged write.
    pub(crate) async fn durable() -> Self {
        Self::with(&[]).await
    }

    /// A durable server, except for these arguments.
    pub(crate) async fn with(arguments: &[&str]) -> Self {
        let port = free_port();
        let own = port.to_string();
        let durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""];
        let begin = ["--port", &own].into_iter().chain(durable);
        Self::run(port, begin.chain(arguments.iter().copied())).await
    }

    /// A server with exactly these arguments, which listens on `port`.
    pub(crate) async fn run(port: u16, arguments: impl Iterator<Item = &str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<_> = arguments.map(str::to_owned).collect();
        let process = spawn(&folder, &arguments);
        let server = Self { port, folder, arguments, process, kept: None };
        server.answers().await;
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn options(&self) -> RedisOptions {
        RedisOptions::parse(&self.url()).unwrap()
    }

    pub(crate) async fn store(&self) -> RedisStore {
        RedisStore::connect(self.options()).await.unwrap()
    }

    /// Keeps a folder as long as the server exists.
    pub(crate) fn keep(&mut self, folder: TempDir) {
        self.kept = Some(folder);
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts the server again, in the same folder.
    pub(crate) async fn start_again(&mut self) {
        self.process = spawn(&self.folder, &self.arguments);
        self.answers().await;
    }

    /// Runs a command as the default user.
    pub(crate) async fn call<T: FromRedisValue>(&self, words: &[&str]) -> T {
        call(self.port, words).await
    }

    /// The same, for a server that may close the connection.
    pub(crate) async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        ask(self.port, words).await
    }

    /// Waits for any answer except `LOADING`: the server may require a password, or close a connection without TLS.
    async fn answers(&self) {
        let port = self.port;
        eventually("the server answers", async || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
            stream.write_all(b"PING\r\n").await.ok()?;
            let mut answer = [0; 64];
            let length = stream.read(&mut answer).await.unwrap_or(0);
            (!answer[..length].starts_with(b"-LOADING")).then_some(())
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _ended = self.process.wait();
    }
}

/// Sends a command to the server on a port.
pub(crate) async fn call<T: FromRedisValue>(port: u16, words: &[&str]) -> T {
    ask(port, words).await.unwrap()
}

async fn ask<T: FromRedisValue>(port: u16, words: &[&str]) -> RedisResult<T> {
    let client = Client::open(("127.0.0.1", port))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut command = cmd(words[0]);
    for word in &words[1..] {
        command.arg(word);
    }
    command.query_async(&mut connection).await
}

/// Retries until `attempt` returns a value.
pub(crate) async fn eventually<T>(what: &str, attempt: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port on which no process listens.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn spawn(folder: &TempDir, arguments: &[String]) -> Child {
    Command::new("redis-server")
        .args(arguments)
        .args(["--bind", "127.0.0.1", "--logfile", "redis.log", "--dir"])
        .arg(folder.path())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}
