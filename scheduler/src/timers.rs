//! Fires the timers that are due.
//!
//! In: the index of next instants, the store's clock. Out: an event for each instant, which is decided like any other.
//! Instants are at whole minutes, so between them one look every few seconds is enough, however many timers there are.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gantry_domain::id::EventId;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::trace::TraceParent;
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

/// Timers that are due, and where to go on.
type Page = (Vec<Versioned<Scheduled>>, Option<From>);

/// What a commit fired.
#[derive(Default)]
struct Fired {
    timers: usize,
    /// One of its events, and the trace that it continues.
    first: Option<(EventId, Option<TraceParent>)>,
}

impl Timers {
    /// Fires all timers that are due. Returns how many this scheduler fired.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tick(&self) -> Result<usize, StoreError> {
        let now = self.store.now().await?;
        let (mut due, mut next) = self.page(Some(From::Start), now).await?;
        let (mut count, mut first) = (0, None);
        // One that does not decode, or that another scheduler fires, stays in the index meanwhile: read past it.
        while !due.is_empty() || next.is_some() {
            // The next page is read while the commits of this one are under way.
            let (fired, following) = tokio::try_join!(self.fire(due, now), self.page(next, now))?;
            for fired in fired {
                count += fired.timers;
                first = first.or(fired.first);
            }
            (due, next) = following;
        }
        // One doorbell is enough: its receiver reads all undecided events. It rings at the end, because deciding some
        // events would delay the others.
        if let Some((event, trace)) = first
            && let Err(error) = self.events.publish(EventAccepted { event }, trace).await
        {
            tracing::debug!("the decider is not notified and will poll: {error}");
        }
        Ok(count)
    }

    /// Timers that are due, and where to go on; nothing if there is nowhere.
    async fn page(&self, from: Option<From>, now: Timestamp) -> Result<Page, StoreError> {
        let Some(from) = from else { return Ok((Vec::new(), None)) };
        timers::due(self.store.as_ref(), now, from, A_PAGE).await
    }

    async fn fire(
        &self,
        due: Vec<Versioned<Scheduled>>,
        now: Timestamp,
    ) -> Result<Vec<Fired>, StoreError> {
        let commits = commits(due.into_iter().map(|found| firing(found, now)));
        let fired = stream::iter(commits).map(|firings| self.commit(firings, now));
        fired.buffer_unordered(AT_ONCE).try_collect().await
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

    async fn commit(&self, firings: Vec<Firing>, now: Timestamp) -> Result<Fired, StoreError> {
        let store = self.store.as_ref();
        if !timers::fire(store, &firings, now).await? {
            return Ok(Fired::default());
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
        let first = firings.iter().find_map(|firing| Some((firing.event()?, firing.trace.clone())));
        Ok(Fired { timers: firings.len(), first })
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
