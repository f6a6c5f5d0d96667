//! Splits a name into words and connects them, as version 1.3 of `xstrings` does.

/// `HTTPServer` becomes `http_server`, `http2xx` becomes `http_2xx`, and `Bld4Floor` becomes `bld4_floor`.
pub(super) fn connected(text: &str, connector: char) -> String {
    let mut words = Words { rest: text };
    let mut out = Output { text: String::with_capacity(text.len() + 8), connector };
    let mut word = words.next();
    while !words.rest.is_empty() {
        if word.kind != Kind::Connector {
            out.push(word);
        }
        let before = word;
        word = words.next();
        match before.kind {
            Kind::Connector => out.push(before),
            Kind::Punctuation | Kind::End => {}
            Kind::Number => {
                word = out.push_run(word, &mut words);
                if !matches!(word.kind, Kind::End | Kind::Punctuation) {
                    out.text.push(connector);
                }
            }
            Kind::Upper | Kind::Lower | Kind::Other if word.kind != Kind::Number => {
                out.connect_to(word);
            }
            Kind::Upper | Kind::Lower | Kind::Other => {
                if words.rest.is_empty() {
                    break;
                }
                let number = word;
                word = words.next();
                if word.kind == Kind::Lower {
                    // Lower case letters after a number begin a word with it.
                    out.text.push(connector);
                    out.push(number);
                    word = out.push_run(word, &mut words);
                } else {
                    out.push(number);
                }
                out.connect_to(word);
            }
        }
    }
    out.push(word);
    out.text
}

/// Whether a character connects two words.
pub(super) fn is_connector(letter: char) -> bool {
    matches!(letter, '-' | '_') || letter.is_whitespace()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    /// Upper case, or an upper case letter and lower case ones.
    Upper,
    Lower,
    Connector,
    Punctuation,
    Other,
    /// There is no word left.
    End,
}

#[derive(Debug, Clone, Copy)]
struct Word<'t> {
    kind: Kind,
    text: &'t str,
}

struct Words<'t> {
    rest: &'t str,
}

impl<'t> Words<'t> {
    fn next(&mut self) -> Word<'t> {
        let text = self.rest;
        let kind = text.chars().next().map_or(Kind::End, kind);
        let run = |accepts: fn(Kind) -> bool| text.find(|c| !accepts(self::kind(c)));
        let end = match kind {
            Kind::End => None,
            Kind::Number => run(|kind| kind == Kind::Number),
            Kind::Lower => run(|kind| kind == Kind::Lower),
            Kind::Connector => run(|kind| kind == Kind::Connector),
            Kind::Punctuation => run(|kind| kind == Kind::Punctuation),
            Kind::Other => run(|kind| matches!(kind, Kind::Other | Kind::Upper)),
            Kind::Upper => upper_word(text),
        };
        let (text, rest) = text.split_at(end.unwrap_or(text.len()));
        self.rest = rest;
        Word { kind, text }
    }
}

/// The end of a word that begins with an upper case letter: `HTTP` in `HTTPServer`, then `Server`.
fn upper_word(text: &str) -> Option<usize> {
    let uppers = text.find(|letter| kind(letter) != Kind::Upper)?;
    let before = &text[..uppers];
    let last = before.char_indices().next_back().map_or(0, |(place, _)| place);
    let begins_lower = text[uppers..].chars().next().is_some_and(|c| kind(c) == Kind::Lower);
    match (last, begins_lower) {
        (_, false) => Some(uppers),
        (0, true) => {
            let lowers = text[uppers..].find(|letter| kind(letter) != Kind::Lower)?;
            Some(uppers + lowers)
        }
        (last, true) => Some(last),
    }
}

fn kind(letter: char) -> Kind {
    match letter {
        letter if is_connector(letter) => Kind::Connector,
        '$' | '+' | '<' | '=' | '>' | '^' | '`' | '|' | '~' => Kind::Other,
        letter if letter.is_ascii_punctuation() => Kind::Punctuation,
        letter if letter.is_uppercase() => Kind::Upper,
        // Chinese characters make no words.
        '\u{3400}'..='\u{9fff}' | '\u{20000}'..='\u{2ffff}' => Kind::Other,
        letter if letter.is_alphabetic() => Kind::Lower,
        letter if letter.is_numeric() => Kind::Number,
        _ => Kind::Other,
    }
}

struct Output {
    text: String,
    connector: char,
}

impl Output {
    fn push(&mut self, word: Word<'_>) {
        let Word { kind, text } = word;
        self.text.extend(text.chars().map(|letter| match kind {
            Kind::Connector => self.connector,
            Kind::Upper => super::to_lower(letter),
            Kind::Number | Kind::Lower | Kind::Punctuation | Kind::Other | Kind::End => letter,
        }));
    }

    /// Pushes lower case words and numbers, and returns the word after them.
    fn push_run<'t>(&mut self, first: Word<'t>, words: &mut Words<'t>) -> Word<'t> {
        let mut word = first;
        while matches!(word.kind, Kind::Lower | Kind::Number) {
            self.push(word);
            word = words.next();
        }
        word
    }

    /// Pushes a connector, unless this word needs none before it.
    fn connect_to(&mut self, word: Word<'_>) {
        if !matches!(word.kind, Kind::End | Kind::Connector | Kind::Punctuation) {
            self.text.push(self.connector);
        }
    }
}
