//! `gantry simulate`: what would come of a webhook.

use std::io::Read as _;

use anyhow::{Context as _, Result};
use gantry_api::{Simulation, SimulationCreate};

use super::Client;
use super::arguments::RegistryArg;
use super::delivery::{OneDelivery, event_lines};
use super::mapping::MappingArgs;
use super::table::Details;
use crate::exit::{Exit, UsageError};

/// Show what would come of a webhook: for each task the run, or the first rule that says no. Starts nothing
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The same code decides that decides received webhooks, and it asks the same hosts.

Examples:
  gantry simulate push.json --provider github --event push
  gantry simulate push.json --provider generic \\
      --repository-pointer /repository/url --ref-pointer /ref --commit-pointer /after
  gantry simulate --delivery 72d3162e-cc78-11e3-81ab-4c9367dc0958")]
pub(crate) struct Simulate {
    /// A file with the body of a webhook; `-` for standard input
    #[arg(value_name = "FILE", required_unless_present = "delivery", conflicts_with = "delivery")]
    file: Option<String>,
    /// The provider whose webhook it is
    #[arg(long, default_value = "github", value_name = "PROVIDER")]
    provider: String,
    /// The type of the event, for providers that name it in a header
    #[arg(long, default_value = "push", value_name = "EVENT")]
    event: String,
    /// A delivery that was received, instead of a file
    #[arg(long, value_name = "DELIVERY")]
    delivery: Option<String>,
    /// The hook of the delivery, if two hooks have one with this id
    #[arg(long, value_name = "HOOK", requires = "delivery")]
    hook: Option<String>,
    #[command(flatten)]
    registry: RegistryArg,
    // Last: its heading holds for what follows.
    #[command(flatten)]
    mapping: MappingArgs,
}

impl Simulate {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        let registry = client.registry(&self.registry).await?;
        let asked = match (self.file, self.delivery) {
            (Some(file), None) => SimulationCreate {
                provider: Some(self.provider),
                mapping: self.mapping.into_mapping(),
                event: Some(self.event),
                body: Some(read(&file)?),
                ..SimulationCreate::default()
            },
            (None, Some(delivery)) => {
                let one = OneDelivery { delivery, hook: self.hook };
                SimulationCreate {
                    hook: Some(one.hook(client).await?),
                    delivery: Some(one.delivery),
                    ..SimulationCreate::default()
                }
            }
            _ => return Err(UsageError("give a file or a delivery".to_owned()).into()),
        };
        let path = ["registries", &registry, "simulations"];
        let found: Simulation = client.api.post(&path, &asked).await?;
        client.output.print(&found, details(&found))?;
        Ok(Exit::Ok)
    }
}

fn read(file: &str) -> Result<String> {
    if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))
}

fn details(found: &Simulation) -> Details {
    let mut details = Details::default();
    details.line("verdict", found.verdict.replace('_', " ")).maybe("why", found.why.as_ref());
    for event in &found.events {
        event_lines(&mut details, event);
    }
    details
}
