//! The fields of a task file, and what is wrong with the file itself.

use std::collections::BTreeMap;

use gantry_api::TaskFileCreate;
use gantry_domain::recipe::{FileValue, FileWork, Recipe, TaskFile, ValueName, Work};
use gantry_domain::sealed::Sealed;
use gantry_domain::secret::{SecretId, SecretSource};
use gantry_ops::aside;
use gantry_ops::secret::SecretError;
use gantry_taskfile::task_file::{self, Inputs, RunVariables, Severity};
use gantry_taskfile::template::{Data, Trust};

use super::{Checker, MOST_ARGS, refuse_secret};
use crate::refusal::{Mistakes, Refusal};

/// A recipe is a part of each record of a run. A longer file belongs into the source.
const LONGEST_TEXT: usize = 64 << 10;

/// The longest value of a task file, in bytes.
const LONGEST_VALUE: usize = 16 << 10;

/// The field of a request, in mistakes.
const FIELD: &str = "task_file";

impl Checker<'_> {
    pub(super) fn task_file(
        &mut self,
        new: &TaskFileCreate,
    ) -> Result<Option<FileWork>, SecretError> {
        let file = match (&new.text, &new.path) {
            (Some(text), None) => self.file_text(text),
            (None, Some(path)) => self.file_path(path),
            (None, None) => {
                self.mistakes.add(FIELD, "give the file as `text`, or its `path` in the source");
                None
            }
            (Some(_), Some(_)) => {
                self.mistakes.add(FIELD, "give a `text` or a `path`, not both");
                None
            }
        };
        let values_file = match &new.values_file {
            Some(path) => self.values_file(path).map(Some),
            None => Some(None),
        };
        let values = self.values(&new.values, false);
        let secret_values = self.secret_values(&new.secret_values)?;
        let secrets = self.secrets(&new.secrets);
        let whole = || {
            Some(FileWork {
                file: file?,
                values_file: values_file?,
                values: values?,
                secret_values: secret_values?,
                secrets: secrets?,
                has_registry_login: false,
            })
        };
        Ok(whole())
    }

    pub(crate) fn file_text(&mut self, text: &str) -> Option<TaskFile> {
        if text.len() > LONGEST_TEXT {
            let message = format!(
                "the file has {} bytes, and at most {LONGEST_TEXT} are sent with a request: put it into the source, and \
                 give its `path`",
                text.len()
            );
            self.mistakes.add(FIELD, message);
            return None;
        }
        Some(TaskFile::Text(text.to_owned()))
    }

    pub(crate) fn file_path(&mut self, path: &str) -> Option<TaskFile> {
        let path = path.strip_prefix("./").unwrap_or(path);
        self.mistakes.parse(FIELD, path).map(TaskFile::Path)
    }

    pub(crate) fn values_file(&mut self, path: &str) -> Option<gantry_domain::source::SourcePath> {
        self.mistakes.parse("values_file", path.strip_prefix("./").unwrap_or(path))
    }

    /// Values; `is_given`: for one run.
    pub(crate) fn values(
        &mut self,
        values: &BTreeMap<String, String>,
        is_given: bool,
    ) -> Option<BTreeMap<ValueName, FileValue>> {
        self.check_values("values", values.len())?;
        let mut checked = BTreeMap::new();
        for (name, text) in values {
            let name: Option<ValueName> = self.mistakes.parse("values", name);
            if text.len() > LONGEST_VALUE {
                let message =
                    format!("the value has {} bytes: at most {LONGEST_VALUE}", text.len());
                self.mistakes.add("values", message);
            }
            checked.extend(name.map(|name| (name, FileValue { text: text.clone(), is_given })));
        }
        Some(checked)
    }

    pub(crate) fn secret_values(
        &mut self,
        values: &BTreeMap<String, String>,
    ) -> Result<Option<BTreeMap<ValueName, Sealed>>, SecretError> {
        if self.check_values("secret_values", values.len()).is_none() {
            return Ok(None);
        }
        let mut checked = BTreeMap::new();
        for (name, value) in values {
            let key: Option<ValueName> = self.mistakes.parse("secret_values", name);
            match refuse_secret(value) {
                None => {
                    let sealed = self.seal(value)?;
                    checked.extend(key.map(|key| (key, sealed)));
                }
                Some(why) => self.mistakes.add("secret_values", format!("`{name}`: {why}")),
            }
        }
        Ok(Some(checked))
    }

    /// The secrets that a file may name.
    pub(crate) fn secrets(
        &mut self,
        sources: &BTreeMap<String, String>,
    ) -> Option<BTreeMap<SecretId, SecretSource>> {
        self.check_values("secrets", sources.len())?;
        let mut checked = BTreeMap::new();
        for (id, source) in sources {
            let id: Option<SecretId> = self.mistakes.parse("secrets", id);
            let source = source.parse::<SecretSource>();
            let source = source.map_err(|error| match &id {
                Some(id) => format!("`{id}`: {error}"),
                None => error.to_string(),
            });
            checked.extend(id.zip(self.mistakes.check("secrets", source)));
        }
        Some(checked)
    }

    fn check_values(&mut self, target: &str, count: usize) -> Option<()> {
        if count > MOST_ARGS {
            let message = format!("{count} values are given: at most {MOST_ARGS}");
            self.mistakes.add(target, message);
            return None;
        }
        Some(())
    }
}

/// Fails if the recipe's task file is known to be wrong. What depends on the source, on values that are given later or on
/// secrets is found when a run compiles it.
pub(crate) async fn lint(recipe: &Recipe) -> Result<(), Refusal> {
    let Work::File(file) = &recipe.work else { return Ok(()) };
    let TaskFile::Text(text) = &file.file else { return Ok(()) };
    if file.values_file.is_some() {
        return Ok(());
    }
    let (text, inputs, secrets) = (text.clone(), inputs(file), file.secrets.clone());
    // Away from the runtime, because the text is a stranger's.
    let found = aside::read(move || mistakes(&text, &inputs, &secrets)).await;
    let found = found.map_err(|error| {
        tracing::error!("a task file could not be checked: {error}");
        Refusal::Internal
    })?;
    let mut mistakes = Mistakes::default();
    for line in found {
        mistakes.add(FIELD, line);
    }
    mistakes.none()
}

/// A run as it could be.
fn inputs(file: &FileWork) -> Inputs {
    let mut inputs = Inputs { run: RunVariables::sample(), ..Inputs::default() };
    for (name, value) in &file.values {
        inputs.values.set(name.as_str(), Data::Text(value.text.as_str().into()), Trust::Saved);
    }
    for name in file.secret_values.keys() {
        inputs.values.set(name.as_str(), Data::Text("secret".into()), Trust::Secret);
    }
    for id in file.secrets.keys() {
        inputs.secrets.set(id.as_str(), "secret");
    }
    inputs
}

fn mistakes(
    text: &str,
    inputs: &Inputs,
    declared: &BTreeMap<SecretId, SecretSource>,
) -> Vec<String> {
    match task_file::needs(text, inputs) {
        Ok(needs) if !needs.alias_files.is_empty() => return Vec::new(),
        Ok(needs) => {
            let undeclared = task_file::undeclared(&needs.secrets, declared);
            if !undeclared.is_empty() {
                return undeclared.iter().map(ToString::to_string).collect();
            }
        }
        Err(_) => {}
    }
    let Err(found) = task_file::compile(text, inputs) else { return Vec::new() };
    if found.iter().any(|mistake| mistake.is_missing_value) {
        return Vec::new();
    }
    let errors = found.iter().filter(|mistake| mistake.severity == Severity::Error);
    errors.map(|error| format!("{}: {}", error.position, error.message)).collect()
}
