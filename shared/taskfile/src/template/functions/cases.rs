//! Functions that change the case of letters.

use super::super::error::TemplateErrorKind;
use super::super::value::Value;
use super::{Call, Function};

mod words;

use words::{connected, is_connector};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::whole("upper", 1, Some(1), upper),
    Function::whole("lower", 1, Some(1), lower),
    Function::whole("title", 1, Some(1), title),
    Function::whole("untitle", 1, Some(1), untitle),
    Function::whole("swapcase", 1, Some(1), swapcase),
    Function::whole("initials", 1, Some(1), initials),
    Function::whole("camelcase", 1, Some(1), camelcase),
    Function::whole("snakecase", 1, Some(1), snakecase),
    Function::whole("kebabcase", 1, Some(1), kebabcase),
];

type Result = std::result::Result<Value, TemplateErrorKind>;

/// Go changes each character into one other, so `ß` has no upper case.
fn to_upper(letter: char) -> char {
    let mut upper = letter.to_uppercase();
    upper.next().filter(|_| upper.next().is_none()).unwrap_or(letter)
}

fn to_lower(letter: char) -> char {
    let mut lower = letter.to_lowercase();
    lower.next().filter(|_| lower.next().is_none()).unwrap_or(letter)
}

fn upper(call: &mut Call<'_>) -> Result {
    Ok(call.text(0)?.chars().map(to_upper).collect::<String>().into())
}

fn lower(call: &mut Call<'_>) -> Result {
    Ok(call.text(0)?.chars().map(to_lower).collect::<String>().into())
}

/// Upper case after whatever is no part of a word.
fn title(call: &mut Call<'_>) -> Result {
    let separates = |letter: char| match letter {
        '_' => false,
        letter if letter.is_ascii() => !letter.is_ascii_alphanumeric(),
        letter => letter.is_whitespace(),
    };
    let mut before = ' ';
    let letters = call.text(0)?.chars().map(|letter| {
        let shown = if separates(before) { to_upper(letter) } else { letter };
        before = letter;
        shown
    });
    Ok(letters.collect::<String>().into())
}

/// Lower case at the start of each word.
fn untitle(call: &mut Call<'_>) -> Result {
    let mut before = ' ';
    let letters = call.text(0)?.chars().map(|letter| {
        let shown = if before.is_whitespace() { to_lower(letter) } else { letter };
        before = letter;
        shown
    });
    Ok(letters.collect::<String>().into())
}

fn swapcase(call: &mut Call<'_>) -> Result {
    let letters = call
        .text(0)?
        .chars()
        .map(|letter| if letter.is_lowercase() { to_upper(letter) } else { to_lower(letter) });
    Ok(letters.collect::<String>().into())
}

/// The first character of each word.
fn initials(call: &mut Call<'_>) -> Result {
    let words = call.text(0)?.split_whitespace();
    Ok(words.filter_map(|word| word.chars().next()).collect::<String>().into())
}

/// Removes connectors and writes the letter after each in upper case, and all others in lower case. The connectors at
/// the start and the end stay, and so do all but the last of several.
fn camelcase(call: &mut Call<'_>) -> Result {
    let text = call.text(0)?;
    let words = text.trim_start_matches(is_connector);
    let mut out = text[..text.len() - words.len()].to_owned();
    let mut letters = words.chars();
    let Some(first) = letters.next() else {
        return Ok(out.into());
    };
    let mut before = to_upper(first);
    for letter in letters {
        let follows_connector = is_connector(before);
        if !follows_connector || is_connector(letter) {
            out.push(before);
        }
        before = if follows_connector { to_upper(letter) } else { to_lower(letter) };
    }
    out.push(before);
    Ok(out.into())
}

fn snakecase(call: &mut Call<'_>) -> Result {
    Ok(connected(call.text(0)?, '_').into())
}

fn kebabcase(call: &mut Call<'_>) -> Result {
    Ok(connected(call.text(0)?, '-').into())
}
