//! Values as text, as Go's `fmt` prints them without a format.

use super::value::{Data, Value};

/// A value as `%v` prints it.
pub(super) fn plain(value: &Value) -> String {
    let mut out = String::new();
    write_plain(&mut out, value);
    out
}

fn write_plain(out: &mut String, value: &Value) {
    match &value.data {
        Data::Nil => out.push_str("<nil>"),
        Data::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Data::Int(value) => out.push_str(&value.to_string()),
        Data::Float(value) => out.push_str(&float(*value)),
        Data::Text(text) => out.push_str(text),
        Data::List(list) => {
            out.push('[');
            for (index, element) in list.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                write_plain(out, element);
            }
            out.push(']');
        }
        Data::Map(map) => {
            out.push_str("map[");
            for (index, (key, element)) in map.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                write_plain(out, element);
            }
            out.push(']');
        }
    }
}

/// Several values, with a space between two that are no text, as `print` prints them.
pub(super) fn side_by_side(values: &[Value]) -> String {
    let is_text = |value: &Value| matches!(value.data, Data::Text(_));
    let mut out = String::new();
    let mut before: Option<&Value> = None;
    for value in values {
        if before.is_some_and(|before| !is_text(before) && !is_text(value)) {
            out.push(' ');
        }
        write_plain(&mut out, value);
        before = Some(value);
    }
    out
}

/// A number as Go's `%g` prints it: `1.5`, `1e+06`.
pub(super) fn float(value: f64) -> String {
    match not_finite(value) {
        Some(name) => name.to_owned(),
        None => general(value, &format!("{value:e}"), 6),
    }
}

/// The names of what is no number.
pub(super) fn not_finite(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value == f64::INFINITY {
        Some("+Inf")
    } else if value == f64::NEG_INFINITY {
        Some("-Inf")
    } else {
        None
    }
}

/// A number whose digits stand in `scientific`, like `1.5e0`: with an exponent if that is below -4, or at least `most`.
pub(super) fn general(value: f64, scientific: &str, most: usize) -> String {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let power: i64 = exponent.parse().unwrap_or(0);
    let mantissa = if mantissa.contains('.') { mantissa.trim_end_matches('0') } else { mantissa };
    let mantissa = mantissa.trim_end_matches('.');
    if power < -4 || i64::try_from(most).is_ok_and(|most| power >= most) {
        return scientific_in_go(&format!("{mantissa}e{power}"));
    }
    let digits = mantissa.chars().filter(char::is_ascii_digit).count();
    let decimals = i64::try_from(digits).unwrap_or(0) - 1 - power;
    format!("{value:.*}", usize::try_from(decimals).unwrap_or(0))
}

/// `1e6`, as Rust writes it, is `1e+06` in Go.
pub(super) fn scientific_in_go(scientific: &str) -> String {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    match exponent.strip_prefix('-') {
        Some(digits) => format!("{mantissa}e-{digits:0>2}"),
        None => format!("{mantissa}e+{exponent:0>2}"),
    }
}

/// A text as a Go string literal, as `%q` prints it.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        write_escaped(&mut out, letter, '"');
    }
    out.push('"');
    out
}

/// A character as it stands in a Go literal.
pub(super) fn write_escaped(out: &mut String, letter: char, quote: char) {
    match letter {
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        '\\' => out.push_str("\\\\"),
        letter if letter == quote => {
            out.push('\\');
            out.push(quote);
        }
        letter if is_printable(letter) => out.push(letter),
        letter => {
            let code = u32::from(letter);
            let escape = match code {
                0..0x80 => format!("\\x{code:02x}"),
                0x80..0x1_0000 => format!("\\u{code:04x}"),
                _ => format!("\\U{code:08x}"),
            };
            out.push_str(&escape);
        }
    }
}

/// Whether Go prints a character as it is in a quoted text.
pub(super) fn is_printable(letter: char) -> bool {
    // `escape_debug` of a `str` escapes what is not printable. It also escapes combining characters, but only the first.
    let mut text = String::from("a");
    text.push(letter);
    matches!(letter, '\'' | '"' | '\\') || text.escape_debug().to_string() == text
}

/// A value as Go source, as `%#v` prints it.
pub(super) fn write_in_go(out: &mut String, value: &Value) {
    match &value.data {
        Data::Text(text) => out.push_str(&quoted(text)),
        Data::List(list) => {
            out.push_str(type_name(value));
            out.push('{');
            for (index, element) in list.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_element_in_go(out, element);
            }
            out.push('}');
        }
        Data::Map(map) => {
            out.push_str(type_name(value));
            out.push('{');
            for (index, (key, element)) in map.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                out.push_str(&quoted(key));
                out.push(':');
                write_element_in_go(out, element);
            }
            out.push('}');
        }
        Data::Nil | Data::Bool(_) | Data::Int(_) | Data::Float(_) => {
            out.push_str(&plain(value));
        }
    }
}

fn write_element_in_go(out: &mut String, element: &Value) {
    if element.is_nil() {
        out.push_str("interface {}(nil)");
    } else {
        write_in_go(out, element);
    }
}

/// The name of a value's type in Go.
pub(super) fn type_name(value: &Value) -> &'static str {
    match &value.data {
        Data::Nil => "<nil>",
        Data::Bool(_) => "bool",
        Data::Int(_) => "int",
        Data::Float(_) => "float64",
        Data::Text(_) => "string",
        Data::List(_) => "[]interface {}",
        Data::Map(_) => "map[string]interface {}",
    }
}
