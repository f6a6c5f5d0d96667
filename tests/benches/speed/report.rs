//! The results, as Markdown.

use std::fmt;

use anyhow::{Result, ensure};

use crate::machine::Machine;

/// A row of the table of targets.
#[derive(Debug)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// The target.
    pub(crate) reach: &'static str,
    /// The result.
    pub(crate) measured: String,
    /// Whether the result reaches the target.
    pub(crate) reached: bool,
}

/// A separate table after the targets.
#[derive(Debug)]
pub(crate) struct Details {
    /// Its title.
    pub(crate) title: String,
    /// The names of its columns.
    pub(crate) columns: Vec<String>,
    /// Its rows.
    pub(crate) rows: Vec<Vec<String>>,
}

/// All results.
#[derive(Debug)]
pub(crate) struct Report {
    machine: Machine,
    rows: Vec<Row>,
    details: Vec<Details>,
    not_measured: Vec<&'static str>,
}

impl Report {
    /// An empty report for this machine.
    pub(crate) fn begin() -> Result<Self> {
        Ok(Self {
            machine: Machine::look()?,
            rows: Vec::new(),
            details: Vec::new(),
            not_measured: Vec::new(),
        })
    }

    /// Adds a target and its result.
    pub(crate) fn row(&mut self, row: Row) {
        let verdict = verdict(row.reached);
        say(format_args!("  {}: {} ({}: {verdict})", row.what, row.measured, row.reach));
        self.rows.push(row);
    }

    /// Adds a part that failed.
    pub(crate) fn not_measured(&mut self, part: &'static str, error: &anyhow::Error) {
        self.not_measured.push(part);
        self.row(Row {
            what: format!("all of `{part}`"),
            reach: "is measured",
            measured: format!("{error:#}").replace(['\n', '|'], " "),
            reached: false,
        });
    }

    /// Adds a table with details.
    pub(crate) fn details(&mut self, details: Details) {
        self.details.push(details);
    }

    /// Prints the targets with their results, and then the details.
    ///
    /// # Errors
    /// If a part failed, after everything is printed.
    pub(crate) fn print(&self) -> Result<()> {
        use std::io::Write as _;

        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{}\n", self.machine)?;
        let rows = self.rows.iter().map(|row| {
            let what = row.what.clone();
            vec![what, row.reach.to_owned(), row.measured.clone(), verdict(row.reached).to_owned()]
        });
        let columns = ["what", "reach", "measured", ""].map(str::to_owned);
        write!(out, "{}", Table { columns: &columns, rows: &rows.collect::<Vec<_>>() })?;
        for details in &self.details {
            writeln!(out, "\n### {}\n", details.title)?;
            write!(out, "{}", Table { columns: &details.columns, rows: &details.rows })?;
        }
        ensure!(self.not_measured.is_empty(), "not measured: {}", self.not_measured.join(", "));
        Ok(())
    }
}

fn verdict(reached: bool) -> &'static str {
    if reached { "reached" } else { "**missed**" }
}

/// Reports progress to the person who waits.
pub(crate) fn say(words: fmt::Arguments<'_>) {
    eprintln!("{words}");
}

struct Table<'a> {
    columns: &'a [String],
    rows: &'a [Vec<String>],
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {} |", self.columns.join(" | "))?;
        writeln!(f, "|{}", "---|".repeat(self.columns.len()))?;
        for row in self.rows {
            writeln!(f, "| {} |", row.join(" | "))?;
        }
        Ok(())
    }
}
