//! What commands print: tables for people, JSON for programs, on standard output; words about it on standard error. Names, messages
//! and errors may be a stranger's: nothing in them moves a terminal or hides.

use std::fmt::Display;
use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use gantry_ops::terminal;
use serde::Serialize;

/// For whom the answer is: a table for people, the API's own JSON for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    // A comment to each here would turn one line of every command's help into six.
    #[default]
    Table,
    Json,
}

impl Output {
    /// Prints an answer.
    pub(crate) fn print<T: Serialize>(self, value: &T, for_people: impl Display) -> Result<()> {
        match self {
            Self::Table => write_out(&terminal::lines(&for_people.to_string())),
            Self::Json => {
                let json = serde_json::to_string_pretty(value)
                    .context("cannot write the answer as JSON")?;
                write_out(&format!("{}\n", terminal::json(&json)))
            }
        }
    }

    /// Says that something was done for which there is no answer to print.
    pub(crate) fn done(self, words: impl Display) -> Result<()> {
        match self {
            Self::Table => write_out(&terminal::lines(&format!("{words}\n"))),
            Self::Json => Ok(()),
        }
    }
}

/// Writes to standard output.
///
/// # Errors
/// [`io::Error`], also when a pipe is closed: `gantry runs list | head` is no failure of gantry's, see `main`.
pub(crate) fn write_out(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Says something about what is done, on standard error. Nobody there to read it is no failure.
pub(crate) fn say(words: impl Display) {
    let _unread = writeln!(io::stderr().lock(), "{}", terminal::lines(&words.to_string()));
}
