//! Shows a run's log: plain lines, and on a terminal a last line with the run's status.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Result;
use gantry_ops::terminal::{Sanitiser, one_line};
use indicatif::{ProgressBar, ProgressStyle};

use super::output::{say, write_out};

/// What to show of a running run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// Its log and status.
    Log,
    /// Only its status.
    State,
    /// The log on standard error, because standard output is for a program.
    LogAside,
}

/// Longer lines are split, so that memory is bounded.
const LONGEST_HELD: usize = 256 * 1024;

/// The incomplete last line of one writer.
struct Begun {
    sanitiser: Sanitiser,
    line: String,
}

pub(crate) struct LogView {
    run: String,
    show: Show,
    colours: bool,
    /// Whether lines begin with the id of their step, because several steps may write at once.
    with_steps: bool,
    /// The output of each step, as long as its last line is incomplete; of the run itself without an id.
    begun: BTreeMap<Option<String>, Begun>,
    /// The length of the longest id so far.
    longest_id: usize,
    bar: Option<ProgressBar>,
    /// The run's status, in words.
    status: String,
    /// The instruction of the Dockerfile that began last.
    instruction: String,
}

impl LogView {
    /// `colours`: whether the log may use colours. Without a terminal it never does. `with_steps`: whether lines begin with
    /// the id of their step.
    pub(crate) fn new(run: &str, show: Show, colours: bool, with_steps: bool) -> Self {
        let on_terminal = match show {
            Show::Log => io::stdout().is_terminal(),
            Show::State | Show::LogAside => io::stderr().is_terminal(),
        };
        Self {
            run: run.to_owned(),
            show,
            colours: colours && on_terminal,
            with_steps,
            begun: BTreeMap::new(),
            longest_id: 0,
            bar: io::stderr().is_terminal().then(spinner),
            status: run.to_owned(),
            instruction: String::new(),
        }
    }

    /// Shows a part of the log, of this step or of the run itself.
    pub(crate) fn log(&mut self, step: Option<&str>, text: &str) -> Result<()> {
        if self.show == Show::State {
            return Ok(());
        }
        let writer = step.filter(|_| self.with_steps).map(str::to_owned);
        let colours = self.colours;
        let new = || Begun { sanitiser: Sanitiser::new(colours), line: String::new() };
        let begun = self.begun.entry(writer.clone()).or_insert_with(new);
        begun.line.push_str(&begun.sanitiser.push(text));
        // Only complete lines are printed, so that neither the status line nor another step is within one.
        match begun.line.rfind('\n') {
            Some(end) => {
                let rest = begun.line.split_off(end + 1);
                let lines = std::mem::replace(&mut begun.line, rest);
                let lines = self.named(writer.as_deref(), &lines);
                self.write(&lines)?;
                if let Some(instruction) = lines.lines().rev().find_map(instruction) {
                    instruction.clone_into(&mut self.instruction);
                    self.draw();
                }
                Ok(())
            }
            None if begun.line.len() > LONGEST_HELD => self.end_lines(),
            None => Ok(()),
        }
    }

    /// Complete lines of a step, each with its id.
    fn named(&mut self, step: Option<&str>, lines: &str) -> String {
        let Some(step) = step else { return lines.to_owned() };
        self.longest_id = self.longest_id.max(step.len());
        let width = self.longest_id;
        lines.lines().map(|line| format!("{step:<width$} │ {line}\n")).collect()
    }

    /// Prints a message about the run, between two lines of its log.
    pub(crate) fn note(&mut self, words: &str) -> Result<()> {
        self.end_lines()?;
        self.beside_bar(|| say(one_line(words)));
        Ok(())
    }

    /// Shows a new status of the run.
    pub(crate) fn status(&mut self, status: &str, waits_for: Option<&str>) -> Result<()> {
        let words = match waits_for {
            Some(reason) => format!("{} {status}: waits for {reason}", self.run),
            None => format!("{} {status}", self.run),
        };
        let words = one_line(&words);
        let is_news = words != self.status;
        self.status = words;
        // Without a status line, only waiting is reported: the log shows everything else.
        if self.bar.is_none() && waits_for.is_some() && is_news {
            return self.note(&self.status.clone());
        }
        self.draw();
        Ok(())
    }

    fn draw(&self) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}  {}", self.status, self.instruction));
        }
    }

    /// Ends the output, and restores the terminal.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.end_lines()?;
        let resets = self.begun.values_mut().map(|begun| begun.sanitiser.finish());
        let reset: String = resets.collect();
        if !reset.is_empty() {
            self.write(&reset)?;
        }
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        Ok(())
    }

    fn end_lines(&mut self) -> Result<()> {
        let begun = self.begun.iter_mut().filter(|(_, begun)| !begun.line.is_empty());
        let begun = begun.map(|(step, begun)| (step.clone(), std::mem::take(&mut begun.line)));
        let begun: Vec<_> = begun.collect();
        for (step, line) in begun {
            let line = self.named(step.as_deref(), &(line + "\n"));
            self.write(&line)?;
        }
        Ok(())
    }

    fn write(&self, text: &str) -> Result<()> {
        self.beside_bar(|| match self.show {
            Show::Log => write_out(text),
            Show::State => Ok(()),
            Show::LogAside => {
                let _unread = io::stderr().lock().write_all(text.as_bytes());
                Ok(())
            }
        })
    }

    fn beside_bar<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Drop for LogView {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// The instruction that a line of BuildKit's log announces: `[2/3] RUN make` in `#6 [2/3] RUN make`.
fn instruction(line: &str) -> Option<&str> {
    let line = line.split_once(" │ ").map_or(line, |(_, line)| line);
    let (number, name) = line.strip_prefix('#')?.split_once(' ')?;
    let (place, _) = name.strip_prefix('[')?.split_once(']')?;
    let (_, of) = place.rsplit_once('/')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(number) && is_number(of)).then_some(name)
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_steps_that_write_at_once_stay_whole_and_have_their_names() {
        let mut view = LogView::new("ca1", Show::Log, false, true);
        let lines = view.named(Some("lint"), "one\n\ntwo\n");
        assert_eq!(lines, "lint │ one\nlint │ \nlint │ two\n");
        assert_eq!(view.named(Some("a"), "x\n"), "a    │ x\n");
        assert_eq!(view.named(None, "of the run\n"), "of the run\n");
    }

    #[test]
    fn dockerfile_instructions_are_recognized_in_the_log() {
        assert_eq!(instruction("#6 [2/3] RUN make"), Some("[2/3] RUN make"));
        assert_eq!(instruction("#6 [build 2/3] COPY . ."), Some("[build 2/3] COPY . ."));
        assert_eq!(instruction("build │ #6 [2/3] RUN make"), Some("[2/3] RUN make"));
        for other in [
            "#1 [internal] load build definition",
            "#6 DONE 0.1s",
            "#6 [1/x] y",
            "# [1/2] y",
            "[1/2] y",
            "",
        ] {
            assert_eq!(instruction(other), None, "{other}");
        }
    }
}
