//! Splits the text of a Dockerfile into instructions, as BuildKit's parser does.
//!
//! In: the text. Out: each instruction as one logical line: continuations are joined, comments within them removed, and
//! heredoc bodies skipped. Each byte of a line keeps its offset in the file.

use std::ops::Range;

use super::DockerfileError;
use super::dialect::{Dialect, Heredocs, Syntax};
use super::heredoc::{Unreadable, heredocs};
use super::operands::flags;

/// Text with the offset of each byte in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spanned {
    text: String,
    at: Vec<usize>,
}

impl Spanned {
    pub(super) fn push(&mut self, letter: char, at: usize) {
        self.text.push(letter);
        self.at.extend((0..letter.len_utf8()).map(|i| at + i));
    }

    fn push_str(&mut self, text: &str, at: usize) {
        self.text.push_str(text);
        self.at.extend((0..text.len()).map(|i| at + i));
    }

    pub(super) fn piece(&self) -> Piece<'_> {
        Piece { text: &self.text, at: &self.at }
    }
}

/// A slice of [`Spanned`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    at: &'a [usize],
}

impl<'a> Piece<'a> {
    /// The bytes in `range`, whose ends must be character boundaries.
    pub(super) fn slice(self, range: Range<usize>) -> Self {
        Self { text: &self.text[range.clone()], at: &self.at[range] }
    }

    pub(super) fn trim(self) -> Self {
        let start = self.text.len() - self.text.trim_start().len();
        self.slice(start..start + self.text.trim().len())
    }

    /// Each byte with its offset in the file.
    pub(super) fn bytes(self) -> Vec<(u8, usize)> {
        self.text.bytes().zip(self.at.iter().copied()).collect()
    }

    /// Each character with its offset in the file.
    pub(super) fn chars(self) -> impl Iterator<Item = (char, usize)> + 'a {
        self.text.char_indices().map(|(i, letter)| (letter, self.at[i]))
    }

    pub(super) fn split_once(self, separator: char) -> Option<(Self, Self)> {
        let i = self.text.find(separator)?;
        let rest = i + separator.len_utf8();
        Some((self.slice(0..i), self.slice(rest..self.text.len())))
    }

    /// Splits at blanks. A leading blank yields an empty first word, as with a regular expression.
    pub(super) fn words(self) -> Vec<Self> {
        let mut words = Vec::new();
        let mut rest = self;
        while let Some(i) = rest.text.find(BLANKS) {
            words.push(rest.slice(0..i));
            let after = rest.text[i..].trim_start_matches(BLANKS);
            rest = rest.slice(rest.text.len() - after.len()..rest.text.len());
        }
        words.push(rest);
        words
    }

    /// The range in the file from the first to the last byte; `None` for empty text.
    pub(super) fn range(self) -> Option<Range<usize>> {
        Some(*self.at.first()?..self.at.last()? + 1)
    }
}

/// The blanks between the words of an instruction: fewer than Unicode's.
const BLANKS: [char; 5] = [' ', '\t', '\r', '\u{b}', '\u{c}'];

/// One instruction of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instruction {
    /// The line where it begins, from 1.
    pub(super) line: usize,
    /// Its keyword in lower case.
    pub(super) keyword: String,
    /// What follows the keyword.
    pub(super) arguments: Spanned,
    /// The escape character in its flags.
    pub(super) flag_escape: char,
}

impl Instruction {
    fn from_line(line: usize, text: Piece<'_>, flag_escape: char) -> Self {
        let text = text.trim();
        let split = text.text.find(BLANKS).unwrap_or(text.text.len());
        let arguments = text.slice(split..text.text.len());
        let blanks = arguments.text.len() - arguments.text.trim_start_matches(BLANKS).len();
        let arguments = arguments.slice(blanks..arguments.text.len());
        Self {
            line,
            keyword: text.text[..split].to_lowercase(),
            arguments: Spanned { text: arguments.text.to_owned(), at: arguments.at.to_owned() },
            flag_escape,
        }
    }

    fn may_have_heredocs(&self, dialect: Dialect) -> bool {
        if let Some(kept) = self.kept_by_onbuild() {
            return kept.may_have_heredocs_itself(dialect);
        }
        self.may_have_heredocs_itself(dialect)
    }

    fn may_have_heredocs_itself(&self, dialect: Dialect) -> bool {
        let may_hold = matches!(self.keyword.as_str(), "add" | "copy" | "run");
        may_hold && self.arguments.text.contains("<<") && {
            let (_, words) = flags(self.arguments.piece(), self.flag_escape);
            !is_json_array(words.text, dialect.array_and_more)
        }
    }

    /// The instruction that `ONBUILD` keeps for images that are built on this one.
    pub(super) fn kept_by_onbuild(&self) -> Option<Self> {
        (self.keyword == "onbuild")
            .then(|| Self::from_line(self.line, self.arguments.piece(), self.flag_escape))
    }
}

/// A Dockerfile, split.
#[derive(Debug)]
pub(super) struct Lines {
    /// The character that escapes others and continues a line.
    pub(super) escape: char,
    pub(super) instructions: Vec<Instruction>,
}

impl Lines {
    pub(super) fn split(text: &str, dialect: Dialect) -> Result<Self, DockerfileError> {
        let mut reader = Reader::new(text, dialect);
        let mut directives =
            Directives { knows_check: dialect.syntax == Syntax::Check, ..Directives::default() };
        let mut instructions = Vec::new();
        while let Some(physical) = reader.next() {
            let first = physical.trim_start();
            directives.read(first)?;
            if first.text.starts_with('#') || first.text.is_empty() {
                continue;
            }
            let logical = join_continued(first, directives.escape(), &mut reader);
            let flag_escape = if dialect.escapes_flags { directives.escape() } else { '\\' };
            let instruction = Instruction::from_line(physical.number, logical.piece(), flag_escape);
            if let Some(kind) = dialect.heredocs
                && instruction.may_have_heredocs(dialect)
            {
                skip_heredocs(physical.number, logical.piece().text, kind, &mut reader)?;
            }
            instructions.push(instruction);
        }
        Ok(Self { escape: directives.escape(), instructions })
    }

    /// Refuses unknown instructions, as the engine's own frontend does.
    pub(super) fn check_keywords(&self) -> Result<(), DockerfileError> {
        let unknown = self.instructions.iter().find(|it| !KEYWORDS.contains(&it.keyword.as_str()));
        unknown.map_or(Ok(()), |it| {
            Err(DockerfileError::Unknown { line: it.line, keyword: it.keyword.clone() })
        })
    }
}

const KEYWORDS: [&str; 18] = [
    "add",
    "arg",
    "cmd",
    "copy",
    "entrypoint",
    "env",
    "expose",
    "from",
    "healthcheck",
    "label",
    "maintainer",
    "onbuild",
    "run",
    "shell",
    "stopsignal",
    "user",
    "volume",
    "workdir",
];

/// The frontend image that `# syntax=` names, with its line.
pub(super) fn syntax(text: &str, dialect: Dialect) -> Option<(usize, Spanned)> {
    let mut found = None;
    for line in Reader::new(text, dialect) {
        if line.number == 1 && line.text.starts_with("#!") && dialect.syntax != Syntax::AnyName {
            continue;
        }
        let Some((name, value)) = directive(line) else { break };
        match name.as_str() {
            "syntax" => {
                let mut image = Spanned::default();
                image.push_str(value.text.split(' ').next().unwrap_or(value.text), value.at);
                found = Some((line.number, image));
                if dialect.syntax != Syntax::AnyName {
                    break;
                }
            }
            "escape" => {}
            "check" if dialect.syntax == Syntax::Check => {}
            _ if dialect.syntax == Syntax::AnyName => {}
            _ => break,
        }
    }
    found
}

/// A line of the file without its line ending.
#[derive(Debug, Clone, Copy)]
struct Physical<'a> {
    /// From 1.
    number: usize,
    text: &'a str,
    at: usize,
}

impl Physical<'_> {
    fn trim_start(self) -> Self {
        let text = self.text.trim_start();
        Self { text, at: self.at + self.text.len() - text.len(), ..self }
    }
}

#[derive(Clone)]
struct Reader<'a> {
    rest: &'a str,
    at: usize,
    number: usize,
    one_return: bool,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, dialect: Dialect) -> Self {
        let rest = text.strip_prefix('\u{feff}').unwrap_or(text);
        let at = text.len() - rest.len();
        Self { rest, at, number: 0, one_return: dialect.one_return }
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Physical<'a>;

    fn next(&mut self) -> Option<Physical<'a>> {
        let line = self.rest.split_inclusive('\n').next()?;
        let at = self.at;
        self.rest = &self.rest[line.len()..];
        self.at += line.len();
        self.number += 1;
        let line = line.strip_suffix('\n').unwrap_or(line);
        let text = if self.one_return {
            line.strip_suffix('\r').unwrap_or(line)
        } else {
            line.trim_end_matches('\r')
        };
        Some(Physical { number: self.number, text, at })
    }
}

/// Parser directives: they come first in the file, each at most once.
#[derive(Default)]
struct Directives {
    knows_check: bool,
    ended: bool,
    seen: Vec<String>,
    escape: Option<char>,
}

impl Directives {
    fn escape(&self) -> char {
        self.escape.unwrap_or('\\')
    }

    fn read(&mut self, line: Physical<'_>) -> Result<(), DockerfileError> {
        if self.ended {
            return Ok(());
        }
        let known = |name: &str| match name {
            "syntax" | "escape" => true,
            "check" => self.knows_check,
            _ => false,
        };
        let Some((name, value)) = directive(line).filter(|(name, _)| known(name)) else {
            self.ended = true;
            return Ok(());
        };
        if self.seen.contains(&name) {
            return Err(DockerfileError::RepeatedDirective { line: line.number, name });
        }
        match (name.as_str(), value.text) {
            ("escape", "\\") => self.escape = Some('\\'),
            ("escape", "`") => self.escape = Some('`'),
            ("escape", other) => {
                return Err(DockerfileError::Escape { line: line.number, token: other.to_owned() });
            }
            _ => {}
        }
        self.seen.push(name);
        Ok(())
    }
}

/// The blanks between the parts of a directive, as in Go's regular expressions.
const DIRECTIVE_BLANKS: [char; 5] = ['\t', '\n', '\u{c}', '\r', ' '];

/// Parses `# name = value`, and returns the name in lower case.
fn directive(line: Physical<'_>) -> Option<(String, Physical<'_>)> {
    let (name, value) = line.text.strip_prefix('#')?.split_once('=')?;
    let name = name.trim_matches(DIRECTIVE_BLANKS).to_ascii_lowercase();
    let mut letters = name.bytes();
    let is_name = letters.next().is_some_and(|first| first.is_ascii_lowercase())
        && letters.all(|letter| letter.is_ascii_alphanumeric());
    let value = value.trim_start_matches(DIRECTIVE_BLANKS);
    let at = line.at + line.text.len() - value.len();
    let value = Physical { text: value.trim_end_matches(DIRECTIVE_BLANKS), at, ..line };
    (is_name && !value.text.is_empty()).then_some((name, value))
}

/// Joins the logical line that begins with `first`. Comments and empty lines within it are left out.
fn join_continued(first: Physical<'_>, escape: char, reader: &mut Reader<'_>) -> Spanned {
    let mut logical = Spanned::default();
    let (mut text, mut goes_on) = without_continuation(first.text, escape);
    logical.push_str(text, first.at);
    while goes_on {
        let Some(line) = reader.next() else { break };
        let content = line.text.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        (text, goes_on) = without_continuation(line.text, escape);
        logical.push_str(text, line.at);
    }
    logical
}

/// Removes the escape character that continues a line, and returns whether there was one. A doubled escape character at
/// the end is not a continuation.
fn without_continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(kept) if !kept.ends_with(escape) => (kept, true),
        _ => (line, false),
    }
}

/// Skips the bodies of the heredocs that begin in a line.
fn skip_heredocs(
    number: usize,
    line: &str,
    kind: Heredocs,
    reader: &mut Reader<'_>,
) -> Result<(), DockerfileError> {
    let found = heredocs(line, kind).map_err(|error| match error {
        Unreadable::Refused => DockerfileError::HeredocName { line: number },
        Unreadable::TooDeep => DockerfileError::TooDeep { line: number },
    })?;
    for heredoc in found {
        let is_terminated = reader.any(|line| {
            // Here every version removes all trailing carriage returns.
            let text = line.text.trim_end_matches('\r');
            let text = if heredoc.is_dedented { text.trim_start_matches('\t') } else { text };
            text == heredoc.name
        });
        if !is_terminated {
            return Err(DockerfileError::Heredoc { line: number, name: heredoc.name });
        }
    }
    Ok(())
}

fn is_json_array(text: &str, and_more: bool) -> bool {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return false;
    }
    let mut values = serde_json::Deserializer::from_str(text);
    let array = <Vec<serde::de::IgnoredAny> as serde::Deserialize>::deserialize(&mut values);
    array.is_ok() && (and_more || values.end().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEWEST: Dialect = Dialect::OTHERS[5];

    fn split(text: &str) -> Vec<(usize, String, String)> {
        let lines = Lines::split(text, NEWEST).unwrap();
        lines
            .instructions
            .into_iter()
            .map(|i| (i.line, i.keyword, i.arguments.piece().text.to_owned()))
            .collect()
    }

    fn owned(expected: &[(usize, &str, &str)]) -> Vec<(usize, String, String)> {
        expected.iter().map(|&(n, a, b)| (n, a.to_owned(), b.to_owned())).collect()
    }

    #[test]
    fn continued_lines_are_one_and_comments_inside_them_vanish() {
        let text = "RUN a \\\n  # no\n\n  b \\  \n c\nCMD d\\\\\nUSER x";
        assert_eq!(
            split(text),
            owned(&[(1, "run", "a   b  c"), (6, "cmd", "d\\\\"), (7, "user", "x")])
        );
    }

    #[test]
    fn a_line_of_nothing_but_the_escape_goes_on() {
        assert_eq!(split("RUN a\\\n\\\nb"), owned(&[(1, "run", "ab")]));
        assert_eq!(split("RUN a\\"), owned(&[(1, "run", "a")]));
    }

    #[test]
    fn the_escape_directive_changes_what_continues_a_line() {
        let text = "# escape=`\nRUN dir C:\\\nRUN a `\nb";
        assert_eq!(split(text), owned(&[(2, "run", "dir C:\\"), (3, "run", "a b")]));
        // Behind a comment it is a comment.
        assert_eq!(split("# hi\n# escape=`\nRUN a `\nUSER b").len(), 2);
    }

    #[test]
    fn bodies_of_heredocs_are_no_instructions() {
        for text in [
            "RUN <<EOF\nFROM x\nEOF\nUSER b",
            "RUN <<-'EOF' cat\nFROM x\n\t\tEOF\nUSER b",
            "COPY <<\"A B\" <<C /d/\nFROM x\nA B\nFROM y\nC\nUSER b",
            "RUN 3<<EOF\r\nFROM x\r\nEOF\r\nUSER b",
            "RUN cat << EOF\nFROM x\nEOF\nUSER b",
            "ONBUILD RUN <<EOF\nFROM x\nEOF\nUSER b",
        ] {
            let keywords: Vec<_> = split(text).into_iter().map(|i| i.1).collect();
            assert_eq!(keywords.len(), 2, "{text:?}: {keywords:?}");
            assert_eq!(keywords[1], "user", "{text:?}");
        }
    }

    #[test]
    fn what_only_looks_like_a_heredoc_is_none() {
        for text in [
            "RUN [\"sh\", \"-c\", \"cat <<EOF\"]\nUSER b",
            "RUN cat <<< word\nUSER b",
            "RUN echo '<<EOF'\nUSER b",
            "RUN echo \\<<EOF\nUSER b",
            "ENV A=<<EOF\nUSER b",
        ] {
            assert_eq!(split(text).len(), 2, "{text:?}");
        }
        assert!(matches!(
            Lines::split("FROM a\nRUN <<EOF\nx\n", NEWEST),
            Err(DockerfileError::Heredoc { line: 2, .. })
        ));
    }

    #[test]
    fn pieces_know_their_place_in_the_file() {
        let text = "\u{feff}RUN é \\\n  word";
        let lines = Lines::split(text, NEWEST).unwrap();
        let words = lines.instructions[0].arguments.piece().words();
        let places: Vec<_> = words.iter().map(|w| &text[w.range().unwrap()]).collect();
        assert_eq!(places, ["é", "word"]);
    }
}
