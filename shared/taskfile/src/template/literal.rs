//! The values of literals, as in Go's source code.

use super::value::Data;

/// The value of `"a\tb"`, with its quotes; `None` if an escape is unknown or does not make a character.
pub(super) fn quoted(literal: &str) -> Option<String> {
    let mut rest = literal.strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        let (escaped, after) = next(rest, '"')?;
        match escaped {
            Escaped::Char(letter) => {
                bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Escaped::Byte(byte) => bytes.push(byte),
        }
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// The value of `` `a` ``, with its quotes.
pub(super) fn raw(literal: &str) -> String {
    literal.trim_matches('`').replace('\r', "")
}

/// The code of the character in `'a'`, with its quotes.
pub(super) fn character(literal: &str) -> Option<i64> {
    let inner = literal.strip_prefix('\'')?.strip_suffix('\'')?;
    match next(inner, '\'')? {
        (Escaped::Char(letter), "") => Some(i64::from(u32::from(letter))),
        (Escaped::Byte(byte), "") => Some(i64::from(byte)),
        _ => None,
    }
}

/// The value of a number: decimal, `0x`, `0o`, `0b` or `0` and octal digits; or with a fraction.
pub(super) fn number(literal: &str) -> Option<Data> {
    if let Some(whole) = whole(literal) {
        return Some(Data::Int(whole));
    }
    // Go refuses whole numbers that are too large for its `int`.
    if literal.contains('_') || !literal.contains(['.', 'e', 'E']) {
        return None;
    }
    literal.parse().ok().filter(|value: &f64| value.is_finite()).map(Data::Float)
}

fn whole(literal: &str) -> Option<i64> {
    let (sign, digits) = match literal.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", literal.strip_prefix('+').unwrap_or(literal)),
    };
    let (radix, digits) = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (16, digits.get(2..)?),
        Some("0o") => (8, digits.get(2..)?),
        Some("0b") => (2, digits.get(2..)?),
        Some(prefix) if prefix.starts_with('0') => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    let digits = match digits.strip_prefix('_') {
        Some(after_prefix) if radix != 10 => after_prefix,
        _ => digits,
    };
    if digits.split('_').any(|group| group.is_empty() || group.starts_with(['+', '-'])) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{}", digits.replace('_', "")), radix).ok()
}

enum Escaped {
    Char(char),
    /// `\x41` and `\101` are bytes, which together may make a character.
    Byte(u8),
}

/// The first character or escape of `text`, and what follows it.
fn next(text: &str, quote: char) -> Option<(Escaped, &str)> {
    let mut letters = text.chars();
    let letter = letters.next()?;
    if letter == quote {
        return None;
    }
    if letter != '\\' {
        return Some((Escaped::Char(letter), letters.as_str()));
    }
    let name = letters.next()?;
    let rest = letters.as_str();
    let simple = |letter| Some((Escaped::Char(letter), rest));
    match name {
        'a' => simple('\u{7}'),
        'b' => simple('\u{8}'),
        'f' => simple('\u{c}'),
        'n' => simple('\n'),
        'r' => simple('\r'),
        't' => simple('\t'),
        'v' => simple('\u{b}'),
        '\\' => simple('\\'),
        name if name == quote => simple(quote),
        'x' => byte(rest, 2, 16),
        '0'..='7' => byte(text.get(1..)?, 3, 8),
        'u' => code_point(rest, 4),
        'U' => code_point(rest, 8),
        _ => None,
    }
}

fn byte(text: &str, digits: usize, radix: u32) -> Option<(Escaped, &str)> {
    let (code, rest) = code(text, digits, radix)?;
    Some((Escaped::Byte(u8::try_from(code).ok()?), rest))
}

fn code_point(text: &str, digits: usize) -> Option<(Escaped, &str)> {
    let (code, rest) = code(text, digits, 16)?;
    Some((Escaped::Char(char::from_u32(code)?), rest))
}

fn code(text: &str, digits: usize, radix: u32) -> Option<(u32, &str)> {
    let (code, rest) = text.split_at_checked(digits)?;
    if !code.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    Some((u32::from_str_radix(code, radix).ok()?, rest))
}
