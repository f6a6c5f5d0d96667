//! Follows live logs: one reader a run, however many listen.
//!
//! The follower walks through the log as it grows and tells everyone at once. Whoever is too slow for it loses nothing: it
//! reads on by itself until it has caught up.

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

use super::live::{encode_end, encode_status, encode_step};
use super::walk::{LogWalk, Place, Step, WalkError};
use crate::state::State;

/// What a listener may be behind before it must read by itself. A piece of output is at most 64 KiB.
const HELD_FOR_SLOW_LISTENERS: usize = 64;

/// Readers of the logs of all runs together: each may hold a piece of a log, 1 MiB, that it has not read yet.
const MOST_LISTENERS: usize = 2000;

/// How many read a log by themselves at once. The others wait for their turn, and not everybody else behind them: a crowd of
/// readers must not have the store to itself.
const READING_AT_ONCE: usize = 2;

/// Watches may miss a change; this often everything is looked at anyway.
const LOOK_ANYWAY: Duration = Duration::from_secs(5);

/// Output that comes within this time is told together.
const GATHER: Duration = Duration::from_millis(20);

/// What a follower tells its listeners, encoded once for all.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// Output, and the place after it.
    Output(Place, Bytes),
    /// Where the run stands.
    Status(Bytes),
    /// The run has ended; nothing follows.
    End(Bytes),
}

/// Who is followed, and who listens.
#[derive(Debug, Clone)]
pub(crate) struct Followers {
    by_run: Arc<Mutex<HashMap<RunId, broadcast::Sender<Told>>>>,
    listeners: Arc<Semaphore>,
    reading: Arc<Semaphore>,
}

/// Someone who listens.
pub(crate) struct Listener {
    pub(crate) told: broadcast::Receiver<Told>,
}

impl Followers {
    /// Nobody is followed yet.
    pub(crate) fn new() -> Self {
        Self {
            by_run: Arc::default(),
            listeners: Arc::new(Semaphore::new(MOST_LISTENERS)),
            reading: Arc::new(Semaphore::new(READING_AT_ONCE)),
        }
    }

    /// A listener's place; `None` when all are taken.
    pub(crate) fn admit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.listeners).try_acquire_owned().ok()
    }

    /// Takes a step for a reader, when it is its turn.
    pub(crate) async fn read(&self, state: &State, walk: &mut LogWalk) -> Result<Step, WalkError> {
        // Nobody closes it.
        let _turn = self.reading.acquire().await;
        walk.next(state.store.as_ref(), state.blobs.as_ref()).await
    }

    /// Listens to a run from now on. Its first listener is followed from `place`; whoever comes later must read up to now
    /// after this call, so that nothing is missed between.
    pub(crate) fn listen(&self, state: &Arc<State>, run: RunId, place: Place) -> Listener {
        let mut by_run = self.by_run.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(teller) = by_run.get(&run) {
            return Listener { told: teller.subscribe() };
        }
        let (teller, told) = broadcast::channel(HELD_FOR_SLOW_LISTENERS);
        by_run.insert(run, teller.clone());
        let follower = Follower {
            state: Arc::downgrade(state),
            followers: self.clone(),
            run,
            walk: LogWalk::from(run, place),
            teller,
            status: None,
        };
        state.runtime.spawn(follower.run());
        Listener { told }
    }

    /// Ends following if nobody listens; answers whether it ended.
    fn end_if_alone(&self, run: RunId, teller: &broadcast::Sender<Told>) -> bool {
        let mut by_run = self.by_run.lock().unwrap_or_else(PoisonError::into_inner);
        if teller.receiver_count() > 0 {
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
    teller: broadcast::Sender<Told>,
    /// What was told last of where the run stands.
    status: Option<Bytes>,
}

impl Follower {
    async fn run(mut self) {
        while let Some(state) = self.state.upgrade() {
            if self.followers.end_if_alone(self.run, &self.teller) {
                return;
            }
            // The watches are made before the reading: what comes between then wakes them.
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
        let log = LogId { run: self.run, attempt: self.walk.place().attempt };
        logs::watch(state.store.as_ref(), log)
    }

    async fn catch_up(&mut self, state: &State) -> Result<Caught, WalkError> {
        loop {
            let step = self.walk.next(state.store.as_ref(), state.blobs.as_ref()).await?;
            match step {
                Step::CaughtUp(run) => return Ok(self.tell_status(&run)),
                Step::Attempt(_) => {
                    self.tell_step(&step);
                    return Ok(Caught::NewAttempt);
                }
                Step::Frames(_) | Step::Hole { .. } => self.tell_step(&step),
            }
        }
    }

    fn tell_step(&self, step: &Step) {
        for (place, bytes) in encode_step(self.walk.place(), step) {
            self.tell(Told::Output(place, bytes));
        }
    }

    fn tell_status(&mut self, run: &Run) -> Caught {
        if run.state.done().is_some() {
            self.tell(Told::End(encode_end(run)));
            return Caught::Ended;
        }
        let status = encode_status(run);
        if self.status.as_ref() != Some(&status) {
            self.status = Some(status.clone());
            self.tell(Told::Status(status));
        }
        Caught::Up
    }

    fn tell(&self, told: Told) {
        // Nobody listens just now: the next look at `end_if_alone` ends this.
        let _nobody = self.teller.send(told);
    }
}

enum Caught {
    Up,
    NewAttempt,
    Ended,
}
