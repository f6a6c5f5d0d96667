//! What an instruction names in its words and flags, each with its place in the file.

use std::ops::Range;

use super::lines::{Instruction, Piece, Spanned};
use super::{DockerfileError, ImageUse, Role};

/// An operand that may be an image.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) line: usize,
    pub(super) text: String,
    pub(super) operand: Range<usize>,
}

impl Named {
    pub(super) fn image(line: usize, word: Piece<'_>) -> Option<Self> {
        Some(Self { line, text: word.text.to_owned(), operand: word.range()? })
    }

    pub(super) fn used(&self, role: Role, needed: bool) -> Result<ImageUse, DockerfileError> {
        let image = self.text.parse().map_err(|source| DockerfileError::Reference {
            line: self.line,
            image: self.text.clone(),
            source,
        })?;
        Ok(ImageUse { image, role, needed, line: self.line, operand: self.operand.clone() })
    }
}

/// A `from=` operand, and whether a number means a stage.
#[derive(Debug)]
pub(super) struct SourceOperand {
    pub(super) named: Named,
    pub(super) may_be_index: bool,
}

pub(super) fn sources(instruction: &Instruction) -> Result<Vec<SourceOperand>, DockerfileError> {
    let wanted = match instruction.keyword.as_str() {
        "copy" => "--from",
        "run" => "--mount",
        _ => return Ok(Vec::new()),
    };
    let (flags, _) = flags(instruction.arguments.piece());
    let mut sources = Vec::new();
    for flag in &flags {
        let Some((name, value)) = flag.piece().split_once('=') else {
            continue;
        };
        if name.text != wanted {
            continue;
        }
        if wanted == "--from" {
            sources.extend(from(instruction.line, value, true)?);
        } else if let Some(field) = mounted_from(value) {
            sources.extend(from(instruction.line, field.piece(), false)?);
        }
    }
    Ok(sources)
}

fn from(
    line: usize,
    operand: Piece<'_>,
    may_be_index: bool,
) -> Result<Option<SourceOperand>, DockerfileError> {
    if operand.text.contains('$') {
        return Err(DockerfileError::VariableFrom { line, operand: operand.text.to_owned() });
    }
    Ok(Named::image(line, operand).map(|named| SourceOperand { named, may_be_index }))
}

/// The `from` field of a mount that can have one.
fn mounted_from(mount: Piece<'_>) -> Option<Spanned> {
    let mut from = None;
    for field in comma_separated(mount) {
        let Some((key, value)) = field.piece().split_once('=') else {
            continue;
        };
        match key.text.to_lowercase().as_str() {
            "type" if matches!(value.text.to_lowercase().as_str(), "tmpfs" | "secret" | "ssh") => {
                return None;
            }
            "from" => {
                let mut operand = Spanned::default();
                value.chars().for_each(|(letter, at)| operand.push(letter, at));
                from = Some(operand);
            }
            _ => {}
        }
    }
    from
}

/// Fields as in a line of comma-separated values: one may stand in quotes, and a quote in those is doubled.
fn comma_separated(text: Piece<'_>) -> Vec<Spanned> {
    let mut fields = vec![Spanned::default()];
    let mut quoted = false;
    let mut letters = text.chars().peekable();
    while let Some((letter, at)) = letters.next() {
        let last = fields.len() - 1;
        match letter {
            '"' if quoted && letters.next_if(|(next, _)| *next == '"').is_none() => quoted = false,
            '"' if !quoted && fields[last].piece().text.is_empty() => quoted = true,
            ',' if !quoted => fields.push(Spanned::default()),
            _ => fields[last].push(letter, at),
        }
    }
    fields
}

/// The `--flags` before an instruction's words, unquoted, and what follows them.
pub(super) fn flags(arguments: Piece<'_>) -> (Vec<Spanned>, Piece<'_>) {
    let mut flags = Vec::new();
    let mut rest = arguments.trim();
    while rest.text.starts_with("--") {
        let (flag, length) = flag(rest);
        rest = rest.slice(length..rest.text.len()).trim();
        if flag.piece().text == "--" {
            break;
        }
        flags.push(flag);
    }
    (flags, rest)
}

/// The word at the start of `text` without quotes and escapes, and its length with them.
fn flag(text: Piece<'_>) -> (Spanned, usize) {
    let mut word = Spanned::default();
    let mut quote = None;
    let mut length = 0;
    let mut letters = text.chars();
    while let Some((letter, at)) = letters.next() {
        if letter.is_whitespace() && quote.is_none() {
            break;
        }
        length += letter.len_utf8();
        match (letter, quote) {
            ('\'' | '"', None) => quote = Some(letter),
            (_, Some(open)) if letter == open => quote = None,
            ('\\', _) => {
                if let Some((escaped, at)) = letters.next() {
                    length += escaped.len_utf8();
                    word.push(escaped, at);
                }
            }
            _ => word.push(letter, at),
        }
    }
    (word, length)
}
