//! Follows a run to its end, across lost connections.

use std::time::Duration;

use anyhow::Result;
use gantry_api::{LogEvent, Run};
use reqwest::Response;
use tokio::time::{Instant, sleep, timeout};

use super::http::{Api, ApiError};
use super::log_view::LogView;
use super::output::say;
use super::sse::{EventReader, ServerEvent};

/// The connection counts as lost after this. The server sends something at least every 15 s.
const SILENCE: Duration = Duration::from_secs(60);

/// How long the server may be unavailable before following fails.
const PATIENCE: Duration = Duration::from_secs(300);

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How following ended.
pub(crate) enum Followed {
    /// The run ended.
    Ended(Box<Run>),
    /// Ctrl-C: the run continues.
    Interrupted,
}

/// Shows a run to its end, from `place` (`attempt:offset`) or from its beginning.
///
/// # Errors
/// [`ApiError`] if the run does not exist or the server stays unavailable; an error of writing to standard output.
pub(crate) async fn follow(
    api: &Api,
    run: &str,
    place: Option<String>,
    view: &mut LogView,
) -> Result<Followed> {
    let mut follower = Follower { api, run, place, view };
    let ended = tokio::select! {
        ended = follower.see_it_end() => Some(ended?),
        _ = tokio::signal::ctrl_c() => None,
    };
    follower.view.finish()?;
    match ended {
        Some(run) => Ok(Followed::Ended(run)),
        None => {
            say(format!(
                "run {run} goes on: `gantry logs {run} --follow` shows it, `gantry cancel {run}` stops it"
            ));
            Ok(Followed::Interrupted)
        }
    }
}

struct Follower<'a> {
    api: &'a Api,
    run: &'a str,
    place: Option<String>,
    view: &'a mut LogView,
}

impl Follower<'_> {
    async fn see_it_end(&mut self) -> Result<Box<Run>> {
        let mut last_event = Instant::now();
        let mut pause = FIRST_PAUSE;
        let (mut connected, mut said_away) = (false, false);
        loop {
            let error = match self.connect().await {
                Ok(answer) => {
                    (connected, last_event, pause) = (true, Instant::now(), FIRST_PAUSE);
                    said_away = false;
                    if let Some(run) = self.listen(answer).await? {
                        return Ok(run);
                    }
                    None
                }
                Err(error) => Some(error),
            };
            if let Some(error) = error {
                // A server that never answered is reported at once; one that did may just be restarting.
                let may_come_back =
                    error.is_transient() || matches!(error, ApiError::Unreachable { .. });
                if !connected || !may_come_back || last_event.elapsed() > PATIENCE {
                    return Err(error.into());
                }
                if !std::mem::replace(&mut said_away, true) {
                    self.view.note("gantry does not answer; waiting for it")?;
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect(&self) -> Result<Response, ApiError> {
        let mut headers = vec![("Accept", "text/event-stream")];
        headers.extend(self.place.as_deref().map(|place| ("Last-Event-ID", place)));
        self.api.open(&["runs", self.run, "log", "events"], &[], &headers).await
    }

    /// Shows the events of a connection; `None` if it ended before the run did.
    async fn listen(&mut self, mut answer: Response) -> Result<Option<Box<Run>>> {
        let mut reader = EventReader::default();
        while let Ok(Ok(Some(bytes))) = timeout(SILENCE, answer.chunk()).await {
            for event in reader.push(&bytes) {
                if let Some(run) = self.show(event)? {
                    return Ok(Some(run));
                }
            }
        }
        Ok(None)
    }

    fn show(&mut self, event: ServerEvent) -> Result<Option<Box<Run>>> {
        match LogEvent::parse(&event.name, &event.data) {
            Ok(Some(LogEvent::Status(status))) => {
                self.view.status(&status.status, status.waits_for.as_deref())?;
            }
            Ok(Some(LogEvent::Attempt(begun))) if begun.attempt > 1 => {
                self.view.note(&format!("attempt {} begins", begun.attempt))?;
            }
            Ok(Some(LogEvent::Attempt(_))) => {}
            Ok(Some(LogEvent::Log(chunk))) => {
                self.view.log(chunk.step.as_deref(), &chunk.text)?;
            }
            Ok(Some(LogEvent::Hole(hole))) => {
                let lost = hole.until.saturating_sub(hole.offset);
                self.view.note(&format!("{lost} bytes of the log are lost here"))?;
            }
            Ok(Some(LogEvent::End(run))) => return Ok(Some(run)),
            // A newer server may send events that this client does not know.
            Ok(None) => {}
            Err(error) => {
                self.view.note(&format!("what the server said cannot be read: {error}"))?
            }
        }
        if event.id.is_some() {
            self.place = event.id;
        }
        Ok(None)
    }
}
