//! Text of a task file in which values, secrets and run variables stand.

use std::fmt;
use std::ops::Range;

use crate::template::{Origin, Trust};

/// A text that knows which parts of it came from a value, a secret or a run variable.
///
/// `Debug` and `Display` show secrets as `***`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Traced {
    text: String,
    /// In order, not overlapping, not empty.
    inserted: Vec<(Range<usize>, Origin)>,
}

impl Traced {
    /// Text that is written in the file itself.
    #[must_use]
    pub fn written(text: impl Into<String>) -> Self {
        Self { text: text.into(), inserted: Vec::new() }
    }

    /// The whole text, with secrets in it.
    #[must_use]
    pub fn exposed(&self) -> &str {
        &self.text
    }

    /// Whether a part of it is a secret.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        self.secret().is_some()
    }

    /// The first secret in it, by name.
    #[must_use]
    pub fn secret(&self) -> Option<&Origin> {
        self.inserted.iter().map(|(_, origin)| origin).find(|origin| origin.trust == Trust::Secret)
    }

    /// The first value, secret or variable in it.
    #[must_use]
    pub fn first_inserted(&self) -> Option<&Origin> {
        self.inserted.first().map(|(_, origin)| origin)
    }

    pub(super) fn push_written(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub(super) fn append(&mut self, other: &Self) {
        for (text, origin) in other.parts() {
            match origin {
                Some(origin) => self.push_inserted(text, origin),
                None => self.push_written(text),
            }
        }
    }

    pub(super) fn push_char(&mut self, char: char, origin: Option<&Origin>) {
        let start = self.text.len();
        self.text.push(char);
        self.mark(start, origin);
    }

    pub(super) fn push_inserted(&mut self, text: &str, origin: &Origin) {
        let start = self.text.len();
        self.text.push_str(text);
        self.mark(start, Some(origin));
    }

    fn mark(&mut self, start: usize, origin: Option<&Origin>) {
        let (Some(origin), true) = (origin, start < self.text.len()) else { return };
        match self.inserted.last_mut() {
            Some((range, last)) if range.end == start && last == origin => {
                range.end = self.text.len()
            }
            Some(_) | None => self.inserted.push((start..self.text.len(), origin.clone())),
        }
    }

    /// Its parts in order: what is written in the file, and what was inserted.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&str, Option<&Origin>)> {
        let mut at = 0;
        let inserted = self.inserted.iter().flat_map(move |(range, origin)| {
            let before = at..range.start;
            at = range.end;
            [(before, None), (range.clone(), Some(origin))]
        });
        let last = self.inserted.last().map_or(0, |(range, _)| range.end)..self.text.len();
        inserted
            .chain(std::iter::once((last, None)))
            .filter_map(|(range, origin)| Some((self.text.get(range)?, origin)))
    }

    /// A part of it.
    pub(super) fn slice(&self, part: Range<usize>) -> Self {
        let Some(text) = self.text.get(part.clone()) else { return Self::default() };
        let inserted = self.inserted.iter().filter_map(|(range, origin)| {
            let (start, end) = (range.start.max(part.start), range.end.min(part.end));
            (start < end).then(|| (start - part.start..end - part.start, origin.clone()))
        });
        Self { text: text.to_owned(), inserted: inserted.collect() }
    }

    /// The text before and after the first `separator` that is written in the file.
    pub(super) fn split_once(&self, separator: char) -> Option<(Self, Self)> {
        let at =
            self.chars().find(|(_, char, origin)| *char == separator && may_structure(*origin))?.0;
        Some((self.slice(0..at), self.slice(at + separator.len_utf8()..self.text.len())))
    }

    /// Its characters with their byte offsets and origins.
    pub(super) fn chars(&self) -> impl Iterator<Item = (usize, char, Option<&Origin>)> {
        let mut inserted = self.inserted.iter().peekable();
        self.text.char_indices().map(move |(at, char)| {
            while inserted.peek().is_some_and(|(range, _)| range.end <= at) {
                inserted.next();
            }
            let origin =
                inserted.peek().filter(|(range, _)| range.start <= at).map(|(_, origin)| origin);
            (at, char, origin)
        })
    }
}

/// Whether a character may separate words or parts: it is written in the file, or in a value that was saved with the
/// task.
pub(super) fn may_structure(origin: Option<&Origin>) -> bool {
    origin.is_none_or(|origin| origin.trust == Trust::Saved)
}

impl From<&str> for Traced {
    fn from(text: &str) -> Self {
        Self::written(text)
    }
}

impl fmt::Display for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = 0;
        for (range, _) in self.inserted.iter().filter(|(_, origin)| origin.trust == Trust::Secret) {
            write!(f, "{}***", self.text.get(shown..range.start).unwrap_or(""))?;
            shown = range.end;
        }
        f.write_str(self.text.get(shown..).unwrap_or(""))
    }
}

impl fmt::Debug for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(name: &str, trust: Trust) -> Origin {
        Origin { name: name.into(), trust }
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut text = Traced::written("TOKEN=");
        text.push_inserted("s3cret", &origin(".Secrets.token", Trust::Secret));
        text.push_written("!");
        assert_eq!((text.to_string(), text.exposed()), ("TOKEN=***!".to_owned(), "TOKEN=s3cret!"));
        assert_eq!(format!("{text:?}"), "\"TOKEN=***!\"");
        assert_eq!(text.slice(8..13).to_string(), "***!");
    }

    #[test]
    fn only_a_separator_of_the_file_or_of_its_saved_values_separates() {
        let mut text = Traced::default();
        text.push_inserted("a=b", &origin(".Values.given", Trust::Given));
        text.push_written("=");
        text.push_inserted("c", &origin(".Values.saved", Trust::Saved));
        let (name, value) = text.split_once('=').unwrap();
        assert_eq!((name.exposed(), value.exposed()), ("a=b", "c"));
    }
}
