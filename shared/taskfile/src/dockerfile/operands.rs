//! Flags and `from=` operands of an instruction, with their offsets in the file.

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

/// A `from=` operand, and whether it may be a stage's number.
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
    let (flags, _) = flags(instruction.arguments.piece(), instruction.flag_escape);
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
        } else if let Some(field) = mounted_from(instruction.line, value)? {
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

/// The `from` field of a mount. It is read for mounts of any type: newer engines load its image for all of them, and
/// the type may be a variable.
///
/// Docker 20.10 crashes on a `tmpfs` mount with a `from`, and takes all its running builds with it.
fn mounted_from(line: usize, mount: Piece<'_>) -> Result<Option<Spanned>, DockerfileError> {
    let (mut from, mut is_tmpfs) = (None, false);
    for field in comma_separated(mount) {
        let Some((key, value)) = field.piece().split_once('=') else {
            continue;
        };
        match key.text.to_lowercase().as_str() {
            "from" => {
                let mut operand = Spanned::default();
                value.chars().for_each(|(letter, at)| operand.push(letter, at));
                from = Some(operand);
            }
            "type" => is_tmpfs = value.text.to_lowercase() == "tmpfs",
            _ => {}
        }
    }
    if is_tmpfs && from.is_some() { Err(DockerfileError::TmpfsFrom { line }) } else { Ok(from) }
}

/// Splits a text like a line of CSV: a field may be quoted, and a quote within it is doubled.
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

/// The `--flags` before an instruction's words, unquoted, and the text after them.
///
/// The engine treats each byte as a Latin-1 character here, so two bytes within longer UTF-8 sequences count as blanks.
pub(super) fn flags(arguments: Piece<'_>, escape: char) -> (Vec<Spanned>, Piece<'_>) {
    let mut flags = Vec::new();
    let bytes = arguments.bytes();
    let mut rest = bytes.as_slice();
    loop {
        let blanks = rest.iter().take_while(|(byte, _)| is_blank(*byte)).count();
        rest = rest.get(blanks..).unwrap_or_default();
        if !matches!(rest, [(b'-', _), (b'-', _), ..]) {
            break;
        }
        let (flag, length) = flag(rest, escape);
        rest = rest.get(length..).unwrap_or_default();
        if flag.piece().text == "--" {
            break;
        }
        flags.push(flag);
    }
    let from = arguments.text.len() - rest.len();
    let from = arguments.text.ceil_char_boundary(from);
    (flags, arguments.slice(from..arguments.text.len()).trim())
}

fn is_blank(byte: u8) -> bool {
    char::from(byte).is_whitespace()
}

/// The word at the start of `text`, without quotes and escapes, and its length including them.
fn flag(text: &[(u8, usize)], escape: char) -> (Spanned, usize) {
    let mut word = Spanned::default();
    let mut quote = None;
    let mut at = 0;
    while let Some(&(byte, place)) = text.get(at) {
        let letter = char::from(byte);
        if letter.is_whitespace() && quote.is_none() {
            break;
        }
        at += 1;
        match (letter, quote) {
            ('\'' | '"', None) => quote = Some(letter),
            (_, Some(open)) if letter == open => quote = None,
            _ if letter == escape => {
                if let Some(&(escaped, place)) = text.get(at) {
                    at += 1;
                    word.push(char::from(escaped), place);
                }
            }
            _ => word.push(letter, place),
        }
    }
    (word, at)
}
