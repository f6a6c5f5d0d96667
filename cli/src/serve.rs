//! What all long-running commands share: reading settings, starting telemetry, handling signals, graceful shutdown.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use gantry_ops::health::Health;
use gantry_ops::settings::{Flag, Layers, Settings, SettingsFile};
use gantry_ops::{metrics, telemetry};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::args::SettingsOptions;
use crate::client::output::say;
use crate::compose::{self, Role};
use crate::environment::Environment;
use crate::exit::{Exit, UsageError};
use crate::health;

/// The name of the settings file, in the current directory or the data folder.
const SETTINGS_FILE: &str = "gantry.toml";

/// The state of a server before its first answer.
const NOT_ASKED: &str = "it was not asked yet";

/// The time limit for a graceful shutdown.
const GRACE: Duration = Duration::from_secs(15);

/// A long-running process, from before it opens anything.
pub(crate) struct Process {
    role: Role,
    pub(crate) settings: Settings,
    /// Already served on `telemetry.listen`.
    pub(crate) health: Health,
    /// Cancelled when the parts have to stop.
    pub(crate) stop: CancellationToken,
    telemetry: telemetry::Started,
    signals: Signals,
}

/// Each connection is an open file. The default soft limit of shells and service managers, 1024 in most places, exists
/// for programs that use `select`.
fn open_as_many_files_as_allowed() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!("the limit of open files cannot be raised: {error}");
    }
}

impl Process {
    /// Starts telemetry, and begins to listen for signals.
    pub(crate) async fn begin(role: Role, settings: Settings) -> Result<Self> {
        open_as_many_files_as_allowed();
        let telemetry =
            telemetry::start(&settings.log, &settings.telemetry, role.service().to_owned())?;
        metrics::install();
        let signals = Signals::listen()?;
        let health = Health::default();
        health.awaits("store", NOT_ASKED);
        if !settings.queue.urls.is_empty() {
            health.awaits("queue", NOT_ASKED);
        }
        if let Some(address) = settings.telemetry.listen {
            let listener = health::bind(address).await?;
            tokio::spawn(health::serve(listener, health.clone()));
        }
        Ok(Self { role, settings, health, stop: CancellationToken::new(), telemetry, signals })
    }

    /// The result of `opening`; `None` if a signal came first.
    pub(crate) async fn unless_stopped<T>(
        &mut self,
        opening: impl Future<Output = Result<T>>,
    ) -> Result<Option<T>> {
        tokio::select! {
            () = self.signals.any() => Ok(None),
            opened = opening => opened.map(Some),
        }
    }

    /// Waits for a signal, or for a part that ends unexpectedly; then stops all parts gracefully.
    pub(crate) async fn until_stopped(mut self, mut parts: JoinSet<Result<()>>) -> Result<Exit> {
        let failed = tokio::select! {
            () = self.signals.any() => None,
            ended = parts.join_next() => Some(why(ended)),
        };
        self.stop.cancel();
        match self.role {
            Role::All => {
                say(format_args!("{}. Ctrl-C again ends it at once", self.role.stopping()))
            }
            // The output of a role is read by programs, as log lines.
            Role::Ingress | Role::Scheduler | Role::Worker => {
                tracing::info!("{}", self.role.stopping());
            }
        }
        tokio::select! {
            () = all_ended(&mut parts) => {}
            () = tokio::time::sleep(GRACE) => {
                tracing::warn!("not everything stopped within {GRACE:?}: the rest is aborted");
            }
            _ = self.signals.interrupt.recv() => return Ok(Exit::Interrupted),
        }
        self.telemetry.finish();
        match failed {
            Some(error) => Err(error),
            None => Ok(Exit::Ok),
        }
    }
}

/// Reads all layers of the settings. Mistakes are a usage error.
pub(crate) fn read_settings(
    options: &SettingsOptions,
    flags: &[Flag],
    environment: &Environment,
) -> Result<Settings> {
    let variables = environment.settings();
    let mut all = options.flags();
    all.extend_from_slice(flags);
    let file = find_file(options, &variables)?;
    let layers = Layers {
        file: file.as_ref().map(|(path, text)| SettingsFile { path, text }),
        environment: &variables,
        flags: &all,
        rules: &compose::RULES,
    };
    Ok(Settings::parse(&layers).map_err(|mistakes| UsageError(mistakes.to_string()))?)
}

/// The processes of an installation must share servers, because they cannot see each other's folders.
pub(crate) fn check_servers(role: Role, settings: &Settings) -> Result<()> {
    let has_store = settings.store.url.is_some();
    let has_queue = !settings.queue.urls.is_empty();
    if role == Role::All && !has_store && !has_queue {
        return Ok(());
    }
    let shared = [
        ("store.url", has_store, "their Redis, like \"redis://redis.lan:6379/0\""),
        ("queue.urls", has_queue, "their RabbitMQ, like [\"amqp://gantry@rabbitmq.lan:5672\"]"),
        (
            "objects.url",
            settings.objects.url.is_some(),
            "where they all keep objects, like \"s3://bucket/gantry\", or \"file:///folder\" on one machine",
        ),
    ];
    let missing: String = shared
        .iter()
        .filter(|(_, is_set, _)| !is_set)
        .map(|(key, _, what)| format!("\n  {key}: {what}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let remedy =
        "processes that make up one service share these; `gantry up` alone needs none of them";
    Err(UsageError(format!("not everything is set, so nothing was started: {remedy}{missing}"))
        .into())
}

/// The settings file: the given one, or else the one in the current directory, or in the data folder.
fn find_file(
    options: &SettingsOptions,
    variables: &[(String, String)],
) -> Result<Option<(PathBuf, String)>> {
    if let Some(path) = &options.config {
        let text = std::fs::read_to_string(path);
        let text =
            text.map_err(|error| UsageError(format!("cannot read {}: {error}", path.display())))?;
        return Ok(Some((path.clone(), text)));
    }
    let named = variables
        .iter()
        .find(|(name, _)| name == "GANTRY_DATA")
        .map(|(_, path)| PathBuf::from(path));
    let data = options.data.clone().or(named).unwrap_or_else(|| PathBuf::from("gantry-data"));
    for path in [PathBuf::from(SETTINGS_FILE), data.join(SETTINGS_FILE)] {
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(Some((path, text))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(UsageError(format!("cannot read {}: {error}", path.display())).into());
            }
        }
    }
    Ok(None)
}

/// SIGINT and SIGTERM, received from before the first part starts.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        let cannot_listen = "cannot listen for signals";
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context(cannot_listen)?,
            terminate: signal(SignalKind::terminate()).context(cannot_listen)?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Why a part ended that should have kept running.
fn why(ended: Option<Result<Result<()>, JoinError>>) -> anyhow::Error {
    match ended {
        Some(Ok(Err(error))) => error,
        Some(Err(error)) => {
            anyhow!(error).context("a part of gantry broke: this is a defect of gantry's")
        }
        Some(Ok(Ok(()))) | None => {
            anyhow!("a part of gantry ended by itself: this is a defect of gantry's")
        }
    }
}

async fn all_ended(parts: &mut JoinSet<Result<()>>) {
    while let Some(ended) = parts.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("while stopping: {error:#}"),
            Err(error) => tracing::error!("while stopping: {error}"),
        }
    }
}
