//! Prints results: tables for people or JSON for programs on standard output, messages on standard error. Names,
//! messages and errors may come from strangers, so control sequences and invisible characters are removed.

use std::fmt::Display;
use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use gantry_ops::terminal;
use serde::Serialize;

/// The output format: tables for people, or the API's JSON for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    // Doc comments here would turn one line of every command's help into six.
    #[default]
    Table,
    Json,
}

impl Output {
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

    /// Prints a message about a completed action that has no result; nothing in JSON.
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
/// [`io::Error`], also if a pipe is closed: `main` treats that as success, for `gantry runs list | head`.
pub(crate) fn write_out(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Prints a message on standard error. Errors are ignored.
pub(crate) fn say(words: impl Display) {
    let _unread = writeln!(io::stderr().lock(), "{}", terminal::lines(&words.to_string()));
}
