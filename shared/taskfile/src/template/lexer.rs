//! Splits a template into text and the tokens of its actions, as Go does.

use super::error::{TemplateError, TemplateErrorKind};

/// A token, and its place in the template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'t> {
    pub(super) kind: TokenKind,
    /// The offset of its first byte.
    pub(super) at: usize,
    /// As written; text is trimmed.
    pub(super) text: &'t str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// Text between actions.
    Text,
    /// `{{`
    Open,
    /// `}}`
    Close,
    Space,
    /// `|`
    Pipe,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    Comma,
    OpenParenthesis,
    CloseParenthesis,
    /// `.`
    Dot,
    /// `.Name`
    Field,
    /// `$` or `$name`
    Variable,
    /// A function or a keyword.
    Word,
    Number,
    /// `'a'`
    Character,
    /// `"a"`
    Quoted,
    /// `` `a` ``
    Raw,
    /// The end of the template.
    End,
}

/// The tokens up to the first error, and that error.
///
/// The parser reports whichever of its own errors and this one comes first.
pub(super) fn tokens(text: &str) -> (Vec<Token<'_>>, Option<TemplateError>) {
    let mut lexer = Lexer { text, at: 0, tokens: Vec::new() };
    let error = lexer.template().err();
    (lexer.tokens, error)
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    tokens: Vec<Token<'t>>,
}

impl<'t> Lexer<'t> {
    fn template(&mut self) -> Result<(), TemplateError> {
        let mut trims = false;
        while let Some(length) = self.rest().find("{{") {
            let opens = self.at + length;
            let opens_trimmed = trim_opens(&self.text[opens + 2..]);
            self.literal(opens, trims, opens_trimmed);
            self.at = opens + if opens_trimmed { 4 } else { 2 };
            trims = if self.rest().starts_with("/*") {
                self.comment(opens)?
            } else {
                self.push(TokenKind::Open, opens, opens + 2);
                self.action(opens)?
            };
        }
        self.literal(self.text.len(), trims, false);
        self.push(TokenKind::End, self.text.len(), self.text.len());
        Ok(())
    }

    fn literal(&mut self, ends: usize, trim_start: bool, trim_end: bool) {
        let mut literal = &self.text[self.at..ends];
        let mut at = self.at;
        if trim_start {
            literal = literal.trim_start_matches(is_space);
            at = ends - literal.len();
        }
        if trim_end {
            literal = literal.trim_end_matches(is_space);
        }
        if !literal.is_empty() {
            self.push(TokenKind::Text, at, at + literal.len());
        }
    }

    /// Returns whether the text after it is trimmed.
    fn comment(&mut self, opens: usize) -> Result<bool, TemplateError> {
        let Some(length) = self.rest()[2..].find("*/") else {
            return Err(error(opens, TemplateErrorKind::UnclosedComment));
        };
        self.at += 2 + length + 2;
        self.close().ok_or_else(|| error(opens, TemplateErrorKind::CommentNotAlone))
    }

    /// Reads up to `}}`, and returns whether the text after it is trimmed.
    fn action(&mut self, opens: usize) -> Result<bool, TemplateError> {
        let mut parentheses = Vec::new();
        loop {
            let start = self.at;
            if let Some(trims) = self.close() {
                if let Some(at) = parentheses.pop() {
                    return Err(error(at, TemplateErrorKind::UnclosedParenthesis));
                }
                self.push(TokenKind::Close, start, self.at);
                return Ok(trims);
            }
            let Some(letter) = self.rest().chars().next() else {
                return Err(error(opens, TemplateErrorKind::UnclosedAction));
            };
            let kind = match letter {
                letter if is_space(letter) => self.space(),
                '|' => self.one(TokenKind::Pipe),
                '=' => self.one(TokenKind::Assign),
                ',' => self.one(TokenKind::Comma),
                ':' if self.rest().starts_with(":=") => {
                    self.at += 2;
                    TokenKind::Declare
                }
                '(' => {
                    parentheses.push(start);
                    self.one(TokenKind::OpenParenthesis)
                }
                ')' if parentheses.pop().is_some() => self.one(TokenKind::CloseParenthesis),
                '"' => self.quoted('"', TokenKind::Quoted)?,
                '\'' => self.quoted('\'', TokenKind::Character)?,
                '`' => self.raw()?,
                '$' => {
                    self.at += 1;
                    self.name();
                    self.terminated(TokenKind::Variable)?
                }
                '.' if !self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                    self.at += 1;
                    self.name();
                    let kind = if self.at == start + 1 { TokenKind::Dot } else { TokenKind::Field };
                    self.terminated(kind)?
                }
                '.' | '+' | '-' | '0'..='9' => self.number(),
                letter if is_name(letter) => {
                    self.name();
                    self.terminated(TokenKind::Word)?
                }
                letter => return Err(unexpected(start, letter)),
            };
            self.push(kind, start, self.at);
        }
    }

    /// Moves past `}}` or ` -}}`, and returns whether it trims.
    fn close(&mut self) -> Option<bool> {
        let rest = self.rest();
        if rest.starts_with(is_space) && rest[1..].starts_with("-}}") {
            self.at += 4;
            return Some(true);
        }
        rest.starts_with("}}").then(|| {
            self.at += 2;
            false
        })
    }

    /// Leaves the last space to [`Lexer::close`] if it begins ` -}}`.
    fn space(&mut self) -> TokenKind {
        let rest = self.rest();
        let spaces = rest.len() - rest.trim_start_matches(is_space).len();
        let before_trim = rest[spaces..].starts_with("-}}");
        self.at += if before_trim { spaces - 1 } else { spaces };
        TokenKind::Space
    }

    fn one(&mut self, kind: TokenKind) -> TokenKind {
        self.at += 1;
        kind
    }

    fn quoted(&mut self, quote: char, kind: TokenKind) -> Result<TokenKind, TemplateError> {
        let start = self.at;
        let unclosed = || error(start, TemplateErrorKind::UnclosedQuote { quote });
        let mut escaped = true; // the opening quote
        for (length, letter) in self.rest().char_indices() {
            match letter {
                '\n' => return Err(unclosed()),
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                letter if letter == quote => {
                    self.at += length + 1;
                    return Ok(kind);
                }
                _ => {}
            }
        }
        Err(unclosed())
    }

    fn raw(&mut self) -> Result<TokenKind, TemplateError> {
        let length = self.rest()[1..].find('`');
        let length = length.ok_or_else(|| error(self.at, TemplateErrorKind::UnclosedRawString))?;
        self.at += length + 2;
        Ok(TokenKind::Raw)
    }

    /// Reads what may belong to a number. The parser finds out whether it is one.
    fn number(&mut self) -> TokenKind {
        let rest = self.rest();
        let unsigned = rest.trim_start_matches(['+', '-']);
        let is_hex = unsigned.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x"));
        let mut before = None;
        let ends = rest.find(|letter: char| {
            let is_sign = matches!(letter, '+' | '-');
            let may_be_signed = match before {
                None => true,
                Some('e' | 'E') => !is_hex,
                Some(_) => false,
            };
            before = Some(letter);
            if is_sign { !may_be_signed } else { !is_name(letter) && letter != '.' }
        });
        self.at += ends.unwrap_or(rest.len());
        TokenKind::Number
    }

    fn name(&mut self) {
        let rest = self.rest();
        self.at += rest.find(|letter| !is_name(letter)).unwrap_or(rest.len());
    }

    /// A name must end where something else can begin: `$x+1` is an error.
    fn terminated(&self, kind: TokenKind) -> Result<TokenKind, TemplateError> {
        match self.rest().chars().next() {
            None | Some('.' | ',' | '|' | ':' | '(' | ')') => Ok(kind),
            Some(letter) if is_space(letter) || self.rest().starts_with("}}") => Ok(kind),
            Some(letter) => Err(unexpected(self.at, letter)),
        }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn push(&mut self, kind: TokenKind, start: usize, end: usize) {
        self.tokens.push(Token { kind, at: start, text: &self.text[start..end] });
    }
}

/// Whether `{{` is followed by a trim marker: `- `.
fn trim_opens(after: &str) -> bool {
    after.strip_prefix('-').is_some_and(|rest| rest.starts_with(is_space))
}

fn is_space(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\r' | '\n')
}

fn is_name(letter: char) -> bool {
    letter == '_' || letter.is_alphanumeric()
}

fn unexpected(at: usize, letter: char) -> TemplateError {
    let found = format!("`{}`", letter.escape_debug());
    error(at, TemplateErrorKind::Unexpected { found, place: "an action" })
}

fn error(at: usize, kind: TemplateErrorKind) -> TemplateError {
    TemplateError { at, kind }
}
