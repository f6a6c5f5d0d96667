//! Writes an attempt's log: frames are grouped into small pieces in the store, which readers see at once, and then into
//! segments in the object store.
//!
//! Pieces are packed while others are appended. While the object store is unavailable, the tail in the store grows to
//! its limit. Then no more frames are accepted, and the log says for how long.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, OptionFuture};
use gantry_domain::log::{LogFrame, OutputStream};
use gantry_domain::timestamp::Timestamp;
use gantry_ops::backoff::Backoff;
use gantry_seams::blobs::SharedBlobs;
use gantry_seams::logs::{self, LogError, LogId, Piece};
use gantry_seams::store::SharedStore;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{FRAME, Said};

/// How long a line waits for further ones before it is written.
const FLUSH_AFTER: Duration = Duration::from_millis(40);

/// A piece is written once it has this many bytes of frames.
const PIECE: usize = 64 * 1024;

/// The most bytes of an attempt's tail in the store.
const TAIL: usize = 1024 * 1024;

/// The largest piece: one more frame than the minimum, in which JSON may encode each byte as six.
const LARGEST_PIECE: usize = PIECE + 6 * FRAME + 1024;

/// The approximate overhead of a piece in the store, in bytes.
const PIECE_OVERHEAD: usize = 256;

/// Pieces are packed into a segment at this size or this age.
const SEGMENT: usize = TAIL / 2;
const SEGMENT_AGE: Duration = Duration::from_secs(2);

/// How long the end of a log waits for an unavailable object store. The scheduler packs what is left in the store.
const GIVE_UP_AFTER: Duration = Duration::from_secs(15);
const SEAL_WITHIN: Duration = Duration::from_secs(3);

/// Pauses that are mentioned in the log.
const LONG: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    store: SharedStore,
    blobs: SharedBlobs,
    log: LogId,
    most: u64,
    /// The offset of the next frame.
    offset: u64,
    /// The number of omitted bytes.
    left_out: u64,
    /// Frames that are not in the store yet, as lines of JSON.
    lines: Vec<u8>,
    /// Their offset.
    start: u64,
    /// Pieces in the store that are not in a segment yet, with the time they were written.
    tail: VecDeque<(Piece, Instant)>,
    /// Since when no frames are accepted, because the tail is full.
    held_since: Option<Instant>,
}

impl Writer {
    /// Keeps at most `most` bytes of the log.
    pub(super) fn new(store: SharedStore, blobs: SharedBlobs, log: LogId, most: u64) -> Self {
        Self {
            store,
            blobs,
            log,
            most,
            offset: 0,
            left_out: 0,
            lines: Vec::new(),
            start: 0,
            tail: VecDeque::new(),
            held_since: None,
        }
    }

    /// Writes frames until all senders are gone, or, once `closing` is cancelled, until the object store was waited for
    /// long enough.
    pub(super) async fn run(mut self, mut said: mpsc::Receiver<Said>, closing: CancellationToken) {
        let mut give_up = pin!(async {
            closing.cancelled().await;
            sleep(GIVE_UP_AFTER).await;
        });
        let mut packing: Option<BoxFuture<'static, usize>> = None;
        loop {
            let due = self.segment_due().filter(|_| packing.is_none());
            if due.is_some_and(|due| due <= Instant::now()) {
                packing = Some(self.pack());
                continue;
            }
            let has_room = self.has_room();
            tokio::select! {
                Some(packed) = OptionFuture::from(packing.as_mut()) => {
                    packing = None;
                    self.tail.drain(..packed);
                }
                Some(()) = OptionFuture::from(due.map(sleep_until)) => {}
                first = said.recv(), if has_room => match first {
                    Some(first) => self.take(first, &mut said).await,
                    None => break,
                },
                () = &mut give_up => break,
            }
        }
        if let Some(packing) = packing
            && let Ok(packed) = timeout(SEAL_WITHIN, packing).await
        {
            self.tail.drain(..packed);
        }
        self.close(said).await;
    }

    /// Receives frames that arrive together, and stores them.
    async fn take(&mut self, first: Said, said: &mut mpsc::Receiver<Said>) {
        self.say_what_was_held();
        self.add(first);
        let flush_at = Instant::now() + FLUSH_AFTER;
        while self.lines.len() < PIECE {
            match timeout_at(flush_at, said.recv()).await {
                Ok(Some(more)) => self.add(more),
                Ok(None) | Err(_) => break,
            }
        }
        self.flush().await;
    }

    /// Logs what is missing, and packs the rest.
    async fn close(mut self, mut said: mpsc::Receiver<Said>) {
        let mut lost = 0;
        while let Ok(said) = said.try_recv() {
            lost += said.text.len();
        }
        if lost > 0 {
            self.say(format!("{lost} bytes are lost here: the object store was away\n"));
        }
        if self.left_out > 0 {
            let (most, left_out) = (self.most, self.left_out);
            self.say(format!(
                "the log is longer than {most} bytes: {left_out} bytes were left out\n"
            ));
        }
        self.flush().await;
        if timeout(SEAL_WITHIN, self.seal()).await.is_err() {
            tracing::info!(run.id = %self.log.run, "the end of the log of run {} is packed later", self.log.run);
        }
    }

    async fn seal(&mut self) {
        while !self.tail.is_empty() {
            let packed = self.pack().await;
            self.tail.drain(..packed);
        }
        if let Err(error) = logs::seal(self.store.as_ref(), self.blobs.as_ref(), self.log).await {
            tracing::debug!(run.id = %self.log.run, "the log of run {} is closed later: {error}", self.log.run);
        }
    }

    /// When the next segment is due.
    fn segment_due(&self) -> Option<Instant> {
        let (_, since) = self.tail.front()?;
        Some(if self.tail_size() >= SEGMENT { *since } else { *since + SEGMENT_AGE })
    }

    fn has_room(&mut self) -> bool {
        let has_room = self.tail_size() + LARGEST_PIECE <= TAIL;
        if !has_room {
            self.held_since.get_or_insert_with(Instant::now);
        }
        has_room
    }

    fn tail_size(&self) -> usize {
        self.tail.iter().map(|(piece, _)| piece.lines.len() + PIECE_OVERHEAD).sum()
    }

    fn say_what_was_held(&mut self) {
        let held = self.held_since.take().map(|since| since.elapsed());
        if let Some(held) = held.filter(|held| *held >= LONG) {
            let seconds = held.as_secs();
            self.say(format!("the output waited {seconds} s here: the object store was away\n"));
        }
    }

    fn say(&mut self, text: String) {
        self.frame(Said { step: None, stream: OutputStream::Gantry, text });
    }

    fn add(&mut self, said: Said) {
        if self.offset + said.text.len() as u64 > self.most {
            self.left_out += said.text.len() as u64;
        } else {
            self.frame(said);
        }
    }

    fn frame(&mut self, said: Said) {
        let frame = LogFrame {
            offset: self.offset,
            at: wall_clock(),
            step: said.step,
            stream: said.stream,
            text: said.text,
        };
        let Ok(line) = serde_json::to_vec(&frame) else { return };
        if self.lines.is_empty() {
            self.start = frame.offset;
        }
        self.lines.extend_from_slice(&line);
        self.lines.push(b'\n');
        self.offset = frame.end();
    }

    async fn flush(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let lines = Bytes::from(std::mem::take(&mut self.lines));
        let piece = Piece { start: self.start, end: self.offset, lines };
        let mut waiting = Waiting::new(self.log);
        while let Err(error) = logs::append_tail(self.store.as_ref(), self.log, &piece).await {
            waiting.after(&error.into()).await;
        }
        self.tail.push_back((piece, Instant::now()));
    }

    /// Packs the oldest pieces into a segment, with retries. Returns how many.
    fn pack(&self) -> BoxFuture<'static, usize> {
        let pieces = self.tail.iter().map(|(piece, _)| piece.clone());
        let pieces: Vec<Piece> = pieces.take(logs::SEGMENT_PIECES).collect();
        let (store, blobs, log) = (self.store.clone(), self.blobs.clone(), self.log);
        Box::pin(async move {
            let mut waiting = Waiting::new(log);
            while let Err(error) =
                logs::pack_segment(store.as_ref(), blobs.as_ref(), log, &pieces).await
            {
                waiting.after(&error).await;
            }
            pieces.len()
        })
    }
}

/// Growing pauses, with one log message.
struct Waiting {
    log: LogId,
    backoff: Backoff,
    told: bool,
}

impl Waiting {
    fn new(log: LogId) -> Self {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        Self { log, backoff, told: false }
    }

    async fn after(&mut self, error: &LogError) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(run.id = %self.log.run, "the log of run {} is not written yet: {error}", self.log.run);
        }
        sleep(self.backoff.wait()).await;
    }
}

/// The worker's clock. For people who read a log, and nothing else.
#[allow(
    clippy::disallowed_methods,
    reason = "a frame shows when the worker read it; nothing is decided by it"
)]
fn wall_clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::default().after(since.unwrap_or_default())
}
