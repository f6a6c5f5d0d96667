//! Prints results: tables for people, JSON for programs or graphs for Graphviz on standard output, messages on standard error. Names,
//! messages and errors may come from strangers, so control sequences and invisible characters are removed.

use std::fmt::Display;
use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use gantry_ops::terminal;
use serde::Serialize;

use super::dot::Graph;
use crate::exit::UsageError;

/// The output format: tables for people, the API's JSON for programs, or a graph for Graphviz.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    // Doc comments here would turn one line of every command's help into six.
    #[default]
    Table,
    Json,
    Dot,
}

/// Why a command without a graph is refused, before it does anything.
pub(crate) const NO_GRAPH: &str = "`-o dot` is for `gantry why`, `gantry impact` and `gantry wave show`: the others print tables and JSON";

impl Output {
    pub(crate) fn print<T: Serialize>(self, value: &T, for_people: impl Display) -> Result<()> {
        match self {
            Self::Table => write_out(&terminal::lines(&for_people.to_string())),
            Self::Json => {
                let json = serde_json::to_string_pretty(value)
                    .context("cannot write the answer as JSON")?;
                write_out(&format!("{}\n", terminal::json(&json)))
            }
            Self::Dot => Err(UsageError(NO_GRAPH.to_owned()).into()),
        }
    }

    /// Like [`Self::print`], for what can be drawn.
    pub(crate) fn print_graph<T: Serialize>(
        self,
        value: &T,
        for_people: impl Display,
        graph: impl FnOnce() -> Graph,
    ) -> Result<()> {
        match self {
            Self::Table | Self::Json => self.print(value, for_people),
            Self::Dot => write_out(&terminal::lines(&graph().to_string())),
        }
    }

    /// Prints a message about a completed action that has no result; nothing in JSON.
    pub(crate) fn done(self, words: impl Display) -> Result<()> {
        match self {
            Self::Table => write_out(&terminal::lines(&format!("{words}\n"))),
            Self::Json | Self::Dot => Ok(()),
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
