//! The encodings in which programs print a text.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// Shorter base64 would match ordinary words.
const SHORTEST_DIGITS: usize = 6;

/// As it is, percent-encoded, in JSON, and in shell quotes.
pub(super) fn plain(text: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![text.to_owned()];
    // As in URLs, in forms, and in JavaScript's `encodeURIComponent`.
    for (kept, blank) in [("-._~", "%20"), ("-._*", "+"), ("-._~!'()*", "%20")] {
        let upper = percent_encoded(text, kept, blank, true);
        let lower = percent_encoded(text, kept, blank, false);
        forms.extend([upper, lower]);
    }
    let json = json(text);
    forms.push(json.replace('/', "\\/"));
    forms.push(json_ascii(&json, ""));
    // Go escapes `<`, `>` and `&` in JSON by default.
    forms.push(json_ascii(&json, "<>&"));
    forms.push(json);
    // As printed by `set -x` and `printf %q`.
    forms.push(text.replace('\'', "'\\''"));
    forms.push(text.replace('\'', "'\"'\"'"));
    forms.push(text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n"));
    forms.push(backslashed(text));
    forms.sort_unstable();
    forms.dedup();
    forms.into_iter().map(String::into_bytes).collect()
}

/// In hexadecimal and base64, alone or within a longer text.
pub(super) fn wrapped(text: &str) -> Vec<Vec<u8>> {
    let mut forms = within_base64(text);
    for alphabet in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
        forms.push(alphabet.encode(text).into());
    }
    forms.push(hex::encode(text).into());
    forms.push(hex::encode_upper(text).into());
    forms
}

/// The part of a text's base64 that does not depend on what comes before and after it, like the user name before a
/// password: one for each position of its first byte in a group of three.
fn within_base64(text: &str) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (before, touched) in [(0, 0), (1, 2), (2, 3)] {
        let shifted = [&b"\0\0"[..before], text.as_bytes()].concat();
        let whole_digits = shifted.len() * 8 / 6;
        for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let digits = &alphabet.encode(&shifted)[touched..whole_digits];
            if digits.len() >= SHORTEST_DIGITS {
                all.push(digits.into());
            }
        }
    }
    all
}

fn percent_encoded(text: &str, kept: &str, blank: &str, upper: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let _infallible = match byte {
            b' ' => write!(encoded, "{blank}"),
            byte if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte) => {
                write!(encoded, "{}", char::from(byte))
            }
            byte if upper => write!(encoded, "%{byte:02X}"),
            byte => write!(encoded, "%{byte:02x}"),
        };
    }
    encoded
}

/// The content of a JSON string, without quotes.
fn json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
}

/// Escapes characters outside of ASCII, and those in `more`.
fn json_ascii(json: &str, more: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter.is_ascii() && !more.contains(letter) {
            ascii.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _infallible = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii
}

fn backslashed(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii() && !letter.is_ascii_alphanumeric() && !"-._/:@%+,=".contains(letter) {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}
