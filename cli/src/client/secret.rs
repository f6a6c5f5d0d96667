//! `gantry secret set|list|delete`: the secrets that gantry keeps for the tasks of a registry.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use gantry_api::{Secret, SecretSet};
use gantry_domain::secret::SecretName;

use super::Client;
use super::arguments::{RegistryArg, read_secret, read_secret_file};
use super::table::{Table, instant};
use crate::exit::{Exit, UsageError};

/// Keep secrets for tasks
#[derive(Debug, Subcommand)]
pub(crate) enum Secrets {
    /// Keep a secret for the tasks of a registry, or add a version of it
    #[command(after_long_help = "\
The value is read from the terminal without echo, or from standard input; a line break at its end is left out. It is never \
shown again. A task names the secret with `--secret ID=NAME`, and its file reads it as `{{.Secrets.ID}}`. Runs get the \
newest version when they become ready, unless the task names another one (`--secret ID=NAME@2`). The last ten are kept.

Examples:
  gantry secret set -n npm-token
  gantry secret set -n deploy-key --file id_ed25519
  gantry task create -n web -c https://github.com/octo/web.git -f acr-task.yaml --secret npm=npm-token")]
    Set(Set),
    /// List the secrets of a registry, without their values
    #[command(visible_alias = "ls")]
    List(RegistryArg),
    /// Delete a secret with all its versions; runs of tasks that still name it fail
    Delete(Delete),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    #[command(flatten)]
    registry: RegistryArg,
    /// The secret's name
    #[arg(short, long)]
    name: SecretName,
    /// Read the value from this file, byte for byte
    #[arg(long, value_name = "FILE", conflicts_with = "env")]
    file: Option<PathBuf>,
    /// Read the value from this variable of the environment
    #[arg(long, value_name = "VARIABLE")]
    env: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    registry: RegistryArg,
    /// The secret's name
    #[arg(short, long)]
    name: SecretName,
}

impl Secrets {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        match self {
            Self::Set(set) => set.run(client).await,
            Self::List(registry) => {
                let registry = client.registry(&registry).await?;
                let path = ["registries", &registry, "secrets"];
                let secrets: Vec<Secret> = client.api.list(&path, &[], usize::MAX).await?;
                client.output.print(&secrets, table(&secrets))?;
                Ok(Exit::Ok)
            }
            Self::Delete(delete) => {
                let registry = client.registry(&delete.registry).await?;
                client
                    .api
                    .delete(&["registries", &registry, "secrets", delete.name.as_str()])
                    .await?;
                client.output.done(format_args!("secret {} of {registry} is gone", delete.name))?;
                Ok(Exit::Ok)
            }
        }
    }
}

impl Set {
    async fn run(self, client: &Client) -> Result<Exit> {
        let registry = client.registry(&self.registry).await?;
        let value = self.value(client)?;
        let path = ["registries", &registry, "secrets", self.name.as_str()];
        let secret: Secret = client.api.put(&path, &SecretSet { value }).await?;
        let version = secret.versions.first().map_or(0, |version| version.number);
        client.output.print(
            &secret,
            format_args!("version {version} of secret {} of {registry} is kept\n", secret.name),
        )?;
        Ok(Exit::Ok)
    }

    fn value(&self, client: &Client) -> Result<String> {
        if let Some(file) = &self.file {
            return read_secret_file(file);
        }
        let Some(variable) = &self.env else { return read_secret("the secret") };
        client.environment.get(variable).map(str::to_owned).ok_or_else(|| {
            UsageError(format!("--env {variable}: {variable} is not set in the environment")).into()
        })
    }
}

fn table(secrets: &[Secret]) -> Table<5> {
    let mut table = Table::new(
        ["NAME", "VERSION", "SET", "BY", "KEPT"],
        "no secrets: `gantry secret set -n NAME` keeps one",
    );
    for secret in secrets {
        let newest = secret.versions.first();
        let kept: Vec<String> =
            secret.versions.iter().map(|version| version.number.to_string()).collect();
        table.row([
            secret.name.clone(),
            newest.map_or_else(String::new, |version| version.number.to_string()),
            newest.map_or_else(String::new, |version| instant(&version.set)),
            newest.map_or_else(String::new, |version| version.by.clone()),
            kept.join(", "),
        ]);
    }
    table
}
