//! An installation as a separate process, which a test may kill at any moment and start again on the same folder.
//!
//! In: its program. Out: its API, and answers to other requests, at the address that it prints at each start. A client
//! continues across restarts: it waits until the process listens again.

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

/// The time limit for a start on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(30);

/// The pause before a request without an answer is repeated.
const ASK_AGAIN: Duration = Duration::from_millis(25);

/// The time limit for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// How to start an installation.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The whole environment, except `PATH`.
    pub environment: Vec<(String, String)>,
}

/// The address of a running installation, and a token for it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Endpoint {
    address: String,
    token: String,
}

/// An installation. Dropping it kills the process.
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
    /// Reads the output until the process is dead.
    listening: JoinHandle<()>,
}

impl Installation {
    /// An installation that is not running yet. Its processes write their output to the file `log`.
    #[must_use]
    pub fn new(log: PathBuf) -> Self {
        let (endpoint, token) = (watch::Sender::new(None), watch::Sender::new(None));
        Self { log, running: None, endpoint, token }
    }

    /// Starts a process without waiting for it to be up.
    ///
    /// # Errors
    /// The system's error.
    pub fn spawn(&mut self, program: &Program) -> Result<()> {
        ensure!(self.running.is_none(), "the former process is not dead");
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&program.path);
        command.args(&program.arguments);
        if self.token.borrow().is_none() {
            // The first token is printed only once, and an earlier process may have been killed after printing it.
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
    /// The process ended, or took too long.
    pub async fn start(&mut self, program: &Program) -> Result<()> {
        self.spawn(program)?;
        self.until_up().await
    }

    /// Waits until the started process is up.
    ///
    /// # Errors
    /// The process ended, or takes too long.
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

    /// Kills the process with SIGKILL, so that it cannot write anything more.
    ///
    /// # Errors
    /// The process had already ended.
    pub async fn kill(&mut self) -> Result<()> {
        let Running { mut child, listening } = self.running.take().context("it was started")?;
        if let Some(status) = child.try_wait()? {
            bail!("it had ended by itself: {status}\n{}", self.last_words());
        }
        child.kill().await?;
        // Its last output may not have been read yet.
        listening.await?;
        self.endpoint.send_replace(None);
        Ok(())
    }

    /// Waits until the process has killed itself at a crash point.
    ///
    /// # Errors
    /// It was not started, does not reach the point, or ends in another way.
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

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().and_then(|running| running.child.id())
    }

    /// A client that continues across restarts.
    #[must_use]
    pub fn client(&self) -> Client {
        Client { http: http(), endpoint: self.endpoint.subscribe() }
    }

    /// The end of the processes' output.
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
    // An error means that it was already installed.
    let _already = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().timeout(ANSWER_WITHIN).build();
    http.expect("a client")
}

/// Reads the start message of `gantry up`, and all further output, so that the process never blocks on it.
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
                // The process may see another disk than the test.
                let root = process.map_or_else(String::new, |pid| format!("/proc/{pid}/root"));
                let said = match said.trim().strip_prefix("in ") {
                    Some(path) => token_of(&format!("in {root}{path}")),
                    None => said.trim().to_owned(),
                };
                token.send_replace(Some(said));
            }
            // Printed last, when everything is served.
            Some(("Ctrl-C", _)) => {
                let known = token.borrow().clone();
                let opened = address.take().zip(known);
                endpoint.send_replace(opened.map(|(address, token)| Endpoint { address, token }));
            }
            Some(_) | None => {}
        }
    }
}

/// A client of an installation.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    endpoint: watch::Receiver<Option<Endpoint>>,
}

impl Client {
    /// A client of a fixed address.
    #[must_use]
    pub fn at(address: SocketAddr, token: &str) -> Self {
        let endpoint = Endpoint { address: format!("http://{address}"), token: token.to_owned() };
        // The endpoint never changes.
        Self { http: http(), endpoint: watch::Sender::new(Some(endpoint)).subscribe() }
    }

    /// Sends a GET request to the API.
    ///
    /// # Errors
    /// There was no answer, or the request was refused.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::GET, path, None::<&()>).await
    }

    /// Sends a POST request to the API.
    ///
    /// # Errors
    /// There was no answer, or the request was refused.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Repeats a POST request to the API until it is answered. The idempotency key makes that safe.
    ///
    /// # Errors
    /// The request was refused, or the installation does not come up.
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

    /// Posts bytes to the API, and returns any answer.
    ///
    /// # Errors
    /// There was no answer.
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

    /// Reads text from the API.
    ///
    /// # Errors
    /// There was no answer, or the request was refused.
    pub async fn text(&self, path: &str) -> Result<String> {
        let endpoint = self.endpoint().await?;
        let request = self.http.get(format!("{}/api/v1/{path}", endpoint.address));
        let answer = request.bearer_auth(&endpoint.token).send().await?.error_for_status()?;
        Ok(answer.text().await?)
    }

    /// The current address and token, for other clients.
    ///
    /// # Errors
    /// The installation does not come up.
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

    /// Posts to a path with only these headers. `None` if there was no complete answer.
    ///
    /// # Errors
    /// The installation does not come up.
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

/// The admin token in the output of a first start. Without a terminal it is in a file.
#[must_use]
pub fn token_of(said: &str) -> String {
    match said.strip_prefix("in ") {
        Some(path) => std::fs::read_to_string(path).unwrap_or_default().trim().to_owned(),
        None => said.to_owned(),
    }
}

/// The event of a task's first save, derived from the time of creation in the API.
///
/// # Panics
/// If `created` is not a time of the API.
#[must_use]
pub fn saved_event(task: &str, created: &str) -> String {
    let created = OffsetDateTime::parse(created, &Rfc3339).expect("a time of the API");
    let millis = created.unix_timestamp_nanos() / 1_000_000;
    format!("task:{task}:{millis}:1")
}
