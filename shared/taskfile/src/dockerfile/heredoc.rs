//! The heredocs that an instruction begins: `<<NAME`, `<<-NAME`, `3<<"NAME"`.
//!
//! In: the text of a logical line. Out: the terminators, in order, as BuildKit's lexer finds them. The lexer
//! understands quotes, escapes and the braces of variables, and finds no heredoc in a line that it cannot lex.

use std::iter::Peekable;
use std::str::Chars;

use super::dialect::Heredocs;

/// How deep `${A:-${B:-…}}` may go.
const DEEPEST: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heredoc {
    /// The line that ends it.
    pub(super) name: String,
    /// `<<-`: tabs before the terminator do not count.
    pub(super) is_dedented: bool,
}

/// Why heredocs cannot be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// The engine refuses the file.
    Refused,
    /// Braces are nested deeper than [`DEEPEST`].
    TooDeep,
}

/// Why a text cannot be lexed.
enum LexError {
    Syntax,
    TooDeep,
}

pub(super) fn heredocs(line: &str, kind: Heredocs) -> Result<Vec<Heredoc>, Unreadable> {
    let words = match Lexer::new(line, kind, true).words() {
        Ok(words) => words,
        Err(LexError::Syntax) => return Ok(Vec::new()),
        Err(LexError::TooDeep) => return Err(Unreadable::TooDeep),
    };
    words.iter().filter_map(|word| heredoc(word, kind).transpose()).collect()
}

fn heredoc(word: &str, kind: Heredocs) -> Result<Option<Heredoc>, Unreadable> {
    let digits = word.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let Some(rest) = digits.strip_prefix("<<") else { return Ok(None) };
    let (rest, is_dedented) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
    let blanks: &[char] = if kind.spaced { &['\t', '\n', '\u{c}', '\r', ' '] } else { &[] };
    let raw = rest.trim_start_matches(blanks);
    if raw.is_empty() || raw.contains('<') {
        return Ok(None);
    }
    let words = Lexer::new(raw, kind, false).words().map_err(|error| match error {
        LexError::Syntax => Unreadable::Refused,
        LexError::TooDeep => Unreadable::TooDeep,
    })?;
    // `<<""` has no word, `<<$(a b)` has two: neither is a heredoc.
    Ok(<[String; 1]>::try_from(words).ok().map(|[name]| Heredoc { name, is_dedented }))
}

/// Splits a text into words. Variables are kept as written.
struct Lexer<'a> {
    letters: Peekable<Chars<'a>>,
    kind: Heredocs,
    /// Whether quotes and escapes are kept.
    raw: bool,
    depth: usize,
    words: Vec<String>,
    word: String,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str, kind: Heredocs, raw: bool) -> Self {
        // Go's scanner skips a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let letters = text.chars().peekable();
        Self { letters, kind, raw, depth: 0, words: Vec::new(), word: String::new() }
    }

    fn words(mut self) -> Result<Vec<String>, LexError> {
        while let Some(letter) = self.letters.next() {
            match letter {
                '\'' | '"' => {
                    let quoted = self.quoted(letter, self.raw)?;
                    self.word.push_str(&quoted);
                }
                // The text of a variable is split at its blanks, even at those within quotes.
                '$' => {
                    let variable = self.dollar(self.raw)?;
                    variable.chars().for_each(|letter| self.add(letter));
                }
                '\\' => {
                    if self.raw {
                        self.word.push(letter);
                    }
                    self.word.extend(self.letters.next());
                }
                '<' if self.kind.spaced && self.letters.next_if_eq(&'<').is_some() => {
                    self.word.push_str("<<");
                    while let Some(blank) =
                        self.letters.next_if(|letter| matches!(letter, '\t' | '\r' | ' '))
                    {
                        self.word.push(blank);
                    }
                }
                letter => self.add(letter),
            }
        }
        self.end_word();
        Ok(self.words)
    }

    fn add(&mut self, letter: char) {
        if letter.is_whitespace() {
            self.end_word();
        } else {
            self.word.push(letter);
        }
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    fn quoted(&mut self, quote: char, raw_escapes: bool) -> Result<String, LexError> {
        let mut text = String::new();
        if self.raw {
            text.push(quote);
        }
        loop {
            match self.letters.next().ok_or(LexError::Syntax)? {
                letter if letter == quote => {
                    if self.raw {
                        text.push(quote);
                    }
                    return Ok(text);
                }
                '$' if quote == '"' => text.push_str(&self.dollar(raw_escapes)?),
                '\\' if quote == '"' => {
                    if raw_escapes {
                        text.push('\\');
                    }
                    match self.letters.next_if(|next| matches!(next, '"' | '$' | '\\')) {
                        Some(escaped) => text.push(escaped),
                        None if self.letters.peek().is_some() => text.push('\\'),
                        None => {}
                    }
                }
                letter => text.push(letter),
            }
        }
    }

    /// Reads a variable after its `$`, and returns its text.
    fn dollar(&mut self, raw_escapes: bool) -> Result<String, LexError> {
        if self.letters.next_if_eq(&'{').is_none() {
            return Ok(format!("${}", self.name()));
        }
        if matches!(self.letters.peek(), None | Some('{' | '}' | ':')) {
            return Err(LexError::Syntax);
        }
        if self.depth == DEEPEST {
            return Err(LexError::TooDeep);
        }
        self.depth += 1;
        let variable = self.braced(raw_escapes);
        self.depth -= 1;
        variable
    }

    fn braced(&mut self, raw_escapes: bool) -> Result<String, LexError> {
        let name = self.name();
        let mut operator = self.next()?.to_string();
        match operator.as_str() {
            "}" => return Ok(format!("${{{name}}}")),
            ":" => operator.push(self.next()?),
            "?" => {}
            "+" | "-" | "#" | "%" if self.kind.patterns => {}
            "/" if self.kind.patterns => {
                self.letters.next_if_eq(&'/');
                let pattern = self.until('/', true)?;
                let replacement = self.until('}', true)?;
                return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
            }
            _ => return Err(LexError::Syntax),
        }
        let is_pattern = operator.ends_with(['#', '%']);
        let word = self.until('}', if self.kind.patterns { is_pattern } else { raw_escapes })?;
        Ok(format!("${{{name}{operator}{word}}}"))
    }

    fn next(&mut self) -> Result<char, LexError> {
        self.letters.next().ok_or(LexError::Syntax)
    }

    fn until(&mut self, stop: char, raw_escapes: bool) -> Result<String, LexError> {
        let mut text = String::new();
        loop {
            match self.next()? {
                letter if letter == stop => return Ok(text),
                quote @ ('\'' | '"') => text.push_str(&self.quoted(quote, raw_escapes)?),
                '$' => text.push_str(&self.dollar(raw_escapes)?),
                '\\' => {
                    if raw_escapes {
                        text.push('\\');
                    }
                    text.push(self.next()?);
                }
                letter => text.push(letter),
            }
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        if self.letters.peek().is_some_and(|letter| letter.is_numeric()) {
            while let Some(digit) = self.letters.next_if(|letter| letter.is_numeric()) {
                name.push(digit);
            }
            return name;
        }
        if let Some(special) = self.letters.next_if(|letter| "@*#?-$!".contains(*letter)) {
            return special.to_string();
        }
        while let Some(letter) =
            self.letters.next_if(|letter| letter.is_alphanumeric() || *letter == '_')
        {
            name.push(letter);
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(line: &str, spaced: bool) -> Vec<String> {
        let found = heredocs(line, Heredocs { patterns: true, spaced }).unwrap();
        found.into_iter().map(|heredoc| heredoc.name).collect()
    }

    #[test]
    fn heredocs_are_found_as_the_engine_finds_them() {
        for (line, found) in [
            ("RUN <<EOF", &["EOF"][..]),
            ("COPY <<\"A B\" <<-C /d/", &["A B", "C"]),
            ("RUN true <<#x", &["#x"]),
            ("RUN true <<\"USER 1\"", &["USER 1"]),
            ("RUN true <<\"\"", &[]),
            ("RUN true <<''", &[]),
            ("RUN 3<<E\\OF x<<NO", &["EOF"]),
            ("RUN <<$X", &["$X"]),
            ("RUN <<\u{feff}EOF", &["EOF"]),
            ("RUN echo ${} <<EOF", &[]),
            ("RUN echo 'open <<EOF", &[]),
            ("RUN echo ${X:-' <<EOF '}", &["EOF"]),
            ("RUN cat <<<word", &[]),
            ("RUN echo '<<EOF' \\<<EOF", &[]),
        ] {
            assert_eq!(names(line, false), found, "{line}");
            assert_eq!(names(line, true), found, "{line}");
        }
        assert!(names("RUN cat << EOF", false).is_empty());
        assert_eq!(names("RUN cat << EOF", true), ["EOF"]);
    }

    #[test]
    fn braces_are_followed_to_a_depth() {
        let deep = "${X:-".repeat(100_000);
        let kind = Heredocs { patterns: true, spaced: false };
        assert_eq!(heredocs(&deep, kind), Err(Unreadable::TooDeep));
    }
}
