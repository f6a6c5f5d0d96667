//! The log of an attempt: a sequence of pieces, the recent ones in the store, the older ones in the object store.
//!
//! A piece is a range of bytes of the log, as whole frames, each a line of JSON. A worker appends small pieces to the
//! store, so that readers see them at once, and later packs them into one segment in the object store. A reader joins
//! both; a missing piece is a hole. A log with pieces in the store is open, and sealing it packs them: its worker seals
//! it at the end, or a scheduler does if the worker is lost.

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

/// The most pieces in a segment: packing removes each of them in one commit.
pub const SEGMENT_PIECES: usize = 128;

/// How many pieces are read from the index at once.
const PAGE: usize = 256;

/// One attempt's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId {
    /// The run.
    pub run: RunId,
    /// The attempt, from 1.
    pub attempt: u32,
}

/// A contiguous range of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The offset of the first frame.
    pub start: u64,
    /// The offset after the last frame.
    pub end: u64,
    /// The frames as lines of JSON.
    pub lines: Bytes,
}

/// The next part of a log.
#[derive(Debug, Clone, PartialEq)]
pub enum LogPart {
    /// These frames come next; the first may begin before the offset that was asked for.
    Frames(Vec<LogFrame>),
    /// The bytes from the reader's offset to `until` are lost.
    Hole {
        /// The offset at which the log continues.
        until: u64,
    },
    /// There is nothing more yet.
    End,
}

/// Reading or packing a log failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// An error from the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An error from the object store.
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

/// A record that each append replaces: readers watch it, and `seal` expects it unchanged.
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
    /// In the object store, at the path that early versions used.
    Segment,
}

/// A piece as a member of its index, `tail:start:end`. The score is the start, too; members must differ without it.
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

    /// The path of a segment. Its end is part of it: a worker and a scheduler that pack the same log at once may choose
    /// different ends, and must not overwrite each other's segment.
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

/// Appends a piece. A second call with the same piece changes nothing.
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

/// Packs appended pieces into one segment and removes them from the store. They are in order, without holes, and at most
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
    // The segment first: after a crash in between, the pieces are still in the store, and are packed again.
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

/// Packs every piece that is left in the store. A later append opens the log again.
///
/// # Errors
/// [`LogError`]: try again; what was packed is packed.
pub async fn seal(store: &dyn Store, blobs: &dyn Blobs, log: LogId) -> Result<(), LogError> {
    let mut conflicts = 0;
    loop {
        // Read before the pieces: an append after this changes it, so that the commit below conflicts.
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
            // A piece was appended meanwhile: pack that one too.
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
            // Either its worker has just packed it, or it is lost and readers see a hole.
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

/// Reads a log from an offset on.
#[derive(Debug, Clone)]
pub struct LogReader {
    log: LogId,
    offset: u64,
    /// The last segment read: the search for the next piece begins here. Not a piece of the tail, since packing
    /// replaces several of those by one segment that begins at the first, which may be before this one.
    after: Option<Entry>,
}

impl LogReader {
    /// A reader at `offset` bytes from the attempt's beginning.
    #[must_use]
    pub fn at(log: LogId, offset: u64) -> Self {
        Self { log, offset, after: None }
    }

    /// The offset of the next byte.
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
                // It was packed or deleted between the two reads: read the index again.
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

    /// The first piece, by start, that ends after the reader's offset.
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

/// Parses lines of JSON. A line that is not a frame is skipped, so its bytes are missing from the result.
#[must_use]
pub fn parse_frames(lines: &[u8]) -> Vec<LogFrame> {
    let mut frames = Vec::new();
    for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(frame) => frames.push(frame),
            Err(error) => tracing::warn!("a line of a log is not a frame: {error}"),
        }
    }
    frames
}

/// A watch that fires when the log grows.
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
