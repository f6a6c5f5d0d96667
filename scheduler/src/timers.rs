//! Fires the timers that are due.
//!
//! In: the index of next instants, the store's clock. Out: an event for each instant, which is decided like any other.
//! Instants are at whole minutes, so between them one look every few seconds is enough, however many timers there are.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gantry_domain::timestamp::Timestamp;
use gantry_ops::{metrics, telemetry};
use gantry_seams::Versioned;
use gantry_seams::queue::{EventAccepted, Queue};
use gantry_seams::store::{From, SharedStore, StoreError};
use gantry_seams::timers::{self, Firing, Scheduled};
use tracing::field;

use crate::ticking::LOOK_AGAIN;

/// How many timers one request to the store reads.
const A_PAGE: usize = 512;

/// How many timers one commit fires. Each has a record, an event and three entries of indexes.
const A_COMMIT: usize = 48;

/// How many instants one commit has, unless one timer alone has more.
const INSTANTS_A_COMMIT: usize = 100;

/// How many commits are under way at once.
const AT_ONCE: usize = 4;

const MINUTE_MILLIS: i64 = 60_000;

/// Fires timers.
pub(crate) struct Timers {
    pub(crate) store: SharedStore,
    pub(crate) events: Arc<dyn Queue<EventAccepted>>,
}

impl Timers {
    /// Fires all timers that are due. Returns how many this scheduler fired.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tick(&self) -> Result<usize, StoreError> {
        let store = self.store.as_ref();
        let now = store.now().await?;
        let (mut fired, mut next) = (0, Some(From::Start));
        // One that does not decode, or that another scheduler fires, stays in the index meanwhile: read past it.
        while let Some(from) = next {
            let (due, more) = timers::due(store, now, from, A_PAGE).await?;
            fired += self.fire(due, now).await?;
            next = more;
        }
        Ok(fired)
    }

    /// How long no timer is due: until the next minute, but a clock may be stepped meanwhile.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn pause(&self) -> Result<Duration, StoreError> {
        let now = self.store.now().await?.as_millis();
        let left = MINUTE_MILLIS - now.rem_euclid(MINUTE_MILLIS);
        Ok(LOOK_AGAIN.min(Duration::from_millis(left.unsigned_abs())))
    }

    async fn fire(
        &self,
        due: Vec<Versioned<Scheduled>>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let commits = commits(due.into_iter().map(|found| firing(found, now)));
        let fired = stream::iter(commits).map(|firings| self.commit(firings, now));
        let fired: Vec<usize> = fired.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(fired.into_iter().sum())
    }

    async fn commit(&self, firings: Vec<Firing>, now: Timestamp) -> Result<usize, StoreError> {
        let store = self.store.as_ref();
        if !timers::fire(store, &firings, now).await? {
            return Ok(0);
        }
        let at = store.now().await?;
        for Firing { found, instants, .. } in &firings {
            let Scheduled { task, timer, .. } = &found.value;
            let name = &timer.name;
            if instants.dropped > 0 {
                let dropped = instants.dropped;
                tracing::warn!(task.name = %task, "timer {name} of task {task} missed {dropped} instants, which start nothing");
            }
            let lateness = instants.fire.iter().map(|due| at.since(*due));
            metrics::timer_fired(lateness, instants.late, instants.dropped);
        }
        // One doorbell is enough: its receiver reads all undecided events.
        let first = firings.iter().find_map(|firing| Some((firing.event()?, firing.trace.clone())));
        if let Some((event, trace)) = first
            && let Err(error) = self.events.publish(EventAccepted { event }, trace).await
        {
            tracing::debug!("the decider is not notified and will poll: {error}");
        }
        Ok(firings.len())
    }
}

fn firing(found: Versioned<Scheduled>, now: Timestamp) -> Firing {
    let Scheduled { task, timer, due, .. } = &found.value;
    let instants = timer.due(*due, now);
    // The root of the trace of its runs.
    let span = tracing::info_span!(
        "timer due", task.name = %task, timer.name = %timer.name, timer.due = %due, trace.id = field::Empty
    );
    let trace = span.in_scope(telemetry::current_trace);
    Firing { found, instants, trace }
}

/// Distributes timers over commits.
fn commits(firings: impl Iterator<Item = Firing>) -> Vec<Vec<Firing>> {
    let mut commits: Vec<Vec<Firing>> = Vec::new();
    let mut instants = 0;
    for firing in firings {
        instants += firing.instants.fire.len();
        match commits.last_mut() {
            Some(last) if last.len() < A_COMMIT && instants <= INSTANTS_A_COMMIT => {
                last.push(firing);
            }
            Some(_) | None => {
                instants = firing.instants.fire.len();
                commits.push(vec![firing]);
            }
        }
    }
    commits
}
