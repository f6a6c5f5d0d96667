//! Keeps values, secrets and run variables out of the text that is parsed.
//!
//! A value that was inserted as text could end a string and add a step, a key or an argument. So the text gets a mark in
//! its place, which means nothing to YAML, and the value comes back when the structure is fixed.

use super::traced::Traced;
use crate::template::Origin;

/// Around the number of an insertion. They are private-use characters, which no task file needs.
const OPEN: char = '\u{E000}';
const CLOSE: char = '\u{E001}';

/// The values that were taken out of a text.
#[derive(Debug, Default)]
pub(super) struct Insertions {
    values: Vec<(String, Origin)>,
}

impl Insertions {
    /// Keeps a value, and returns what stands for it in the text.
    pub(super) fn keep(&mut self, value: String, origin: Origin) -> String {
        self.values.push((value, origin));
        format!("{OPEN}{}{CLOSE}", self.values.len() - 1)
    }

    /// Keeps all values in a text, and returns the text with their marks.
    pub(super) fn keep_all(&mut self, text: &Traced) -> String {
        let parts = text.parts();
        parts
            .map(|(text, origin)| match origin {
                Some(origin) => self.keep(text.to_owned(), origin.clone()),
                None => text.to_owned(),
            })
            .collect()
    }

    /// The length of the text with the values in it, in bytes.
    pub(super) fn restored_length(&self, text: &str) -> usize {
        let numbers =
            text.split(OPEN).skip(1).filter_map(|part| part.split_once(CLOSE)?.0.parse().ok());
        let values = numbers.filter_map(|number: usize| self.values.get(number));
        text.len() + values.map(|(value, _)| value.len()).sum::<usize>()
    }

    /// The text with the values in it.
    pub(super) fn restore(&self, text: &str) -> Traced {
        let mut restored = Traced::default();
        let mut parts = text.split(OPEN);
        restored.push_written(parts.next().unwrap_or(""));
        for part in parts {
            let (number, written) = part.split_once(CLOSE).unwrap_or((part, ""));
            if let Some((value, origin)) =
                number.parse().ok().and_then(|n: usize| self.values.get(n))
            {
                restored.push_inserted(value, origin);
            }
            restored.push_written(written);
        }
        restored
    }
}

/// The byte offset of the first character that only insertions may contain.
pub(super) fn reserved(text: &str) -> Option<usize> {
    text.find([OPEN, CLOSE])
}

/// The byte offset of the first mark within an action of a template, where the value would be compared or changed as if
/// it was the mark.
pub(super) fn in_action(text: &str) -> Option<usize> {
    let mut marks = text.match_indices(OPEN).map(|(at, _)| at).peekable();
    let mut rest = 0;
    while let Some(begin) = text.get(rest..).and_then(|rest| rest.find("{{")).map(|at| rest + at) {
        let end =
            text.get(begin..).and_then(|rest| rest.find("}}")).map_or(text.len(), |at| begin + at);
        while marks.next_if(|mark| *mark < begin).is_some() {}
        if let Some(mark) = marks.next_if(|mark| *mark < end) {
            return Some(mark);
        }
        rest = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Trust;

    #[test]
    fn a_value_comes_back_as_it_was_and_in_its_place() {
        let mut insertions = Insertions::default();
        let origin = Origin { name: ".Values.x".into(), trust: Trust::Given };
        let first = insertions.keep("]}\n- ".to_owned(), origin.clone());
        let second = insertions.keep("\u{E000}0\u{E001}".to_owned(), origin);
        let restored = insertions.restore(&format!("a {first}b{second}"));
        assert_eq!(restored.exposed(), "a ]}\n- b\u{E000}0\u{E001}");
        assert_eq!(insertions.restore("\u{E000}7\u{E001}\u{E000}x").exposed(), "");
    }

    #[test]
    fn a_mark_in_an_action_is_found() {
        assert_eq!(in_action("\u{E000}0\u{E001} {{ x }} \u{E000}1\u{E001}"), None);
        assert_eq!(in_action("{{ x }}{{ \"\u{E000}0\u{E001}\" }}"), Some(11));
        assert_eq!(in_action("{{ \u{E000}"), Some(3));
    }
}
