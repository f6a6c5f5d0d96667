//! Output of a step: masked for the log by whole lines, and searched for what a retry depends on.

use gantry_domain::id::StepId;
use gantry_taskfile::task_file::Traced;
use tokio::sync::mpsc;

use crate::engine::OutputStream;
use crate::engine::containers::ContainerOutput;
use crate::log::RunLog;
use crate::mask::Masker;

/// Longer lines are split.
const LONGEST_LINE: usize = 16 * 1024;

/// Looks for texts in output, however it is split.
pub(crate) struct Search {
    texts: Vec<Vec<u8>>,
    /// The end of what was seen, shorter than the longest text.
    tail: Vec<u8>,
    is_found: bool,
}

impl Search {
    /// For any of these texts.
    pub(crate) fn of(texts: &[Traced]) -> Self {
        let texts = texts.iter().map(|text| text.exposed().as_bytes().to_vec()).collect();
        Self { texts, tail: Vec::new(), is_found: false }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.is_found || self.texts.is_empty() {
            return;
        }
        self.tail.extend_from_slice(bytes);
        let seen = self.tail.as_slice();
        self.is_found = self.texts.iter().any(|text| contains(seen, text));
        let longest = self.texts.iter().map(Vec::len).max().unwrap_or(0);
        let done = self.tail.len().saturating_sub(longest.saturating_sub(1));
        self.tail.drain(..done);
    }

    /// Whether one was found, or there was none to look for.
    pub(crate) fn permits_retry(&self) -> bool {
        self.is_found || self.texts.is_empty()
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|part| part == text)
}

/// Writes a container's output to the log until it ends.
pub(crate) async fn write(
    log: &RunLog,
    step: &StepId,
    mut output: mpsc::Receiver<ContainerOutput>,
    search: &mut Search,
) {
    let mut streams =
        [OutputStream::Stdout, OutputStream::Stderr].map(|stream| Lines::of(log, stream));
    while let Some(ContainerOutput { stream, bytes }) = output.recv().await {
        search.push(&bytes);
        if let Some(lines) = streams.iter_mut().find(|lines| lines.stream == stream) {
            let text = lines.push(&bytes);
            lines.say(log, step, text).await;
        }
    }
    for mut lines in streams {
        let text = lines.finish();
        lines.say(log, step, text).await;
    }
}

/// One stream of a container: masked, then split into lines.
struct Lines {
    stream: OutputStream,
    masker: Masker,
    /// The beginning of an incomplete line.
    partial: Vec<u8>,
}

impl Lines {
    fn of(log: &RunLog, stream: OutputStream) -> Self {
        Self { stream, masker: Masker::new(log.secrets().clone()), partial: Vec::new() }
    }

    fn push(&mut self, bytes: &[u8]) -> String {
        let masked = self.masker.push(bytes);
        self.partial.extend_from_slice(&masked);
        let whole = match self.partial.iter().rposition(|&byte| byte == b'\n') {
            Some(end) => end + 1,
            None if self.partial.len() > LONGEST_LINE => self.partial.len(),
            None => 0,
        };
        let lines: Vec<u8> = self.partial.drain(..whole).collect();
        String::from_utf8_lossy(&lines).into_owned()
    }

    fn finish(&mut self) -> String {
        self.partial.extend(self.masker.finish());
        let mut text = String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }

    async fn say(&self, log: &RunLog, step: &StepId, text: String) {
        if !text.is_empty() {
            log.output(step, self.stream, text).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(texts: &[&str], pieces: &[&str]) -> bool {
        let texts: Vec<Traced> = texts.iter().map(|text| Traced::written(*text)).collect();
        let mut search = Search::of(&texts);
        pieces.iter().for_each(|piece| search.push(piece.as_bytes()));
        search.permits_retry()
    }

    #[test]
    fn a_text_is_found_however_the_output_is_split() {
        assert!(found(&["timed out"], &["it ti", "med", " out\n"]));
        assert!(found(&["a", "timed out"], &["xx timed out"]));
        assert!(!found(&["timed out"], &["timed", "\nout"]));
        assert!(found(&[], &[]), "without texts every failure is tried again");
    }
}
