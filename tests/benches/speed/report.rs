//! What was measured, as Markdown.

use std::fmt;

use anyhow::{Result, ensure};

use crate::machine::Machine;

/// A row of DESIGN's table of speeds to reach.
#[derive(Debug)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// What is to be reached.
    pub(crate) reach: &'static str,
    /// What was.
    pub(crate) measured: String,
    /// Whether that reaches it.
    pub(crate) reached: bool,
}

/// A table of its own, behind the rows.
#[derive(Debug)]
pub(crate) struct Details {
    /// Its title.
    pub(crate) title: String,
    /// The names of its columns.
    pub(crate) columns: Vec<String>,
    /// Its rows.
    pub(crate) rows: Vec<Vec<String>>,
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    machine: Machine,
    rows: Vec<Row>,
    details: Vec<Details>,
    not_measured: Vec<&'static str>,
}

impl Report {
    /// Nothing is measured yet but the machine.
    pub(crate) fn begin() -> Result<Self> {
        Ok(Self {
            machine: Machine::look()?,
            rows: Vec::new(),
            details: Vec::new(),
            not_measured: Vec::new(),
        })
    }

    /// A speed that is to be reached.
    pub(crate) fn row(&mut self, row: Row) {
        let verdict = verdict(row.reached);
        say(format_args!("  {}: {} ({}: {verdict})", row.what, row.measured, row.reach));
        self.rows.push(row);
    }

    /// A part that could not be measured to its end.
    pub(crate) fn not_measured(&mut self, part: &'static str, error: &anyhow::Error) {
        self.not_measured.push(part);
        self.row(Row {
            what: format!("all of `{part}`"),
            reach: "is measured",
            measured: format!("{error:#}").replace(['\n', '|'], " "),
            reached: false,
        });
    }

    /// What stands behind it.
    pub(crate) fn details(&mut self, details: Details) {
        self.details.push(details);
    }

    /// Prints all of it: first what is to be reached and what was.
    ///
    /// # Errors
    /// Of what was not measured, once the rest is printed.
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

/// Tells the person who waits how far it is.
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
