//! Values as JSON, as Go's `encoding/json` writes it.

use super::super::error::TemplateErrorKind;
use super::super::format::{not_finite, scientific_in_go};
use super::super::value::{Data, Value};
use super::{Call, Function};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::whole("toJson", 1, Some(1), to_json),
    Function::whole("toPrettyJson", 1, Some(1), to_pretty_json),
];

type Result = std::result::Result<Value, TemplateErrorKind>;

fn to_json(call: &mut Call<'_>) -> Result {
    json(call, None)
}

fn to_pretty_json(call: &mut Call<'_>) -> Result {
    json(call, Some(0))
}

fn json(call: &Call<'_>, depth: Option<usize>) -> Result {
    let mut out = String::new();
    let written = write(&mut out, call.any(0), depth);
    // As in the original, what cannot be written is nothing.
    Ok(written.map_or_else(String::new, |()| out).into())
}

/// Writes a value; with line breaks if there is a depth. `None` if it contains what is no number.
fn write(out: &mut String, value: &Value, depth: Option<usize>) -> Option<()> {
    match &value.data {
        Data::Nil => out.push_str("null"),
        Data::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Data::Int(number) => out.push_str(&number.to_string()),
        Data::Float(number) => out.push_str(&float(*number)?),
        Data::Text(text) => write_text(out, text),
        Data::List(list) => {
            let inner = depth.map(|depth| depth + 1);
            out.push('[');
            for (index, element) in list.iter().enumerate() {
                begin_line(out, index > 0, inner);
                write(out, element, inner)?;
            }
            end_lines(out, list.is_empty(), depth);
            out.push(']');
        }
        Data::Map(map) => {
            let inner = depth.map(|depth| depth + 1);
            out.push('{');
            for (index, (key, element)) in map.iter().enumerate() {
                begin_line(out, index > 0, inner);
                write_text(out, key);
                out.push_str(if depth.is_some() { ": " } else { ":" });
                write(out, element, inner)?;
            }
            end_lines(out, map.is_empty(), depth);
            out.push('}');
        }
    }
    Some(())
}

fn begin_line(out: &mut String, follows: bool, depth: Option<usize>) {
    if follows {
        out.push(',');
    }
    if let Some(depth) = depth {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    }
}

fn end_lines(out: &mut String, is_empty: bool, depth: Option<usize>) {
    if let Some(depth) = depth.filter(|_| !is_empty) {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    }
}

fn float(number: f64) -> Option<String> {
    if not_finite(number).is_some() {
        return None;
    }
    let size = number.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        // Go's JSON has no zero before an exponent of one digit, if that is negative.
        return Some(scientific_in_go(&format!("{number:e}")).replace("e-0", "e-"));
    }
    Some(format!("{number}"))
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..' ' => {
                out.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}
