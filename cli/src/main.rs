//! The `gantry` program: the service and its client.

use std::io;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{CommandFactory as _, Parser as _};
use gantry_domain::timestamp::Timestamp;
use rustix::fs::Mode;

mod args;
mod backup;
mod client;
mod compose;
mod cron;
mod environment;
mod exit;
mod health;
mod loopback;
mod ready;
mod roles;
mod secret;
mod serve;
mod store;
mod up;

use args::{Arguments, Command, WorkerCommand};
use client::ClientCommand;
use client::output::{NO_GRAPH, Output, say, write_out};
use environment::Environment;
use exit::{Exit, UsageError};
use secret::SecretCommand;

fn main() -> ExitCode {
    // All files of gantry are private to its user: records, logs, checkouts of private repositories, exports. Set
    // before any thread starts that may write files.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let arguments = Arguments::parse();
    let environment = Environment::of_this_process();
    match run(arguments, environment) {
        Ok(exit) => exit.into(),
        // A closed pipe means that the reader has read enough.
        Err(error) if is_closed_pipe(&error) => Exit::Ok.into(),
        Err(error) => {
            say(format_args!("error: {error:#}"));
            Exit::of_error(&error).into()
        }
    }
}

fn run(arguments: Arguments, environment: Environment) -> anyhow::Result<Exit> {
    // ring is the only TLS provider; an error means that it is already installed.
    let _already = rustls::crypto::ring::default_provider().install_default();
    if arguments.output == Output::Dot && !arguments.command.draws() {
        return Err(UsageError(NO_GRAPH.to_owned()).into());
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = match arguments.command {
        Command::Up(up) => runtime.block_on(up::up(up, &environment)),
        Command::Ingress(ingress) => runtime.block_on(roles::ingress(ingress, &environment)),
        Command::Scheduler(scheduler) => {
            runtime.block_on(roles::scheduler(scheduler, &environment))
        }
        Command::Worker(WorkerCommand { ask: None, role }) => {
            runtime.block_on(roles::worker(role, &environment))
        }
        Command::Worker(WorkerCommand { ask: Some(ask), .. }) => {
            let command = ClientCommand::Worker(ask);
            runtime.block_on(client::run(command, arguments.output, environment))
        }
        Command::Secret(SecretCommand::Kept(secrets)) => {
            let command = ClientCommand::Secret(secrets);
            runtime.block_on(client::run(command, arguments.output, environment))
        }
        Command::Secret(SecretCommand::Keys(command)) => {
            runtime.block_on(secret::run(command, &environment))
        }
        Command::Store(command) => runtime.block_on(store::run(command, &environment)),
        Command::Login(login) => runtime.block_on(login.run(arguments.output, &environment)),
        Command::Client(command) => {
            runtime.block_on(client::run(*command, arguments.output, environment))
        }
        Command::Cron(cron) => cron.run(arguments.output, now()),
        Command::Ready(options) => runtime.block_on(ready::ready(options, &environment)),
        Command::Settings => write_out(gantry_ops::settings::DEFAULTS).map(|()| Exit::Ok),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "gantry", &mut script);
            write_out(&String::from_utf8_lossy(&script)).map(|()| Exit::Ok)
        }
    };
    // A thread may still be reading a large file, and nothing waits for it.
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended
}

#[expect(clippy::disallowed_methods, reason = "without a server there is no other clock")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::default().after(since)
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
