//! Functions that shorten texts or break them into lines. They count bytes, as sprig does.

use super::super::error::TemplateErrorKind;
use super::super::value::Value;
use super::{Call, Function};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::whole("abbrev", 2, Some(2), abbrev),
    Function::whole("abbrevboth", 3, Some(3), abbrevboth),
    Function::whole("wrap", 2, Some(2), wrap),
    Function::whole("wrapWith", 3, Some(3), wrap_with),
];

type Result<T = Value> = std::result::Result<T, TemplateErrorKind>;

fn abbrev(call: &mut Call<'_>) -> Result {
    let (width, text) = (call.int(0)?, call.text(1)?);
    if width < 4 {
        return Ok(text.into());
    }
    Ok(abbreviated(call, text, 0, call.length(0)?)?.into())
}

fn abbrevboth(call: &mut Call<'_>) -> Result {
    let (left, right, text) = (call.int(0)?, call.int(1)?, call.text(2)?);
    if right < 4 || left > 0 && right < 7 {
        return Ok(text.into());
    }
    Ok(abbreviated(call, text, usize::try_from(left).unwrap_or(0), call.length(1)?)?.into())
}

/// At most `width` bytes, at least 4, of a text from `offset` on, with an ellipsis where something is left out.
fn abbreviated(call: &Call<'_>, text: &str, offset: usize, width: usize) -> Result<String> {
    let length = text.len();
    let kept = width - 3;
    if length <= width {
        return Ok(text.to_owned());
    }
    let offset = offset.min(length);
    let offset = if length - offset < kept { length - kept } else { offset };
    if offset <= 4 {
        return Ok(format!("{}...", call.cut(text, 0, kept)?));
    }
    // The offset is not 0, so the callers have made sure that the width is at least 7.
    if offset.saturating_add(kept) < length {
        let rest = call.cut(text, offset, length)?;
        return Ok(format!("...{}", abbreviated(call, rest, 0, kept)?));
    }
    Ok(format!("...{}", call.cut(text, length - kept, length)?))
}

fn wrap(call: &mut Call<'_>) -> Result {
    let (width, text) = (call.int(0)?, call.text(1)?);
    wrapped(call, text, width, "\n", false)
}

fn wrap_with(call: &mut Call<'_>) -> Result {
    let (width, line_end, text) = (call.int(0)?, call.text(1)?, call.text(2)?);
    let line_end = if line_end.is_empty() { "\n" } else { line_end };
    wrapped(call, text, width, line_end, true)
}

/// Breaks a text at spaces into lines of at most `width` bytes. Longer words are cut if `cuts_words`, else they stay.
fn wrapped(
    call: &mut Call<'_>,
    text: &str,
    width: i64,
    line_end: &str,
    cuts_words: bool,
) -> Result {
    let width = usize::try_from(width).unwrap_or(1).max(1);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while rest.len() > width {
        if let Some(after) = rest.strip_prefix(' ') {
            rest = after;
            continue;
        }
        let last_space = rest.as_bytes()[..=width].iter().rposition(|byte| *byte == b' ');
        let (line, after) = match last_space {
            Some(space) => (&rest[..space], &rest[space + 1..]),
            None if cuts_words => (call.cut(rest, 0, width)?, call.cut(rest, width, rest.len())?),
            None => match rest.find(' ') {
                Some(space) => (&rest[..space], &rest[space + 1..]),
                None => break,
            },
        };
        call.budget.spend(line_end.len())?;
        out.push_str(line);
        out.push_str(line_end);
        rest = after;
    }
    out.push_str(rest);
    Ok(out.into())
}
