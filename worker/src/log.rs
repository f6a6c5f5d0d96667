//! The log of an attempt: the sending side, and the task that writes it.
//!
//! In: masked text. If text cannot be stored now, senders have to wait, so memory is bounded.

use std::time::Duration;

use gantry_domain::id::StepId;
use gantry_domain::log::OutputStream;
use gantry_seams::blobs::SharedBlobs;
use gantry_seams::logs::LogId;
use gantry_seams::store::SharedStore;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::mask::Secrets;

mod writer;

/// The longest text of a frame, in bytes.
const FRAME: usize = 32 * 1024;

/// The capacity of the queue to the writer: 2 MiB with frames of 32 KiB.
const QUEUE: usize = 64;

/// How long the end of a log is waited for if the store is unavailable. Longer than its writer waits for the object
/// store.
const CLOSE_WITHIN: Duration = Duration::from_secs(25);

/// The sending side of an attempt's log. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct RunLog {
    frames: mpsc::Sender<Said>,
    secrets: Secrets,
}

/// The task that writes a log. It ends after the last [`RunLog`] is dropped.
#[derive(Debug)]
pub(crate) struct LogWriter {
    writing: JoinHandle<()>,
    closing: CancellationToken,
}

#[derive(Debug)]
struct Said {
    step: Option<StepId>,
    stream: OutputStream,
    text: String,
}

impl RunLog {
    /// Starts an attempt's log. At most `most` bytes of it are kept; the number of omitted bytes is logged at its end.
    pub(crate) fn begin(
        store: SharedStore,
        blobs: SharedBlobs,
        log: LogId,
        secrets: Secrets,
        most: u64,
    ) -> (Self, LogWriter) {
        let (frames, said) = mpsc::channel(QUEUE);
        let closing = CancellationToken::new();
        let writer = writer::Writer::new(store, blobs, log, most);
        let writing = tokio::spawn(writer.run(said, closing.clone()));
        (Self { frames, secrets }, LogWriter { writing, closing })
    }

    /// Writes a line of gantry's own. It is masked here.
    pub(crate) async fn say(&self, step: Option<&StepId>, line: impl AsRef<str>) {
        let mut text = self.secrets.mask(line.as_ref());
        text.push('\n');
        self.send(step, OutputStream::Gantry, text).await;
    }

    /// Writes output of a step, masked by the caller, which knows how parts of a stream continue.
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

    /// The secrets to mask.
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    async fn send(&self, step: Option<&StepId>, stream: OutputStream, text: String) {
        let said = Said { step: step.cloned(), stream, text };
        if self.frames.send(said).await.is_err() {
            tracing::debug!("output arrived after the end of its log");
        }
    }
}

impl LogWriter {
    /// Waits until everything is stored, or a time limit has passed.
    pub(crate) async fn finished(mut self) {
        self.closing.cancel();
        if timeout(CLOSE_WITHIN, &mut self.writing).await.is_err() {
            self.writing.abort();
            tracing::error!("the end of a log is lost: the store was unavailable for too long");
        }
    }
}
