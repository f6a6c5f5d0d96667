//! Reads the properties of a map by name and type, and collects all mistakes.
//!
//! The types are those of the original executor's YAML library: a number is a text where a text is wanted, but a quoted
//! number is no number.

use std::rc::Rc;
use std::time::Duration;

use super::mistake::{Mistakes, Severity};
use super::traced::Traced;
use super::yaml::{Entry, Kind, Node, Scalar};

/// A value with its byte offset in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed<T> {
    pub(super) at: usize,
    pub(super) value: T,
}

/// More entries than a list of texts has. Each step has a copy of the task's variables.
const MOST_TEXTS: usize = 256;

/// The properties of one map, such as a step.
pub(super) struct Fields<'a> {
    /// What has these properties, as messages call it: "a step".
    what: &'static str,
    at: usize,
    entries: &'a [Entry],
    known: Vec<&'static str>,
    mistakes: &'a mut Mistakes,
}

impl<'a> Fields<'a> {
    /// The properties of a node, none if it is not a map, which is an error.
    pub(super) fn of(what: &'static str, node: &'a Node, mistakes: &'a mut Mistakes) -> Self {
        let entries: &[Entry] = match &node.kind {
            Kind::Map(entries) => entries,
            Kind::Null => &[],
            Kind::Scalar(_) | Kind::List(_) => {
                let found = node.kind_name();
                mistakes.error(node.at, format!("{what} is a map of properties, not {found}"));
                &[]
            }
        };
        Self { what, at: node.at, entries, known: Vec::new(), mistakes }
    }

    /// Where the map begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn error(&mut self, at: usize, message: impl Into<String>) {
        self.mistakes.error(at, message);
    }

    pub(super) fn warning(&mut self, at: usize, message: impl Into<String>) {
        self.mistakes.warning(at, message);
    }

    pub(super) fn mistakes(&mut self) -> &mut Mistakes {
        self.mistakes
    }

    /// The value of a property; of several with this name the last one.
    pub(super) fn node(&mut self, name: &'static str) -> Option<&'a Rc<Node>> {
        self.known.push(name);
        let found = self.entries.iter().rev().find(|entry| entry.key.exposed() == name)?;
        (!matches!(found.value.kind, Kind::Null)).then_some(&found.value)
    }

    fn scalar(&mut self, name: &'static str, wanted: &str) -> Option<(usize, &'a Scalar)> {
        let node = self.node(name)?;
        if let Kind::Scalar(scalar) = &node.kind {
            return Some((node.at, scalar));
        }
        let found = node.kind_name();
        self.mistakes.error(node.at, format!("`{name}` is {wanted}, not {found}"));
        None
    }

    /// A text; numbers and truth values are taken as they are written.
    pub(super) fn text(&mut self, name: &'static str) -> Option<Placed<Traced>> {
        let (at, scalar) = self.scalar(name, "a text")?;
        Some(Placed { at, value: scalar.text.clone() })
    }

    /// A text that everyone sees who sees the run, such as a name, and that messages quote: it contains no secret.
    pub(super) fn shown(&mut self, at: usize, what: &str, text: &Traced) -> Option<String> {
        if let Some(secret) = text.secret() {
            let message =
                format!("`{}` is a secret, and {what} is shown: use a value", secret.name);
            self.mistakes.error(at, message);
            return None;
        }
        Some(text.exposed().to_owned())
    }

    /// A property that is shown; an empty one is as good as none.
    pub(super) fn shown_text(&mut self, name: &'static str) -> Option<Placed<String>> {
        let Placed { at, value } = self.text(name)?;
        let value = self.shown(at, &format!("`{name}`"), &value)?;
        (!value.is_empty()).then_some(Placed { at, value })
    }

    /// A list of texts that are shown.
    pub(super) fn shown_texts(&mut self, name: &'static str) -> Vec<Placed<String>> {
        let texts = self.texts(name).into_iter();
        let what = format!("`{name}`");
        texts
            .filter_map(|Placed { at, value }| {
                Some(Placed { at, value: self.shown(at, &what, &value)? })
            })
            .collect()
    }

    pub(super) fn flag(&mut self, name: &'static str) -> bool {
        self.optional_flag(name).unwrap_or(false)
    }

    pub(super) fn optional_flag(&mut self, name: &'static str) -> Option<bool> {
        let (at, scalar) = self.scalar(name, "`true` or `false`")?;
        let flag = scalar.plain.then(|| truth(scalar.text.exposed())).flatten();
        if flag.is_none() {
            let text = &scalar.text;
            self.mistakes
                .error(at, format!("`{name}` is `true` or `false` without quotes, not `{text}`"));
        }
        flag
    }

    pub(super) fn integer(&mut self, name: &'static str) -> Option<Placed<i64>> {
        let (at, scalar) = self.scalar(name, "a whole number")?;
        let value = scalar.plain.then(|| integer(scalar.text.exposed())).flatten();
        if value.is_none() {
            let text = &scalar.text;
            let message =
                format!("`{name}` is a whole number without quotes or unit, not `{text}`");
            self.mistakes.error(at, message);
        }
        value.map(|value| Placed { at, value })
    }

    /// Seconds; 0 and less are as good as nothing.
    pub(super) fn seconds(&mut self, name: &'static str) -> Option<Duration> {
        let seconds = u64::try_from(self.integer(name)?.value).ok()?;
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// A number of times.
    pub(super) fn count(&mut self, name: &'static str, most: u32) -> u32 {
        let Some(Placed { at, value }) = self.integer(name) else { return 0 };
        let count = u32::try_from(value).ok().filter(|count| *count <= most);
        if count.is_none() {
            self.mistakes
                .error(at, format!("`{name}` is at least 0 and at most {most}, not {value}"));
        }
        count.unwrap_or(0)
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, name: &'static str) -> Vec<Placed<Traced>> {
        let Some(node) = self.node(name) else { return Vec::new() };
        let Kind::List(items) = &node.kind else {
            let found = node.kind_name();
            self.mistakes
                .error(node.at, format!("`{name}` is a list, not {found}: write `{name}: [...]`"));
            return Vec::new();
        };
        if items.len() > MOST_TEXTS {
            self.mistakes.error(node.at, format!("`{name}` has more than {MOST_TEXTS} entries"));
            return Vec::new();
        }
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match &item.kind {
                Kind::Scalar(scalar) => {
                    texts.push(Placed { at: item.at, value: scalar.text.clone() })
                }
                Kind::Null => texts.push(Placed { at: item.at, value: Traced::default() }),
                Kind::List(_) | Kind::Map(_) => {
                    let found = item.kind_name();
                    self.mistakes.error(
                        item.at,
                        format!("`{name}` is a list of texts, and this is {found}"),
                    );
                }
            }
        }
        texts
    }

    /// A list of at most `most` maps.
    pub(super) fn maps(&mut self, name: &'static str, most: usize) -> &'a [Rc<Node>] {
        let Some(node) = self.node(name) else { return &[] };
        match &node.kind {
            Kind::List(items) if items.len() > most => {
                let message =
                    format!("`{name}` has {} entries, and at most {most} are read", items.len());
                self.mistakes.error(node.at, message);
                &[]
            }
            Kind::List(items) => items,
            Kind::Null | Kind::Scalar(_) | Kind::Map(_) => {
                let found = node.kind_name();
                let message =
                    format!("`{name}` is a list, not {found}: begin each entry with `- `");
                self.mistakes.error(node.at, message);
                &[]
            }
        }
    }

    /// Warns of the properties that nothing has asked for, and of those that are written twice.
    pub(super) fn finish(self) {
        let Self { what, entries, known, mistakes, .. } = self;
        let mut seen: std::collections::HashMap<&str, &Entry> = std::collections::HashMap::new();
        for entry in entries {
            let name = entry.key.exposed();
            if let Some(value) = entry.key.first_inserted() {
                let value = &value.name;
                mistakes.error(
                    entry.at,
                    format!("`{value}` is in the name of a property: write the name out"),
                );
            } else if mistakes.is_full(Severity::Warning) {
                // The suggestion below costs more than the rest.
            } else if !known.contains(&name) {
                let remedy = super::similar::suggestion(name, &known);
                mistakes.warning(
                    entry.at,
                    format!("{what} has no property `{name}`, and it is ignored{remedy}"),
                );
            } else if seen.insert(name, entry).is_some_and(|first| !first.copied) && !entry.copied {
                mistakes.warning(
                    entry.at,
                    format!("`{name}` is written twice, and the last one counts: remove one"),
                );
            }
        }
    }
}

/// YAML 1.1, as the original reads it.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Some(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Some(false)
        }
        _ => None,
    }
}

/// A number with a fraction.
pub(super) fn fraction(text: &str) -> Option<f64> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE_".contains(&b))
        && text.bytes().any(|b| b.is_ascii_digit());
    is_number.then(|| text.replace('_', "").parse().ok()).flatten()
}

/// A whole number where one is wanted: a fraction is cut off, as in the original.
fn integer(text: &str) -> Option<i64> {
    let cut = || fraction(text)?.trunc().to_string().parse().ok();
    whole(text).or_else(cut)
}

/// A whole number in any of YAML 1.1's forms.
pub(super) fn whole(text: &str) -> Option<i64> {
    let text = text.replace('_', "");
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(&text)),
    };
    let radix = |prefix: &[&str], radix| {
        let digits = prefix.iter().find_map(|prefix| digits.strip_prefix(prefix))?;
        let unsigned = digits.starts_with(|c: char| c.is_ascii_hexdigit());
        unsigned.then(|| i64::from_str_radix(digits, radix).ok()).flatten()
    };
    let value = radix(&["0x", "0X"], 16)
        .or_else(|| radix(&["0b", "0B"], 2))
        .or_else(|| radix(&["0o", "0O", "0"], 8))
        .or_else(|| {
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
        })?;
    Some(sign * value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_have_the_forms_of_yaml() {
        for (text, expected) in [
            ("90", Some(90)),
            ("-1", Some(-1)),
            ("+1_000", Some(1000)),
            ("0x10", Some(16)),
            ("010", Some(8)),
            ("0", Some(0)),
            ("08", Some(8)),
            ("0b11", Some(3)),
            ("1.9", Some(1)),
            ("5m", None),
            ("", None),
            ("-", None),
            ("--1", None),
            ("0x-1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(integer(text), expected, "{text}");
        }
    }
}
