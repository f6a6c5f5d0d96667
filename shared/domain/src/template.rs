//! Texts with run variables, like `web:{{.Run.ID}}`.
//!
//! What a tag and a build argument need of the task language. Parsed when a task is saved, so that a misspelt variable
//! is refused there and not in the first run.

use std::fmt;
use std::str::FromStr;

use crate::InvalidText;
use crate::id::{RunId, TaskName};
use crate::image::RegistryHost;
use crate::platform::Platform;
use crate::source::{CommitId, RefName};
use crate::text::serde_as_text;
use crate::timestamp::Timestamp;

/// A text in which `{{.Run.X}}` stands for what is known of the run.
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
}

/// What a run's variables stand for.
#[derive(Debug, Clone)]
pub struct RunVariables<'a> {
    /// `.Run.ID`.
    pub id: RunId,
    /// `.Run.Registry`, and its first word as `.Run.RegistryName`.
    pub registry: &'a RegistryHost,
    /// `.Run.Date`, as `yyyyMMdd-HHmmssz`.
    pub date: Timestamp,
    /// `.Run.OS` and `.Run.Architecture`.
    pub platform: &'a Platform,
    /// `.Run.Commit`; empty for a source without commits.
    pub commit: Option<&'a CommitId>,
    /// `.Run.Branch`; empty where there is none.
    pub branch: Option<&'a RefName>,
    /// `.Run.TaskName`; empty for a quick build.
    pub task: Option<&'a TaskName>,
}

impl Template {
    /// The text with every variable replaced.
    #[must_use]
    pub fn render(&self, run: &RunVariables<'_>) -> String {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) => text.clone(),
                Piece::Variable(variable) => variable.value(run),
            })
            .collect()
    }

    /// The text as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Variable {
    fn value(self, run: &RunVariables<'_>) -> String {
        match self {
            Self::Id => run.id.to_string(),
            Self::Registry => run.registry.to_string(),
            Self::RegistryName => {
                run.registry.as_str().split('.').next().unwrap_or_default().to_owned()
            }
            Self::Date => {
                let at = run.date.to_utc();
                let (h, m, s) = at.time().as_hms();
                let (year, month, day) = at.date().to_calendar_date();
                format!("{year:04}{:02}{day:02}-{h:02}{m:02}{s:02}z", u8::from(month))
            }
            Self::Os => run.platform.os().to_owned(),
            Self::Architecture => run.platform.architecture().to_owned(),
            Self::Commit => run.commit.map(ToString::to_string).unwrap_or_default(),
            Self::Branch => run.branch.map(ToString::to_string).unwrap_or_default(),
            Self::TaskName => run.task.map(ToString::to_string).unwrap_or_default(),
        }
    }

    fn parse(expression: &str) -> Option<Self> {
        Some(match expression {
            ".Run.ID" | ".Build.ID" => Self::Id,
            ".Run.Registry" => Self::Registry,
            ".Run.RegistryName" => Self::RegistryName,
            ".Run.Date" => Self::Date,
            ".Run.OS" => Self::Os,
            ".Run.Architecture" => Self::Architecture,
            ".Run.Commit" => Self::Commit,
            ".Run.Branch" => Self::Branch,
            ".Run.TaskName" => Self::TaskName,
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
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (expression, after) =
                after.split_once("}}").ok_or_else(|| refused("each `{{` has its `}}`"))?;
            if !before.is_empty() {
                pieces.push(Piece::Literal(before.to_owned()));
            }
            let variable = Variable::parse(expression.trim_matches('-').trim()).ok_or_else(|| {
                refused(
                    "the run variables are .Run.ID, .Run.Registry, .Run.RegistryName, .Run.Date, .Run.OS, \
                     .Run.Architecture, .Run.Commit, .Run.Branch, .Run.TaskName",
                )
            })?;
            pieces.push(Piece::Variable(variable));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        Ok(Self { text: text.to_owned(), pieces })
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

    #[test]
    fn variables_are_replaced_and_unknown_ones_refused_when_saved() {
        let (registry, platform) = ("myreg.azurecr.io".parse().unwrap(), Platform::default());
        let (branch, task) = ("main".parse().unwrap(), "web".parse().unwrap());
        let commit = "4f2a".repeat(10).parse().unwrap();
        let run = RunVariables {
            id: "ca1".parse().unwrap(),
            registry: &registry,
            date: Timestamp::from_millis(1_700_000_000_000),
            platform: &platform,
            commit: Some(&commit),
            branch: Some(&branch),
            task: Some(&task),
        };
        let render = |text: &str| text.parse::<Template>().unwrap().render(&run);
        assert_eq!(render("web:{{.Run.ID}}"), "web:ca1");
        assert_eq!(render("{{ .Run.RegistryName }}-{{.Run.Branch}}"), "myreg-main");
        assert_eq!(render("v{{.Run.Date}}"), "v20231114-221320z");
        assert_eq!(render("plain"), "plain");
        for refused in ["{{.Run.Id}}", "{{.Run.ID", "{{.Values.x}}", "{{}}"] {
            assert!(refused.parse::<Template>().is_err(), "{refused}");
        }
    }
}
