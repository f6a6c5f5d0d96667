//! Why a template cannot be rendered.

/// Why a template cannot be parsed or rendered, and where.
///
/// No message contains a value that has an origin, so no secret is shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct TemplateError {
    /// The byte of the template where it goes wrong, from 0.
    pub at: usize,
    /// What is wrong.
    pub kind: TemplateErrorKind,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateErrorKind {
    /// `{{` without `}}`.
    #[error("the action is not closed: add `}}}}`")]
    UnclosedAction,
    /// `{{/*` without `*/`.
    #[error("the comment is not closed: add `*/}}}}`")]
    UnclosedComment,
    /// A comment with something else in the same action.
    #[error("a comment must be alone in its action: write `}}}}` directly after `*/`")]
    CommentNotAlone,
    /// A string or character without its closing quote.
    #[error("the quote {quote} is not closed on the same line: add {quote}")]
    UnclosedQuote {
        /// The quote character.
        quote: char,
    },
    /// A raw string without its closing backquote.
    #[error("the raw string is not closed: add a backquote")]
    UnclosedRawString,
    /// `(` without `)`.
    #[error("the parenthesis is not closed: add `)`")]
    UnclosedParenthesis,
    /// A character or word that cannot be at this place.
    #[error("unexpected {found} in {place}")]
    Unexpected {
        /// The word, quoted.
        found: String,
        /// The construct that is being read.
        place: &'static str,
    },
    /// A malformed or too large number.
    #[error("`{text}` is not a number that a template can hold")]
    Number {
        /// As written.
        text: String,
    },
    /// A string with an unknown escape.
    #[error("{text} has an escape that Go does not know: use a raw string in backquotes")]
    Escape {
        /// As written.
        text: String,
    },
    /// An unknown function.
    #[error("there is no function `{name}`{}", or_nothing(.meant))]
    UnknownFunction {
        /// As written.
        name: String,
        /// The field of the same name, if that may be meant.
        meant: Option<String>,
    },
    /// A known function that gantry does not offer.
    #[error("`{name}` is not available: {reason}")]
    Unavailable {
        /// As written.
        name: String,
        /// Why, and what to use.
        reason: &'static str,
    },
    /// A variable that is used before it is declared, or outside of its block.
    #[error(
        "the variable `{name}` is not declared here: write `{name} :=` in this block or around it"
    )]
    UndeclaredVariable {
        /// With its `$`.
        name: String,
    },
    /// A construct without its value.
    #[error("{place} has no value")]
    NoValue {
        /// The construct.
        place: &'static str,
    },
    /// A literal after `|`.
    #[error("only a function can follow `|`")]
    PipeToLiteral,
    /// A block without its end.
    #[error("`{keyword}` is not ended: add `{{{{end}}}}`")]
    Unended {
        /// The keyword that opened it.
        keyword: &'static str,
    },
    /// `end`, `else`, `break`, `continue` or `define` at a place where it means nothing.
    #[error("`{keyword}` is not inside {place}")]
    Misplaced {
        /// The keyword.
        keyword: &'static str,
        /// Where it could be.
        place: &'static str,
    },
    /// Two templates of one name.
    #[error("the template `{name}` is defined twice")]
    DefinedTwice {
        /// Its name.
        name: String,
    },
    /// A template that is not defined.
    #[error("the template `{name}` is not defined: add `{{{{define \"{name}\"}}}}`")]
    UnknownTemplate {
        /// Its name.
        name: String,
    },
    /// A field of a missing value.
    #[error(
        "`{of}` is not set, so it has no field `{field}`: if it may be missing, write `({of}).{field} | default \"…\"`, or use `with`"
    )]
    MissingField {
        /// The expression that has no value.
        of: String,
        /// The field that it should have.
        field: String,
    },
    /// A field of a value without fields.
    #[error("`{of}` is {kind}, so it has no field `{field}`")]
    NoFields {
        /// The expression.
        of: String,
        /// What it is.
        kind: &'static str,
        /// The field that it should have.
        field: String,
    },
    /// Arguments for a value.
    #[error("`{of}` is no function, so it takes no arguments")]
    NotAFunction {
        /// The expression.
        of: String,
    },
    /// `nil` as a command of its own.
    #[error("`nil` cannot stand alone")]
    BareNil,
    /// Too few or too many arguments.
    #[error("`{function}` takes {wanted}, and gets {got}")]
    ArgumentCount {
        /// The function.
        function: &'static str,
        /// The numbers that it accepts, in words.
        wanted: String,
        /// The number of arguments.
        got: usize,
    },
    /// An argument of the wrong type.
    #[error("argument {position} of `{function}` must be {wanted}, and is {got}{}", if_nil(.got))]
    ArgumentType {
        /// The function.
        function: &'static str,
        /// From 1; a piped value is the last argument.
        position: usize,
        /// What it must be.
        wanted: &'static str,
        /// What it is.
        got: &'static str,
    },
    /// A function that fails on its arguments.
    #[error("`{function}` fails: {problem}")]
    FunctionFails {
        /// The function.
        function: &'static str,
        /// Why.
        problem: String,
    },
    /// `fail` with a message of the template's own.
    #[error("the template fails: {message}")]
    Failed {
        /// The message.
        message: String,
    },
    /// `fail` with a message that contains a value.
    #[error("the template fails with a message that contains `{origin}`")]
    FailedOn {
        /// The name of the value.
        origin: String,
    },
    /// `range` over something without elements.
    #[error("`range` goes over a list, a map or a whole number, and this is {kind}")]
    NotIterable {
        /// What it is.
        kind: &'static str,
    },
    /// `range $a, $b` over a number.
    #[error("`range` over a number has one variable")]
    RangeOverNumber,
    /// Blocks, parentheses, template calls or values that are nested too deeply.
    #[error("it is nested more than {most} deep")]
    TooDeep {
        /// The limit.
        most: usize,
    },
    /// Too much output.
    #[error("the output is longer than {most} bytes")]
    TooLong {
        /// The limit.
        most: usize,
    },
    /// Too much work.
    #[error("the template takes more than {most} units of work: shorten its loops and its texts")]
    TooMuchWork {
        /// The limit.
        most: u64,
    },
}

fn or_nothing(meant: &Option<String>) -> String {
    meant.as_ref().map(|meant| format!(": did you mean `{meant}`?")).unwrap_or_default()
}

fn if_nil(got: &str) -> &'static str {
    if got == "nil" { ": give a value, or a `default`" } else { "" }
}
