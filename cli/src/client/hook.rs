//! `gantry hook`: manages webhooks.

use anyhow::Result;
use clap::Subcommand;
use gantry_api::{
    Hook, HookCreate, HookCreated, HookSecretCreate, HookSecretCreated, HookTestResult,
    Redelivered, WebhookReport,
};
use gantry_domain::hook::Provider;

use super::Client;
use super::arguments::{RegistryArg, read_secret};
use super::mapping::{MappingArgs, mapping_lines};
use super::output::say;
use super::table::{Details, Table, instant};
use crate::exit::Exit;

/// How many deliveries of a hook are shown to people.
const SHOWN_DELIVERIES: usize = 10;

/// Manage webhooks: from code hosts and registries
#[derive(Debug, Subcommand)]
pub(crate) enum Hooks {
    /// Create a hook and print what to enter at the sender
    #[command(after_long_help = "\
The secret is shown once. Providers are told the address of `server.public_url`.

Examples:
  gantry hook create --provider github
  gantry hook create --provider github --repository https://github.com/octo/web.git
  gantry hook create --provider azure --repository https://dev.azure.com/fabrikam/Shop/_git/Web
  gantry hook create --provider distribution
  gantry hook create --provider docker-hub --repository docker.io/octo/base
  gantry hook create --provider generic \\
      --repository-pointer /repository/url --ref-pointer /ref --commit-pointer /after
  gantry hook create --provider generic --image-pointer /image/name --tag-pointer /image/tag")]
    Create(Box<Create>),
    /// List hooks
    #[command(visible_alias = "ls")]
    List(List),
    /// Show a hook: its URL, the ids of its secrets, and counts of its deliveries
    Show(OneHook),
    /// Delete a hook: its deliveries are refused from now on
    Delete(OneHook),
    /// Add a secret; with --finish, remove the old ones
    #[command(after_long_help = "Examples:
  gantry hook rotate HOOK             prints a new secret; the old ones stay valid
  gantry hook rotate HOOK --finish    once the sender uses it: only the newest stays valid")]
    Rotate(Rotate),
    /// Send a test delivery to a hook and report the answer
    Test(OneHook),
    /// Compare the hooks that gantry made with what their code hosts have
    #[command(after_long_help = "\
Shows the webhook at the code host, its last deliveries with the answers that the code host got, and what to do. Fails if
something is wrong.

Examples:
  gantry hook doctor
  gantry hook doctor --redeliver     has the code hosts send again what did not arrive")]
    Doctor(Doctor),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    registry: RegistryArg,
    /// Have the code hosts send again what did not arrive
    #[arg(long)]
    redeliver: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    #[command(flatten)]
    registry: RegistryArg,
    #[arg(long, value_name = "PROVIDER", help = senders())]
    provider: String,
    /// URL of a repository to accept events for [default: every repository that the registry's tasks name]
    #[arg(long = "repository", value_name = "URL")]
    repositories: Vec<String>,
    /// Read the secret from standard input instead of generating one
    #[arg(long)]
    secret_stdin: bool,
    // Last: its heading holds for what follows.
    #[command(flatten)]
    mapping: MappingArgs,
}

fn senders() -> String {
    let words: Vec<&str> = Provider::ALL.iter().map(|provider| provider.as_str()).collect();
    format!("Who sends: {}", words.join(", "))
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    registry: RegistryArg,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OneHook {
    /// The hook's id
    hook: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Rotate {
    /// The hook's id
    hook: String,
    /// Remove every secret but the newest
    #[arg(long, conflicts_with = "secret_stdin")]
    finish: bool,
    /// Read the secret from standard input instead of generating one
    #[arg(long)]
    secret_stdin: bool,
}

impl Hooks {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        match self {
            Self::Create(create) => create.run(client).await,
            Self::List(list) => list.run(client).await,
            Self::Show(one) => show(client, &client.api.get(&["hooks", &one.hook]).await?),
            Self::Delete(one) => {
                client.api.delete(&["hooks", &one.hook]).await?;
                client.output.done(format_args!(
                    "hook {} is closed: remove it at its sender too",
                    one.hook
                ))?;
                Ok(Exit::Ok)
            }
            Self::Rotate(rotate) => rotate.run(client).await,
            Self::Test(one) => one.test(client).await,
            Self::Doctor(doctor) => doctor.run(client).await,
        }
    }
}

impl Create {
    async fn run(self, client: &Client) -> Result<Exit> {
        let registry = client.registry(&self.registry).await?;
        let new = HookCreate {
            provider: self.provider,
            mapping: self.mapping.into_mapping(),
            repositories: self.repositories,
            secret: self.secret_stdin.then(|| read_secret("the secret")).transpose()?,
        };
        let created: HookCreated =
            client.api.post(&["registries", &registry, "hooks"], &new).await?;
        let mut details = Details::default();
        details.line("hook", &created.hook.id).each("at the sender", &created.instructions);
        client.output.print(&created, details)?;
        Ok(Exit::Ok)
    }
}

impl List {
    async fn run(self, client: &Client) -> Result<Exit> {
        let filter = [("registry", self.registry.registry.as_deref())];
        let hooks: Vec<Hook> = client.api.list(&["hooks"], &filter, usize::MAX).await?;
        client.output.print(&hooks, table(&hooks))?;
        Ok(Exit::Ok)
    }
}

impl Doctor {
    async fn run(self, client: &Client) -> Result<Exit> {
        let filter = [("registry", self.registry.registry.as_deref())];
        let hooks: Vec<Hook> = client.api.list(&["hooks"], &filter, usize::MAX).await?;
        let mut reports: Vec<WebhookReport> = Vec::new();
        for hook in hooks.iter().filter(|hook| hook.provisioned) {
            if self.redeliver {
                let again: Redelivered = client
                    .api
                    .post(&["hooks", &hook.id, "redeliveries"], &serde_json::json!({}))
                    .await?;
                for delivery in again.deliveries {
                    say(format_args!("hook {}: delivery {delivery} is sent again", hook.id));
                }
            }
            reports.push(client.api.get(&["hooks", &hook.id, "webhook"]).await?);
        }
        let is_well = reports.iter().all(|report| report.advice.is_empty());
        client.output.print(&reports, diagnosis(&reports))?;
        Ok(if is_well { Exit::Ok } else { Exit::Failed })
    }
}

/// One block of lines for each hook.
fn diagnosis(reports: &[WebhookReport]) -> String {
    if reports.is_empty() {
        return "gantry made no hooks: `gantry task show` says why a task has no webhook\n"
            .to_owned();
    }
    let blocks: Vec<String> = reports.iter().map(|report| examined(report).to_string()).collect();
    blocks.join("\n")
}

fn examined(report: &WebhookReport) -> Details {
    let found = report.found.iter().map(|found| {
        let kind = found.content_type.as_deref().map(|kind| format!(", {kind}"));
        format!("{}: {}{}", found.id, found.events.join(", "), kind.unwrap_or_default())
    });
    let deliveries = report.found.iter().flat_map(|found| found.deliveries.iter().flatten());
    let deliveries = deliveries.take(SHOWN_DELIVERIES).map(|sent| {
        let arrived = if sent.arrived { "arrived" } else { "did not arrive" };
        let id = sent.delivery.as_deref().unwrap_or("-");
        format!("{} {} {id}: {}, {arrived}", sent.at, sent.event, sent.outcome)
    });
    let mut details = Details::default();
    details
        .maybe("repository", report.repository.as_ref())
        .line("hook", &report.hook)
        .line("URL", &report.url)
        .each("code host has", found)
        .each("last deliveries", deliveries)
        .each(
            "result",
            match report.advice.as_slice() {
                [] => vec!["well".to_owned()],
                advice => advice.to_vec(),
            },
        );
    details
}

impl Rotate {
    async fn run(self, client: &Client) -> Result<Exit> {
        let secrets = ["hooks", &self.hook, "secrets"];
        if self.finish {
            let hook: Hook = client.api.get(&["hooks", &self.hook]).await?;
            // The newest secret comes first.
            for old in hook.secrets.iter().skip(1) {
                client.api.delete(&["hooks", &self.hook, "secrets", &old.id]).await?;
            }
            return show(client, &client.api.get(&["hooks", &self.hook]).await?);
        }
        let new = HookSecretCreate {
            secret: self.secret_stdin.then(|| read_secret("the secret")).transpose()?,
        };
        let added: HookSecretCreated = client.api.post(&secrets, &new).await?;
        let mut details = Details::default();
        details.line("hook", &added.hook.id).line("secret", &added.secret).line(
            "next",
            format_args!(
                "enter it at the sender, then: gantry hook rotate {} --finish",
                added.hook.id
            ),
        );
        client.output.print(&added, details)?;
        Ok(Exit::Ok)
    }
}

impl OneHook {
    async fn test(self, client: &Client) -> Result<Exit> {
        let tested: HookTestResult =
            client.api.post(&["hooks", &self.hook, "test"], &serde_json::json!({})).await?;
        let mut details = Details::default();
        details
            .line("result", if tested.ok { "accepted" } else { "failed" })
            .line("meaning", &tested.message)
            .line("URL", &tested.url)
            .maybe("status", tested.status)
            .line("took", format_args!("{} ms", tested.duration_ms))
            .maybe("delivery", tested.delivery.as_ref());
        client.output.print(&tested, details)?;
        Ok(if tested.ok { Exit::Ok } else { Exit::Failed })
    }
}

fn show(client: &Client, hook: &Hook) -> Result<Exit> {
    client.output.print(hook, details(hook))?;
    Ok(Exit::Ok)
}

fn table(hooks: &[Hook]) -> Table<7> {
    let mut table = Table::new(
        ["HOOK", "REGISTRY", "PROVIDER", "REPOSITORIES", "MADE BY", "ACCEPTED", "REFUSED"],
        "no hooks: `gantry hook create --provider github` opens one",
    );
    for hook in hooks {
        let refused = hook.since_start.unauthorized + hook.since_start.unreadable;
        table.row([
            hook.id.clone(),
            hook.registry.clone(),
            hook.provider.clone(),
            repositories(hook),
            if hook.provisioned { "gantry" } else { "hand" }.to_owned(),
            hook.since_start.accepted.to_string(),
            refused.to_string(),
        ]);
    }
    table
}

fn repositories(hook: &Hook) -> String {
    if hook.repositories.is_empty() {
        "those of the tasks".to_owned()
    } else {
        hook.repositories.join(", ")
    }
}

fn secrets(hook: &Hook) -> Vec<String> {
    if hook.secrets.is_empty() {
        return vec!["none: its sender can only be told the URL".to_owned()];
    }
    hook.secrets.iter().map(|one| format!("{} of {}", one.id, instant(&one.created))).collect()
}

fn details(hook: &Hook) -> Details {
    let counts = &hook.since_start;
    let mut details = Details::default();
    details
        .line("hook", &hook.id)
        .line("registry", &hook.registry)
        .line("provider", &hook.provider)
        .each("reads", hook.mapping.iter().flat_map(mapping_lines))
        .line("repositories", repositories(hook))
        .maybe("made by", hook.provisioned.then_some("gantry, for the tasks that need its webhook"))
        .line("URL", &hook.url)
        .each("secrets", secrets(hook))
        .line("created", instant(&hook.created))
        .line(
            "since start",
            format_args!(
                "{} accepted, {} of no interest, {} refused, {} unreadable, {} not stored in time",
                counts.accepted,
                counts.dropped,
                counts.unauthorized,
                counts.unreadable,
                counts.unavailable
            ),
        );
    details
}
