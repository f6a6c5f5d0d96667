//! One listener's live log as server-sent events: first what the log has, then each update.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Bytes;
use futures_util::Stream;
use gantry_domain::id::RunId;
use gantry_domain::log::{LogFrame, OutputStream};
use gantry_domain::run::Run;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::error::RecvError;

use super::follow::{Subscription, Update};
use super::walk::{LogItem, LogPosition, LogWalk, WalkError};
use crate::access::Standing;
use crate::state::State;
use crate::usecase::runs::waits_for;
use crate::view;
use gantry_api::{LogAttempt, LogChunk, LogHole, LogStatus};

/// Proxies close connections that are silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// One client of a live log.
pub(crate) struct LiveLog {
    state: Arc<State>,
    standing: Standing,
    run: RunId,
    /// Everything up to this position was sent.
    position: LogPosition,
    /// The run's status as last sent.
    status: Option<Bytes>,
    waiting: VecDeque<(LogPosition, Bytes)>,
    phase: Phase,
    _admitted: OwnedSemaphorePermit,
}

enum Phase {
    /// Reads the log itself. A listener that subscribed before this reading takes over at its end.
    CatchingUp {
        walk: LogWalk,
        subscription: Option<Subscription>,
    },
    Subscribed(Subscription),
    Over,
}

impl LiveLog {
    /// A listener that has read up to `position`; `None` if there are too many.
    pub(crate) fn from(
        state: Arc<State>,
        standing: Standing,
        run: RunId,
        position: LogPosition,
    ) -> Option<Self> {
        let admitted = state.followers.admit()?;
        Some(Self {
            state,
            standing,
            run,
            position,
            status: None,
            waiting: VecDeque::new(),
            phase: Phase::CatchingUp { walk: LogWalk::from(run, position), subscription: None },
            _admitted: admitted,
        })
    }

    /// The body of the answer.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
        futures_util::stream::unfold(self, |mut live| async move {
            let bytes = live.next().await?;
            Some((Ok(bytes), live))
        })
    }

    /// The next event; `None` after the last one, or when the token is revoked or gantry stops.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.standing.holds(self.state.store.as_ref()).await {
                return None;
            }
            if let Some((position, bytes)) = self.waiting.pop_front() {
                self.position = position;
                return Some(bytes);
            }
            let stop = self.state.stop.clone();
            let bytes = tokio::select! {
                bytes = self.advance() => bytes,
                () = stop.cancelled() => return None,
            };
            match bytes {
                Ok(Some(bytes)) => return Some(bytes),
                Ok(None) if matches!(self.phase, Phase::Over) => return None,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(run.id = %self.run, "the live log of run {} was cut off: {error}", self.run);
                    return None;
                }
            }
        }
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, WalkError> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::CatchingUp { walk, subscription } => self.catch_up(walk, subscription).await,
            Phase::Subscribed(subscription) => Ok(self.receive(subscription).await),
            Phase::Over => Ok(None),
        }
    }

    async fn catch_up(
        &mut self,
        mut walk: LogWalk,
        subscription: Option<Subscription>,
    ) -> Result<Option<Bytes>, WalkError> {
        let item = self.state.followers.read(&self.state, &mut walk).await?;
        if let LogItem::CaughtUp(run) = &item {
            if run.state.done().is_some() {
                return Ok(Some(encode_end(run)));
            }
            if let Some(subscription) = subscription {
                self.phase = Phase::Subscribed(subscription);
                return Ok(self.news(encode_status(run)));
            }
            let subscription =
                self.state.followers.subscribe(&self.state, self.run, walk.position());
            self.phase = Phase::CatchingUp { walk, subscription: Some(subscription) };
            return Ok(None);
        }
        self.waiting.extend(encode_item(walk.position(), &item));
        self.phase = Phase::CatchingUp { walk, subscription };
        Ok(None)
    }

    async fn receive(&mut self, mut subscription: Subscription) -> Option<Bytes> {
        match tokio::time::timeout(KEEP_ALIVE, subscription.updates.recv()).await {
            Err(_) => {
                self.phase = Phase::Subscribed(subscription);
                Some(Bytes::from_static(b": still here\n\n"))
            }
            Ok(Ok(Update::Output(position, bytes))) => {
                self.phase = Phase::Subscribed(subscription);
                // The follower may be behind what this client has read itself.
                let is_new = position > self.position;
                self.position = self.position.max(position);
                is_new.then_some(bytes)
            }
            Ok(Ok(Update::Status(bytes))) => {
                self.phase = Phase::Subscribed(subscription);
                self.news(bytes)
            }
            Ok(Ok(Update::End(bytes))) => Some(bytes),
            Ok(Err(RecvError::Lagged(_))) => {
                self.read_by_oneself(Some(subscription));
                None
            }
            Ok(Err(RecvError::Closed)) => {
                self.read_by_oneself(None);
                None
            }
        }
    }

    /// The run's status, unless it was the last one sent.
    fn news(&mut self, status: Bytes) -> Option<Bytes> {
        if self.status.as_ref() == Some(&status) {
            return None;
        }
        self.status = Some(status.clone());
        Some(status)
    }

    fn read_by_oneself(&mut self, subscription: Option<Subscription>) {
        self.phase =
            Phase::CatchingUp { walk: LogWalk::from(self.run, self.position), subscription };
    }
}

/// An item as events, each with the position after it. `after` is the position after the whole item.
pub(super) fn encode_item(after: LogPosition, item: &LogItem) -> Vec<(LogPosition, Bytes)> {
    let attempt = after.attempt;
    match item {
        LogItem::Attempt(_) => {
            vec![(after, encode("attempt", Some(after), &LogAttempt { attempt }))]
        }
        LogItem::Hole { from, until } => {
            let hole = LogHole { attempt, offset: *from, until: *until };
            vec![(after, encode("hole", Some(after), &hole))]
        }
        LogItem::Frames(frames) => frames
            .iter()
            .map(|frame| {
                let position = LogPosition { attempt, offset: frame.end() };
                (position, encode("log", Some(position), &chunk(attempt, frame)))
            })
            .collect(),
        LogItem::CaughtUp(_) => Vec::new(),
    }
}

fn chunk(attempt: u32, frame: &LogFrame) -> LogChunk {
    LogChunk {
        attempt,
        offset: frame.offset,
        at: frame.at.to_string(),
        step: frame.step.as_ref().map(ToString::to_string),
        stream: match frame.stream {
            OutputStream::Gantry => "gantry",
            OutputStream::Stdout => "stdout",
            OutputStream::Stderr => "stderr",
        }
        .to_owned(),
        text: frame.text.clone(),
    }
}

pub(super) fn encode_status(run: &Run) -> Bytes {
    let status = LogStatus { status: run.status().to_string(), waits_for: waits_for(run) };
    encode("status", None, &status)
}

pub(super) fn encode_end(run: &Run) -> Bytes {
    encode("end", None, &view::run(run))
}

fn encode(name: &str, position: Option<LogPosition>, data: &impl Serialize) -> Bytes {
    let id = position.map_or_else(String::new, |position| {
        format!("id: {}:{}\n", position.attempt, position.offset)
    });
    // JSON has no line breaks outside of strings and escapes those inside, so one `data:` line holds it.
    let data = serde_json::to_string(data).unwrap_or_default();
    Bytes::from(format!("event: {name}\n{id}data: {data}\n\n"))
}
