//! Where something stands in a file, and text that knows where each part of it was written.

use std::fmt;

/// A place in a file, as editors count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The lines of a text, to find positions by byte offset.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    /// The position of a byte; of the end, if there are fewer bytes.
    pub(super) fn position(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..offset.min(self.text.len())).unwrap_or("");
        Position { line, column: before.chars().count() + 1 }
    }
}

/// A text that was assembled from parts of a source. Parts from elsewhere, such as the value of an alias, are at the
/// place in the source where they are used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mapped {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    /// The part's first byte in the text.
    start: usize,
    /// Its place in the source.
    source: usize,
    /// Whether its bytes are those of the source, one by one; otherwise all of them stand for one place.
    copied: bool,
}

impl Mapped {
    /// The source itself.
    pub(super) fn source(text: &str) -> Self {
        let mut mapped = Self::default();
        mapped.copy(text, 0);
        mapped
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Appends a part of the source, which begins at `source` there.
    pub(super) fn copy(&mut self, text: &str, source: usize) {
        self.push(text, source, true);
    }

    /// Appends text from elsewhere, used at `source`.
    pub(super) fn insert(&mut self, text: &str, source: usize) {
        self.push(text, source, false);
    }

    fn push(&mut self, text: &str, source: usize, copied: bool) {
        if text.is_empty() {
            return;
        }
        let start = self.text.len();
        let goes_on = copied
            && self
                .parts
                .last()
                .is_some_and(|last| last.copied && last.source + start - last.start == source);
        if !goes_on {
            self.parts.push(Part { start, source, copied });
        }
        self.text.push_str(text);
    }

    /// Appends a part of another text over the same source.
    pub(super) fn extend(&mut self, other: &Self, from: usize, to: usize) {
        let mut at = from;
        for index in other.part_index(from)..other.parts.len() {
            let part = other.parts[index];
            if part.start >= to {
                break;
            }
            let end =
                other.parts.get(index + 1).map_or(other.text.len(), |next| next.start).min(to);
            let text = other.text.get(at..end).unwrap_or("");
            self.push(text, part.place(at), part.copied);
            at = end;
        }
    }

    /// The place in the source of a byte of this text.
    pub(super) fn source_offset(&self, offset: usize) -> usize {
        self.parts.get(self.part_index(offset)).map_or(0, |part| part.place(offset))
    }

    fn part_index(&self, offset: usize) -> usize {
        self.parts.partition_point(|part| part.start <= offset).saturating_sub(1)
    }
}

impl Part {
    fn place(&self, offset: usize) -> usize {
        if self.copied { self.source + offset.saturating_sub(self.start) } else { self.source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        let lines = Lines::of("a\nbé$c\n\nd");
        let at = |offset| lines.position(offset).to_string();
        assert_eq!([at(0), at(1), at(2), at(5), at(6)], ["1:1", "1:2", "2:1", "2:3", "2:4"]);
        assert_eq!([at(8), at(9), at(99)], ["3:1", "4:1", "4:2"]);
    }

    #[test]
    fn a_place_in_an_assembled_text_is_found_in_its_source() {
        let source = "keep drop keep";
        let mut text = Mapped::default();
        text.copy(&source[..5], 0);
        text.insert("value", 5);
        text.copy(&source[9..], 9);
        assert_eq!(text.as_str(), "keep value keep");
        assert_eq!([0, 3, 5, 9, 10, 12].map(|at| text.source_offset(at)), [0, 3, 5, 5, 9, 11]);

        let mut part = Mapped::default();
        part.extend(&text, 3, 12);
        assert_eq!(part.as_str(), "p value k");
        assert_eq!([0, 2, 6, 7, 8].map(|at| part.source_offset(at)), [3, 5, 5, 9, 10]);
    }
}
