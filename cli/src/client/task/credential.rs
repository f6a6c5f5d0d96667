//! `gantry task credential`: a task's credentials for registries.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Subcommand;
use gantry_api::{Login, LoginCreate, Task, TaskUpdate};
use gantry_domain::image::RegistryHost;

use super::OneTask;
use crate::client::Client;
use crate::client::credential::login;
use crate::client::table::Table;
use crate::exit::{Exit, UsageError};

/// Manage the credentials with which a task reads and pushes images in other registries
#[derive(Debug, Subcommand)]
#[command(after_long_help = "\
They are used for their login server alone: for bases and other images that runs read there, and for images that they push \
there. A password is sealed and never shown. Runs of forks, and runs of the task with another context, have none of them.

Examples:
  gantry task credential add -n web --login-server ghcr.io -u octo -p GHCR_TOKEN
  gantry task credential add -n web --login-server quay.io -u robot -p @token.txt
  gantry task credential update -n web --login-server ghcr.io -u octo -p -
  gantry task credential remove -n web --login-server ghcr.io")]
pub(crate) enum CredentialCommand {
    /// Add credentials for a registry that the task has none for
    Add(Credential),
    /// Replace the credentials for a registry
    Update(Credential),
    /// Remove the credentials for a registry
    Remove(OneCredential),
    /// List the registries that a task has credentials for
    List(OneTask),
}

#[derive(Debug, clap::Args)]
pub(crate) struct OneCredential {
    #[command(flatten)]
    task: OneTask,
    /// The registry: `host` or `host:port`
    #[arg(long, value_name = "HOST")]
    login_server: RegistryHost,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Credential {
    #[command(flatten)]
    of: OneCredential,
    /// The user, or the address of a secret in a vault
    #[arg(short, long, value_name = "USER", required_unless_present = "username_secret")]
    username: Option<String>,
    /// The secret that has the user: one of `gantry secret set`
    #[arg(long, value_name = "NAME", conflicts_with = "username")]
    username_secret: Option<String>,
    /// The password: the name of a variable of the environment, `@FILE`, `-` for standard input, or the address of a secret
    /// in a vault; without it, it is asked for
    #[arg(short, long, value_name = "VARIABLE|@FILE|-|URL")]
    password: Option<String>,
    /// The secret that has the password: one of `gantry secret set`
    #[arg(long, value_name = "NAME", conflicts_with = "password")]
    password_secret: Option<String>,
}

impl Credential {
    fn read(&self, client: &Client) -> Result<LoginCreate> {
        let user = self.username.as_deref().unwrap_or("the registry's user");
        let mut read = match &self.password_secret {
            Some(secret) => {
                let named =
                    LoginCreate { password_secret: Some(secret.clone()), ..LoginCreate::default() };
                match user.contains("://") {
                    true => LoginCreate { username_secret: Some(user.to_owned()), ..named },
                    false => LoginCreate { username: Some(user.to_owned()), ..named },
                }
            }
            None => login("--password", user, self.password.as_deref(), &client.environment)?,
        };
        if let Some(secret) = &self.username_secret {
            (read.username, read.username_secret) = (None, Some(secret.clone()));
        }
        Ok(read)
    }
}

impl CredentialCommand {
    pub(super) async fn run(self, client: &Client) -> Result<Exit> {
        match self {
            Self::Add(add) => {
                let known = is_known(client, &add.of).await?;
                if known {
                    return Err(refused(
                        &add.of,
                        "is there already: `gantry task credential update` replaces it",
                    ));
                }
                let login = add.read(client)?;
                change(client, &add.of, Some(login)).await
            }
            Self::Update(update) => {
                if !is_known(client, &update.of).await? {
                    return Err(refused(&update.of, ABSENT));
                }
                let login = update.read(client)?;
                change(client, &update.of, Some(login)).await
            }
            Self::Remove(remove) => {
                if !is_known(client, &remove).await? {
                    return Err(refused(&remove, ABSENT));
                }
                change(client, &remove, None).await
            }
            Self::List(task) => {
                let registry = client.registry(&task.registry).await?;
                let path = ["registries", &registry, "tasks", &task.name];
                let task: Task = client.api.get(&path).await?;
                client.output.print(&task.credentials, table(&task.credentials))?;
                Ok(Exit::Ok)
            }
        }
    }
}

const ABSENT: &str = "is not there: `gantry task credential list` lists those that are";

fn refused(of: &OneCredential, why: &str) -> anyhow::Error {
    let (server, task) = (&of.login_server, &of.task.name);
    UsageError(format!("the credential of task {task} for {server} {why}")).into()
}

async fn is_known(client: &Client, of: &OneCredential) -> Result<bool> {
    let registry = client.registry(&of.task.registry).await?;
    let task: Task = client.api.get(&["registries", &registry, "tasks", &of.task.name]).await?;
    Ok(task.credentials.contains_key(of.login_server.as_str()))
}

async fn change(client: &Client, of: &OneCredential, login: Option<LoginCreate>) -> Result<Exit> {
    let registry = client.registry(&of.task.registry).await?;
    let credentials = BTreeMap::from([(of.login_server.to_string(), login)]);
    let change = TaskUpdate { credentials, ..TaskUpdate::default() };
    let path = ["registries", &registry, "tasks", &of.task.name];
    let task: Task = client.api.patch(&path, &change).await?;
    client.output.print(&task.credentials, table(&task.credentials))?;
    Ok(Exit::Ok)
}

fn table(credentials: &BTreeMap<String, Login>) -> Table<3> {
    let mut table = Table::new(
        ["LOGIN SERVER", "USERNAME", "PASSWORD"],
        "no credentials: `gantry task credential add --help` shows how to add some",
    );
    let secret = |source: &Option<String>| source.as_ref().map(|it| format!("secret {it}"));
    for (server, login) in credentials {
        let username = login.username.clone().or_else(|| secret(&login.username_secret));
        let password = secret(&login.password_secret).unwrap_or_else(|| "kept".to_owned());
        table.row([server.clone(), username.unwrap_or_default(), password]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_listed_without_their_values() {
        let login = |username: &str| Login {
            username: Some(username.to_owned()),
            username_secret: None,
            password_secret: None,
        };
        let in_vault = Login {
            username: None,
            username_secret: Some("ghcr-user".to_owned()),
            password_secret: Some("https://v.vault.azure.net/secrets/ghcr".to_owned()),
        };
        let credentials =
            [("ghcr.io".to_owned(), in_vault), ("quay.io".to_owned(), login("robot"))].into();
        insta::assert_snapshot!(table(&credentials), @r"
        LOGIN SERVER  USERNAME          PASSWORD
        ghcr.io       secret ghcr-user  secret https://v.vault.azure.net/secrets/ghcr
        quay.io       robot             kept
        ");
    }
}
