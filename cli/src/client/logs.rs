//! `gantry logs`: shows the log of a run.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use gantry_api::Run;
use gantry_domain::id::RunId;
use gantry_ops::terminal::Sanitiser;

use super::Client;
use super::arguments::RegistryArg;
use super::log_view::Show;
use super::output::write_out;
use super::run::{newest, no_run, watch};
use crate::exit::Exit;

/// Show the log of a run
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
With --follow the exit code is that of the run: 0 succeeded, 1 failed, 3 cancelled, 4 timeout, 5 infrastructure; 130 \
after Ctrl-C, which stops following and leaves the run alone.

Examples:
  gantry logs ca1
  gantry logs --task web --follow
  gantry logs                        the newest run")]
pub(crate) struct Logs {
    /// The run's id, like `ca1`; the newest run if left out
    run: Option<RunId>,
    /// The newest run of this task
    #[arg(short = 'n', long, value_name = "TASK", conflicts_with = "run")]
    task: Option<String>,
    #[command(flatten)]
    registry: RegistryArg,
    /// Follow the log until the run is done; wait up to 30 s for the first run
    #[arg(short, long)]
    follow: bool,
    /// The log of this attempt, from 1; the last if left out
    #[arg(long, value_name = "NUMBER")]
    attempt: Option<u32>,
    /// Begin at this byte of the attempt's log
    #[arg(long, value_name = "BYTE")]
    offset: Option<u64>,
    /// Print without colours
    #[arg(long)]
    no_format: bool,
}

/// How long `--follow` waits for the first run, because a push may not have been decided yet.
const PATIENCE: Duration = Duration::from_secs(30);

const INTERVAL: Duration = Duration::from_millis(300);

impl Logs {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        let run = match &self.run {
            Some(run) => run.to_string(),
            None => self.newest(client).await?.id,
        };
        if self.follow {
            let from = (self.attempt, self.offset);
            let place = match from {
                (None, None) => None,
                (attempt, offset) => {
                    Some(format!("{}:{}", attempt.unwrap_or(1), offset.unwrap_or(0)))
                }
            };
            return watch(client, &run, place, Show::Log, !self.no_format).await;
        }
        let (attempt, offset) =
            (self.attempt.map(|n| n.to_string()), self.offset.map(|n| n.to_string()));
        let mut query = Vec::new();
        query.extend(attempt.as_deref().map(|attempt| ("attempt", attempt)));
        query.extend(offset.as_deref().map(|offset| ("offset", offset)));
        print_log(client, &run, &query, !self.no_format).await
    }

    async fn newest(&self, client: &Client) -> Result<Run> {
        // A task's name is unique only within its registry.
        let registry = match (&self.task, &self.registry.registry) {
            (None, None) => None,
            _ => Some(client.registry(&self.registry).await?),
        };
        let filter = [("registry", registry.as_deref()), ("task", self.task.as_deref())];
        let began = Instant::now();
        loop {
            let found = newest(client, &filter).await?;
            match found {
                Some(run) => return Ok(run),
                None if !self.follow || began.elapsed() > PATIENCE => return Err(no_run(&filter)),
                None => tokio::time::sleep(INTERVAL).await,
            }
        }
    }
}

/// Prints a run's log as far as it is written.
async fn print_log(
    client: &Client,
    run: &str,
    query: &[(&str, &str)],
    colours: bool,
) -> Result<Exit> {
    let colours =
        colours && client.environment.get("NO_COLOR").is_none() && std::io::stdout().is_terminal();
    let mut answer = client.api.open(&["runs", run, "log"], query, &[]).await?;
    let mut sanitiser = Sanitiser::new(colours);
    let mut rest = Vec::new();
    while let Some(bytes) = answer.chunk().await.map_err(|source| client.api.broken(source))? {
        rest.extend_from_slice(&bytes);
        let whole = whole_characters(&rest);
        let text = String::from_utf8_lossy(&rest[..whole]);
        write_out(&sanitiser.push(&text))?;
        rest.drain(..whole);
    }
    write_out(&sanitiser.push(&String::from_utf8_lossy(&rest)))?;
    write_out(sanitiser.finish())?;
    Ok(Exit::Ok)
}

/// The length of the bytes without an incomplete character at the end: chunks may end anywhere.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(_) => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_character_waits_for_the_next_chunk() {
        assert_eq!(whole_characters("aé".as_bytes()), 3);
        assert_eq!(whole_characters(&"aé".as_bytes()[..2]), 1);
        assert_eq!(whole_characters(b"a\xffb"), 3);
    }
}
