//! `gantry registry`: manages registries.

use anyhow::Result;
use clap::Subcommand;
use gantry_api::{Credentials, Registry, RegistryCreate, RegistryUpdate};

use super::Client;
use super::arguments::{read_secret, whole_number};
use super::table::{Details, Table, instant};
use crate::exit::{Exit, UsageError};

/// Manage the registries that images are pushed to
#[derive(Debug, Subcommand)]
pub(crate) enum Registries {
    /// Add a registry
    #[command(after_long_help = "\
The password is read from standard input and sealed at rest; it is never shown again.

Examples:
  gantry registry create main --login-server ghcr.io -u USER --password-stdin
  gantry registry create ghcr --login-server ghcr.io -u octo --password-stdin < token.txt")]
    Create(Create),
    /// List registries
    #[command(visible_alias = "ls")]
    List,
    /// Show a registry
    Show(OneRegistry),
    /// Change a registry's credentials or limit
    #[command(after_long_help = "Examples:
  gantry registry update ghcr -u octo --password-stdin < token.txt
  gantry registry update ghcr --run-limit 4")]
    Update(Update),
    /// Remove a registry that has no tasks; its images are kept
    Delete(OneRegistry),
}

#[derive(Debug, clap::Args)]
pub(crate) struct OneRegistry {
    /// Its name in gantry
    name: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Its name in gantry: 2 to 50 letters, digits, `-` or `_`
    name: String,
    /// Its address: `host` or `host:port`
    #[arg(long, value_name = "HOST")]
    login_server: String,
    #[command(flatten)]
    user: UserArgs,
    /// How many of its runs may be ready or running at once
    #[arg(long, value_name = "COUNT", value_parser = whole_number)]
    run_limit: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Update {
    /// Its name in gantry
    name: String,
    #[command(flatten)]
    user: UserArgs,
    /// Push without credentials from now on
    #[arg(long, conflicts_with_all = ["username", "credential_helper"])]
    no_credentials: bool,
    /// How many of its runs may be ready or running at once
    #[arg(long, value_name = "COUNT", value_parser = whole_number)]
    run_limit: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UserArgs {
    /// The user to push as
    #[arg(short, long, value_name = "USER")]
    username: Option<String>,
    /// Read the password from standard input instead of asking for it
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Have the operator's credential helper for the login server give user and password (`credential.helpers` in the settings)
    #[arg(long, conflicts_with = "username")]
    credential_helper: bool,
}

impl UserArgs {
    fn read(&self) -> Result<Option<Credentials>> {
        let Some(username) = self.username.clone() else { return Ok(None) };
        // A pipe is read with or without the option; the option prevents a prompt on a terminal.
        let password = read_secret(&format!("the password of {username}"))?;
        Ok(Some(Credentials { username, password }))
    }
}

impl Registries {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        match self {
            Self::Create(create) => {
                let new = RegistryCreate {
                    name: create.name,
                    host: create.login_server,
                    credentials: create.user.read()?,
                    credential_helper: create.user.credential_helper,
                    run_limit: create.run_limit,
                };
                show(client, client.api.post(&["registries"], &new).await?)
            }
            Self::List => {
                let registries: Vec<Registry> =
                    client.api.list(&["registries"], &[], usize::MAX).await?;
                client.output.print(&registries, table(&registries))?;
                Ok(Exit::Ok)
            }
            Self::Show(one) => show(client, client.api.get(&["registries", &one.name]).await?),
            Self::Update(update) => update.run(client).await,
            Self::Delete(one) => {
                client.api.delete(&["registries", &one.name]).await?;
                client.output.done(format_args!(
                    "registry {} is forgotten; its images stay where they are",
                    one.name
                ))?;
                Ok(Exit::Ok)
            }
        }
    }
}

impl Update {
    async fn run(self, client: &Client) -> Result<Exit> {
        let change = RegistryUpdate {
            credentials: if self.no_credentials { Some(None) } else { self.user.read()?.map(Some) },
            credential_helper: self.user.credential_helper.then_some(true),
            run_limit: self.run_limit,
        };
        if change == RegistryUpdate::default() {
            return Err(UsageError(
                "nothing to change was named: see `gantry registry update --help`".to_owned(),
            )
            .into());
        }
        show(client, client.api.patch(&["registries", &self.name], &change).await?)
    }
}

fn show(client: &Client, registry: Registry) -> Result<Exit> {
    client.output.print(&registry, details(&registry))?;
    Ok(Exit::Ok)
}

fn table(registries: &[Registry]) -> Table<6> {
    let mut table = Table::new(
        ["NAME", "LOGIN SERVER", "USERNAME", "RUN IDS", "RUN LIMIT", "CREATED"],
        "no registries: `gantry registry create NAME --login-server HOST` makes one known",
    );
    for registry in registries {
        table.row([
            registry.name.clone(),
            registry.host.clone(),
            match (&registry.username, registry.credential_helper) {
                (Some(username), _) => username.clone(),
                (None, true) => "by helper".to_owned(),
                (None, false) => String::new(),
            },
            format!("{}…", registry.run_prefix),
            registry.run_limit.to_string(),
            instant(&registry.created),
        ]);
    }
    table
}

fn details(registry: &Registry) -> Details {
    let mut details = Details::default();
    details
        .line("registry", &registry.name)
        .line("login server", &registry.host)
        .line(
            "username",
            match (&registry.username, registry.credential_helper) {
                (Some(username), _) => username,
                (None, true) => "given by the operator's credential helper",
                (None, false) => "none: it is used without credentials",
            },
        )
        .line("run ids", format_args!("{0}1, {0}2, …", registry.run_prefix))
        .line("run limit", registry.run_limit)
        .line("created", instant(&registry.created));
    details
}
