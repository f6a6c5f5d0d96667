//! `gantry up`: settings read, parts started, the person at the terminal told, and everything stopped in good order.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use gantry_ops::secret::{ExposeSecret as _, SecretString};
use gantry_ops::settings::{Layers, Settings, SettingsFile};
use gantry_ops::telemetry;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::args::Up;
use crate::client::config::{self, ClientConfig};
use crate::client::output::{say, write_out};
use crate::compose::{self, Service};
use crate::environment::Environment;
use crate::exit::{Exit, UsageError};

/// The settings file's name, here or in the data folder.
const SETTINGS_FILE: &str = "gantry.toml";

/// How long the parts may take to stop.
const GRACE: Duration = Duration::from_secs(15);

/// How long the welcome waits for the engine.
const ENGINE_PATIENCE: Duration = Duration::from_secs(5);

/// What a person without an engine is told.
const NO_ENGINE: &str = "runs wait until one answers. To get one: `apt install docker.io`; one that is elsewhere: \
                         `--set engine.address=unix:///…`";

/// Starts everything, and runs until it is told to stop.
pub(crate) async fn up(up: Up, environment: &Environment) -> Result<Exit> {
    let settings = read_settings(&up, environment)?;
    telemetry::start(&settings.log)?;
    let signals = Signals::listen()?;
    let stop = CancellationToken::new();
    let service = Service::open(settings, environment.get("DOCKER_HOST"), &stop).await?;
    let welcome = welcome(&service, &up, environment).await?;
    let parts = service.start(&stop)?;
    write_out(&welcome)?;
    signals.until_stopped(parts, &stop).await
}

/// Reads every layer of the settings; a mistake anywhere is wrong usage.
fn read_settings(up: &Up, environment: &Environment) -> Result<Settings> {
    let variables = environment.settings();
    let flags = up.flags();
    let file = find_file(up, &variables)?;
    let layers = Layers {
        file: file.as_ref().map(|(path, text)| SettingsFile { path, text }),
        environment: &variables,
        flags: &flags,
        rules: &compose::RULES,
    };
    Ok(Settings::parse(&layers).map_err(|mistakes| UsageError(mistakes.to_string()))?)
}

/// The settings file: the one that was named, else the one here, else the one in the data folder.
fn find_file(up: &Up, variables: &[(String, String)]) -> Result<Option<(PathBuf, String)>> {
    if let Some(path) = &up.config {
        let text = std::fs::read_to_string(path);
        let text =
            text.map_err(|error| UsageError(format!("cannot read {}: {error}", path.display())))?;
        return Ok(Some((path.clone(), text)));
    }
    let named = variables
        .iter()
        .find(|(name, _)| name == "GANTRY_DATA")
        .map(|(_, path)| PathBuf::from(path));
    let data = up.data.clone().or(named).unwrap_or_else(|| PathBuf::from("gantry-data"));
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

/// What the person who started it is told.
async fn welcome(service: &Service, up: &Up, environment: &Environment) -> Result<String> {
    let mut text = format!("gantry {} is up\n\n", env!("CARGO_PKG_VERSION"));
    let _infallible = writeln!(text, "  address  {}", config::shown(&service.public_url()?));
    let _infallible = writeln!(text, "  data     {}", service.data().display());
    let _infallible = writeln!(text, "  engine   {}", engine_words(service).await);
    let token = if up.new_admin_token {
        Some(service.new_admin_token().await?)
    } else {
        service.first_admin_token().await?
    };
    if let Some(token) = token {
        let _infallible = writeln!(text, "  token    {}", token.expose_secret());
        let _infallible = writeln!(
            text,
            "           shown this once; {}",
            keep_token(service, token, environment)
        );
    }
    if service.is_new().await? {
        text.push_str(
            "\nnext, in another terminal:\n  \
             gantry registry create main --login-server ghcr.io -u USER --password-stdin\n  \
             gantry build -t 'USER/hello:{{.Run.ID}}' .\n\
             a registry on this machine or in a private network has to be allowed, as in \
             `gantry up --set outbound.allow=localhost:5000`\n",
        );
    } else {
        text.push_str("\n`gantry status` shows how it is\n");
    }
    text.push_str("Ctrl-C stops it; what is being built is built again at the next start\n");
    Ok(text)
}

/// Keeps the token where the client on this machine finds it, unless that speaks to another server. Says what it did.
fn keep_token(service: &Service, token: SecretString, environment: &Environment) -> String {
    let keep = || -> Result<String> {
        let path = config::path(environment)?;
        let url = service.local_url()?;
        let other = config::ClientConfig::read(&path)?.filter(|saved| saved.url != url);
        if let Some(other) = other {
            return Ok(format!(
                "not kept, since {} is for {}: `gantry login {}` changes that",
                path.display(),
                config::shown(&other.url),
                config::shown(&url)
            ));
        }
        ClientConfig { url, token }.write(&path)?;
        Ok(format!("the client on this machine has it in {}", path.display()))
    };
    keep().unwrap_or_else(|error| format!("not kept for the client: {error:#}"))
}

/// SIGINT and SIGTERM, from before the first part starts.
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

    /// Waits for a signal, or for a part that ends by itself; then lets all parts stop in good order.
    async fn until_stopped(
        mut self,
        mut parts: JoinSet<Result<()>>,
        stop: &CancellationToken,
    ) -> Result<Exit> {
        let failed = tokio::select! {
            _ = self.interrupt.recv() => None,
            _ = self.terminate.recv() => None,
            ended = parts.join_next() => Some(why(ended)),
        };
        stop.cancel();
        say("stopping; runs that are being built are handed back. Ctrl-C again ends it at once");
        tokio::select! {
            () = all_ended(&mut parts) => {}
            () = tokio::time::sleep(GRACE) => {
                tracing::warn!("not everything stopped within {GRACE:?}: what is left is ended now");
            }
            _ = self.interrupt.recv() => return Ok(Exit::Interrupted),
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(Exit::Ok),
        }
    }
}

/// Why a part ended that should have run on.
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

async fn engine_words(service: &Service) -> String {
    match tokio::time::timeout(ENGINE_PATIENCE, service.engine()).await {
        Ok(Ok(engine)) => engine,
        Ok(Err(error)) => format!("none: {error}\n           {NO_ENGINE}"),
        Err(_) => {
            format!("none: it did not answer within {ENGINE_PATIENCE:?}\n           {NO_ENGINE}")
        }
    }
}
