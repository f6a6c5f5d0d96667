//! Regular expressions.

use regex::{Regex, RegexBuilder};

use super::super::budget::STEP;
use super::super::error::TemplateErrorKind;
use super::super::value::Value;
use super::{Call, Function, texts};

mod syntax;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::test("regexMatch", 2, Some(2), is_match),
    Function::whole("regexFind", 2, Some(2), find),
    Function::whole("regexFindAll", 3, Some(3), find_all),
    Function::whole("regexReplaceAll", 3, Some(3), replace_all),
    Function::whole("regexReplaceAllLiteral", 3, Some(3), replace_all_literal),
    Function::whole("regexSplit", 3, Some(3), split),
];

type Result<T = Value> = std::result::Result<T, TemplateErrorKind>;

fn is_match(call: &mut Call<'_>) -> Result {
    let text = call.text(1)?;
    Ok(pattern(call, text)?.is_match(text).into())
}

fn find(call: &mut Call<'_>) -> Result {
    let text = call.text(1)?;
    let found = pattern(call, text)?.find(text);
    Ok(found.map_or("", |found| found.as_str()).into())
}

/// At most as many matches as the third argument says; all if it is negative.
fn find_all(call: &mut Call<'_>) -> Result {
    let (text, most) = (call.text(1)?, most(call.int(2)?));
    let pattern = pattern(call, text)?;
    let mut found = Vec::new();
    for matched in pattern.find_iter(text).take(most) {
        call.budget.spend(STEP)?;
        found.push(matched.as_str());
    }
    Ok(texts(found))
}

fn replace_all(call: &mut Call<'_>) -> Result {
    let (text, by) = (call.text(1)?, call.text(2)?);
    let pattern = pattern(call, text)?;
    let mut out = String::new();
    let mut copied = 0;
    for captures in pattern.captures_iter(text) {
        let Some(matched) = captures.get(0) else { continue };
        out.push_str(&text[copied..matched.start()]);
        // Each group that it names can be as long as the match.
        let groups = by.matches('$').count();
        call.budget.spend(STEP + by.len())?;
        call.budget.spend_times(groups, matched.len())?;
        captures.expand(by, &mut out);
        copied = matched.end();
    }
    out.push_str(&text[copied..]);
    Ok(out.into())
}

fn replace_all_literal(call: &mut Call<'_>) -> Result {
    let (text, by) = (call.text(1)?, call.text(2)?);
    let pattern = pattern(call, text)?;
    let mut out = String::new();
    let mut copied = 0;
    for matched in pattern.find_iter(text) {
        call.budget.spend(STEP + by.len())?;
        out.push_str(&text[copied..matched.start()]);
        out.push_str(by);
        copied = matched.end();
    }
    out.push_str(&text[copied..]);
    Ok(out.into())
}

/// At most as many parts as the third argument says; all if it is negative.
fn split(call: &mut Call<'_>) -> Result {
    let (text, most) = (call.text(1)?, most(call.int(2)?));
    let pattern = pattern(call, text)?;
    if most == 0 {
        return Ok(texts([""; 0]));
    }
    if text.is_empty() {
        return Ok(texts([""]));
    }
    let mut parts = Vec::new();
    let mut start = 0;
    let mut end = 0;
    for matched in pattern.find_iter(text) {
        if parts.len() + 1 == most {
            break;
        }
        call.budget.spend(STEP)?;
        end = matched.start();
        // As in Go, an empty match at the start splits off nothing.
        if matched.end() != 0 {
            parts.push(&text[start..end]);
        }
        start = matched.end();
    }
    if end != text.len() {
        parts.push(&text[start..]);
    }
    Ok(texts(parts))
}

fn most(count: i64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Compiled sizes that a pattern may have, in bytes. The smaller the pattern, the less a match costs.
const SIZES: [usize; 4] = [4 << 10, 16 << 10, 64 << 10, 256 << 10];

/// Compiles the pattern that is the first argument, and pays for matching it with `text`.
fn pattern(call: &mut Call<'_>, text: &str) -> Result<Regex> {
    let written = call.text(0)?;
    call.budget.spend(written.len())?;
    let translated = syntax::from_go(written);
    for size in SIZES {
        call.budget.spend(size / 16)?;
        match RegexBuilder::new(&translated).size_limit(size).nest_limit(50).build() {
            Ok(pattern) => {
                // Each byte of the text may be compared with each state, and a state has some 32 bytes.
                call.budget.spend_times(text.len(), size / 1024)?;
                return Ok(pattern);
            }
            Err(regex::Error::CompiledTooBig(_)) => {}
            Err(_) => {
                return Err(call.fails(
                    "the pattern is not a regular expression, or has a class like `\\p{L}`, which is not available",
                ));
            }
        }
    }
    Err(call.fails("the pattern is too large: repeat less"))
}
