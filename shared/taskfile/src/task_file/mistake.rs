//! What is wrong, or unusual, in a task file.

use std::fmt;

use super::position::Position;

/// How bad a mistake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is accepted, but probably does not do what its author meant.
    Warning,
}

/// Something wrong or unusual at one place of a task file. It contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where.
    pub position: Position,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, and the remedy after a colon.
    pub message: String,
    /// Whether it is a value that the file reads and nobody gave.
    pub is_missing_value: bool,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}: {severity}: {}", self.position, self.message)
    }
}

/// The mistakes found so far, by byte offset in the source.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    found: Vec<Found>,
}

#[derive(Debug)]
struct Found {
    at: usize,
    severity: Severity,
    message: String,
    is_missing_value: bool,
}

/// In characters.
const LONGEST_MESSAGE: usize = 1000;

/// More mistakes than anyone reads at once.
const MOST: usize = 100;

impl Mistakes {
    pub(super) fn error(&mut self, at: usize, message: impl Into<String>) {
        self.add(at, Severity::Error, message.into(), false);
    }

    pub(super) fn warning(&mut self, at: usize, message: impl Into<String>) {
        self.add(at, Severity::Warning, message.into(), false);
    }

    /// A warning of a value that nobody gave.
    pub(super) fn missing_value(&mut self, at: usize, message: impl Into<String>) {
        self.add(at, Severity::Warning, message.into(), true);
    }

    fn add(&mut self, at: usize, severity: Severity, mut message: String, is_missing_value: bool) {
        if !self.is_full(severity) {
            // A message quotes what is wrong, which may be as long as the file.
            if let Some((end, _)) = message.char_indices().nth(LONGEST_MESSAGE) {
                message.truncate(end);
                message.push('…');
            }
            self.found.push(Found { at, severity, message, is_missing_value });
        }
    }

    /// Whether no more mistakes of this severity are kept. Warnings do not crowd errors out.
    pub(super) fn is_full(&self, severity: Severity) -> bool {
        self.found.iter().filter(|found| found.severity == severity).count() >= MOST
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.iter().any(|found| found.severity == Severity::Error)
    }

    /// In the order of the file.
    pub(super) fn into_list(self, lines: &super::position::Lines<'_>) -> Vec<Mistake> {
        let found = self.found.into_iter();
        let mut list: Vec<Mistake> = found
            .map(|found| Mistake {
                position: lines.position(found.at),
                severity: found.severity,
                message: found.message,
                is_missing_value: found.is_missing_value,
            })
            .collect();
        list.sort();
        list.dedup();
        list
    }
}
