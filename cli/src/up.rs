//! `gantry up`: all roles in one process, with messages for the person at the terminal.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use gantry_ops::secret::{ExposeSecret as _, SecretString};

use crate::args::Up;
use crate::client::config::{self, ClientConfig};
use crate::client::output::write_out;
use crate::compose::{Role, Service};
use crate::environment::Environment;
use crate::exit::Exit;
use crate::serve::{self, Process};

/// How long the welcome message waits for the engine.
const ENGINE_PATIENCE: Duration = Duration::from_secs(5);

/// The file for the admin token if standard output is not a terminal.
const TOKEN_FILE: &str = "admin-token";

/// The message for a missing engine.
const NO_ENGINE: &str = "runs wait until one answers. To get one: `apt install docker.io`; one that is elsewhere: \
                         `--set engine.address=unix:///…`";

/// Starts all roles, and runs until it is asked to stop.
pub(crate) async fn up(up: Up, environment: &Environment) -> Result<Exit> {
    let settings = serve::read_settings(&up.settings, &up.flags(), environment)?;
    serve::check_servers(Role::All, &settings)?;
    let mut process = Process::begin(Role::All, settings).await?;
    let (settings, health) = (process.settings.clone(), process.health.clone());
    let stop = process.stop.clone();
    let opening = async {
        let service = Service::open(Role::All, settings, environment, &health, &stop).await?;
        let welcome = welcome(&service, &up, environment).await?;
        Ok((service, welcome))
    };
    let Some((mut service, welcome)) = process.unless_stopped(opening).await? else {
        return Ok(Exit::Ok);
    };
    let parts = service.start(&stop);
    write_out(&welcome)?;
    process.until_stopped(parts).await
}

/// The message after the start.
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
        // Without a terminal, standard output is a log, which others may read and keep.
        if std::io::stdout().is_terminal() {
            let _infallible = writeln!(text, "  token    {}", token.expose_secret());
            text.push_str("           shown this once; ");
        } else {
            let path = write_token(service.data(), &token)?;
            let _infallible = writeln!(text, "  token    in {}", path.display());
            text.push_str("           remove the file once you have it; ");
        }
        let _infallible = writeln!(text, "{}", keep_token(service, token, environment));
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

/// Writes the token into a file in the data folder, for this user alone.
fn write_token(data: &Path, token: &SecretString) -> Result<PathBuf> {
    let path = data.join(TOKEN_FILE);
    let write = || {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        writeln!(file, "{}", token.expose_secret())
    };
    write().with_context(|| format!("cannot write the admin token to {}", path.display()))?;
    Ok(path)
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

async fn engine_words(service: &Service) -> String {
    match tokio::time::timeout(ENGINE_PATIENCE, service.engine()).await {
        Ok(Ok(engine)) => engine,
        Ok(Err(error)) => format!("none: {error}\n           {NO_ENGINE}"),
        Err(_) => {
            format!("none: it did not answer within {ENGINE_PATIENCE:?}\n           {NO_ENGINE}")
        }
    }
}
