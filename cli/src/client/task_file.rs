//! `gantry task lint|render|plan`: what a task file would do, without a server.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use gantry_domain::secret::{SecretId, SecretSource};
use gantry_taskfile::task_file::{
    self, Compiled, Inputs, LONGEST, Mistake, RunVariables, Severity,
};
use gantry_taskfile::template::{Data, Trust};
use serde_json::json;

use super::arguments::read_secret_pairs;
use super::file_values::DeclaredSecrets;
use super::output::{Output, say, write_out};
use crate::environment::Environment;
use crate::exit::{Exit, UsageError};

mod plan;

/// A task file and what it is compiled with.
#[derive(Debug, clap::Args)]
pub(crate) struct TaskFile {
    /// The task file; `-` reads standard input
    #[arg(default_value = "acr-task.yaml", value_name = "FILE")]
    file: PathBuf,
    /// A YAML file of values, which templates read as `.Values.NAME`
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,
    /// A value. May be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// A value that is masked; without `=VALUE` the environment's. May be given several times
    #[arg(long, value_name = "NAME[=VALUE]")]
    set_secret: Vec<String>,
    #[command(flatten)]
    secrets: DeclaredSecrets,
    /// A run variable, like `Branch=main`; others have examples as values. May be given several times
    #[arg(long = "run-variable", value_name = "NAME=VALUE")]
    run_variables: Vec<String>,
}

/// The commands that need no server.
#[derive(Debug, Subcommand)]
pub(crate) enum FileCommand {
    /// Check a task file: every mistake with its line and remedy
    #[command(after_long_help = "Nothing is sent to a server.

Examples:
  gantry task lint
  gantry task lint acr-task.yaml --values values.yaml --set tag=1
  cat acr-task.yaml | gantry task lint -")]
    Lint(TaskFile),
    /// Show a task file with its aliases and templates replaced, secrets masked
    #[command(after_long_help = "Nothing is sent to a server.

Examples:
  gantry task render
  gantry task render acr-task.yaml --run-variable Branch=release --set-secret password")]
    Render(TaskFile),
    /// Show what the steps of a task file would do, and in which order
    #[command(after_long_help = "Nothing is sent to a server.

Examples:
  gantry task plan
  gantry task plan acr-task.yaml --set tag=1 --output json")]
    Plan(TaskFile),
}

/// What to do with a task file.
#[derive(Debug, Clone, Copy)]
enum Action {
    Lint,
    Render,
    Plan,
}

impl FileCommand {
    pub(crate) fn run(&self, output: Output, environment: &Environment) -> Result<Exit> {
        match self {
            Self::Lint(file) => file.run(Action::Lint, output, environment),
            Self::Render(file) => file.run(Action::Render, output, environment),
            Self::Plan(file) => file.run(Action::Plan, output, environment),
        }
    }
}

impl TaskFile {
    fn run(&self, action: Action, output: Output, environment: &Environment) -> Result<Exit> {
        let source = read(&self.file)?;
        let mut inputs = Inputs { run: run_variables(&self.run_variables)?, ..Inputs::default() };
        if let Some(file) = &self.values
            && let Err(mistakes) = inputs.values.add_file(&read(file)?, Trust::Saved)
        {
            write_out(&lines(file, &mistakes))?;
            return Ok(Exit::Failed);
        }
        for pair in &self.set {
            let (name, value) = name_and_value("--set", pair)?;
            inputs.values.set(name, Data::Text(value.into()), Trust::Saved);
        }
        for (name, value) in read_secret_pairs("--set-secret", &self.set_secret, environment)? {
            inputs.values.set(&name, Data::Text(value.into()), Trust::Secret);
        }
        let declared = self.declared()?;
        for id in declared.keys() {
            inputs.secrets.set(id.as_str(), "secret");
        }
        self.read_alias_files(&source, &mut inputs)?;
        match (task_file::compile(&source, &inputs), action) {
            (Ok(compiled), Action::Lint) => {
                for problem in task_file::undeclared(&compiled.task.secrets, &declared) {
                    say(format!("{}: {problem}", self.file.display()));
                }
                self.linted(&compiled, output)
            }
            (Err(mistakes), Action::Lint) => self.refused(&mistakes, output),
            (Ok(compiled), Action::Render | Action::Plan) => {
                self.warn(&compiled.warnings);
                match action {
                    Action::Plan => {
                        output.print(&plan::json(&compiled.task), plan::Plan(&compiled.task))?
                    }
                    Action::Render | Action::Lint => {
                        let text = compiled.rendered.to_string();
                        output.print(&json!({"text": text}), &text)?;
                    }
                }
                Ok(Exit::Ok)
            }
            (Err(mistakes), Action::Render | Action::Plan) => {
                self.warn(&mistakes);
                Ok(Exit::Failed)
            }
        }
    }

    /// The secrets that the task declares.
    fn declared(&self) -> Result<BTreeMap<SecretId, SecretSource>> {
        let mut declared = BTreeMap::new();
        for (id, source) in self.secrets.read()? {
            let id = id.parse().map_err(|error| UsageError(format!("--secret: {error}")))?;
            let source = source.parse::<SecretSource>();
            let source = source.map_err(|error| UsageError(format!("--secret {id}: {error}")))?;
            declared.insert(id, source);
        }
        Ok(declared)
    }

    fn linted(&self, compiled: &Compiled, output: Output) -> Result<Exit> {
        let steps = compiled.task.steps.len();
        let summary = format!(
            "{}: {steps} {}",
            self.file.display(),
            if steps == 1 { "step" } else { "steps" }
        );
        let text = format!("{}{summary}\n", lines(&self.file, &compiled.warnings));
        output
            .print(&json!({"steps": steps, "mistakes": json_mistakes(&compiled.warnings)}), text)?;
        Ok(Exit::Ok)
    }

    fn refused(&self, mistakes: &[Mistake], output: Output) -> Result<Exit> {
        output.print(&json!({"mistakes": json_mistakes(mistakes)}), lines(&self.file, mistakes))?;
        Ok(Exit::Failed)
    }

    fn warn(&self, mistakes: &[Mistake]) {
        if !mistakes.is_empty() {
            say(lines(&self.file, mistakes).trim_end());
        }
    }

    /// Reads the alias files beside the task file. Those at an address are not fetched.
    fn read_alias_files(&self, source: &str, inputs: &mut Inputs) -> Result<()> {
        // What is wrong with the file is told when it is compiled.
        let Ok(needs) = task_file::needs(source, inputs) else { return Ok(()) };
        for name in needs.alias_files {
            if name.contains("://") {
                say(format!("{name} is not fetched here, so its aliases are unknown"));
                continue;
            }
            let path = self.file.parent().unwrap_or(Path::new("")).join(&name);
            inputs.alias_files.insert(name, read(&path)?);
        }
        Ok(())
    }
}

fn lines(file: &Path, mistakes: &[Mistake]) -> String {
    mistakes.iter().map(|mistake| format!("{}:{mistake}\n", file.display())).collect()
}

fn json_mistakes(mistakes: &[Mistake]) -> serde_json::Value {
    let mistakes = mistakes.iter().map(|mistake| {
        let severity = match mistake.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        json!({
            "line": mistake.position.line,
            "column": mistake.position.column,
            "severity": severity,
            "message": mistake.message,
        })
    });
    mistakes.collect()
}

/// Reads a file that is not longer than a task file may be.
pub(super) fn read(path: &Path) -> Result<String> {
    let cannot_read = || format!("cannot read {}", path.display());
    let most = LONGEST as u64 + 1;
    let mut text = Vec::new();
    if path == Path::new("-") {
        io::stdin().take(most).read_to_end(&mut text).with_context(cannot_read)?;
    } else {
        File::open(path)
            .with_context(cannot_read)?
            .take(most)
            .read_to_end(&mut text)
            .with_context(cannot_read)?;
    }
    if text.len() > LONGEST {
        return Err(UsageError(format!("{} is longer than {LONGEST} bytes", path.display())).into());
    }
    String::from_utf8(text).with_context(|| format!("{} is not text in UTF-8", path.display()))
}

pub(super) fn name_and_value<'a>(option: &str, pair: &'a str) -> Result<(&'a str, &'a str)> {
    let split = pair.split_once('=').filter(|(name, _)| !name.is_empty());
    split.ok_or_else(|| {
        UsageError(format!("{option} {pair} has no value: write `{option} NAME=VALUE`")).into()
    })
}

/// A run as it could be, with what was given.
fn run_variables(given: &[String]) -> Result<RunVariables> {
    let mut run = RunVariables::sample();
    for pair in given {
        let (name, value) = name_and_value("--run-variable", pair)?;
        if !run.set(name, value) {
            let names = RunVariables::NAMES.join(", ");
            return Err(UsageError(format!(
                "there is no run variable `{name}`: use one of {names}"
            ))
            .into());
        }
    }
    Ok(run)
}
