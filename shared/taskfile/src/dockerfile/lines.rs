//! Dockerfile text to instructions, as BuildKit's parser splits it.
//!
//! In: the text. Out: each instruction as one logical line (continuations joined, comments inside them gone, heredoc
//! bodies skipped) whose every byte still knows where it stood in the file.

use std::ops::Range;

use super::DockerfileError;

/// Text whose every byte knows its place in the file.
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
    /// The bytes between two places of this piece; both must be character boundaries.
    pub(super) fn slice(self, range: Range<usize>) -> Self {
        Self { text: &self.text[range.clone()], at: &self.at[range] }
    }

    pub(super) fn trim(self) -> Self {
        let start = self.text.len() - self.text.trim_start().len();
        self.slice(start..start + self.text.trim().len())
    }

    /// Each character with its place in the file.
    pub(super) fn chars(self) -> impl Iterator<Item = (char, usize)> + 'a {
        self.text.char_indices().map(|(i, letter)| (letter, self.at[i]))
    }

    pub(super) fn split_once(self, separator: char) -> Option<(Self, Self)> {
        let i = self.text.find(separator)?;
        let rest = i + separator.len_utf8();
        Some((self.slice(0..i), self.slice(rest..self.text.len())))
    }

    /// The words between blanks. A leading blank gives an empty first word, as a regular expression's split does.
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

    /// From the first to behind the last byte in the file; empty text has no place.
    pub(super) fn range(self) -> Option<Range<usize>> {
        Some(*self.at.first()?..self.at.last()? + 1)
    }
}

/// What separates words of an instruction. Narrower than Unicode's blanks.
const BLANKS: [char; 5] = [' ', '\t', '\r', '\u{b}', '\u{c}'];

/// One instruction of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instruction {
    /// Where it begins, from 1.
    pub(super) line: usize,
    /// Its keyword in lower case.
    pub(super) keyword: String,
    /// What follows the keyword.
    pub(super) arguments: Spanned,
}

impl Instruction {
    fn from_line(line: usize, text: Piece<'_>) -> Self {
        let text = text.trim();
        let split = text.text.find(BLANKS).unwrap_or(text.text.len());
        let arguments = text.slice(split..text.text.len());
        let blanks = arguments.text.len() - arguments.text.trim_start_matches(BLANKS).len();
        let arguments = arguments.slice(blanks..arguments.text.len());
        Self {
            line,
            keyword: text.text[..split].to_lowercase(),
            arguments: Spanned { text: arguments.text.to_owned(), at: arguments.at.to_owned() },
        }
    }

    /// The instruction that `ONBUILD` keeps for the images built from this one.
    pub(super) fn kept_by_onbuild(&self) -> Option<Self> {
        (self.keyword == "onbuild").then(|| Self::from_line(self.line, self.arguments.piece()))
    }
}

/// A Dockerfile, split.
#[derive(Debug)]
pub(super) struct Lines {
    /// What escapes a character and continues a line.
    pub(super) escape: char,
    /// The image of the `# syntax=` directive, with its line.
    pub(super) syntax: Option<(usize, Spanned)>,
    /// The instructions in order.
    pub(super) instructions: Vec<Instruction>,
}

impl Lines {
    pub(super) fn split(text: &str) -> Result<Self, DockerfileError> {
        let mut reader = Reader::new(text);
        let mut directives = Directives::default();
        let mut instructions = Vec::new();
        while let Some(physical) = reader.next() {
            let first = physical.trim_start();
            directives.read(first)?;
            if first.text.starts_with('#') || first.text.is_empty() {
                continue;
            }
            let logical = join_continued(first, directives.escape(), &mut reader);
            let instruction = Instruction::from_line(physical.number, logical.piece());
            skip_heredocs(&instruction, &mut reader)?;
            instructions.push(instruction);
        }
        Ok(Self { escape: directives.escape(), syntax: directives.syntax, instructions })
    }
}

/// A line of the file without its end.
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
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        let rest = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { rest, at: text.len() - rest.len(), number: 0 }
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
        Some(Physical { number: self.number, text: line.trim_end_matches(['\r', '\n']), at })
    }
}

/// Parser directives: only at the top, each once, ended by the first line that is none.
#[derive(Default)]
struct Directives {
    ended: bool,
    /// The first line says what runs the file. What reads it is then still looked for, what escapes in it is not.
    behind_interpreter: bool,
    seen: Vec<String>,
    escape: Option<char>,
    syntax: Option<(usize, Spanned)>,
}

impl Directives {
    fn escape(&self) -> char {
        self.escape.unwrap_or('\\')
    }

    fn read(&mut self, line: Physical<'_>) -> Result<(), DockerfileError> {
        if self.ended {
            return Ok(());
        }
        if line.number == 1 && line.text.starts_with("#!") {
            self.behind_interpreter = true;
            return Ok(());
        }
        let Some((name, value)) = directive(line) else {
            self.ended = true;
            return Ok(());
        };
        if self.seen.contains(&name) {
            return Err(DockerfileError::RepeatedDirective { line: line.number, name });
        }
        match (name.as_str(), value.text) {
            ("escape", _) if self.behind_interpreter => {}
            ("escape", "\\") => self.escape = Some('\\'),
            ("escape", "`") => self.escape = Some('`'),
            ("escape", other) => {
                return Err(DockerfileError::Escape { line: line.number, token: other.to_owned() });
            }
            ("syntax", text) => {
                let mut image = Spanned::default();
                image.push_str(text.split(' ').next().unwrap_or(text), value.at);
                self.syntax = Some((line.number, image));
            }
            _ => {}
        }
        self.seen.push(name);
        Ok(())
    }
}

/// `# name = value` of a known name.
fn directive(line: Physical<'_>) -> Option<(String, Physical<'_>)> {
    let (name, value) = line.text.strip_prefix('#')?.split_once('=')?;
    let name = name.trim().to_ascii_lowercase();
    let at = line.at + line.text.len() - value.trim_start().len();
    let value = Physical { text: value.trim(), at, ..line };
    let known = matches!(name.as_str(), "syntax" | "escape" | "check") && !value.text.is_empty();
    known.then_some((name, value))
}

/// The logical line that `first` begins. Comments and empty lines between its parts are left out.
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

/// A doubled escape at the end of a line is an escaped escape, no continuation.
fn without_continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(kept) if !kept.ends_with(escape) => (kept, true),
        _ => (line, false),
    }
}

struct Heredoc {
    name: String,
    /// `<<-`: tabs before the terminator do not count.
    dedented: bool,
    /// Written `<< NAME`: only the newest engines read this as a heredoc, so it is one if it is terminated.
    spaced: bool,
}

impl Heredoc {
    /// Moves the reader behind the terminator; says whether there is one.
    fn skip(&self, reader: &mut Reader<'_>) -> bool {
        reader.any(|line| {
            let text = if self.dedented { line.text.trim_start_matches('\t') } else { line.text };
            text == self.name
        })
    }
}

fn skip_heredocs(
    instruction: &Instruction,
    reader: &mut Reader<'_>,
) -> Result<(), DockerfileError> {
    if let Some(kept) = instruction.kept_by_onbuild() {
        return skip_heredocs_of(&kept, reader);
    }
    skip_heredocs_of(instruction, reader)
}

fn skip_heredocs_of(
    instruction: &Instruction,
    reader: &mut Reader<'_>,
) -> Result<(), DockerfileError> {
    let text = instruction.arguments.piece().text;
    let may_hold = matches!(instruction.keyword.as_str(), "add" | "copy" | "run");
    if !may_hold || !text.contains("<<") || is_json_array(text) {
        return Ok(());
    }
    for heredoc in heredocs(text) {
        let mut ahead = reader.clone();
        if heredoc.skip(&mut ahead) {
            *reader = ahead;
        } else if !heredoc.spaced {
            return Err(DockerfileError::Heredoc { line: instruction.line, name: heredoc.name });
        }
    }
    Ok(())
}

fn is_json_array(text: &str) -> bool {
    serde_json::from_str::<Vec<serde::de::IgnoredAny>>(text).is_ok()
}

fn heredocs(text: &str) -> Vec<Heredoc> {
    raw_words(text).unwrap_or_default().iter().filter_map(|word| heredoc(word)).collect()
}

/// Words with their quotes and escapes; `<<` keeps the blanks after it. `None` if a quote stays open.
fn raw_words(text: &str) -> Option<Vec<String>> {
    let mut words = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter.is_whitespace() {
            words.push(String::new());
            continue;
        }
        let word = words.last_mut()?;
        word.push(letter);
        match letter {
            '\'' | '"' => loop {
                let quoted = letters.next()?;
                word.push(quoted);
                if quoted == letter {
                    break;
                }
                if quoted == '\\' && letter == '"' {
                    word.extend(letters.next());
                }
            },
            '\\' => word.extend(letters.next()),
            '<' if letters.next_if_eq(&'<').is_some() => {
                word.push('<');
                while let Some(blank) = letters.next_if(|letter| letter.is_whitespace()) {
                    word.push(blank);
                }
            }
            _ => {}
        }
    }
    Some(words)
}

fn heredoc(word: &str) -> Option<Heredoc> {
    let rest =
        word.trim_start_matches(|letter: char| letter.is_ascii_digit()).strip_prefix("<<")?;
    let (rest, dedented) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
    let raw = rest.trim_start();
    if raw.is_empty() || raw.contains('<') {
        return None;
    }
    Some(Heredoc { name: unquoted(raw), dedented, spaced: raw.len() < rest.len() })
}

fn unquoted(raw: &str) -> String {
    let mut name = String::new();
    let mut letters = raw.chars();
    let mut quote = None;
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\'' | '"', None) => quote = Some(letter),
            (_, Some(open)) if letter == open => quote = None,
            ('\\', None | Some('"')) => name.extend(letters.next()),
            _ => name.push(letter),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<(usize, String, String)> {
        let lines = Lines::split(text).unwrap();
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
            "RUN echo $((1 << 2))\nUSER b",
            "RUN [\"sh\", \"-c\", \"cat <<EOF\"]\nUSER b",
            "RUN cat <<< word\nUSER b",
            "RUN echo '<<EOF'\nUSER b",
            "RUN echo \\<<EOF\nUSER b",
            "ENV A=<<EOF\nUSER b",
        ] {
            assert_eq!(split(text).len(), 2, "{text:?}");
        }
        assert!(matches!(
            Lines::split("FROM a\nRUN <<EOF\nx\n"),
            Err(DockerfileError::Heredoc { line: 2, .. })
        ));
    }

    #[test]
    fn pieces_know_their_place_in_the_file() {
        let text = "\u{feff}RUN é \\\n  word";
        let lines = Lines::split(text).unwrap();
        let words = lines.instructions[0].arguments.piece().words();
        let places: Vec<_> = words.iter().map(|w| &text[w.range().unwrap()]).collect();
        assert_eq!(places, ["é", "word"]);
    }
}
