//! Translates Go's regular expressions into the `regex` crate's.

use std::iter::Peekable;
use std::str::Chars;

/// The same pattern for the `regex` crate. What differs: classes like `\d` are ASCII in Go, classes do not nest, braces
/// that are no repetition are literal, and `\Q` quotes. What is no pattern in Go may be one here.
pub(super) fn from_go(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => escape(&mut letters, &mut out, false),
            '[' => class(&mut letters, &mut out),
            '{' if !is_repetition(letters.clone()) => out.push_str("\\{"),
            letter => out.push(letter),
        }
    }
    out
}

fn escape(letters: &mut Peekable<Chars<'_>>, out: &mut String, in_class: bool) {
    let Some(name) = letters.next() else {
        out.push('\\');
        return;
    };
    match (name, in_class) {
        ('Q', false) => quoted(letters, out),
        ('d', false) => out.push_str("[0-9]"),
        ('d', true) => out.push_str("0-9"),
        ('D', _) => out.push_str("[^0-9]"),
        ('s', false) => out.push_str("[\\t\\n\\f\\r ]"),
        ('s', true) => out.push_str("\\t\\n\\f\\r "),
        ('S', _) => out.push_str("[^\\t\\n\\f\\r ]"),
        ('w', false) => out.push_str("[0-9A-Za-z_]"),
        ('w', true) => out.push_str("0-9A-Za-z_"),
        ('W', _) => out.push_str("[^0-9A-Za-z_]"),
        ('b', false) => out.push_str("(?-u:\\b)"),
        ('B', false) => out.push_str("(?-u:\\B)"),
        // An octal code. Other digits would refer to groups, which Go has not.
        ('0'..='7', _) => octal(name, letters, out),
        // In the crate, they stand for the start and the end of a word.
        ('<' | '>', _) => out.push(name),
        _ => out.extend(['\\', name]),
    }
}

/// The text between `\Q` and `\E`.
fn quoted(letters: &mut Peekable<Chars<'_>>, out: &mut String) {
    while let Some(letter) = letters.next() {
        if letter == '\\' && letters.next_if_eq(&'E').is_some() {
            return;
        }
        literal(letter, out);
    }
}

fn octal(first: char, letters: &mut Peekable<Chars<'_>>, out: &mut String) {
    let mut code = first.to_digit(8).unwrap_or(0);
    // A single digit other than 0 refers to a group.
    let is_reference = first != '0' && !letters.peek().is_some_and(|next| next.is_digit(8));
    if is_reference {
        out.extend(['\\', first]);
        return;
    }
    for _ in 0..2 {
        let Some(digit) = letters.next_if(|next| next.is_digit(8)) else { break };
        code = code * 8 + digit.to_digit(8).unwrap_or(0);
    }
    out.push_str(&format!("\\x{{{code:x}}}"));
}

/// Reads what follows `[` up to its `]`.
fn class(letters: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('[');
    if letters.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    // A `]` at the start is literal.
    if letters.next_if_eq(&']').is_some() {
        out.push_str("\\]");
    }
    while let Some(letter) = letters.next() {
        match letter {
            ']' => {
                out.push(']');
                return;
            }
            '\\' => escape(letters, out, true),
            '[' if letters.peek() == Some(&':') => named_class(letters, out),
            // They would begin a nested class, or operate on two.
            '[' | '&' | '~' => literal(letter, out),
            '-' if letters.peek() == Some(&'-') => out.push_str("\\-"),
            letter => out.push(letter),
        }
    }
}

/// Reads `:alpha:]`.
fn named_class(letters: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('[');
    for letter in letters.by_ref() {
        out.push(letter);
        if letter == ']' {
            return;
        }
    }
}

/// Whether `{` is followed by `2}`, `2,}` or `2,3}`.
fn is_repetition(mut letters: Peekable<Chars<'_>>) -> bool {
    let mut digits = 0;
    while letters.next_if(char::is_ascii_digit).is_some() {
        digits += 1;
        if digits > 4 {
            return true;
        }
    }
    if letters.next_if_eq(&',').is_some() {
        while letters.next_if(char::is_ascii_digit).is_some() {}
    }
    digits > 0 && letters.next() == Some('}')
}

fn literal(letter: char, out: &mut String) {
    out.push_str(&regex::escape(letter.encode_utf8(&mut [0; 4])));
}
