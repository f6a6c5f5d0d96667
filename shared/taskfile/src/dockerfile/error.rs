//! Why a Dockerfile cannot be read, with the line.

use gantry_domain::InvalidText;

use super::expand::ExpandError;

/// Why a Dockerfile cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DockerfileError {
    /// No stage at all.
    #[error("the Dockerfile has no FROM")]
    NoStage,
    /// Something other than ARG before the first FROM.
    #[error("line {line}: {keyword} stands before the first FROM, where only ARG may")]
    BeforeFrom {
        /// From 1.
        line: usize,
        /// In capitals.
        keyword: String,
    },
    /// FROM with too few or too many words.
    #[error("line {line}: FROM takes an image, or an image, `AS` and a name")]
    FromWords {
        /// From 1.
        line: usize,
    },
    /// A stage's name that is none.
    #[error("line {line}: `{name}` is no name of a stage: a letter, then letters, digits or `-_.`")]
    StageName {
        /// From 1.
        line: usize,
        /// As written.
        name: String,
    },
    /// A variable that cannot be expanded.
    #[error("line {line}: cannot expand `{word}`")]
    Expand {
        /// From 1.
        line: usize,
        /// As written.
        word: String,
        /// What is wrong with it.
        source: ExpandError,
    },
    /// Arguments before the first FROM that hold each other too often.
    #[error(
        "line {line}: the arguments before the first FROM become longer than 1 MiB: leave out what FROM does not use"
    )]
    LongArguments {
        /// Where they do, from 1.
        line: usize,
    },
    /// A base whose variables are all empty.
    #[error(
        "line {line}: the base `{word}` is empty: give its build argument, or a default with ARG before the first FROM"
    )]
    EmptyBase {
        /// From 1.
        line: usize,
        /// As written.
        word: String,
    },
    /// An image that is no reference.
    #[error("line {line}: `{image}` is neither a stage before it nor an image")]
    Reference {
        /// From 1.
        line: usize,
        /// Its variables expanded.
        image: String,
        /// The part that is wrong.
        source: InvalidText,
    },
    /// `--from=` with a variable.
    #[error(
        "line {line}: `from={operand}` takes no variable: add `FROM {operand} AS name` and use that name"
    )]
    VariableFrom {
        /// From 1.
        line: usize,
        /// As written.
        operand: String,
    },
    /// `--mount=type=tmpfs,from=image`.
    #[error(
        "line {line}: a mount of type tmpfs is empty and takes no `from`, on which Docker 20.10 crashes: leave it out"
    )]
    TmpfsFrom {
        /// From 1.
        line: usize,
    },
    /// `ONBUILD COPY --from=image`, and the stage is built on in the same file.
    #[error(
        "line {line}: older engines do not load an image that ONBUILD names and copy nothing from it: add `FROM {image} AS name` before this stage and use that name"
    )]
    OnbuildImage {
        /// From 1.
        line: usize,
        /// As written.
        image: String,
    },
    /// `--from=7` of three stages.
    #[error("line {line}: there is no stage {index}: the first is 0 and there are {stages}")]
    StageIndex {
        /// From 1.
        line: usize,
        /// As written.
        index: String,
        /// How many there are.
        stages: usize,
    },
    /// A target that is no stage.
    #[error("the target `{target}` is no stage of the Dockerfile: it has {}", list(.stages))]
    Target {
        /// As given.
        target: String,
        /// The names there are.
        stages: Vec<String>,
    },
    /// The same directive twice.
    #[error("line {line}: only one `{name}` directive can be used")]
    RepeatedDirective {
        /// From 1.
        line: usize,
        /// In lower case.
        name: String,
    },
    /// An escape directive with another character.
    #[error("line {line}: `{token}` is no escape character: it is \\ or `")]
    Escape {
        /// From 1.
        line: usize,
        /// As written.
        token: String,
    },
    /// A heredoc without end.
    #[error(
        "line {line}: the heredoc `{name}` does not end: a line with nothing but `{name}` is missing"
    )]
    Heredoc {
        /// Where it begins, from 1.
        line: usize,
        /// Its terminator.
        name: String,
    },
    /// A heredoc whose name is no word.
    #[error("line {line}: the name of a heredoc is no word: a quote or brace in it is not ended")]
    HeredocName {
        /// From 1.
        line: usize,
    },
    /// Braces in braces.
    #[error("line {line}: `${{…}}` is nested too deep")]
    TooDeep {
        /// From 1.
        line: usize,
    },
    /// Versions of the engine find other images.
    #[error(
        "line {line}: versions of the engine read this file differently, and not all find the same images: write `# syntax=` on the first line, plain words as names of heredocs, and nothing behind a JSON array"
    )]
    Ambiguous {
        /// The first image that not all find, from 1.
        line: usize,
    },
    /// An instruction that no engine knows.
    #[error("line {line}: no engine knows the instruction {keyword}")]
    Unknown {
        /// From 1.
        line: usize,
        /// As written.
        keyword: String,
    },
    /// More images than anybody needs.
    #[error("the Dockerfile needs more than {most} images: build it in several tasks")]
    TooManyImages {
        /// How many may be needed.
        most: usize,
    },
}

impl DockerfileError {
    /// We do not read on, though an engine might.
    pub(super) fn is_bound(&self) -> bool {
        match self {
            Self::Expand { source, .. } => source.is_bound(),
            Self::LongArguments { .. } | Self::TooDeep { .. } | Self::TooManyImages { .. } => true,
            // No engine refuses it.
            Self::TmpfsFrom { .. } | Self::OnbuildImage { .. } => true,
            Self::NoStage
            | Self::BeforeFrom { .. }
            | Self::FromWords { .. }
            | Self::StageName { .. }
            | Self::EmptyBase { .. }
            | Self::Reference { .. }
            | Self::VariableFrom { .. }
            | Self::StageIndex { .. }
            | Self::Target { .. }
            | Self::RepeatedDirective { .. }
            | Self::Escape { .. }
            | Self::Heredoc { .. }
            | Self::HeredocName { .. }
            | Self::Ambiguous { .. }
            | Self::Unknown { .. } => false,
        }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "no named stage".to_owned() } else { names.join(", ") }
}
