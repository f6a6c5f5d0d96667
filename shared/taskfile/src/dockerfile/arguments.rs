//! The arguments that are set before the first stage, for use in FROM.

use std::collections::BTreeMap;

use super::expand::{Work, expand};
use super::lines::Instruction;
use super::operands::flags;
use super::{BuildInputs, DockerfileError};

/// The arguments that are set before the first stage, for use in FROM.
pub(super) struct Arguments<'a> {
    escape: char,
    given: &'a BTreeMap<String, String>,
    set: BTreeMap<String, String>,
    /// The total length of the values.
    bytes: usize,
    work: Work,
}

/// The limit for the total length of the values.
const MOST_BYTES: usize = 1 << 20;

impl<'a> Arguments<'a> {
    pub(super) fn new(escape: char, inputs: BuildInputs<'a>) -> Self {
        let mut set = BTreeMap::new();
        for (prefix, platform) in [("BUILD", inputs.build_platform), ("TARGET", inputs.platform)] {
            for (name, value) in [
                ("PLATFORM", platform.to_string()),
                ("OS", platform.os().to_owned()),
                ("ARCH", platform.architecture().to_owned()),
                ("VARIANT", platform.variant().unwrap_or_default().to_owned()),
            ] {
                let name = format!("{prefix}{name}");
                let value = inputs.build_args.get(&name).cloned().unwrap_or(value);
                set.insert(name, value);
            }
        }
        Self { escape, given: inputs.build_args, set, bytes: 0, work: Work::default() }
    }

    pub(super) fn declare(&mut self, arg: &Instruction) -> Result<(), DockerfileError> {
        let (_, rest) = flags(arg.arguments.piece(), arg.flag_escape);
        for word in quoted_words(rest.text, self.escape) {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name, Some(default)),
                None => (word.as_str(), None),
            };
            let value = match (self.given.get(name), default) {
                (Some(given), _) => given.clone(),
                (None, Some(default)) => self.expand(arg.line, default)?,
                (None, None) => continue,
            };
            self.bytes += value.len();
            if self.bytes > MOST_BYTES {
                return Err(DockerfileError::LongArguments { line: arg.line });
            }
            self.set.insert(name.to_owned(), value);
        }
        Ok(())
    }

    pub(super) fn expand(&self, line: usize, word: &str) -> Result<String, DockerfileError> {
        expand(word, self.escape, &self.set, &self.work).map_err(|source| DockerfileError::Expand {
            line,
            word: word.to_owned(),
            source,
        })
    }
}

/// Splits a text at blanks outside of quotes. Quotes and escapes are kept; [`expand`] removes them.
fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter.is_whitespace() && quote.is_none() {
            words.push(std::mem::take(&mut word));
            continue;
        }
        word.push(letter);
        match (letter, quote) {
            ('\'' | '"', None) => quote = Some(letter),
            (_, Some(open)) if letter == open => quote = None,
            (_, None | Some('"')) if letter == escape => word.extend(letters.next()),
            _ => {}
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}
