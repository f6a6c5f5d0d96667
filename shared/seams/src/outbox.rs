//! Reports that are on their way to code hosts.
//!
//! One record for each repository, commit and name of a status: the newest run's newest state replaces what was not sent
//! yet, and an older run never replaces a newer one's. Any number of schedulers may send. Providers confuse requests for
//! one commit that overlap, so whoever sends holds the commit's turn, which expires if its holder dies.

use std::time::Duration;

use gantry_domain::id::{LeaseNonce, RunId, TaskId};
use gantry_domain::report::{CheckRunId, StatusReport};
use gantry_domain::run::Run;
use gantry_domain::source::GitUrl;
use gantry_domain::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::retry::{self, Plan};
use crate::runs;
use crate::store::{Batch, CommitError, Entry, Expect, From, Index, Key, Kind, Store, StoreError};

/// For how long a report is retried.
pub const RETRIED_FOR: Duration = Duration::from_secs(24 * 3600);

/// A report and whether it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// The run whose state it is.
    pub run: RunId,
    /// The run's task.
    pub task: TaskId,
    /// When that task was created, which distinguishes it from others of the same name.
    pub task_created: Timestamp,
    /// The repository, as the task named it.
    pub url: GitUrl,
    /// The report.
    pub report: StatusReport,
    /// The check run that shows the task's runs at this commit, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_run: Option<CheckRunId>,
    /// Whether it was sent.
    pub sending: Sending,
}

/// Whether a report was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "sending")]
pub enum Sending {
    /// It is still to be sent.
    Due {
        /// Not before this time.
        at: Timestamp,
        /// Since when.
        since: Timestamp,
        /// How many requests have failed since one succeeded.
        failures: u32,
    },
    /// The code host has it.
    Sent,
    /// gantry knows no API of the code host.
    NoApi,
    /// The code host refused it, or did not answer for too long.
    GivenUp,
}

impl Outgoing {
    /// The id of the commit, whose reports are sent one after the other.
    #[must_use]
    pub fn commit_id(&self) -> String {
        // The first word tells what kind of place the report is sent to.
        format!("status/{}/{}", self.url.key(), self.report.target.commit)
    }

    fn id(&self) -> String {
        format!("{}/{}", self.commit_id(), self.report.context)
    }

    fn key(&self) -> Key {
        Key::new(Kind::Outbox, self.id())
    }

    fn turn_key(&self) -> Key {
        Key::new(Kind::OutboxTurn, self.commit_id())
    }

    /// Whether it is the same state of the same run.
    fn says_what(&self, other: &Self) -> bool {
        self.run == other.run && self.report == other.report
    }

    /// Whether its run was created after `run`. Runs of two registries do not have an order.
    fn is_of_newer_run(&self, run: RunId) -> bool {
        self.run.prefix() == run.prefix() && self.run.number() > run.number()
    }
}

/// The right to send a report. Until it ends, nobody else sends one for the same commit.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The report.
    pub outgoing: Outgoing,
    nonce: LeaseNonce,
}

/// Who sends the reports of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Turn {
    nonce: LeaseNonce,
    until: Timestamp,
}

/// Adds a report of `run` to a batch. It replaces an unsent one, unless that is of a newer run, and keeps its pause.
pub(crate) async fn enqueue(
    store: &dyn Store,
    batch: &mut Batch,
    run: &Run,
    url: &GitUrl,
    report: StatusReport,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (Some(task), Some(revision)) = (run.task_id(), &run.task) else { return Ok(()) };
    let mut new = Outgoing {
        run: run.id,
        task,
        task_created: revision.created,
        url: url.clone(),
        report,
        check_run: None,
        sending: Sending::Due { at: now, since: now, failures: 0 },
    };
    let key = new.key();
    let Some(mut found) = codec::load::<Outgoing>(store, &key).await? else {
        batch.create(key.clone(), codec::encode(&key, &new)?);
        reindex(batch, &new, now);
        return Ok(());
    };
    if found.value.is_of_newer_run(run.id) {
        return Ok(());
    }
    if let Sending::Due { at, failures: failures @ 1.., .. } = found.value.sending {
        new.sending = Sending::Due { at, since: now, failures };
    }
    new.check_run = found.value.check_run;
    reindex(batch, &new, now);
    found.value = new;
    found.replace_in(batch, key)
}

/// Reports that are due at `now`, earliest first, after the report `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn due(
    store: &dyn Store,
    now: Timestamp,
    after: Option<&Outgoing>,
    limit: usize,
) -> Result<Vec<Outgoing>, StoreError> {
    let from = match after.map(|after| (after, after.sending)) {
        Some((after, Sending::Due { at, .. })) => {
            From::After(Entry { score: at.as_millis(), member: after.id() })
        }
        Some((_, Sending::Sent | Sending::NoApi | Sending::GivenUp)) | None => From::Start,
    };
    let is_due = |entry: &Entry| entry.score <= now.as_millis();
    let of = |entry: &Entry| Some(Key::new(Kind::Outbox, &entry.member));
    codec::load_members_while(store, &by_due(), from, limit, is_due, of).await
}

/// Claims a report for `period`, so that the caller may send it as it is now. `None` if it is not due, or if another
/// report of its commit is being sent.
///
/// # Errors
/// [`StoreError`].
pub async fn claim(
    store: &dyn Store,
    outgoing: &Outgoing,
    nonce: &LeaseNonce,
    period: Duration,
) -> Result<Option<Claimed>, StoreError> {
    let (key, turn_key) = (outgoing.key(), outgoing.turn_key());
    retry::commit(store, &turn_key, || async {
        let now = store.now().await?;
        let Some(found) = codec::load::<Outgoing>(store, &key).await? else {
            return Ok(Plan::Answer(None));
        };
        let is_due = matches!(found.value.sending, Sending::Due { at, .. } if at <= now);
        let turn = codec::load::<Turn>(store, &turn_key).await?;
        if !is_due || turn.as_ref().is_some_and(|turn| turn.value.until > now) {
            return Ok(Plan::Answer(None));
        }
        let mut batch = Batch::default();
        batch.expect.push((key.clone(), Expect::Version(found.version)));
        let mine = Turn { nonce: nonce.clone(), until: now.after(period) };
        match turn {
            None => batch.create(turn_key.clone(), codec::encode(&turn_key, &mine)?),
            Some(mut expired) => {
                expired.value = mine;
                expired.replace_in(&mut batch, turn_key.clone())?;
            }
        }
        let claimed = Claimed { outgoing: found.value, nonce: nonce.clone() };
        Ok(Plan::Commit(batch, Some(claimed)))
    })
    .await
}

/// How a claim ends.
enum End {
    Sent { check_run: Option<CheckRunId> },
    NoApi,
    Failed { pause: Duration, problem: String },
    GivenUp { problem: String },
}

/// Ends a claim: the code host has the report, and shows it as this check run, if it is one. What replaced it meanwhile
/// stays due. Changes nothing if the claim has expired and somebody else has one.
///
/// # Errors
/// [`StoreError`].
pub async fn sent(
    store: &dyn Store,
    claimed: &Claimed,
    check_run: Option<CheckRunId>,
) -> Result<(), StoreError> {
    end(store, claimed, End::Sent { check_run }).await
}

/// Ends a claim like [`sent`]: gantry knows no API of the code host.
///
/// # Errors
/// [`StoreError`].
pub async fn no_api(store: &dyn Store, claimed: &Claimed) -> Result<(), StoreError> {
    end(store, claimed, End::NoApi).await
}

/// Ends a claim like [`sent`]: the request failed and is repeated after `pause`, also if the report was replaced
/// meanwhile. After [`RETRIED_FOR`] the report is given up and its run shows `problem`.
///
/// # Errors
/// [`StoreError`].
pub async fn failed(
    store: &dyn Store,
    claimed: &Claimed,
    pause: Duration,
    problem: String,
) -> Result<(), StoreError> {
    end(store, claimed, End::Failed { pause, problem }).await
}

/// Ends a claim like [`sent`]: the code host refuses the report. Its run shows `problem`.
///
/// # Errors
/// [`StoreError`].
pub async fn give_up(
    store: &dyn Store,
    claimed: &Claimed,
    problem: String,
) -> Result<(), StoreError> {
    end(store, claimed, End::GivenUp { problem }).await
}

impl End {
    fn check_run(&self) -> Option<CheckRunId> {
        match self {
            Self::Sent { check_run } => *check_run,
            Self::NoApi | Self::Failed { .. } | Self::GivenUp { .. } => None,
        }
    }
}

async fn end(store: &dyn Store, claimed: &Claimed, end: End) -> Result<(), StoreError> {
    let was = &claimed.outgoing;
    let (key, turn_key) = (was.key(), was.turn_key());
    retry::commit(store, &turn_key, || async {
        let turn = codec::load::<Turn>(store, &turn_key).await?;
        let Some(turn) = turn.filter(|turn| turn.value.nonce == claimed.nonce) else {
            return Ok(Plan::Answer(()));
        };
        let mut batch = Batch::default();
        batch.expect.push((turn_key.clone(), Expect::Version(turn.version)));
        batch.delete.push(turn_key.clone());
        if let Some(mut found) = codec::load::<Outgoing>(store, &key).await? {
            let now = store.now().await?;
            let is_same = found.value.says_what(was);
            let (sending, problem) = ended(found.value.sending, is_same, &end, now);
            if is_same {
                runs::note_problem(store, &mut batch, was, problem).await?;
            }
            let check_run = end.check_run().or(found.value.check_run);
            if (sending, check_run) != (found.value.sending, found.value.check_run) {
                (found.value.sending, found.value.check_run) = (sending, check_run);
                found.replace_in(&mut batch, key.clone())?;
                reindex(&mut batch, &found.value, now);
            }
        }
        Ok(Plan::Commit(batch, ()))
    })
    .await
}

/// What becomes of a record that is `now` in the state `sending` after a claim of it ended, and what its run is to show.
fn ended(sending: Sending, is_same: bool, end: &End, now: Timestamp) -> (Sending, Option<&str>) {
    let Sending::Due { at, since, failures } = sending else { return (sending, None) };
    match end {
        End::Failed { problem, .. } if is_same && now.since(since) >= RETRIED_FOR => {
            (Sending::GivenUp, Some(problem))
        }
        End::Failed { pause, .. } => {
            let at = at.max(now.after(*pause));
            (Sending::Due { at, since, failures: failures.saturating_add(1) }, None)
        }
        End::Sent { .. } | End::NoApi | End::GivenUp { .. } if !is_same => (sending, None),
        End::Sent { .. } => (Sending::Sent, None),
        End::NoApi => (Sending::NoApi, None),
        End::GivenUp { problem } => (Sending::GivenUp, Some(problem)),
    }
}

/// Delays a due report until `until`, because its code host asked for a pause. Changes nothing if it was sent or
/// replaced meanwhile.
///
/// # Errors
/// [`StoreError`].
pub async fn put_off(
    store: &dyn Store,
    outgoing: &Outgoing,
    until: Timestamp,
) -> Result<(), StoreError> {
    let key = outgoing.key();
    retry::commit(store, &key, || async {
        let found = codec::load::<Outgoing>(store, &key).await?;
        let Some(mut found) = found.filter(|found| found.value == *outgoing) else {
            return Ok(Plan::Answer(()));
        };
        let Sending::Due { at, since, failures } = found.value.sending else {
            return Ok(Plan::Answer(()));
        };
        found.value.sending = Sending::Due { at: at.max(until), since, failures };
        let mut batch = Batch::default();
        found.replace_in(&mut batch, key.clone())?;
        reindex(&mut batch, &found.value, store.now().await?);
        Ok(Plan::Commit(batch, ()))
    })
    .await
}

/// Forgets reports that were sent or given up before `before`, at most `limit`. Returns how many.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(
    store: &dyn Store,
    before: Timestamp,
    limit: usize,
) -> Result<usize, StoreError> {
    let entries = store.range(&by_age(), From::Start, limit).await?;
    let old: Vec<Key> = entries
        .into_iter()
        .take_while(|entry| entry.score < before.as_millis())
        .map(|entry| Key::new(Kind::Outbox, entry.member))
        .collect();
    let mut batch = Batch::default();
    for (key, record) in old.iter().zip(store.load(&old).await?) {
        let expected = record.map_or(Expect::Absent, |record| Expect::Version(record.version));
        batch.expect.push((key.clone(), expected));
        batch.delete.push(key.clone());
        batch.unindex(by_age(), &key.id);
    }
    if batch.is_empty() {
        return Ok(0);
    }
    match store.commit(batch).await {
        Ok(()) => Ok(old.len()),
        // One was replaced meanwhile. The next pass forgets the others.
        Err(CommitError::Conflict { .. }) => Ok(0),
        Err(CommitError::Store(error)) => Err(error),
    }
}

/// Updates the indexes: a report is in exactly one of them.
fn reindex(batch: &mut Batch, outgoing: &Outgoing, now: Timestamp) {
    match outgoing.sending {
        Sending::Due { at, .. } => {
            batch.index(by_due(), at.as_millis(), outgoing.id());
            batch.unindex(by_age(), outgoing.id());
        }
        Sending::Sent | Sending::NoApi | Sending::GivenUp => {
            batch.unindex(by_due(), outgoing.id());
            batch.index(by_age(), now.as_millis(), outgoing.id());
        }
    }
}

/// Reports that are still to be sent, scored by when.
fn by_due() -> Index {
    Index::new("outbox/due")
}

/// Reports that were sent or given up, scored by when.
fn by_age() -> Index {
    Index::new("outbox/age")
}
