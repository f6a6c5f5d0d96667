//! A whole installation as a process of its own, which a test may kill at any moment and start again on the same folder.
//!
//! In: how its program is started. Out: its API, and answers to whatever else is sent to it, at the address that it says at
//! each start. A client goes on over restarts: it waits until somebody listens.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::crash::{self, CrashPoint};
use crate::process::was_killed;

/// How long a start may take on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(30);

/// How long somebody waits who got no answer.
const ASK_AGAIN: Duration = Duration::from_millis(25);

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// How an installation is started.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// All of its environment but `PATH`.
    pub environment: Vec<(String, String)>,
}

/// The address of a running installation, and the token for it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Endpoint {
    address: String,
    token: String,
}

/// An installation. Dropped, its process is killed.
#[derive(Debug)]
pub struct Installation {
    log: PathBuf,
    running: Option<Running>,
    endpoint: watch::Sender<Option<Endpoint>>,
    token: watch::Sender<Option<String>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// Reads what it says, until it is dead.
    listening: JoinHandle<()>,
}

impl Installation {
    /// One that is not running. What its processes say goes to the file `log`.
    #[must_use]
    pub fn new(log: PathBuf) -> Self {
        let (endpoint, token) = (watch::Sender::new(None), watch::Sender::new(None));
        Self { log, running: None, endpoint, token }
    }

    /// Starts a process, and does not wait until it is up.
    ///
    /// # Errors
    /// What the system says.
    pub fn spawn(&mut self, program: &Program) -> Result<()> {
        ensure!(self.running.is_none(), "the former process is not dead");
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&program.path);
        command.args(&program.arguments);
        if self.token.borrow().is_none() {
            // The first token is said once, and whoever was killed before may have said it to nobody.
            command.arg("--new-admin-token");
        }
        let mut child = command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(program.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.path.display()))?;
        let said = child.stdout.take().context("its output is connected")?;
        let listening =
            tokio::spawn(listen(said, child.id(), self.endpoint.clone(), self.token.clone()));
        self.running = Some(Running { child, listening });
        Ok(())
    }

    /// Starts a process and waits until it is up.
    ///
    /// # Errors
    /// It ended, or took too long.
    pub async fn start(&mut self, program: &Program) -> Result<()> {
        self.spawn(program)?;
        self.until_up().await
    }

    /// Waits until the process that was started is up.
    ///
    /// # Errors
    /// It ended, or takes too long.
    pub async fn until_up(&mut self) -> Result<()> {
        let mut endpoint = self.endpoint.subscribe();
        let running = self.running.as_mut().context("it was started")?;
        tokio::select! {
            up = tokio::time::timeout(START_WITHIN, endpoint.wait_for(Option::is_some)) => {
                up.context("it does not come up")??;
                Ok(())
            }
            ended = running.child.wait() => bail!("it ended by itself: {}\n{}", ended?, self.last_words()),
        }
    }

    /// Kills the process as the kernel does, with no chance to say or write anything more.
    ///
    /// # Errors
    /// It had ended by itself.
    pub async fn kill(&mut self) -> Result<()> {
        let Running { mut child, listening } = self.running.take().context("it was started")?;
        if let Some(status) = child.try_wait()? {
            bail!("it had ended by itself: {status}\n{}", self.last_words());
        }
        child.kill().await?;
        // What it said until then may still have been on its way.
        listening.await?;
        self.endpoint.send_replace(None);
        Ok(())
    }

    /// Waits until the process has killed itself at a point.
    ///
    /// # Errors
    /// It was not started, does not come by the point, or ends otherwise.
    pub async fn crashes_at(&mut self, point: CrashPoint, within: Duration) -> Result<()> {
        let Running { mut child, listening } = self.running.take().context("it was started")?;
        let Ok(ended) = tokio::time::timeout(within, child.wait()).await else {
            bail!("it does not come by {point:?} within {within:?}\n{}", self.last_words())
        };
        was_killed(ended?).with_context(|| self.last_words())?;
        listening.await?;
        self.endpoint.send_replace(None);
        crash::said(&self.last_words(), point)
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().and_then(|running| running.child.id())
    }

    /// Who speaks to it, over its restarts.
    #[must_use]
    pub fn client(&self) -> Client {
        Client { http: http(), endpoint: self.endpoint.subscribe() }
    }

    /// The end of what its processes said.
    #[must_use]
    pub fn last_words(&self) -> String {
        last_lines(&self.log, 60)
    }
}

fn last_lines(file: &Path, most: usize) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(most)..].join("\n")
}

fn http() -> reqwest::Client {
    // Whoever installed it first has it; there is no other.
    let _already = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().timeout(ANSWER_WITHIN).build();
    http.expect("a client")
}

/// Reads what `gantry up` says at its start, and the rest, so that it is never held up.
async fn listen(
    said: ChildStdout,
    process: Option<u32>,
    endpoint: watch::Sender<Option<Endpoint>>,
    token: watch::Sender<Option<String>>,
) {
    let mut lines = BufReader::new(said).lines();
    let mut address = None;
    while let Ok(Some(line)) = lines.next_line().await {
        match line.trim().split_once(char::is_whitespace) {
            Some(("address", said)) => address = Some(said.trim().to_owned()),
            Some(("token", said)) => {
                // It may see another disk than we do.
                let root = process.map_or_else(String::new, |pid| format!("/proc/{pid}/root"));
                let said = match said.trim().strip_prefix("in ") {
                    Some(path) => token_of(&format!("in {root}{path}")),
                    None => said.trim().to_owned(),
                };
                token.send_replace(Some(said));
            }
            // The last line: by now everything serves.
            Some(("Ctrl-C", _)) => {
                let known = token.borrow().clone();
                let opened = address.take().zip(known);
                endpoint.send_replace(opened.map(|(address, token)| Endpoint { address, token }));
            }
            Some(_) | None => {}
        }
    }
}

/// Speaks to an installation.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    endpoint: watch::Receiver<Option<Endpoint>>,
}

impl Client {
    /// Speaks to one address, whoever listens there.
    #[must_use]
    pub fn at(address: SocketAddr, token: &str) -> Self {
        let endpoint = Endpoint { address: format!("http://{address}"), token: token.to_owned() };
        // No other endpoint ever comes.
        Self { http: http(), endpoint: watch::Sender::new(Some(endpoint)).subscribe() }
    }

    /// Reads from API v1.
    ///
    /// # Errors
    /// Nobody answered, or with a refusal.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::GET, path, None::<&()>).await
    }

    /// Writes to API v1.
    ///
    /// # Errors
    /// Nobody answered, or with a refusal.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Posts to API v1 until an answer comes, however often nobody is there to give it. The key lets the same thing be
    /// asked for once.
    ///
    /// # Errors
    /// It is refused, or nobody comes up.
    pub async fn post_until_answered<T: DeserializeOwned>(
        &self,
        path: &str,
        key: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        let body = serde_json::to_vec(body)?;
        let (status, text) = loop {
            let token = format!("Bearer {}", self.endpoint().await?.token);
            let headers = [
                ("authorization", token),
                ("content-type", "application/json".to_owned()),
                ("idempotency-key", key.to_owned()),
            ];
            if let Some(answer) =
                self.send_hook(&format!("/api/v1/{path}"), &headers, body.clone()).await?
            {
                break answer;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        };
        ensure!(status.is_success(), "{path}: {status}: {text}");
        serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))
    }

    /// Sends bytes to API v1 and tells what was answered, whatever it is.
    ///
    /// # Errors
    /// Nobody answered.
    pub async fn post_bytes(
        &self,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, String)> {
        let endpoint = self.endpoint().await?;
        let request = self.http.post(format!("{}/api/v1/{path}", endpoint.address)).body(body);
        let request = request.bearer_auth(&endpoint.token).header("content-type", content_type);
        let answer = request.send().await?;
        Ok((answer.status(), answer.text().await?))
    }

    /// Reads text from API v1.
    ///
    /// # Errors
    /// Nobody answered, or with a refusal.
    pub async fn text(&self, path: &str) -> Result<String> {
        let endpoint = self.endpoint().await?;
        let request = self.http.get(format!("{}/api/v1/{path}", endpoint.address));
        let answer = request.bearer_auth(&endpoint.token).send().await?.error_for_status()?;
        Ok(answer.text().await?)
    }

    /// Where it is reached now, and with which token: for who speaks to it in a way of its own.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn reached_at(&self) -> Result<(String, String)> {
        let endpoint = self.endpoint().await?;
        Ok((endpoint.address, endpoint.token))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T> {
        let endpoint = self.endpoint().await?;
        let url = format!("{}/api/v1/{path}", endpoint.address);
        let mut request = self.http.request(method, &url).bearer_auth(&endpoint.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{url}: {status}: {text}");
        serde_json::from_str(&text).with_context(|| format!("{url}: {text}"))
    }

    /// Posts to a path with these headers alone. `None`: no whole answer came.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn send_hook(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
    ) -> Result<Option<(StatusCode, String)>> {
        let endpoint = self.endpoint().await?;
        let mut request = self.http.post(format!("{}{path}", endpoint.address)).body(body);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let Ok(answer) = request.send().await else { return Ok(None) };
        let status = answer.status();
        Ok(answer.text().await.ok().map(|text| (status, text)))
    }

    async fn endpoint(&self) -> Result<Endpoint> {
        let mut endpoint = self.endpoint.clone();
        let open = tokio::time::timeout(START_WITHIN, endpoint.wait_for(Option::is_some)).await;
        open.context("it does not come up")??.clone().context("somebody listens")
    }
}

/// The admin token of a first start that said this of it: where no terminal is watched, it is in a file.
#[must_use]
pub fn token_of(said: &str) -> String {
    match said.strip_prefix("in ") {
        Some(path) => std::fs::read_to_string(path).unwrap_or_default().trim().to_owned(),
        None => said.to_owned(),
    }
}

/// The event of a task's first save, by when the API says that the task was created.
///
/// # Panics
/// If `created` is no time of the API.
#[must_use]
pub fn saved_event(task: &str, created: &str) -> String {
    let created = OffsetDateTime::parse(created, &Rfc3339).expect("a time of the API");
    let millis = created.unix_timestamp_nanos() / 1_000_000;
    format!("task:{task}:{millis}:1")
}
