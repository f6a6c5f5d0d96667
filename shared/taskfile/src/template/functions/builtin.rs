//! The functions of Go's templates themselves, but for comparisons.

use super::super::error::TemplateErrorKind;
use super::super::format::{is_printable, side_by_side};
use super::super::printf;
use super::super::value::{Data, Value};
use super::{Behaviour, Call, Function, Origins};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "and",
        least: 1,
        most: None,
        origins: Origins::Chosen,
        behaviour: Behaviour::Decide(false),
    },
    Function {
        name: "or",
        least: 1,
        most: None,
        origins: Origins::Chosen,
        behaviour: Behaviour::Decide(true),
    },
    Function::test("not", 1, Some(1), not),
    Function::parts("index", 1, None, index),
    Function::parts("len", 1, Some(1), len),
    Function::whole("print", 0, None, print),
    Function::whole("println", 0, None, println),
    Function::whole("printf", 1, None, printf),
    Function::whole("html", 0, None, html),
    Function::whole("js", 0, None, js),
    Function::whole("urlquery", 0, None, urlquery),
];

type Result = std::result::Result<Value, TemplateErrorKind>;

fn not(call: &mut Call<'_>) -> Result {
    Ok((!call.any(0).is_true()).into())
}

fn index(call: &mut Call<'_>) -> Result {
    let mut value = call.any(0).clone();
    for (position, key) in call.from(1).iter().enumerate() {
        value = element(call, &value, position + 1, key)?;
    }
    Ok(value)
}

/// `key` is the argument at `position`.
fn element(call: &Call<'_>, value: &Value, position: usize, key: &Value) -> Result {
    let origin = value.origin.as_ref();
    let place = || {
        let place = key.as_int().ok_or_else(|| call.wrong_type(position, "a whole number"))?;
        Ok(usize::try_from(place).unwrap_or(usize::MAX))
    };
    let out_of_range =
        |length: usize| call.fails(format!("the index is out of range: it has {length} elements"));
    match &value.data {
        Data::List(list) => {
            let element = list.get(place()?).ok_or_else(|| out_of_range(list.len()))?;
            Ok(element.clone().tainted(origin))
        }
        Data::Text(text) => {
            let byte = text.as_bytes().get(place()?).ok_or_else(|| out_of_range(text.len()))?;
            Ok(Value::from(i64::from(*byte)).tainted(origin))
        }
        Data::Map(map) => {
            let key = key.as_text().ok_or_else(|| call.wrong_type(position, "text"))?;
            Ok(map.get(key).cloned().unwrap_or(Value::NIL).tainted(origin))
        }
        Data::Nil | Data::Bool(_) | Data::Int(_) | Data::Float(_) => {
            Err(call.fails(format!("{} has no elements", value.kind())))
        }
    }
}

fn len(call: &mut Call<'_>) -> Result {
    let length = match &call.any(0).data {
        Data::Text(text) => text.len(),
        Data::List(list) => list.len(),
        Data::Map(map) => map.len(),
        Data::Nil | Data::Bool(_) | Data::Int(_) | Data::Float(_) => {
            return Err(call.wrong_type(0, "text, a list or a map"));
        }
    };
    Ok(i64::try_from(length).unwrap_or(i64::MAX).into())
}

fn print(call: &mut Call<'_>) -> Result {
    Ok(side_by_side(call.arguments).into())
}

fn println(call: &mut Call<'_>) -> Result {
    let words: Vec<String> = call.arguments.iter().map(super::super::format::plain).collect();
    Ok(format!("{}\n", words.join(" ")).into())
}

fn printf(call: &mut Call<'_>) -> Result {
    let format = call.text(0)?;
    Ok(printf::printf(format, call.from(1), call.budget)?.into())
}

fn html(call: &mut Call<'_>) -> Result {
    let mut out = String::new();
    for letter in side_by_side(call.arguments).chars() {
        match letter {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            letter => out.push(letter),
        }
    }
    Ok(out.into())
}

fn js(call: &mut Call<'_>) -> Result {
    let mut out = String::new();
    for letter in side_by_side(call.arguments).chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' | '\0'..' ' => {
                out.push_str(&format!("\\u{:04X}", u32::from(letter)));
            }
            letter if letter.is_ascii() || is_printable(letter) => out.push(letter),
            letter => out.push_str(&format!("\\u{:04X}", u32::from(letter))),
        }
    }
    Ok(out.into())
}

fn urlquery(call: &mut Call<'_>) -> Result {
    let mut out = String::new();
    for byte in side_by_side(call.arguments).bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(out.into())
}
