//! Writes: one thread commits all waiting batches with one fsync.
//!
//! It never waits for more batches. While the disk works on one group the next one gathers, so the groups grow with the
//! load, and a single batch is not delayed.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gantry_seams::store::{Batch, CommitError, Expect, Watchers};
use rusqlite::{Connection, OptionalExtension, Statement, params};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use crate::clock::StoreClock;
use crate::error::{no_answer, store_error};

/// How many batches may wait before callers of `commit` have to.
const WAITING: usize = 1_024;
/// The most batches of one transaction. They are all in memory until it ends.
const GROUP: usize = 512;

/// A batch, and where to send its result.
#[derive(Debug)]
struct Ask {
    batch: Batch,
    answer: oneshot::Sender<Result<(), CommitError>>,
}

/// The handle for callers. Dropping it waits for the thread to end.
#[derive(Debug)]
pub(crate) struct Writer {
    asks: Option<mpsc::Sender<Ask>>,
    thread: Option<JoinHandle<()>>,
    patience: Duration,
}

impl Writer {
    /// Starts the thread. `change` is the number of the last stored change.
    pub(crate) fn start(
        connection: Connection,
        change: i64,
        clock: Arc<StoreClock>,
        watchers: Arc<Watchers>,
        patience: Duration,
    ) -> io::Result<rusqlite::Result<Self>> {
        let (asks, waiting) = mpsc::channel(WAITING);
        let (started, start) = sync_channel(1);
        let thread = thread::Builder::new().name("gantry-store".to_owned()).spawn(move || {
            match Statements::prepare(&connection) {
                Ok(statements) => {
                    let _ = started.send(Ok(()));
                    Group { connection: &connection, statements, change, clock, watchers }
                        .commit_until_closed(waiting);
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        })?;
        let writer = Self { asks: Some(asks), thread: Some(thread), patience };
        Ok(start.recv().map_err(io::Error::other)?.map(|()| writer))
    }

    /// Returns once the batch is durable or refused. If the writer is stuck it gives up waiting, and the batch may
    /// still be applied later.
    pub(crate) async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        let asked = async {
            let asks = self.asks.as_ref().ok_or_else(|| no_answer("the store is closed"))?;
            let (answer, answered) = oneshot::channel();
            asks.send(Ask { batch, answer }).await.map_err(no_answer)?;
            answered.await.map_err(no_answer)?
        };
        tokio::time::timeout(self.patience, asked).await.map_err(no_answer)?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the store's writer panicked");
        }
    }
}

/// The state of the thread.
struct Group<'c> {
    connection: &'c Connection,
    statements: Statements<'c>,
    change: i64,
    clock: Arc<StoreClock>,
    watchers: Arc<Watchers>,
}

/// The position of a batch's first precondition that does not hold; `None` if all hold.
type Conflict = Option<usize>;

impl Group<'_> {
    fn commit_until_closed(mut self, mut waiting: mpsc::Receiver<Ask>) {
        let mut group = Vec::with_capacity(GROUP);
        while waiting.blocking_recv_many(&mut group, GROUP) > 0 {
            // A caller that gave up must read before it retries, so its batch may be skipped.
            group.retain(|ask| !ask.answer.is_closed());
            self.commit(&mut group);
        }
    }

    /// Commits all waiting batches together, and answers each.
    fn commit(&mut self, group: &mut Vec<Ask>) {
        match self.transact(group) {
            Ok(conflicts) => {
                for (ask, conflict) in group.drain(..).zip(conflicts) {
                    self.answer(ask, conflict);
                }
            }
            // A batch that is too large for the remaining space must not fail the others.
            Err(_) if group.len() > 1 => {
                for ask in group.drain(..) {
                    self.commit(&mut vec![ask]);
                }
            }
            Err(error) => {
                for ask in group.drain(..) {
                    let _ = ask.answer.send(Err(store_error(&error).into()));
                }
            }
        }
    }

    fn answer(&self, ask: Ask, conflict: Conflict) {
        let Ask { mut batch, answer } = ask;
        let result = match conflict {
            Some(at) => Err(CommitError::Conflict { key: batch.expect.swap_remove(at).0 }),
            None => {
                let put = batch.put.iter().map(|(key, _)| key);
                self.watchers.touched(put.chain(&batch.delete));
                Ok(())
            }
        };
        // The caller may be gone; the batch stays committed.
        let _ = answer.send(result);
    }

    /// Applies all batches in one transaction. Results are sent only after it, since a conflict may be with a batch of
    /// the same group, and does not count if the group is rolled back.
    fn transact(&mut self, group: &[Ask]) -> rusqlite::Result<Vec<Conflict>> {
        self.statements.begin.execute([])?;
        let done = self.apply_all(group).and_then(|conflicts| {
            self.statements.commit.execute([])?;
            Ok(conflicts)
        });
        // After some failures SQLite has already rolled back.
        if done.is_err() && !self.connection.is_autocommit() {
            self.statements.rollback.execute([])?;
        }
        done
    }

    fn apply_all(&mut self, group: &[Ask]) -> rusqlite::Result<Vec<Conflict>> {
        let before = self.change;
        let mut conflicts = Vec::with_capacity(group.len());
        for Ask { batch, .. } in group {
            let conflict = self.statements.find_conflict(batch)?;
            if conflict.is_none() && !batch.is_empty() {
                self.change += 1;
                self.statements.apply(batch, self.change)?;
            }
            conflicts.push(conflict);
        }
        if self.change > before {
            let clock = self.clock.now().as_millis();
            self.statements.high_water.execute(params![self.change, clock])?;
        }
        Ok(conflicts)
    }
}

/// The writer's prepared statements.
struct Statements<'c> {
    begin: Statement<'c>,
    commit: Statement<'c>,
    rollback: Statement<'c>,
    version: Statement<'c>,
    put: Statement<'c>,
    delete: Statement<'c>,
    index: Statement<'c>,
    unindex: Statement<'c>,
    high_water: Statement<'c>,
}

impl<'c> Statements<'c> {
    fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            commit: connection.prepare("COMMIT")?,
            rollback: connection.prepare("ROLLBACK")?,
            version: connection
                .prepare("SELECT version FROM record WHERE kind = ?1 AND id = ?2")?,
            put: connection.prepare(
                "INSERT INTO record (kind, id, version, bytes) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET version = excluded.version, bytes = excluded.bytes",
            )?,
            delete: connection.prepare("DELETE FROM record WHERE kind = ?1 AND id = ?2")?,
            index: connection.prepare(
                "INSERT INTO entry (path, member, score) VALUES (?1, ?2, ?3)
                 ON CONFLICT (path, member) DO UPDATE SET score = excluded.score
                 WHERE score <> excluded.score",
            )?,
            unindex: connection.prepare("DELETE FROM entry WHERE path = ?1 AND member = ?2")?,
            high_water: connection.prepare("UPDATE high_water SET change = ?1, clock = ?2")?,
        })
    }

    fn find_conflict(&mut self, batch: &Batch) -> rusqlite::Result<Conflict> {
        for (at, (key, expected)) in batch.expect.iter().enumerate() {
            let found: Option<i64> = self
                .version
                .query_row(params![key.kind.as_str(), key.id], |row| row.get(0))
                .optional()?;
            let holds = match *expected {
                Expect::Absent => found.is_none(),
                Expect::Version(version) => found == Some(version.cast_signed()),
            };
            if !holds {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Deletes first, so that what a batch both removes and writes exists afterwards.
    fn apply(&mut self, batch: &Batch, change: i64) -> rusqlite::Result<()> {
        for key in &batch.delete {
            self.delete.execute(params![key.kind.as_str(), key.id])?;
        }
        for (index, member) in &batch.unindex {
            self.unindex.execute(params![index.as_str(), member])?;
        }
        for (key, bytes) in &batch.put {
            self.put.execute(params![key.kind.as_str(), key.id, change, &bytes[..]])?;
        }
        for (index, entry) in &batch.index {
            self.index.execute(params![index.as_str(), entry.member, entry.score])?;
        }
        Ok(())
    }
}
