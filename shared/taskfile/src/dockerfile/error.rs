//! Why a Dockerfile cannot be read, with the line.

use gantry_domain::InvalidText;

use super::expand::ExpandError;

/// Why a Dockerfile cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DockerfileError {
    /// The file has no stage.
    #[error("the Dockerfile has no FROM")]
    NoStage,
    /// An instruction other than ARG before the first FROM.
    #[error("line {line}: {keyword} comes before the first FROM, where only ARG is allowed")]
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
    /// An invalid stage name.
    #[error(
        "line {line}: `{name}` is not a valid stage name: use a letter, then letters, digits or `-_.`"
    )]
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
    /// The arguments before the first FROM are too long.
    #[error(
        "line {line}: the arguments before the first FROM are longer than 1 MiB: remove those that FROM does not use"
    )]
    LongArguments {
        /// Where they exceed the limit, from 1.
        line: usize,
    },
    /// A base that expands to nothing.
    #[error(
        "line {line}: the base `{word}` is empty: give its build argument, or a default with ARG before the first FROM"
    )]
    EmptyBase {
        /// From 1.
        line: usize,
        /// As written.
        word: String,
    },
    /// An invalid image reference.
    #[error("line {line}: `{image}` is neither an earlier stage nor a valid image name")]
    Reference {
        /// From 1.
        line: usize,
        /// The reference, with variables expanded.
        image: String,
        /// The part that is wrong.
        source: InvalidText,
    },
    /// `--from=` with a variable.
    #[error(
        "line {line}: variables are not expanded in `from={operand}`: add `FROM {operand} AS name` and use that name"
    )]
    VariableFrom {
        /// From 1.
        line: usize,
        /// As written.
        operand: String,
    },
    /// `--mount=type=tmpfs,from=image`.
    #[error(
        "line {line}: a tmpfs mount is always empty, and Docker 20.10 crashes on its `from`: remove the `from`"
    )]
    TmpfsFrom {
        /// From 1.
        line: usize,
    },
    /// `ONBUILD COPY --from=image` in a stage that is the base of another stage in the same file.
    #[error(
        "line {line}: older engines do not load the image of an ONBUILD instruction, and copy nothing from it: add `FROM {image} AS name` before this stage and use that name"
    )]
    OnbuildImage {
        /// From 1.
        line: usize,
        /// As written.
        image: String,
    },
    /// `--from=7` in a file with three stages.
    #[error(
        "line {line}: there is no stage {index}: stages are numbered from 0, and their number is {stages}"
    )]
    StageIndex {
        /// From 1.
        line: usize,
        /// As written.
        index: String,
        /// The number of stages.
        stages: usize,
    },
    /// A target that is not a stage.
    #[error("the target `{target}` is not a stage of the Dockerfile: it has {}", list(.stages))]
    Target {
        /// As given.
        target: String,
        /// The names of the stages.
        stages: Vec<String>,
    },
    /// A repeated directive.
    #[error("line {line}: only one `{name}` directive can be used")]
    RepeatedDirective {
        /// From 1.
        line: usize,
        /// In lower case.
        name: String,
    },
    /// An escape directive with an unsupported character.
    #[error("line {line}: `{token}` cannot be the escape character: use \\ or `")]
    Escape {
        /// From 1.
        line: usize,
        /// As written.
        token: String,
    },
    /// An unclosed heredoc.
    #[error(
        "line {line}: the heredoc `{name}` is not closed: add a line with nothing but `{name}`"
    )]
    Heredoc {
        /// Where it begins, from 1.
        line: usize,
        /// Its terminator.
        name: String,
    },
    /// A malformed heredoc name.
    #[error(
        "line {line}: the name of a heredoc is malformed: a quote or brace in it is not closed"
    )]
    HeredocName {
        /// From 1.
        line: usize,
    },
    /// Braces nested in braces.
    #[error("line {line}: `${{…}}` is nested too deeply")]
    TooDeep {
        /// From 1.
        line: usize,
    },
    /// Versions of the engine find different images.
    #[error(
        "line {line}: versions of the engine read this file differently and do not all find the same images: write `# syntax=` on the first line, plain words as names of heredocs, and nothing after a JSON array"
    )]
    Ambiguous {
        /// The line of the first image that not all versions find, from 1.
        line: usize,
    },
    /// An unknown instruction.
    #[error("line {line}: unknown instruction {keyword}")]
    Unknown {
        /// From 1.
        line: usize,
        /// As written.
        keyword: String,
    },
    /// The file exceeds the limit of images.
    #[error("the Dockerfile needs more than {most} images: build it in several tasks")]
    TooManyImages {
        /// How many may be needed.
        most: usize,
    },
}

impl DockerfileError {
    /// Whether the limit is gantry's own: an engine may accept the file.
    pub(super) fn is_bound(&self) -> bool {
        match self {
            Self::Expand { source, .. } => source.is_bound(),
            Self::LongArguments { .. } | Self::TooDeep { .. } | Self::TooManyImages { .. } => true,
            // Engines accept these.
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
