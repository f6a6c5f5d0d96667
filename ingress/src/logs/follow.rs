//! Follows live logs: one reader for each run, however many listeners it has.
//!
//! The follower reads the log as it grows and broadcasts what it reads. A listener that is too slow for the broadcast
//! loses nothing: it reads the log itself until it has caught up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use actix_web::web::Bytes;
use gantry_domain::id::RunId;
use gantry_domain::run::Run;
use gantry_seams::logs::{self, LogId};
use gantry_seams::runs;
use gantry_seams::store::Watch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

use super::live::{encode_end, encode_item, encode_status};
use super::walk::{LogItem, LogPosition, LogWalk, WalkError};
use crate::state::State;

/// How many updates a listener may be behind before it must read the log itself. An update is at most 64 KiB.
const HELD_FOR_SLOW_LISTENERS: usize = 64;

/// Listeners to all runs together. Each may hold 1 MiB of a log that its client has not read yet.
const MOST_LISTENERS: usize = 2000;

/// How many listeners may read from the store at once. The others wait here, so that a crowd of listeners does not hold
/// up the other users of the store.
const READING_AT_ONCE: usize = 2;

/// A watch may miss a change, so the log is also read this often.
const LOOK_ANYWAY: Duration = Duration::from_secs(5);

/// Output that arrives within this time is broadcast together.
const GATHER: Duration = Duration::from_millis(20);

/// What a follower broadcasts, encoded once for all listeners.
#[derive(Debug, Clone)]
pub(crate) enum Update {
    /// Output, and the position after it.
    Output(LogPosition, Bytes),
    /// The run's status.
    Status(Bytes),
    /// The run has ended; nothing follows.
    End(Bytes),
}

/// The followers of all runs, and the limits on their listeners.
#[derive(Debug, Clone)]
pub(crate) struct Followers {
    by_run: Arc<Mutex<HashMap<RunId, broadcast::Sender<Update>>>>,
    listeners: Arc<Semaphore>,
    reading: Arc<Semaphore>,
}

/// Receives the updates of one run.
pub(crate) struct Subscription {
    pub(crate) updates: broadcast::Receiver<Update>,
}

impl Followers {
    pub(crate) fn new() -> Self {
        Self {
            by_run: Arc::default(),
            listeners: Arc::new(Semaphore::new(MOST_LISTENERS)),
            reading: Arc::new(Semaphore::new(READING_AT_ONCE)),
        }
    }

    /// Admits a listener, until the permit is dropped; `None` if there are too many.
    pub(crate) fn admit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.listeners).try_acquire_owned().ok()
    }

    /// Reads the next item for a listener, once it may use the store.
    pub(crate) async fn read(
        &self,
        state: &State,
        walk: &mut LogWalk,
    ) -> Result<LogItem, WalkError> {
        // Acquiring fails only once the semaphore is closed, and nothing closes it.
        let _turn = self.reading.acquire().await;
        walk.next(state.store.as_ref(), state.blobs.as_ref()).await
    }

    /// Subscribes to a run. The first listener starts the follower, at `position`. A later one gets only what comes
    /// after this call, so it must read the log up to its end once it has subscribed.
    pub(crate) fn subscribe(
        &self,
        state: &Arc<State>,
        run: RunId,
        position: LogPosition,
    ) -> Subscription {
        let mut by_run = self.by_run.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = by_run.get(&run) {
            return Subscription { updates: sender.subscribe() };
        }
        let (sender, updates) = broadcast::channel(HELD_FOR_SLOW_LISTENERS);
        by_run.insert(run, sender.clone());
        let follower = Follower {
            state: Arc::downgrade(state),
            followers: self.clone(),
            run,
            walk: LogWalk::from(run, position),
            sender,
            status: None,
        };
        state.runtime.spawn(follower.run());
        Subscription { updates }
    }

    /// Stops following a run that has no listeners; returns whether it did.
    fn end_if_alone(&self, run: RunId, sender: &broadcast::Sender<Update>) -> bool {
        let mut by_run = self.by_run.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.receiver_count() > 0 {
            return false;
        }
        by_run.remove(&run);
        true
    }

    fn end(&self, run: RunId) {
        self.by_run.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
    }
}

/// The one reader of a run's log.
struct Follower {
    state: Weak<State>,
    followers: Followers,
    run: RunId,
    walk: LogWalk,
    sender: broadcast::Sender<Update>,
    /// The run's status as last broadcast.
    status: Option<Bytes>,
}

impl Follower {
    async fn run(mut self) {
        while let Some(state) = self.state.upgrade() {
            if self.followers.end_if_alone(self.run, &self.sender) {
                return;
            }
            // Watch first, then read: a change in between wakes the watch, and is not missed.
            let mut run_moved = runs::watch(state.store.as_ref(), self.run);
            let mut log_grew = self.watch_log(&state);
            match self.catch_up(&state).await {
                Ok(Caught::Ended) | Err(WalkError::Gone(_)) => break,
                Ok(Caught::NewAttempt) => continue,
                Ok(Caught::Up) => {}
                Err(WalkError::Log(error)) => {
                    tracing::warn!(run.id = %self.run, "the log of run {} cannot be read: {error}", self.run);
                }
            }
            tokio::select! {
                () = run_moved.changed() => {}
                () = log_grew.changed() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(LOOK_ANYWAY) => {}
                () = state.stop.cancelled() => break,
            }
        }
        self.followers.end(self.run);
    }

    fn watch_log(&self, state: &State) -> Watch {
        let log = LogId { run: self.run, attempt: self.walk.position().attempt };
        logs::watch(state.store.as_ref(), log)
    }

    async fn catch_up(&mut self, state: &State) -> Result<Caught, WalkError> {
        loop {
            let item = self.walk.next(state.store.as_ref(), state.blobs.as_ref()).await?;
            match item {
                LogItem::CaughtUp(run) => return Ok(self.broadcast_status(&run)),
                LogItem::Attempt(_) => {
                    self.broadcast_item(&item);
                    return Ok(Caught::NewAttempt);
                }
                LogItem::Frames(_) | LogItem::Hole { .. } => self.broadcast_item(&item),
            }
        }
    }

    fn broadcast_item(&self, item: &LogItem) {
        for (position, bytes) in encode_item(self.walk.position(), item) {
            self.broadcast(Update::Output(position, bytes));
        }
    }

    fn broadcast_status(&mut self, run: &Run) -> Caught {
        if run.state.done().is_some() {
            self.broadcast(Update::End(encode_end(run)));
            return Caught::Ended;
        }
        let status = encode_status(run);
        if self.status.as_ref() != Some(&status) {
            self.status = Some(status.clone());
            self.broadcast(Update::Status(status));
        }
        Caught::Up
    }

    fn broadcast(&self, update: Update) {
        // An error means that there are no listeners: `end_if_alone` then ends this follower.
        let _nobody = self.sender.send(update);
    }
}

enum Caught {
    Up,
    NewAttempt,
    Ended,
}
