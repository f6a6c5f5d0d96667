//! Where an attempt talks, and who writes it down.
//!
//! In: texts of which the secrets were taken out. What cannot be stored now is held back, and with it whoever talks:
//! nothing grows without bound.

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

/// The largest text of one frame, in bytes.
const FRAME: usize = 32 * 1024;

/// How many messages wait for the writer: with frames of at most 32 KiB, 2 MiB.
const QUEUE: usize = 64;

/// How long the end of a log is waited for while the store is away: longer than its writer waits for the object store.
const CLOSE_WITHIN: Duration = Duration::from_secs(25);

/// Where an attempt talks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct RunLog {
    frames: mpsc::Sender<Said>,
    secrets: Secrets,
}

/// The task that writes a log; ends after the last [`RunLog`] is gone.
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
    /// Begins an attempt's log. At most `most` bytes of it are kept: the rest is counted, and said to be left out.
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
        self.closing.cancel();
        if timeout(CLOSE_WITHIN, &mut self.writing).await.is_err() {
            self.writing.abort();
            tracing::error!("the end of a log is lost: the store was away too long");
        }
    }
}
