//! `gantry event`: shows what was decided about an event.

use anyhow::Result;
use clap::Subcommand;
use gantry_api::Event;

use super::Client;
use super::delivery::event_details;
use crate::exit::Exit;

/// Show what happened, and for each task the run or the first rule that said no
#[derive(Debug, Subcommand)]
pub(crate) enum Events {
    /// Show an event and the decision on it
    #[command(after_long_help = "\
`gantry delivery show` lists the events of a delivery, and `gantry runs show` names the event of a run.

Example:
  gantry event show h4k2/72d3162e-cc78-11e3-81ab-4c9367dc0958/0")]
    Show(OneEvent),
}

#[derive(Debug, clap::Args)]
pub(crate) struct OneEvent {
    /// The event's id
    event: String,
}

impl Events {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        let Self::Show(OneEvent { event }) = self;
        let path: Vec<&str> = ["events"].into_iter().chain(event.split('/')).collect();
        let found: Event = client.api.get(&path).await?;
        client.output.print(&found, event_details(&found))?;
        Ok(Exit::Ok)
    }
}
