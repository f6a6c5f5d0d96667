//! Renders Go's `text/template` with the functions of sprig 2.22, as ACR Tasks does for task files.
//!
//! In: the text of a template and the values that it reads. Out: the rendered text in pieces, each with its place in the
//! template and, if it was computed from a value with an [`Origin`], that origin. So what is done with the text
//! afterwards can depend on where it is from. Pure: no files, no clock, no environment, no randomness.
//!
//! It differs from the original in this:
//!
//! - Functions that need the clock, the network or random numbers are errors. `env` and `expandenv` return nothing.
//! - Text is always Unicode. A function that would cut a character in two, or decodes bytes that are not UTF-8, fails.
//! - `b64dec`, `b32dec` and `regexMatch` fail on malformed input. The originals return an error's message, or `false`.
//! - The original also removes the text `<no value>` wherever else it stands.
//! - Regular expressions have no classes like `\p{L}`.
//! - `int` and `int64` are one type, and so are all lists and all maps. Nil is accepted as an empty map.
//! - Maps are ordered by their keys, so `keys` and `values` are too.
//! - A map is a value. `set`, `unset`, `merge` and `mergeOverwrite` change a map only if their first argument is a
//!   plain variable; otherwise they return a changed copy.
//! - `semver` returns a map of the version's fields, without its methods. No other value has methods either.

mod budget;
mod error;
mod evaluate;
mod format;
mod functions;
mod lexer;
mod literal;
mod node;
mod parser;
mod pipeline;
mod printf;
mod render;
mod scope;
mod value;

pub use budget::Limits;
pub use error::{TemplateError, TemplateErrorKind};
use node::{Block, Definitions};
pub use value::{Data, Origin, Trust, Value};

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    text: String,
    block: Block,
    definitions: Definitions,
}

/// A part of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Empty only if there is no value.
    pub text: String,
    /// The byte of the template that it is from: the first byte of the literal, or of the action's `{{`.
    pub at: usize,
    /// What printed it.
    pub kind: PieceKind,
}

/// What printed a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PieceKind {
    /// Text of the template, unchanged: byte `i` of the piece is byte `at + i` of the template.
    Literal,
    /// An action, with the least trusted origin of the values that it printed.
    Output(Option<Origin>),
    /// An action whose value is missing, so that it printed nothing.
    NoValue,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// [`TemplateError`], with the place in `text`.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let (block, definitions) = parser::parse(text)?;
        Ok(Self { text: text.to_owned(), block, definitions })
    }

    /// Renders the template with `data` as its `.` and `$`. The same data renders to the same pieces each time.
    ///
    /// # Errors
    /// [`TemplateError`], with the place in the template's text.
    pub fn render(&self, data: &Value, limits: Limits) -> Result<Vec<Piece>, TemplateError> {
        render::render(self, data, limits)
    }
}

#[cfg(test)]
mod tests;
