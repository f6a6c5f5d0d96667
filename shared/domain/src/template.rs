//! Texts with run variables, like `web:{{.Run.ID}}`.
//!
//! Supports what tags and build arguments need. Templates are parsed when a task is saved, so that a misspelt variable
//! is refused then, and not in the first run.

use std::fmt;
use std::str::FromStr;

use crate::InvalidText;
use crate::id::{RunId, TaskName};
use crate::image::RegistryHost;
use crate::platform::Platform;
use crate::source::{CommitId, RefName};
use crate::text::serde_as_text;
use crate::timer::TimerName;
use crate::timestamp::Timestamp;

/// A text in which `{{.Run.X}}` is replaced by a property of the run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Template {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Piece {
    Literal(String),
    Variable(Variable),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Variable {
    Id,
    Registry,
    RegistryName,
    Date,
    Os,
    Architecture,
    Commit,
    Branch,
    TaskName,
    Timer,
    TimerDue,
}

/// The values of the variables.
#[derive(Debug, Clone)]
pub struct RunVariables<'a> {
    /// `.Run.ID`.
    pub id: RunId,
    /// `.Run.Registry`, and its first label as `.Run.RegistryName`.
    pub registry: &'a RegistryHost,
    /// `.Run.Date`, as `yyyyMMdd-HHmmssz`.
    pub date: Timestamp,
    /// `.Run.OS` and `.Run.Architecture`.
    pub platform: &'a Platform,
    /// `.Run.Commit`; empty if the source has no commits.
    pub commit: Option<&'a CommitId>,
    /// `.Run.Branch`; empty if there is none.
    pub branch: Option<&'a RefName>,
    /// `.Run.TaskName`; empty for a quick build.
    pub task: Option<&'a TaskName>,
    /// `.Run.Timer`, and the instant at which it was due as `.Run.TimerDue`, written like the date; empty if no timer started
    /// the run.
    pub timer: Option<(&'a TimerName, Timestamp)>,
}

impl RunVariables<'_> {
    /// All variables: their names after `.Run.`, and their values.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, String)> {
        let written = |variable: Variable| variable.as_written().trim_matches(['{', '}']);
        Variable::ALL.into_iter().filter_map(move |variable| {
            Some((written(variable).strip_prefix(".Run.")?, variable.value(self)))
        })
    }
}

impl Template {
    /// Replaces every variable.
    #[must_use]
    pub fn render(&self, run: &RunVariables<'_>) -> String {
        render(&self.pieces, run)
    }

    /// The variables that are empty in this run, as written, like `{{.Run.Commit}}` if the source has no commits.
    #[must_use]
    pub fn empty_variables(&self, run: &RunVariables<'_>) -> Vec<&'static str> {
        let variables = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Variable(variable) => Some(*variable),
            Piece::Literal(_) => None,
        });
        variables
            .filter(|variable| variable.value(run).is_empty())
            .map(Variable::as_written)
            .collect()
    }

    /// Whether no two runs of different commits get the same text.
    #[must_use]
    pub fn is_of_one_run(&self) -> bool {
        let is_unique =
            |piece: &Piece| matches!(piece, Piece::Variable(Variable::Id | Variable::Commit));
        self.pieces.iter().any(is_unique)
    }

    /// Whether all runs of a task get the same text.
    #[must_use]
    pub fn is_of_every_run(&self) -> bool {
        self.pieces.iter().all(|piece| match piece {
            Piece::Literal(_) => true,
            Piece::Variable(variable) => variable.is_of_every_run(),
        })
    }

    /// The text before replacement.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// The rule in errors: the list of variables.
const VARIABLES: &str = "the run variables are .Run.ID, .Run.Registry, .Run.RegistryName, .Run.Date, .Run.OS, \
                         .Run.Architecture, .Run.Commit, .Run.Branch, .Run.TaskName, .Run.Timer, .Run.TimerDue";

/// The parts of a text that were found so far.
#[derive(Default)]
struct Pieces(Vec<Piece>);

impl Pieces {
    fn literal(&mut self, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Literal(before)) => before.push_str(text),
            Some(Piece::Variable(_)) | None => self.0.push(Piece::Literal(text.to_owned())),
        }
    }

    fn variable(&mut self, variable: Variable) {
        self.0.push(Piece::Variable(variable));
    }
}

fn render(pieces: &[Piece], run: &RunVariables<'_>) -> String {
    let texts = pieces.iter().map(|piece| match piece {
        Piece::Literal(text) => text.clone(),
        Piece::Variable(variable) => variable.value(run),
    });
    texts.collect()
}

/// The value of a build argument: any text, in which `{{.Run.X}}` is replaced by a property of the run.
///
/// Every other `{{…}}` is left unchanged, because other tools have templates too. `{{"{{"}}` becomes `{{`, for values
/// that contain `{{.Run.ID}}` literally.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArgValue {
    text: String,
    pieces: Vec<Piece>,
}

/// A build argument was refused. The message does not contain its value, which may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidArgValue {
    /// The value is too long to start a process with it.
    #[error(
        "the value has {bytes} bytes: at most {LONGEST_ARG}, since a `RUN` step gets it in its environment"
    )]
    TooLong {
        /// The length in bytes.
        bytes: usize,
    },
    /// The value contains a NUL.
    #[error("the value contains a NUL character, which no environment can hold: remove it")]
    Nul,
    /// A run variable is misspelt.
    #[error(
        "`{{{{{name}}}}}` is no run variable: {VARIABLES}; to have that text itself, write `{{{{\"{{{{\"}}}}{name}}}}}`"
    )]
    NoVariable {
        /// The text between the braces.
        name: String,
    },
}

/// Linux limits a `NAME=VALUE` to 128 KiB with its terminating NUL; this leaves space for the name.
pub const LONGEST_ARG: usize = (128 << 10) - 256;

impl ArgValue {
    /// Replaces every variable.
    #[must_use]
    pub fn render(&self, run: &RunVariables<'_>) -> String {
        render(&self.pieces, run)
    }

    /// The text before replacement.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for ArgValue {
    type Err = InvalidArgValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > LONGEST_ARG {
            return Err(InvalidArgValue::TooLong { bytes: text.len() });
        }
        if text.contains('\0') {
            return Err(InvalidArgValue::Nul);
        }
        let mut pieces = Pieces::default();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(OPEN) {
            pieces.literal(before);
            rest = match expression_of(after) {
                Some((expression, behind)) if is_of_the_run(expression) => {
                    let variable = Variable::parse(expression).ok_or_else(|| {
                        let name = expression.trim_matches('-').trim().to_owned();
                        InvalidArgValue::NoVariable { name }
                    })?;
                    pieces.variable(variable);
                    behind
                }
                Some((r#""{{""#, behind)) => {
                    pieces.literal(OPEN);
                    behind
                }
                Some(_) | None => {
                    pieces.literal(OPEN);
                    after
                }
            };
        }
        pieces.literal(rest);
        Ok(Self { text: text.to_owned(), pieces: pieces.0 })
    }
}

/// The text before and after the next `}}`. The search is bounded by the longest variable; searching the whole text for
/// each `{{` would be quadratic.
fn expression_of(text: &str) -> Option<(&str, &str)> {
    const LONGEST: usize = 64;
    let close = text.as_bytes().windows(CLOSE.len()).take(LONGEST).position(|two| two == b"}}")?;
    Some((text.get(..close)?, text.get(close + CLOSE.len()..)?))
}

/// Whether this was meant to be a run variable.
fn is_of_the_run(expression: &str) -> bool {
    let name = expression.trim_matches('-').trim();
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
    is_name(name)
        && ["run", "build"].iter().any(|word| {
            let first = name.strip_prefix('.').and_then(|name| name.split('.').next());
            first.is_some_and(|first| first.eq_ignore_ascii_case(word))
        })
}

impl fmt::Display for ArgValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

serde_as_text!(ArgValue);

/// A time that fits into a tag: `yyyyMMdd-HHmmssz`.
fn date(at: Timestamp) -> String {
    let at = at.to_utc();
    let (h, m, s) = at.time().as_hms();
    let (year, month, day) = at.date().to_calendar_date();
    format!("{year:04}{:02}{day:02}-{h:02}{m:02}{s:02}z", u8::from(month))
}

impl Variable {
    const ALL: [Self; 11] = [
        Self::Id,
        Self::Registry,
        Self::RegistryName,
        Self::Date,
        Self::Os,
        Self::Architecture,
        Self::Commit,
        Self::Branch,
        Self::TaskName,
        Self::Timer,
        Self::TimerDue,
    ];

    fn as_written(self) -> &'static str {
        match self {
            Self::Id => "{{.Run.ID}}",
            Self::Registry => "{{.Run.Registry}}",
            Self::RegistryName => "{{.Run.RegistryName}}",
            Self::Date => "{{.Run.Date}}",
            Self::Os => "{{.Run.OS}}",
            Self::Architecture => "{{.Run.Architecture}}",
            Self::Commit => "{{.Run.Commit}}",
            Self::Branch => "{{.Run.Branch}}",
            Self::TaskName => "{{.Run.TaskName}}",
            Self::Timer => "{{.Run.Timer}}",
            Self::TimerDue => "{{.Run.TimerDue}}",
        }
    }

    /// Whether it has the same value in all runs of a task.
    fn is_of_every_run(self) -> bool {
        match self {
            Self::Registry
            | Self::RegistryName
            | Self::Os
            | Self::Architecture
            | Self::TaskName => true,
            Self::Id | Self::Date | Self::Commit | Self::Branch | Self::Timer | Self::TimerDue => {
                false
            }
        }
    }

    fn value(self, run: &RunVariables<'_>) -> String {
        match self {
            Self::Id => run.id.to_string(),
            Self::Registry => run.registry.to_string(),
            Self::RegistryName => {
                run.registry.as_str().split('.').next().unwrap_or_default().to_owned()
            }
            Self::Date => date(run.date),
            Self::Os => run.platform.os().to_owned(),
            Self::Architecture => run.platform.architecture().to_owned(),
            Self::Commit => run.commit.map(ToString::to_string).unwrap_or_default(),
            Self::Branch => run.branch.map(ToString::to_string).unwrap_or_default(),
            Self::TaskName => run.task.map(ToString::to_string).unwrap_or_default(),
            Self::Timer => run.timer.map(|(timer, _)| timer.to_string()).unwrap_or_default(),
            Self::TimerDue => run.timer.map(|(_, due)| date(due)).unwrap_or_default(),
        }
    }

    fn parse(expression: &str) -> Option<Self> {
        Some(match expression.trim_matches('-').trim() {
            ".Run.ID" | ".Build.ID" => Self::Id,
            ".Run.Registry" => Self::Registry,
            ".Run.RegistryName" => Self::RegistryName,
            ".Run.Date" => Self::Date,
            ".Run.OS" => Self::Os,
            ".Run.Architecture" => Self::Architecture,
            ".Run.Commit" => Self::Commit,
            ".Run.Branch" => Self::Branch,
            ".Run.TaskName" => Self::TaskName,
            ".Run.Timer" => Self::Timer,
            ".Run.TimerDue" => Self::TimerDue,
            _ => return None,
        })
    }
}

impl FromStr for Template {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = |rule| InvalidText::new("template", text, rule);
        if text.len() > 4096 || text.chars().any(|c| c == '\0') {
            return Err(refused("at most 4096 characters, none of them NUL"));
        }
        let mut pieces = Pieces::default();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(OPEN) {
            let (expression, after) =
                after.split_once(CLOSE).ok_or_else(|| refused("each `{{` has its `}}`"))?;
            pieces.literal(before);
            let variable = Variable::parse(expression).ok_or_else(|| refused(VARIABLES))?;
            pieces.variable(variable);
            rest = after;
        }
        pieces.literal(rest);
        Ok(Self { text: text.to_owned(), pieces: pieces.0 })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

serde_as_text!(Template);

#[cfg(test)]
mod tests {
    use super::*;

    fn with_run<T>(test: impl FnOnce(&RunVariables<'_>) -> T) -> T {
        let (registry, platform) = ("myreg.azurecr.io".parse().unwrap(), Platform::default());
        let (branch, task) = ("main".parse().unwrap(), "web".parse().unwrap());
        let timer = "nightly".parse().unwrap();
        let commit = "4f2a".repeat(10).parse().unwrap();
        test(&RunVariables {
            id: "ca1".parse().unwrap(),
            registry: &registry,
            date: Timestamp::from_millis(1_700_000_000_000),
            platform: &platform,
            commit: Some(&commit),
            branch: Some(&branch),
            task: Some(&task),
            timer: Some((&timer, Timestamp::from_millis(1_700_017_200_000))),
        })
    }

    #[test]
    fn variables_are_replaced_and_unknown_ones_refused() {
        with_run(|run| {
            let render = |text: &str| text.parse::<Template>().unwrap().render(run);
            assert_eq!(render("web:{{.Run.ID}}"), "web:ca1");
            assert_eq!(render("{{ .Run.RegistryName }}-{{.Run.Branch}}"), "myreg-main");
            assert_eq!(render("v{{.Run.Date}}"), "v20231114-221320z");
            assert_eq!(render("{{.Run.Timer}}-{{.Run.TimerDue}}"), "nightly-20231115-030000z");
            assert_eq!(render("plain"), "plain");
        });
        for refused in ["{{.Run.Id}}", "{{.Run.ID", "{{.Values.x}}", "{{}}"] {
            assert!(refused.parse::<Template>().is_err(), "{refused}");
        }
    }

    #[test]
    fn a_text_is_that_of_every_run_of_one_run_or_neither() {
        for (text, every, one) in [
            ("{{.Run.Registry}}/web:{{.Run.OS}}-{{.Run.TaskName}}", true, false),
            ("web:{{.Run.Branch}}", false, false),
            ("web:{{.Run.Commit}}", false, true),
        ] {
            let template: Template = text.parse().unwrap();
            assert_eq!((template.is_of_every_run(), template.is_of_one_run()), (every, one));
        }
    }

    #[test]
    fn only_run_variables_are_replaced_in_build_arguments() {
        with_run(|run| {
            for (written, value) in [
                ("{{.Run.ID}}-{{ .Run.Commit }}", format!("ca1-{}", "4f2a".repeat(10))),
                ("{{.Name}}", "{{.Name}}".to_owned()),
                ("{{ range .Items }}{{.}}{{ end }}", "{{ range .Items }}{{.}}{{ end }}".to_owned()),
                ("{{ .Values.x | quote }}", "{{ .Values.x | quote }}".to_owned()),
                ("{{", "{{".to_owned()),
                ("}} {{ {{.Run.ID}}", "}} {{ ca1".to_owned()),
                ("{{{.Run.ID}}}", "{{{.Run.ID}}}".to_owned()),
                (r#"{{"{{"}}.Run.ID}}"#, "{{.Run.ID}}".to_owned()),
                (r#"{{"{{"}}"{{"{{"}}"}}"#, r#"{{"{{"}}"#.to_owned()),
                ("{{ .Runner.ID }}", "{{ .Runner.ID }}".to_owned()),
                ("", String::new()),
                ("-----BEGIN\nä\n", "-----BEGIN\nä\n".to_owned()),
            ] {
                assert_eq!(written.parse::<ArgValue>().unwrap().render(run), value, "{written}");
            }
        });
    }

    #[test]
    fn a_misspelt_variable_is_reported_without_the_value() {
        for misspelt in ["{{.Run.Idd}}", "{{.Run.}}", "{{ .run.ID }}", "{{.Build.Id}}", "{{.Run}}"]
        {
            let refused = format!("hunter2{misspelt}hunter2").parse::<ArgValue>().unwrap_err();
            let words = refused.to_string();
            assert!(words.contains("is no run variable") && !words.contains("hunter2"), "{words}");
        }
        assert_eq!(
            "{{.Run.Idd}}".parse::<ArgValue>().unwrap_err().to_string(),
            format!(
                "`{{{{.Run.Idd}}}}` is no run variable: {VARIABLES}; to have that text itself, write `{{{{\"{{{{\"}}}}.Run.Idd}}}}`"
            )
        );
    }

    #[test]
    fn build_arguments_are_limited_by_the_process_environment() {
        assert!("x".repeat(LONGEST_ARG).parse::<ArgValue>().is_ok());
        let refused = "x".repeat(LONGEST_ARG + 1).parse::<ArgValue>().unwrap_err();
        assert_eq!(refused, InvalidArgValue::TooLong { bytes: LONGEST_ARG + 1 });
        assert_eq!("a\0".parse::<ArgValue>().unwrap_err(), InvalidArgValue::Nul);
    }
}
