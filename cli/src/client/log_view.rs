//! Shows a run's log: plain lines, and on a terminal a last line with the run's status.

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

pub(crate) struct LogView {
    run: String,
    show: Show,
    sanitiser: Sanitiser,
    /// The last line of the text, as long as it is incomplete.
    begun_line: String,
    bar: Option<ProgressBar>,
    /// The run's status, in words.
    status: String,
    /// The instruction of the Dockerfile that began last.
    instruction: String,
}

impl LogView {
    /// `colours`: whether the log may use colours. Without a terminal it never does.
    pub(crate) fn new(run: &str, show: Show, colours: bool) -> Self {
        let on_terminal = match show {
            Show::Log => io::stdout().is_terminal(),
            Show::State | Show::LogAside => io::stderr().is_terminal(),
        };
        Self {
            run: run.to_owned(),
            show,
            sanitiser: Sanitiser::new(colours && on_terminal),
            begun_line: String::new(),
            bar: io::stderr().is_terminal().then(spinner),
            status: run.to_owned(),
            instruction: String::new(),
        }
    }

    /// Shows a part of the log.
    pub(crate) fn log(&mut self, text: &str) -> Result<()> {
        if self.show == Show::State {
            return Ok(());
        }
        self.begun_line.push_str(&self.sanitiser.push(text));
        // Only complete lines are printed, so that the status line is never within one.
        match self.begun_line.rfind('\n') {
            Some(end) => {
                let rest = self.begun_line.split_off(end + 1);
                let lines = std::mem::replace(&mut self.begun_line, rest);
                self.write(&lines)?;
                if let Some(instruction) = lines.lines().rev().find_map(instruction) {
                    instruction.clone_into(&mut self.instruction);
                    self.draw();
                }
                Ok(())
            }
            None if self.begun_line.len() > LONGEST_HELD => self.end_line(),
            None => Ok(()),
        }
    }

    /// Prints a message about the run, between two lines of its log.
    pub(crate) fn note(&mut self, words: &str) -> Result<()> {
        self.end_line()?;
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
        self.end_line()?;
        let reset = self.sanitiser.finish();
        if !reset.is_empty() {
            self.write(reset)?;
        }
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<()> {
        if self.begun_line.is_empty() {
            return Ok(());
        }
        let line = std::mem::take(&mut self.begun_line) + "\n";
        self.write(&line)
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
    fn dockerfile_instructions_are_recognized_in_the_log() {
        assert_eq!(instruction("#6 [2/3] RUN make"), Some("[2/3] RUN make"));
        assert_eq!(instruction("#6 [build 2/3] COPY . ."), Some("[build 2/3] COPY . ."));
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
