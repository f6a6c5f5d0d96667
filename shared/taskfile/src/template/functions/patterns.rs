//! Regular expressions.

use regex::{Match, Regex, RegexBuilder};

use super::super::budget::Budget;
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
    Ok((!Pattern::compile(call)?.find_all(text, 1, call.budget)?.is_empty()).into())
}

fn find(call: &mut Call<'_>) -> Result {
    let text = call.text(1)?;
    let found = Pattern::compile(call)?.find_all(text, 1, call.budget)?;
    Ok(found.first().map_or("", Match::as_str).into())
}

/// At most as many matches as the third argument says; all if it is negative.
fn find_all(call: &mut Call<'_>) -> Result {
    let (text, most) = (call.text(1)?, most(call.int(2)?));
    let found = Pattern::compile(call)?.find_all(text, most, call.budget)?;
    Ok(texts(found.iter().map(Match::as_str)))
}

fn replace_all(call: &mut Call<'_>) -> Result {
    let (text, by) = (call.text(1)?, call.text(2)?);
    let pattern = Pattern::compile(call)?;
    let groups = by.matches('$').count();
    let mut out = String::new();
    let mut copied = 0;
    for matched in pattern.find_all(text, usize::MAX, call.budget)? {
        pattern.spend(matched.len(), call.budget)?;
        // Each group can be as long as the match.
        call.budget.spend_times(groups, matched.len())?;
        call.budget.spend(by.len())?;
        out.push_str(&text[copied..matched.start()]);
        if let Some(captures) = pattern.regex.captures_at(text, matched.start()) {
            captures.expand(by, &mut out);
        }
        copied = matched.end();
    }
    out.push_str(&text[copied..]);
    Ok(out.into())
}

fn replace_all_literal(call: &mut Call<'_>) -> Result {
    let (text, by) = (call.text(1)?, call.text(2)?);
    let mut out = String::new();
    let mut copied = 0;
    for matched in Pattern::compile(call)?.find_all(text, usize::MAX, call.budget)? {
        call.budget.spend(by.len())?;
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
    let pattern = Pattern::compile(call)?;
    if most == 0 {
        return Ok(texts([""; 0]));
    }
    if text.is_empty() {
        return Ok(texts([""]));
    }
    let mut parts = Vec::new();
    let mut start = 0;
    let mut end = 0;
    for matched in pattern.find_all(text, most - 1, call.budget)? {
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

struct Pattern {
    regex: Regex,
    /// The work of matching one byte.
    cost: usize,
}

/// The compiled sizes that are tried, in bytes.
const SIZES: [usize; 5] = [1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10];

impl Pattern {
    /// Compiles the first argument.
    fn compile(call: &mut Call<'_>) -> Result<Self> {
        let pattern = syntax::from_go(call.text(0)?);
        call.budget.spend(pattern.len())?;
        for size in SIZES {
            call.budget.spend(size)?;
            match RegexBuilder::new(&pattern).size_limit(size).nest_limit(50).build() {
                // Each byte of the text may be compared with each state, and a state takes some bytes.
                Ok(regex) => return Ok(Self { regex, cost: size / 64 }),
                Err(regex::Error::CompiledTooBig(_)) => {}
                Err(_) => return Err(call.fails(NOT_A_PATTERN)),
            }
        }
        Err(call.fails("the pattern is too large: repeat less"))
    }

    /// The matches, or the first of them.
    fn find_all<'t>(
        &self,
        text: &'t str,
        most: usize,
        budget: &mut Budget,
    ) -> Result<Vec<Match<'t>>> {
        let mut found = Vec::new();
        let mut matches = self.regex.find_iter(text);
        let mut start = 0;
        while found.len() < most {
            // Before a match is found, the whole rest may have been read, and for each match again.
            self.spend(text.len() - start, budget)?;
            let Some(matched) = matches.next() else { break };
            start = matched.end();
            found.push(matched);
        }
        Ok(found)
    }

    fn spend(&self, bytes: usize, budget: &mut Budget) -> Result<()> {
        budget.spend_times(bytes + 1, self.cost)
    }
}

const NOT_A_PATTERN: &str =
    "the pattern is not a regular expression, or has a class like `\\p{L}`, which is not available";
