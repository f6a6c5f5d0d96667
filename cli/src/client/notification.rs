//! `gantry notification`: tells others of runs.

use anyhow::Result;
use clap::Subcommand;
use gantry_api::{
    Message, Notification, NotificationCreate, NotificationCreated, NotificationTestResult,
    NotificationUpdate, Replayed, Replays, SigningSecretCreated,
};
use serde_json::json;

use super::Client;
use super::arguments::{AddressArg, RegistryArg, duration_in_seconds, yes_or_no};
use super::table::{Details, Table, instant};
use crate::exit::Exit;

/// Tell others of runs: signed webhooks, Slack and Microsoft Teams
#[derive(Debug, Subcommand)]
pub(crate) enum Notifications {
    /// Create a notification and print its signing secret
    #[command(after_long_help = "\
The address is a secret: it is read from standard input (`-`), from a file (`@FILE`) or from a variable of the environment
(its name), and never shown again. The signing secret of the formats `standard` and `cloudevents` is shown once.

Examples:
  gantry notification create chat --format slack --url @slack-url --on failed,error,timeout
  gantry notification create team --format teams --url TEAMS_URL --only-changes
  gantry notification create deploy --url - --on succeeded --task 'web*' --branch main < url")]
    Create(Create),
    /// List notifications
    #[command(visible_alias = "ls")]
    List(RegistryArg),
    /// Show a notification, without its address
    Show(One),
    /// Change a notification, or turn it off and on
    #[command(after_long_help = "Examples:
  gantry notification update chat --url @slack-url     messages that wait go to the new address
  gantry notification update chat --enabled false
  gantry notification update chat --task '' --branch main,release/*     all tasks again, and two branches")]
    Update(Update),
    /// Delete a notification: what it has not sent is not sent any more
    Delete(One),
    /// Add a signing secret; with --finish, remove the old one
    #[command(after_long_help = "Examples:
  gantry notification rotate deploy             prints a new secret; messages are signed with both
  gantry notification rotate deploy --finish    once the receiver knows it: only the new one signs")]
    Rotate(Rotate),
    /// Send a message that tells of no run, and print the answer
    Test(One),
    /// List the messages of a notification from the newest, with the answers
    Messages(Messages),
    /// Send messages again, under the same ids
    #[command(after_long_help = "Examples:
  gantry notification replay deploy msg_ca1_failed_…
  gantry notification replay deploy --since 12h --failed     those that were given up")]
    Replay(Replay),
}

#[derive(Debug, clap::Args)]
pub(crate) struct One {
    #[command(flatten)]
    registry: RegistryArg,
    /// The notification's name
    name: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    address: AddressArg,
    /// `standard` (Standard Webhooks), `cloudevents`, `slack` or `teams`
    #[arg(long, default_value = "standard")]
    format: String,
    /// The events: held, started, succeeded, failed, error, timeout, canceled [default: the last five]
    #[arg(long, value_delimiter = ',', value_name = "EVENTS")]
    on: Option<Vec<String>>,
    /// Patterns of tasks, like 'web*' [default: all]
    #[arg(long = "task", value_delimiter = ',', value_name = "PATTERNS")]
    tasks: Vec<String>,
    /// Patterns of branches, like main,release/* [default: all]
    #[arg(long = "branch", value_delimiter = ',', value_name = "PATTERNS")]
    branches: Vec<String>,
    /// Tell of a run only if the one before it on the same branch ended otherwise
    #[arg(long)]
    only_changes: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Update {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    address: AddressArg,
    /// The events: held, started, succeeded, failed, error, timeout, canceled
    #[arg(long, value_delimiter = ',', value_name = "EVENTS")]
    on: Option<Vec<String>>,
    /// Patterns of tasks; '' for all
    #[arg(long = "task", value_delimiter = ',', value_name = "PATTERNS")]
    tasks: Option<Vec<String>>,
    /// Patterns of branches; '' for all
    #[arg(long = "branch", value_delimiter = ',', value_name = "PATTERNS")]
    branches: Option<Vec<String>>,
    /// Whether to tell of a run only if the one before it on the same branch ended otherwise
    #[arg(long, value_name = "BOOLEAN", value_parser = yes_or_no)]
    only_changes: Option<bool>,
    /// Whether it sends messages
    #[arg(long, value_name = "BOOLEAN", value_parser = yes_or_no)]
    enabled: Option<bool>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Rotate {
    #[command(flatten)]
    one: One,
    /// Remove the old secret
    #[arg(long)]
    finish: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Messages {
    #[command(flatten)]
    one: One,
    /// At most this many
    #[arg(long, default_value_t = 15, value_name = "COUNT")]
    top: usize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    one: One,
    /// The message's id, as `gantry notification messages` shows it
    #[arg(required_unless_present = "since")]
    message: Option<String>,
    /// All messages of this time, like `1h`
    #[arg(long, value_name = "TIME", conflicts_with = "message", value_parser = duration_in_seconds)]
    since: Option<u32>,
    /// Only those that were given up
    #[arg(long, requires = "since")]
    failed: bool,
}

impl One {
    /// The path of the notification in the API, after the registry.
    async fn path(&self, client: &Client) -> Result<[String; 4]> {
        let registry = client.registry(&self.registry).await?;
        Ok(["registries".into(), registry, "notifications".into(), self.name.clone()])
    }
}

/// A path below a notification.
fn below<'a>(notification: &'a [String; 4], rest: &[&'a str]) -> Vec<&'a str> {
    notification.iter().map(String::as_str).chain(rest.iter().copied()).collect()
}

impl Notifications {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        match self {
            Self::Create(create) => create.run(client).await,
            Self::List(registry) => {
                let registry = client.registry(&registry).await?;
                let path = ["registries", &registry, "notifications"];
                let all: Vec<Notification> = client.api.list(&path, &[], usize::MAX).await?;
                client.output.print(&all, table(&all))?;
                Ok(Exit::Ok)
            }
            Self::Show(one) => {
                let path = one.path(client).await?;
                show(client, &client.api.get(&below(&path, &[])).await?)
            }
            Self::Update(update) => update.run(client).await,
            Self::Delete(one) => {
                let path = one.path(client).await?;
                client.api.delete(&below(&path, &[])).await?;
                client.output.done(format_args!("notification {} is gone", one.name))?;
                Ok(Exit::Ok)
            }
            Self::Rotate(rotate) => rotate.run(client).await,
            Self::Test(one) => one.test(client).await,
            Self::Messages(messages) => messages.run(client).await,
            Self::Replay(replay) => replay.run(client).await,
        }
    }
}

impl Create {
    async fn run(self, client: &Client) -> Result<Exit> {
        let registry = client.registry(&self.one.registry).await?;
        let new = NotificationCreate {
            name: self.one.name,
            url: self.address.required(&client.environment)?,
            format: self.format,
            on: self.on,
            tasks: self.tasks,
            branches: self.branches,
            only_changes: self.only_changes,
        };
        let path = ["registries", &registry, "notifications"];
        let created: NotificationCreated = client.api.post(&path, &new).await?;
        let mut details = details(&created.notification);
        details
            .maybe("secret", created.secret.as_ref())
            .line("next", format_args!("gantry notification test {}", created.notification.name));
        client.output.print(&created, details)?;
        Ok(Exit::Ok)
    }
}

impl Update {
    async fn run(self, client: &Client) -> Result<Exit> {
        let path = self.one.path(client).await?;
        let texts = |given: Option<Vec<String>>| {
            given.map(|texts| texts.into_iter().filter(|text| !text.is_empty()).collect())
        };
        let update = NotificationUpdate {
            url: self.address.read(&client.environment)?,
            on: self.on,
            tasks: texts(self.tasks),
            branches: texts(self.branches),
            only_changes: self.only_changes,
            enabled: self.enabled,
        };
        show(client, &client.api.patch(&below(&path, &[]), &update).await?)
    }
}

impl Rotate {
    async fn run(self, client: &Client) -> Result<Exit> {
        let path = self.one.path(client).await?;
        if self.finish {
            let found: Notification = client.api.get(&below(&path, &[])).await?;
            // The newest secret comes first.
            for old in found.secrets.iter().skip(1) {
                client.api.delete(&below(&path, &["secrets", &old.id])).await?;
            }
            return show(client, &client.api.get(&below(&path, &[])).await?);
        }
        let added: SigningSecretCreated =
            client.api.post(&below(&path, &["secrets"]), &json!({})).await?;
        let name = &added.notification.name;
        let mut details = Details::default();
        details.line("notification", name).line("secret", &added.secret).line(
            "next",
            format_args!(
                "give it to the receiver, then: gantry notification rotate {name} --finish"
            ),
        );
        client.output.print(&added, details)?;
        Ok(Exit::Ok)
    }
}

impl One {
    async fn test(self, client: &Client) -> Result<Exit> {
        let path = self.path(client).await?;
        let tested: NotificationTestResult =
            client.api.post(&below(&path, &["test"]), &json!({})).await?;
        let mut details = Details::default();
        details
            .line("result", if tested.ok { "accepted" } else { "failed" })
            .line("meaning", &tested.message)
            .maybe("status", tested.status)
            .line("took", format_args!("{} ms", tested.duration_ms));
        client.output.print(&tested, details)?;
        Ok(if tested.ok { Exit::Ok } else { Exit::Failed })
    }
}

impl Messages {
    async fn run(self, client: &Client) -> Result<Exit> {
        let path = self.one.path(client).await?;
        let messages: Vec<Message> =
            client.api.list(&below(&path, &["messages"]), &[], self.top).await?;
        client.output.print(&messages, messages_table(&messages))?;
        Ok(Exit::Ok)
    }
}

impl Replay {
    async fn run(self, client: &Client) -> Result<Exit> {
        let path = self.one.path(client).await?;
        let replayed = match &self.message {
            Some(id) => {
                let path = below(&path, &["messages", id, "replays"]);
                let message: Message = client.api.post(&path, &json!({})).await?;
                Replayed { messages: vec![message.id] }
            }
            None => {
                let since_seconds = self.since.unwrap_or_default();
                let asked = Replays { since_seconds, failed: self.failed };
                client.api.post(&below(&path, &["replays"]), &asked).await?
            }
        };
        let text = match replayed.messages.as_slice() {
            [] => "no messages\n".to_owned(),
            ids => ids.iter().map(|id| format!("{id} is sent again\n")).collect(),
        };
        client.output.print(&replayed, text)?;
        Ok(Exit::Ok)
    }
}

fn show(client: &Client, notification: &Notification) -> Result<Exit> {
    client.output.print(notification, details(notification))?;
    Ok(Exit::Ok)
}

fn table(notifications: &[Notification]) -> Table<6> {
    let mut table = Table::new(
        ["NAME", "FORMAT", "ORIGIN", "ON", "TASKS", "STATE"],
        "no notifications: `gantry notification create NAME --format slack --url @FILE` makes one",
    );
    for one in notifications {
        table.row([
            one.name.clone(),
            one.format.clone(),
            one.origin.clone(),
            one.on.join(", "),
            all_or(&one.tasks),
            if one.enabled { "enabled" } else { "disabled" }.to_owned(),
        ]);
    }
    table
}

fn all_or(patterns: &[String]) -> String {
    if patterns.is_empty() { "all".to_owned() } else { patterns.join(", ") }
}

fn details(one: &Notification) -> Details {
    let secret = |secret: &gantry_api::SigningSecret| {
        format!("{} of {}", secret.id, instant(&secret.created))
    };
    let mut details = Details::default();
    details
        .line("notification", &one.name)
        .line("registry", &one.registry)
        .line("format", &one.format)
        .line("origin", &one.origin)
        .line("on", one.on.join(", "))
        .line("tasks", all_or(&one.tasks))
        .line("branches", all_or(&one.branches))
        .maybe("only", one.only_changes.then_some("changes of the result"))
        .line("state", one.disabled_because.as_deref().unwrap_or("enabled"))
        .each("secrets", one.secrets.iter().map(secret))
        .line("created", instant(&one.created));
    details
}

fn messages_table(messages: &[Message]) -> Table<6> {
    let mut table = Table::new(
        ["MESSAGE", "CREATED", "STATE", "ATTEMPTS", "NEXT", "ANSWER"],
        "no messages: `gantry notification test NAME` tries a notification",
    );
    for one in messages {
        table.row([
            one.id.clone(),
            instant(&one.created),
            one.state.replace('_', " "),
            one.attempts.to_string(),
            one.next_attempt.as_deref().map(instant).unwrap_or_default(),
            one.answer.as_ref().map(|answer| answer.message.clone()).unwrap_or_default(),
        ]);
    }
    table
}
