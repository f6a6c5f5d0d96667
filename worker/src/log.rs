//! Writes an attempt's log: frames, small pieces that readers see at once, segments that stay.
//!
//! In: texts of which the secrets were taken out. What the store cannot take now is held back, and with it whoever talks:
//! nothing grows without bound.

use std::time::Duration;

use bytes::Bytes;
use gantry_domain::id::StepId;
use gantry_domain::log::{LogFrame, OutputStream};
use gantry_domain::timestamp::Timestamp;
use gantry_ops::backoff::Backoff;
use gantry_seams::blobs::SharedBlobs;
use gantry_seams::logs::{self, LogError, LogId, Piece};
use gantry_seams::store::SharedStore;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::mask::Secrets;

/// How long a line waits for company before readers see it.
const FLUSH_AFTER: Duration = Duration::from_millis(40);

/// The largest piece, in bytes of frames.
const PIECE: usize = 64 * 1024;

/// The largest text of one frame, in bytes.
const FRAME: usize = 32 * 1024;

/// When pieces are packed into a segment: at this size or this age.
const SEGMENT: usize = 1024 * 1024;
const SEGMENT_AGE: Duration = Duration::from_secs(2);

/// How many messages wait for the writer: with frames of at most 32 KiB, 2 MiB.
const QUEUE: usize = 64;

/// How long the end of a log is tried to be written while the store is away.
const CLOSE_WITHIN: Duration = Duration::from_secs(20);

/// Where an attempt talks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct RunLog {
    frames: mpsc::Sender<Said>,
    secrets: Secrets,
}

/// The task that writes a log; ends after the last [`RunLog`] is gone.
#[derive(Debug)]
pub(crate) struct LogWriter(JoinHandle<()>);

#[derive(Debug)]
struct Said {
    step: Option<StepId>,
    stream: OutputStream,
    text: String,
}

impl RunLog {
    /// Begins an attempt's log. At most `most` bytes of it are kept: the rest is counted, and said to be left out.
    pub(crate) fn begin(
        store: SharedStore,
        blobs: SharedBlobs,
        log: LogId,
        secrets: Secrets,
        most: u64,
    ) -> (Self, LogWriter) {
        let (frames, said) = mpsc::channel(QUEUE);
        let writer = Writer {
            store,
            blobs,
            log,
            most,
            offset: 0,
            left_out: 0,
            lines: Vec::new(),
            start: 0,
            unpacked: Vec::new(),
        };
        (Self { frames, secrets }, LogWriter(tokio::spawn(writer.run(said))))
    }

    /// gantry's own words: one line, masked here.
    pub(crate) async fn say(&self, step: Option<&StepId>, line: impl AsRef<str>) {
        let mut text = self.secrets.mask(line.as_ref());
        text.push('\n');
        self.send(step, OutputStream::Gantry, text).await;
    }

    /// A step's output, masked by the caller: it alone knows where one stream goes on.
    pub(crate) async fn output(&self, step: &StepId, stream: OutputStream, text: String) {
        if text.len() <= FRAME {
            return self.send(Some(step), stream, text).await;
        }
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(FRAME));
            self.send(Some(step), stream, piece.to_owned()).await;
            rest = after;
        }
    }

    /// What to mask.
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    async fn send(&self, step: Option<&StepId>, stream: OutputStream, text: String) {
        let said = Said { step: step.cloned(), stream, text };
        if self.frames.send(said).await.is_err() {
            tracing::debug!("a log was talked to after its end");
        }
    }
}

impl LogWriter {
    /// Waits until everything that was said is stored, or cannot be within a bounded time.
    pub(crate) async fn finished(mut self) {
        if timeout(CLOSE_WITHIN, &mut self.0).await.is_err() {
            self.0.abort();
            tracing::error!("the end of a log is lost: the store was away too long");
        }
    }
}

struct Writer {
    store: SharedStore,
    blobs: SharedBlobs,
    log: LogId,
    most: u64,
    /// Where the next frame begins.
    offset: u64,
    /// Bytes that were not kept.
    left_out: u64,
    /// Frames that are not yet in the store, as lines of JSON.
    lines: Vec<u8>,
    /// Where they begin.
    start: u64,
    /// Pieces in the store that are not yet in a segment, and since when the oldest is.
    unpacked: Vec<(Piece, Instant)>,
}

impl Writer {
    async fn run(mut self, mut said: mpsc::Receiver<Said>) {
        loop {
            let first = match self.segment_due() {
                None => said.recv().await,
                Some(due) => match timeout_at(due, said.recv()).await {
                    Ok(first) => first,
                    Err(_) => {
                        self.pack().await;
                        continue;
                    }
                },
            };
            let Some(first) = first else { break };
            self.add(first);
            let flush_at = Instant::now() + FLUSH_AFTER;
            while self.lines.len() < PIECE {
                match timeout_at(flush_at, said.recv()).await {
                    Ok(Some(more)) => self.add(more),
                    Ok(None) | Err(_) => break,
                }
            }
            self.flush().await;
            if self.unpacked.iter().map(|(piece, _)| piece.lines.len()).sum::<usize>() >= SEGMENT {
                self.pack().await;
            }
        }
        if self.left_out > 0 {
            let text = format!(
                "the log is longer than {} bytes: {} bytes were left out\n",
                self.most, self.left_out
            );
            self.frame(Said { step: None, stream: OutputStream::Gantry, text });
            self.flush().await;
        }
        self.pack().await;
    }

    fn segment_due(&self) -> Option<Instant> {
        self.unpacked.first().map(|(_, since)| *since + SEGMENT_AGE)
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
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        while let Err(error) = logs::append_tail(self.store.as_ref(), self.log, &piece).await {
            tracing::warn!(run.id = %self.log.run, "the log of run {} waits: {error}", self.log.run);
            tokio::time::sleep(backoff.wait()).await;
        }
        self.unpacked.push((piece, Instant::now()));
    }

    async fn pack(&mut self) {
        let pieces: Vec<Piece> = self.unpacked.iter().map(|(piece, _)| piece.clone()).collect();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        while let Err(error) = self.try_pack(&pieces).await {
            tracing::warn!(run.id = %self.log.run, "the log of run {} waits: {error}", self.log.run);
            tokio::time::sleep(backoff.wait()).await;
        }
        self.unpacked.clear();
    }

    async fn try_pack(&self, pieces: &[Piece]) -> Result<(), LogError> {
        logs::pack_segment(self.store.as_ref(), self.blobs.as_ref(), self.log, pieces).await
    }
}

/// The worker's clock: for people who read a log, and for nothing else.
#[allow(
    clippy::disallowed_methods,
    reason = "a frame shows when the worker read it; nothing is decided by it"
)]
fn wall_clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::default().after(since.unwrap_or_default())
}
