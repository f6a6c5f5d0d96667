//! `gantry token`: manages API tokens.

use anyhow::Result;
use clap::Subcommand;
use gantry_api::{Token, TokenCreate, TokenCreated};
use gantry_domain::token::Scope;
use gantry_ops::settings::parse_duration;

use super::Client;
use super::table::{Details, Table, instant};
use crate::exit::Exit;

/// Create and revoke tokens for people and programs
#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// Create a token; it is shown once
    #[command(after_long_help = "\
read sees everything but secrets; run starts, cancels and repeats runs; write changes registries, tasks, secrets and hooks; \
admin makes tokens. Each includes those before it.

Examples:
  gantry token create --scope run --bind demo --expires-in 90d --description 'CI of octo/web'
  gantry token create --scope read --output json | jq -r .text")]
    Create(Create),
    /// List tokens
    #[command(visible_alias = "ls")]
    List,
    /// Revoke a token
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// What it may do: read, run, write or admin
    #[arg(long, value_name = "SCOPE")]
    scope: Scope,
    /// Bind it to this registry. May be given several times [default: every registry]
    #[arg(long, value_name = "REGISTRY")]
    bind: Vec<String>,
    /// Let it expire after this time, like 12h or 90d [default: never]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    expires_in: Option<u64>,
    /// What it is for
    #[arg(long, default_value = "", value_name = "TEXT")]
    description: String,
}

fn seconds(text: &str) -> Result<u64, &'static str> {
    parse_duration(text).map(|duration| duration.as_secs())
}

#[derive(Debug, clap::Args)]
pub(crate) struct Revoke {
    /// The token's id: its public part
    token: String,
}

impl Tokens {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        match self {
            Self::Create(create) => create.run(client).await,
            Self::List => {
                let tokens: Vec<Token> = client.api.list(&["tokens"], &[], usize::MAX).await?;
                client.output.print(&tokens, table(&tokens))?;
                Ok(Exit::Ok)
            }
            Self::Revoke(revoke) => {
                client.api.delete(&["tokens", &revoke.token]).await?;
                client
                    .output
                    .done(format_args!("token {} is refused from now on", revoke.token))?;
                Ok(Exit::Ok)
            }
        }
    }
}

impl Create {
    async fn run(self, client: &Client) -> Result<Exit> {
        let new = TokenCreate {
            description: self.description,
            scope: self.scope.to_string(),
            registries: (!self.bind.is_empty()).then_some(self.bind),
            expires_in: self.expires_in,
        };
        let created: TokenCreated = client.api.post(&["tokens"], &new).await?;
        let mut details = Details::default();
        details
            .line("token", &created.text)
            .line("id", &created.token.id)
            .line("scope", scope(&created.token))
            .maybe("expires", created.token.expires.as_deref().map(instant));
        client.output.print(&created, details)?;
        Ok(Exit::Ok)
    }
}

fn scope(token: &Token) -> String {
    match &token.registries {
        Some(registries) => format!("{} on {}", token.scope, registries.join(", ")),
        None => token.scope.clone(),
    }
}

fn table(tokens: &[Token]) -> Table<5> {
    let mut table = Table::new(["TOKEN", "SCOPE", "STATUS", "CREATED", "DESCRIPTION"], "no tokens");
    for token in tokens {
        let status = match (&token.revoked, &token.expires) {
            (Some(at), _) => format!("revoked {}", instant(at)),
            (None, Some(at)) if token.active => format!("until {}", instant(at)),
            (None, Some(at)) => format!("expired {}", instant(at)),
            (None, None) => "active".to_owned(),
        };
        table.row([
            token.id.clone(),
            scope(token),
            status,
            instant(&token.created),
            token.description.clone(),
        ]);
    }
    table
}
