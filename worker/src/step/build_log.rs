//! Writes a build's events to the run's log, in the format of `docker build --progress=plain`.
//!
//! `#3 [2/2] RUN make` begins a vertex, `#3 …` is its output, `#3 DONE 1.2s` ends it. Output of concurrent vertices is
//! interleaved only by whole lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use gantry_domain::id::StepId;
use tokio::sync::mpsc;

use crate::engine::{BuildEvent, OutputStream};
use crate::log::RunLog;
use crate::mask::Masker;
use crate::step::output::Search;

/// Longer lines are split.
const LONGEST_LINE: usize = 16 * 1024;

/// Writes a build's events to the log until the build ends.
pub(crate) async fn write(
    log: RunLog,
    step: StepId,
    mut events: mpsc::Receiver<BuildEvent>,
    search: &mut Search,
) {
    let mut vertices = BTreeMap::new();
    while let Some(event) = events.recv().await {
        match event {
            BuildEvent::Started { vertex, name } => {
                log.say(Some(&step), format!("#{vertex} {name}")).await;
            }
            BuildEvent::Output { vertex, stream, bytes } => {
                search.push(&bytes);
                let said = vertices
                    .entry((vertex, stream_number(stream)))
                    .or_insert_with(|| Lines::new(&log, vertex, stream));
                let lines = said.push(&bytes);
                said.say(&log, &step, lines).await;
            }
            BuildEvent::Completed { vertex, cached, error, duration_ms } => {
                for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                    if let Some(mut said) = vertices.remove(&(vertex, stream_number(stream))) {
                        let lines = said.finish();
                        said.say(&log, &step, lines).await;
                    }
                }
                log.say(Some(&step), ending(vertex, cached, error.as_deref(), duration_ms)).await;
            }
        }
    }
    for mut said in vertices.into_values() {
        let lines = said.finish();
        said.say(&log, &step, lines).await;
    }
}

fn ending(vertex: u32, cached: bool, error: Option<&str>, duration_ms: u64) -> String {
    match error {
        Some(error) => format!("#{vertex} ERROR: {error}"),
        None if cached => format!("#{vertex} CACHED"),
        None => format!("#{vertex} DONE {}.{}s", duration_ms / 1000, duration_ms % 1000 / 100),
    }
}

fn stream_number(stream: OutputStream) -> u8 {
    match stream {
        OutputStream::Gantry => 0,
        OutputStream::Stdout => 1,
        OutputStream::Stderr => 2,
    }
}

/// One stream of one vertex: masked, then split into lines.
struct Lines {
    vertex: u32,
    stream: OutputStream,
    masker: Masker,
    /// The beginning of an incomplete line.
    partial: Vec<u8>,
}

impl Lines {
    fn new(log: &RunLog, vertex: u32, stream: OutputStream) -> Self {
        Self { vertex, stream, masker: Masker::new(log.secrets().clone()), partial: Vec::new() }
    }

    fn push(&mut self, bytes: &[u8]) -> String {
        let masked = self.masker.push(bytes);
        self.partial.extend_from_slice(&masked);
        let whole = match self.partial.iter().rposition(|&byte| byte == b'\n' || byte == b'\r') {
            Some(end) => end + 1,
            None if self.partial.len() > LONGEST_LINE => self.partial.len(),
            None => 0,
        };
        let lines: Vec<u8> = self.partial.drain(..whole).collect();
        self.prefixed(&lines)
    }

    fn finish(&mut self) -> String {
        self.partial.extend(self.masker.finish());
        let lines = std::mem::take(&mut self.partial);
        self.prefixed(&lines)
    }

    fn prefixed(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = String::with_capacity(text.len() + 16);
        // A progress bar ends its lines with `\r`: each becomes a line, and `\r
        // ` ends only one.
        for line in text.replace("\r\n", "\n").split(['\n', '\r']).filter(|line| !line.is_empty()) {
            let _infallible = writeln!(lines, "#{} {line}", self.vertex);
        }
        lines
    }

    async fn say(&self, log: &RunLog, step: &StepId, lines: String) {
        if !lines.is_empty() {
            log.output(step, self.stream, lines).await;
        }
    }
}
