//! The roles of this program's processes, to which another process sends load.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Result, bail};
use gantry_ops::telemetry;
use gantry_worker::engine::scripted::ScriptedEngine;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::bare::{self, Write};
use crate::composition::Parts;
use crate::process::{self, Server};

/// The argument that makes this program a server.
pub(crate) const SERVE: &str = "serve";

/// What a process serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// All of gantry in one process, like `gantry up`: each event is also decided.
    Up,
    /// gantry's ingress on its store.
    Ingress,
    /// gantry's scheduler on the same store.
    Scheduler,
    /// gantry's worker on the same store, with an engine that builds nothing.
    Worker,
    /// A route that checks the signature and commits a batch equal to gantry's.
    EqualWrite,
    /// A route that checks the signature and commits one record with the body.
    OneRecord,
    /// A route that checks the signature.
    Signed,
    /// A route that reads the body.
    Bare,
}

const NAMES: [(Role, &str); 8] = [
    (Role::Up, "up"),
    (Role::Ingress, "ingress"),
    (Role::Scheduler, "scheduler"),
    (Role::Worker, "worker"),
    (Role::EqualWrite, "equal-write"),
    (Role::OneRecord, "one-record"),
    (Role::Signed, "signed"),
    (Role::Bare, "bare"),
];

impl Role {
    /// Starts the role in a separate process, with an empty folder.
    pub(crate) fn start(self) -> Result<Server> {
        let folder = process::folder()?;
        Ok(self.start_on(folder.path(), &Backend::Embedded)?.with(folder))
    }

    /// Starts the role in a separate process, with this folder and backend. Roles that share both are one installation,
    /// which the ingress creates.
    pub(crate) fn start_on(self, folder: &Path, backend: &Backend) -> Result<Server> {
        let name = NAMES.iter().find(|(role, _)| *role == self).map_or("", |(_, name)| name);
        let mut command = Command::new(std::env::current_exe()?);
        command.args([SERVE, name]).arg(folder).args(backend.words());
        Server::start(command, folder)
    }

    /// Whether the role uses a store.
    pub(crate) fn has_a_store(self) -> bool {
        !matches!(self, Self::Signed | Self::Bare)
    }

    /// Serves until the parent process ends.
    pub(crate) fn serve(self, folder: &Path, backend: &Backend) -> Result<()> {
        std::thread::spawn(|| {
            let _until_closed = std::io::stdin().read(&mut [0]);
            std::process::exit(0);
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        tokio::runtime::Runtime::new()?.block_on(self.serve_on(folder, backend, listener))
    }

    async fn serve_on(self, folder: &Path, backend: &Backend, listener: TcpListener) -> Result<()> {
        let write = match self {
            Self::Up | Self::Ingress | Self::Scheduler | Self::Worker => {
                return self.serve_gantry(folder, backend, listener).await;
            }
            Self::EqualWrite => Write::equal_to_gantrys(backend, folder).await?,
            Self::OneRecord => Write::one_record(backend, folder).await?,
            Self::Signed => Write::Nothing { is_signed: true },
            Self::Bare => Write::Nothing { is_signed: false },
        };
        say_address(&listener)?;
        bare::serve(listener, write).await
    }

    async fn serve_gantry(
        self,
        folder: &Path,
        backend: &Backend,
        listener: TcpListener,
    ) -> Result<()> {
        let stop = CancellationToken::new();
        let parts = Parts::open_on(backend, folder, &stop).await?;
        let (log, traces) = (&parts.settings.log, &parts.settings.telemetry);
        let _telemetry = telemetry::start(log, traces, "gantry-bench".to_owned())?;
        parts.set_up("registry.test").await?;
        // A role without an API prints an address too, because it means that the process is ready.
        say_address(&listener)?;
        if self == Self::Scheduler {
            parts.scheduler().run(stop).await;
            return Ok(());
        }
        if self == Self::Worker {
            parts.worker(Arc::new(ScriptedEngine::new()))?.run(stop).await;
            return Ok(());
        }
        if self == Self::Up {
            tokio::spawn(parts.scheduler().run(stop.clone()));
            tokio::spawn(parts.worker(parts.engine()?)?.run(stop.clone()));
        }
        Ok(parts.serve(listener, stop).await?)
    }
}

impl FromStr for Role {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match NAMES.iter().find(|(_, name)| *name == text) {
            Some((role, _)) => Ok(*role),
            None => bail!("there is no role `{text}`"),
        }
    }
}

/// The listener already queues connections, so a reader of the address can connect.
fn say_address(listener: &TcpListener) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{}", listener.local_addr()?)?;
    Ok(out.flush()?)
}
