//! Logs of attempts: pieces of frames in one order, the young ones in the store, the old ones in the object store.
//!
//! Piece = whole frames as lines of JSON, from the offset that it is known by to its end. A worker first appends small
//! pieces to the store, so that readers see them at once, then packs them into a segment of the object store. A reader
//! joins both; where a piece is missing, it sees a hole.

use bytes::Bytes;
use gantry_domain::id::RunId;
use gantry_domain::log::LogFrame;

use crate::blobs::{BlobError, Blobs};
use crate::collection::commit_unconditional;
use crate::store::{Batch, Entry, From, Index, Key, Kind, Store, StoreError, Watch};

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

/// The index of an attempt's pieces: score = start, member = `tail:end` or `segment:end`.
fn pieces(log: LogId) -> Index {
    Index::new(format!("log/{log}"))
}

/// What is touched whenever the log grows.
fn growth_key(log: LogId) -> Key {
    Key::new(Kind::LogTail, format_args!("{log}/growth"))
}

fn tail_key(log: LogId, start: u64) -> Key {
    Key::new(Kind::LogTail, format_args!("{log}/{start:020}"))
}

fn segment_path(log: LogId, start: u64) -> String {
    format!("logs/{}/{}/{start:020}", log.run, log.attempt)
}

/// Appends a young piece. A second call with the same piece changes nothing.
///
/// # Errors
/// [`StoreError`]: try again, with the same piece.
pub async fn append_tail(store: &dyn Store, log: LogId, piece: &Piece) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    batch.put(tail_key(log, piece.start), piece.lines.clone());
    batch.index(
        pieces(log),
        saturating(piece.start),
        format_args!("tail:{:020}:{:020}", piece.start, piece.end),
    );
    batch.put(growth_key(log), piece.end.to_string());
    commit_unconditional(store, batch).await
}

/// Packs pieces that were appended, in order and without holes, into one segment; their copies in the store go.
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
    blobs.put(&segment_path(log, first.start), Bytes::from(lines)).await?;
    let mut batch = Batch::default();
    for piece in packed {
        batch.delete.push(tail_key(log, piece.start));
        batch.unindex(pieces(log), format_args!("tail:{:020}:{:020}", piece.start, piece.end));
    }
    batch.index(
        pieces(log),
        saturating(first.start),
        format_args!("segment:{:020}:{:020}", first.start, last.end),
    );
    commit_unconditional(store, batch).await?;
    Ok(())
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
            let Some((entry, start, end)) = self.find_piece(store).await? else {
                return Ok(LogPart::End);
            };
            if start > self.offset {
                self.offset = start;
                return Ok(LogPart::Hole { until: start });
            }
            let Some(lines) = self.load_piece(store, blobs, &entry, start).await? else {
                // It was packed, or deleted, between the two reads: look again at what the index says now.
                if self.is_gone(store, &entry).await? {
                    continue;
                }
                self.pass(entry, end);
                return Ok(LogPart::Hole { until: end });
            };
            let mut frames = parse_frames(&lines);
            frames.retain(|frame| frame.end() > self.offset);
            self.pass(entry, end);
            if !frames.is_empty() {
                return Ok(LogPart::Frames(frames));
            }
        }
    }

    fn pass(&mut self, entry: Entry, end: u64) {
        self.offset = end;
        if entry.member.starts_with("segment:") {
            self.after = Some(entry);
        }
    }

    /// The first piece, by start, that ends after the reader's place.
    async fn find_piece(&self, store: &dyn Store) -> Result<Option<(Entry, u64, u64)>, StoreError> {
        const PAGE: usize = 256;
        let mut from = match &self.after {
            Some(entry) => From::Score(entry.score),
            None => From::Start,
        };
        loop {
            let entries = store.range(&pieces(self.log), from, PAGE).await?;
            let is_last = entries.len() < PAGE;
            let last = entries.last().cloned();
            for entry in entries {
                if let Some((start, end)) = parse_member(&entry)
                    && end > self.offset
                {
                    return Ok(Some((entry, start, end)));
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
        entry: &Entry,
        start: u64,
    ) -> Result<Option<Bytes>, LogError> {
        if entry.member.starts_with("tail:") {
            let found = store.load(&[tail_key(self.log, start)]).await?.pop().flatten();
            return Ok(found.map(|record| record.bytes));
        }
        match blobs.get(&segment_path(self.log, start)).await {
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

/// `tail:start:end` or `segment:start:end`. The start is in the member too, since equal ends must not collide.
fn parse_member(entry: &Entry) -> Option<(u64, u64)> {
    let (_, places) = entry.member.split_once(':')?;
    let (start, end) = places.split_once(':')?;
    Some((start.parse().ok()?, end.parse().ok()?))
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
            if let Some((start, _)) = parse_member(&entry) {
                batch.delete.push(tail_key(log, start));
            }
            batch.unindex(pieces(log), &entry.member);
        }
        commit_unconditional(store, batch).await?;
    }
    let mut batch = Batch::default();
    batch.delete.push(growth_key(log));
    commit_unconditional(store, batch).await?;
    blobs.delete_all(&format!("logs/{}/{}", log.run, log.attempt)).await?;
    Ok(())
}

fn saturating(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
