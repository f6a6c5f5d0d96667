//! Logs of attempts: pieces of frames in one order, the young ones in the store, the old ones in the object store.
//!
//! Piece = whole frames as lines of JSON, from the offset that it is known by to its end. A worker first appends small
//! pieces to the store, so that readers see them at once, then packs them into a segment of the object store. A reader
//! joins both; where a piece is missing, it sees a hole. A log with pieces in the store is open; sealing it packs them,
//! whoever does it: its worker at the end, or, when that one is lost, a scheduler.

use std::str::FromStr;

use bytes::Bytes;
use gantry_domain::id::RunId;
use gantry_domain::log::LogFrame;

use crate::blobs::{BlobError, Blobs};
use crate::collection::commit_unconditional;
use crate::retry;
use crate::store::{
    Batch, CommitError, Entry, Expect, From, Index, Key, Kind, Store, StoreError, Watch,
};

/// The most pieces that are packed at once: what one commit takes.
pub const SEGMENT_PIECES: usize = 128;

/// How many pieces are looked at together.
const PAGE: usize = 256;

/// One attempt's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId {
    /// The run.
    pub run: RunId,
    /// The attempt, from 1.
    pub attempt: u32,
}

/// Some frames in order, whose bytes follow each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The offset of the first frame.
    pub start: u64,
    /// The offset after the last frame.
    pub end: u64,
    /// The frames as lines of JSON.
    pub lines: Bytes,
}

/// What a reader got.
#[derive(Debug, Clone, PartialEq)]
pub enum LogPart {
    /// These frames come next; the first may begin before the offset that was asked for.
    Frames(Vec<LogFrame>),
    /// The bytes from the offset that was asked for up to this one are lost.
    Hole {
        /// Where the log goes on.
        until: u64,
    },
    /// There is nothing more yet.
    End,
}

/// A log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store's own.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object store's own.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

impl std::fmt::Display for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.run, self.attempt)
    }
}

impl FromStr for LogId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (run, attempt) = text.rsplit_once('-').ok_or(())?;
        Ok(Self { run: run.parse().map_err(drop)?, attempt: attempt.parse().map_err(drop)? })
    }
}

/// The index of an attempt's pieces: score = start, member = [`PieceAt`].
fn pieces(log: LogId) -> Index {
    Index::new(format!("log/{log}"))
}

/// The logs that have pieces in the store: member = log.
fn open() -> Index {
    Index::new("log/open")
}

/// What is touched whenever the log grows.
fn growth_key(log: LogId) -> Key {
    Key::new(Kind::LogTail, format_args!("{log}/growth"))
}

fn tail_key(log: LogId, start: u64) -> Key {
    Key::new(Kind::LogTail, format_args!("{log}/{start:020}"))
}

/// Where a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    /// In the store.
    Tail,
    /// In the object store.
    Packed,
    /// There too, under the name that the first builds gave it.
    Segment,
}

/// A piece as its index knows it: `tail:start:end`. The start is in the member too, since equal ends must not collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PieceAt {
    place: Where,
    start: u64,
    end: u64,
}

impl PieceAt {
    fn parse(entry: &Entry) -> Option<Self> {
        let (place, range) = entry.member.split_once(':')?;
        let (start, end) = range.split_once(':')?;
        let place = match place {
            "tail" => Where::Tail,
            "packed" => Where::Packed,
            "segment" => Where::Segment,
            _ => return None,
        };
        Some(Self { place, start: start.parse().ok()?, end: end.parse().ok()? })
    }

    /// The path of a segment. Two who pack the same log at once may differ in where a segment ends: each has a path of
    /// its own, so that neither cuts off the other's.
    fn path(self, log: LogId) -> String {
        let Self { place, start, end } = self;
        let folder = format!("logs/{}/{}", log.run, log.attempt);
        match place {
            Where::Segment => format!("{folder}/{start:020}"),
            Where::Tail | Where::Packed => format!("{folder}/{start:020}-{end:020}"),
        }
    }
}

impl std::fmt::Display for PieceAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = match self.place {
            Where::Tail => "tail",
            Where::Packed => "packed",
            Where::Segment => "segment",
        };
        write!(f, "{place}:{:020}:{:020}", self.start, self.end)
    }
}

impl Piece {
    fn in_tail(&self) -> PieceAt {
        PieceAt { place: Where::Tail, start: self.start, end: self.end }
    }
}

/// Appends a young piece. A second call with the same piece changes nothing.
///
/// # Errors
/// [`StoreError`]: try again, with the same piece.
pub async fn append_tail(store: &dyn Store, log: LogId, piece: &Piece) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    batch.put(tail_key(log, piece.start), piece.lines.clone());
    batch.index(pieces(log), saturating(piece.start), piece.in_tail());
    batch.index(open(), 0, log);
    batch.put(growth_key(log), piece.end.to_string());
    commit_unconditional(store, batch).await
}

/// Packs pieces that were appended, in order and without holes, into one segment; their copies in the store go. At most
/// [`SEGMENT_PIECES`].
///
/// # Errors
/// [`LogError`]: try again, with the same pieces.
pub async fn pack_segment(
    store: &dyn Store,
    blobs: &dyn Blobs,
    log: LogId,
    packed: &[Piece],
) -> Result<(), LogError> {
    let (Some(first), Some(last)) = (packed.first(), packed.last()) else {
        return Ok(());
    };
    let lines: Vec<u8> = packed.iter().flat_map(|piece| piece.lines.iter().copied()).collect();
    let segment = PieceAt { place: Where::Packed, start: first.start, end: last.end };
    blobs.put(&segment.path(log), Bytes::from(lines)).await?;
    let mut batch = Batch::default();
    for piece in packed {
        batch.delete.push(tail_key(log, piece.start));
        batch.unindex(pieces(log), piece.in_tail());
    }
    batch.index(pieces(log), saturating(first.start), segment);
    commit_unconditional(store, batch).await?;
    Ok(())
}

/// Packs all that is left of a log in the store. Whoever appends to it later opens it again.
///
/// # Errors
/// [`LogError`]: try again; what was packed is packed.
pub async fn seal(store: &dyn Store, blobs: &dyn Blobs, log: LogId) -> Result<(), LogError> {
    let mut conflicts = 0;
    loop {
        let growth = store.load(&[growth_key(log)]).await?.pop().flatten();
        let tail = load_tail(store, log).await?;
        if !tail.is_empty() {
            for segment in tail.chunk_by(|before, after| before.end == after.start) {
                pack_segment(store, blobs, log, segment).await?;
            }
            continue;
        }
        let mut batch = Batch::default();
        batch.unindex(open(), log);
        let expected = growth.map_or(Expect::Absent, |growth| Expect::Version(growth.version));
        batch.expect.push((growth_key(log), expected));
        batch.delete.push(growth_key(log));
        match store.commit(batch).await {
            Ok(()) => return Ok(()),
            // It grew meanwhile.
            Err(CommitError::Conflict { .. }) if conflicts < retry::TRIES => conflicts += 1,
            Err(CommitError::Conflict { key }) => return Err(retry::too_busy(&key).into()),
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
}

/// The oldest pieces in the store: as many as fit a segment.
async fn load_tail(store: &dyn Store, log: LogId) -> Result<Vec<Piece>, StoreError> {
    let mut from = From::Start;
    let mut found: Vec<PieceAt> = Vec::new();
    while found.len() < SEGMENT_PIECES {
        let entries = store.range(&pieces(log), from, PAGE).await?;
        let Some(last) = entries.last().cloned() else { break };
        let in_tail = entries.iter().filter_map(PieceAt::parse);
        found.extend(in_tail.filter(|piece| piece.place == Where::Tail));
        from = From::After(last);
    }
    found.truncate(SEGMENT_PIECES);
    let keys: Vec<Key> = found.iter().map(|piece| tail_key(log, piece.start)).collect();
    let records = store.load(&keys).await?;
    let mut tail = Vec::new();
    let mut lost = Batch::default();
    for (piece, record) in found.into_iter().zip(records) {
        match record {
            Some(record) => {
                tail.push(Piece { start: piece.start, end: piece.end, lines: record.bytes });
            }
            // Its worker packed it just now; or it is lost, and readers see the hole.
            None => lost.unindex(pieces(log), piece),
        }
    }
    if !lost.is_empty() {
        commit_unconditional(store, lost).await?;
    }
    Ok(tail)
}

/// Logs that have pieces in the store, in the order of their names, after `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn open_logs(
    store: &dyn Store,
    after: Option<LogId>,
    limit: usize,
) -> Result<Vec<LogId>, StoreError> {
    let from =
        after.map_or(From::Start, |log| From::After(Entry { score: 0, member: log.to_string() }));
    let entries = store.range(&open(), from, limit).await?;
    Ok(entries.iter().filter_map(|entry| entry.member.parse().ok()).collect())
}

/// A place in a log where a reader stands: the offset, and what was read on the way there.
#[derive(Debug, Clone)]
pub struct LogReader {
    log: LogId,
    offset: u64,
    /// The segment that was read last: what is left to read begins after it. Never a piece of the tail, since those are
    /// packed into a segment that begins where the first of them did.
    after: Option<Entry>,
}

impl LogReader {
    /// A reader at `offset` bytes from the attempt's beginning.
    #[must_use]
    pub fn at(log: LogId, offset: u64) -> Self {
        Self { log, offset, after: None }
    }

    /// Where it stands.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads the next part, at most one piece (1 MiB), and moves past it.
    ///
    /// # Errors
    /// [`LogError`]: the reader has not moved.
    pub async fn next(
        &mut self,
        store: &dyn Store,
        blobs: &dyn Blobs,
    ) -> Result<LogPart, LogError> {
        loop {
            let Some((entry, piece)) = self.find_piece(store).await? else {
                return Ok(LogPart::End);
            };
            if piece.start > self.offset {
                self.offset = piece.start;
                return Ok(LogPart::Hole { until: piece.start });
            }
            let Some(lines) = self.load_piece(store, blobs, piece).await? else {
                // It was packed, or deleted, between the two reads: look again at what the index says now.
                if self.is_gone(store, &entry).await? {
                    continue;
                }
                self.pass(entry, piece);
                return Ok(LogPart::Hole { until: piece.end });
            };
            let mut frames = parse_frames(&lines);
            frames.retain(|frame| frame.end() > self.offset);
            self.pass(entry, piece);
            if !frames.is_empty() {
                return Ok(LogPart::Frames(frames));
            }
        }
    }

    fn pass(&mut self, entry: Entry, piece: PieceAt) {
        self.offset = piece.end;
        if piece.place != Where::Tail {
            self.after = Some(entry);
        }
    }

    /// The first piece, by start, that ends after the reader's place.
    async fn find_piece(&self, store: &dyn Store) -> Result<Option<(Entry, PieceAt)>, StoreError> {
        let mut from = match &self.after {
            Some(entry) => From::Score(entry.score),
            None => From::Start,
        };
        loop {
            let entries = store.range(&pieces(self.log), from, PAGE).await?;
            let is_last = entries.len() < PAGE;
            let last = entries.last().cloned();
            for entry in entries {
                if let Some(piece) = PieceAt::parse(&entry)
                    && piece.end > self.offset
                {
                    return Ok(Some((entry, piece)));
                }
            }
            match last {
                Some(last) if !is_last => from = From::After(last),
                _ => return Ok(None),
            }
        }
    }

    async fn load_piece(
        &self,
        store: &dyn Store,
        blobs: &dyn Blobs,
        piece: PieceAt,
    ) -> Result<Option<Bytes>, LogError> {
        if piece.place == Where::Tail {
            let found = store.load(&[tail_key(self.log, piece.start)]).await?.pop().flatten();
            return Ok(found.map(|record| record.bytes));
        }
        match blobs.get(&piece.path(self.log)).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(BlobError::Absent { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn is_gone(&self, store: &dyn Store, entry: &Entry) -> Result<bool, StoreError> {
        let entries = store.range(&pieces(self.log), From::Score(entry.score), 4).await?;
        Ok(!entries.contains(entry))
    }
}

/// Frames from lines of JSON; a line that is none is left out, and so shows as a hole to who counts bytes.
#[must_use]
pub fn parse_frames(lines: &[u8]) -> Vec<LogFrame> {
    let mut frames = Vec::new();
    for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(frame) => frames.push(frame),
            Err(error) => tracing::warn!("a line of a log is no frame: {error}"),
        }
    }
    frames
}

/// A watch that tells when the log grows.
#[must_use]
pub fn watch(store: &dyn Store, log: LogId) -> Watch {
    store.watch(&growth_key(log))
}

/// Removes an attempt's log from store and object store.
///
/// # Errors
/// [`LogError`].
pub async fn delete(store: &dyn Store, blobs: &dyn Blobs, log: LogId) -> Result<(), LogError> {
    loop {
        let entries = store.range(&pieces(log), From::Start, 128).await?;
        if entries.is_empty() {
            break;
        }
        let mut batch = Batch::default();
        for entry in entries {
            if let Some(piece) = PieceAt::parse(&entry) {
                batch.delete.push(tail_key(log, piece.start));
            }
            batch.unindex(pieces(log), &entry.member);
        }
        commit_unconditional(store, batch).await?;
    }
    let mut batch = Batch::default();
    batch.delete.push(growth_key(log));
    batch.unindex(open(), log);
    commit_unconditional(store, batch).await?;
    blobs.delete_all(&format!("logs/{}/{}", log.run, log.attempt)).await?;
    Ok(())
}

fn saturating(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
