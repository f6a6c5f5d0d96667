//! Texts: trimming, cutting, case, quotes; and their conversions from and to lists.

use std::collections::BTreeMap;

use super::super::budget::STEP;
use super::super::error::TemplateErrorKind;
use super::super::format::{plain, quoted};
use super::super::value::{Data, Value};
use super::{Call, Function, texts};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::whole("trim", 1, Some(1), trim),
    Function::whole("trimAll", 2, Some(2), trim_all),
    Function::whole("trimall", 2, Some(2), trim_all),
    Function::whole("trimPrefix", 2, Some(2), trim_prefix),
    Function::whole("trimSuffix", 2, Some(2), trim_suffix),
    Function::whole("nospace", 1, Some(1), nospace),
    Function::whole("trunc", 2, Some(2), trunc),
    Function::whole("substr", 3, Some(3), substr),
    Function::whole("repeat", 2, Some(2), repeat),
    Function::whole("replace", 3, Some(3), replace),
    Function::whole("indent", 2, Some(2), indent),
    Function::whole("nindent", 2, Some(2), nindent),
    Function::whole("quote", 0, None, quote),
    Function::whole("squote", 0, None, squote),
    Function::whole("cat", 0, None, cat),
    Function::whole("toString", 1, Some(1), to_string),
    Function::whole("toStrings", 1, Some(1), to_strings),
    Function::whole("join", 2, Some(2), join),
    Function::whole("sortAlpha", 1, Some(1), sort_alpha),
    Function::whole("split", 2, Some(2), split),
    Function::whole("splitn", 3, Some(3), splitn),
    Function::whole("splitList", 2, Some(2), split_list),
    Function::test("contains", 2, Some(2), contains),
    Function::test("hasPrefix", 2, Some(2), has_prefix),
    Function::test("hasSuffix", 2, Some(2), has_suffix),
];

type Result<T = Value> = std::result::Result<T, TemplateErrorKind>;

fn trim(call: &mut Call<'_>) -> Result {
    Ok(call.text(0)?.trim().into())
}

/// Trims every character of the first argument.
fn trim_all(call: &mut Call<'_>) -> Result {
    let (letters, text) = (call.text(0)?, call.text(1)?);
    call.budget.spend_times(letters.len(), text.len())?;
    Ok(text.trim_matches(|letter| letters.contains(letter)).into())
}

fn trim_prefix(call: &mut Call<'_>) -> Result {
    let (prefix, text) = (call.text(0)?, call.text(1)?);
    Ok(text.strip_prefix(prefix).unwrap_or(text).into())
}

fn trim_suffix(call: &mut Call<'_>) -> Result {
    let (suffix, text) = (call.text(0)?, call.text(1)?);
    Ok(text.strip_suffix(suffix).unwrap_or(text).into())
}

fn nospace(call: &mut Call<'_>) -> Result {
    Ok(call.text(0)?.replace(char::is_whitespace, "").into())
}

fn trunc(call: &mut Call<'_>) -> Result {
    let (length, text) = (call.length(0)?, call.text(1)?);
    Ok(call.cut(text, 0, length.min(text.len()))?.into())
}

/// The bytes from a start to an end. A negative start is 0; a negative end is the end of the text.
fn substr(call: &mut Call<'_>) -> Result {
    let (start, end, text) = (call.int(0)?, call.int(1)?, call.text(2)?);
    let cut = match (usize::try_from(start), usize::try_from(end)) {
        (Err(_), _) => call.cut(text, 0, call.length(1)?)?,
        (Ok(start), Ok(end)) => call.cut(text, start, end.min(text.len()))?,
        (Ok(start), Err(_)) => call.cut(text, start, text.len())?,
    };
    Ok(cut.into())
}

fn repeat(call: &mut Call<'_>) -> Result {
    let (count, text) = (call.length(0)?, call.text(1)?);
    call.budget.spend_times(count, text.len())?;
    Ok(if text.is_empty() { String::new() } else { text.repeat(count) }.into())
}

fn replace(call: &mut Call<'_>) -> Result {
    let (old, new, text) = (call.text(0)?, call.text(1)?, call.text(2)?);
    call.budget.spend_times(text.matches(old).count(), new.len())?;
    Ok(text.replace(old, new).into())
}

fn indent(call: &mut Call<'_>) -> Result {
    Ok(indented(call)?.into())
}

fn nindent(call: &mut Call<'_>) -> Result {
    Ok(format!("\n{}", indented(call)?).into())
}

fn indented(call: &mut Call<'_>) -> Result<String> {
    let (spaces, text) = (call.length(0)?, call.text(1)?);
    let lines = text.matches('\n').count() + 1;
    call.budget.spend_times(lines, spaces)?;
    let pad = " ".repeat(spaces);
    Ok(format!("{pad}{}", text.replace('\n', &format!("\n{pad}"))))
}

/// Nil is left out here and in the functions that follow.
fn quote(call: &mut Call<'_>) -> Result {
    Ok(set(call.arguments).map(|value| quoted(&plain(value))).collect::<Vec<_>>().join(" ").into())
}

fn squote(call: &mut Call<'_>) -> Result {
    let words = set(call.arguments).map(|value| format!("'{}'", plain(value)));
    Ok(words.collect::<Vec<_>>().join(" ").into())
}

fn cat(call: &mut Call<'_>) -> Result {
    Ok(set(call.arguments).map(plain).collect::<Vec<_>>().join(" ").into())
}

fn set(values: &[Value]) -> impl Iterator<Item = &Value> {
    values.iter().filter(|value| !value.is_nil())
}

fn to_string(call: &mut Call<'_>) -> Result {
    Ok(plain(call.any(0)).into())
}

fn to_strings(call: &mut Call<'_>) -> Result {
    Ok(texts(strings(call.any(0))))
}

fn join(call: &mut Call<'_>) -> Result {
    let (separator, words) = (call.text(0)?, strings(call.any(1)));
    call.budget.spend_times(words.len(), separator.len())?;
    Ok(words.join(separator).into())
}

fn sort_alpha(call: &mut Call<'_>) -> Result {
    let value = call.any(0);
    let mut words = if value.is_nil() { vec![plain(value)] } else { strings(value) };
    words.sort_unstable();
    Ok(texts(words))
}

/// The elements of a list, or the value itself, as texts.
fn strings(value: &Value) -> Vec<String> {
    let elements =
        if let Data::List(list) = &value.data { list } else { std::slice::from_ref(value) };
    set(elements).map(plain).collect()
}

/// A map of the parts, by the keys `_0`, `_1` and so on.
fn split(call: &mut Call<'_>) -> Result {
    let (separator, text) = (call.text(0)?, call.text(1)?);
    Ok(numbered(parts(call, separator, text, None)?))
}

fn splitn(call: &mut Call<'_>) -> Result {
    let (separator, most, text) = (call.text(0)?, call.int(1)?, call.text(2)?);
    Ok(numbered(parts(call, separator, text, usize::try_from(most).ok())?))
}

fn split_list(call: &mut Call<'_>) -> Result {
    let (separator, text) = (call.text(0)?, call.text(1)?);
    Ok(texts(parts(call, separator, text, None)?))
}

/// At most `most` parts. An empty separator separates the characters.
fn parts<'a>(
    call: &mut Call<'_>,
    separator: &str,
    text: &'a str,
    most: Option<usize>,
) -> Result<Vec<&'a str>> {
    call.budget.spend_times(text.matches(separator).count(), STEP)?;
    let most = most.unwrap_or(usize::MAX);
    if !separator.is_empty() {
        return Ok(text.splitn(most, separator).collect());
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next().filter(|_| parts.len() < most) {
        let length = if parts.len() + 1 == most { rest.len() } else { letter.len_utf8() };
        let (part, after) = rest.split_at(length);
        parts.push(part);
        rest = after;
    }
    Ok(parts)
}

fn numbered(parts: Vec<&str>) -> Value {
    let entries = parts.into_iter().enumerate();
    let entries = entries.map(|(index, part)| (format!("_{index}"), Value::from(part)));
    entries.collect::<BTreeMap<_, _>>().into()
}

fn contains(call: &mut Call<'_>) -> Result {
    let (part, text) = (call.text(0)?, call.text(1)?);
    Ok(text.contains(part).into())
}

fn has_prefix(call: &mut Call<'_>) -> Result {
    let (prefix, text) = (call.text(0)?, call.text(1)?);
    Ok(text.starts_with(prefix).into())
}

fn has_suffix(call: &mut Call<'_>) -> Result {
    let (suffix, text) = (call.text(0)?, call.text(1)?);
    Ok(text.ends_with(suffix).into())
}
