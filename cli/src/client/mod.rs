//! The client: commands, and the API's answers as tables.

use anyhow::Result;
use clap::Subcommand;
use gantry_api::Registry;

use self::arguments::RegistryArg;
use self::config::ClientConfig;
use self::http::Api;
use self::output::Output;
use crate::environment::Environment;
use crate::exit::{Exit, UsageError};

pub(crate) mod config;
mod credential;
pub(crate) mod http;
pub(crate) mod login;
pub(crate) mod output;
pub(crate) mod table;
pub(crate) mod worker;

mod apply;
mod arguments;
mod build;
mod buildpack;
mod declared;
mod delivery;
mod dot;
mod event;
mod export;
mod file_run;
mod file_values;
mod follow;
mod hook;
mod image;
mod impact;
mod lanes;
mod log_view;
mod logs;
mod mapping;
mod notification;
mod pack;
mod registry;
mod run;
pub(crate) mod secret;
mod simulate;
mod sse;
mod status;
mod task;
mod task_file;
mod task_images;
mod token;
mod upload;
mod wave;
mod why;

/// The commands that are sent to a server.
#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    Status(status::ShowStatus),
    Build(build::Build),
    Run(file_run::FileRun),
    #[command(subcommand)]
    Pack(buildpack::Packs),
    Logs(logs::Logs),
    Cancel(run::Cancel),
    Rerun(run::Rerun),
    #[command(subcommand)]
    Runs(run::Runs),
    #[command(subcommand)]
    Task(task::Tasks),
    #[command(subcommand)]
    Registry(registry::Registries),
    Apply(apply::Apply),
    Export(export::Export),
    #[command(subcommand)]
    Hook(hook::Hooks),
    #[command(subcommand)]
    Notification(notification::Notifications),
    #[command(subcommand)]
    Delivery(delivery::Deliveries),
    #[command(subcommand)]
    Event(event::Events),
    Simulate(simulate::Simulate),
    #[command(subcommand)]
    Image(image::Images),
    Why(why::AskWhy),
    Impact(impact::AskImpact),
    #[command(subcommand)]
    Wave(wave::Waves),
    #[command(subcommand)]
    Token(token::Tokens),
    /// Parsed together with the commands for keys.
    #[command(skip)]
    Secret(secret::Secrets),
    /// Parsed together with the role of the same name.
    #[command(skip)]
    Worker(worker::Workers),
}

impl ClientCommand {
    /// Whether the answer can be drawn, for `-o dot`.
    pub(crate) fn draws(&self) -> bool {
        matches!(self, Self::Why(_) | Self::Impact(_) | Self::Wave(wave::Waves::Show(_)))
    }
}

/// A server, and the output format.
pub(crate) struct Client {
    api: Api,
    output: Output,
    environment: Environment,
}

/// Executes a client command.
pub(crate) async fn run(
    command: ClientCommand,
    output: Output,
    environment: Environment,
) -> Result<Exit> {
    if let ClientCommand::Task(task::Tasks::File(file)) = &command {
        return file.run(output, &environment);
    }
    let api = Api::new(&ClientConfig::load(&environment)?)?;
    let client = Client { api, output, environment };
    match command {
        ClientCommand::Status(status) => status.run(&client).await,
        ClientCommand::Build(build) => build.run(&client).await,
        ClientCommand::Run(run) => run.run(&client).await,
        ClientCommand::Pack(packs) => packs.run(&client).await,
        ClientCommand::Logs(logs) => logs.run(&client).await,
        ClientCommand::Cancel(cancel) => cancel.run(&client).await,
        ClientCommand::Rerun(rerun) => rerun.run(&client).await,
        ClientCommand::Runs(runs) => runs.run(&client).await,
        ClientCommand::Task(tasks) => tasks.run(&client).await,
        ClientCommand::Apply(apply) => apply.run(&client).await,
        ClientCommand::Export(export) => export.run(&client).await,
        ClientCommand::Registry(registries) => registries.run(&client).await,
        ClientCommand::Hook(hooks) => hooks.run(&client).await,
        ClientCommand::Notification(notifications) => notifications.run(&client).await,
        ClientCommand::Delivery(deliveries) => deliveries.run(&client).await,
        ClientCommand::Event(events) => events.run(&client).await,
        ClientCommand::Simulate(simulate) => simulate.run(&client).await,
        ClientCommand::Image(images) => images.run(&client).await,
        ClientCommand::Why(why) => why.run(&client).await,
        ClientCommand::Impact(impact) => impact.run(&client).await,
        ClientCommand::Wave(waves) => waves.run(&client).await,
        ClientCommand::Secret(secrets) => secrets.run(&client).await,
        ClientCommand::Token(tokens) => tokens.run(&client).await,
        ClientCommand::Worker(workers) => workers.run(&client).await,
    }
}

impl Client {
    /// The given registry, or the only one.
    async fn registry(&self, given: &RegistryArg) -> Result<String> {
        if let Some(name) = &given.registry {
            return Ok(name.clone());
        }
        let registries: Vec<Registry> = self.api.list(&["registries"], &[], 20).await?;
        match registries.as_slice() {
            [one] => Ok(one.name.clone()),
            [] => Err(UsageError(
                "there is no registry yet: `gantry registry create NAME --login-server HOST` makes one known".to_owned(),
            )
            .into()),
            many => {
                let names: Vec<&str> = many.iter().map(|registry| registry.name.as_str()).collect();
                Err(UsageError(format!(
                    "which registry: {}? Name it with `-r`, or in GANTRY_REGISTRY",
                    names.join(", ")
                ))
                .into())
            }
        }
    }
}
