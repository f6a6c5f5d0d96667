//! Task files: `acr-task.yaml` to a checked task.
//!
//! In: the text of a file, run variables, values and secrets. Out: a [`Task`], with everything that is wrong or unusual,
//! each with its place and remedy. Pure: alias files are read by the caller, secrets are resolved by the caller.
//!
//! The text is processed in the original's order: comment lines are removed, aliases replaced, the template rendered,
//! and the result is read as YAML. Different from the original, a value never becomes a part of the text that is parsed,
//! so that it cannot add a step, a key or an argument.

mod aliases;
mod asks;
mod build;
mod cmd;
mod container;
mod declared;
mod fields;
mod graph;
mod inputs;
mod insertions;
mod lines;
mod mistake;
mod option_values;
mod options;
mod position;
mod read;
mod similar;
mod step;
mod traced;
mod words;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use aliases::{Aliases, Declared};
pub use asks::Ask;
pub use declared::{SecretProblem, undeclared};
use fields::Fields;
pub use inputs::{RunVariables, Secrets, Values};
use insertions::Insertions;
use mistake::Mistakes;
pub use mistake::{Mistake, Severity};
pub use options::Given;
pub use position::Position;
use position::{Lines, Mapped};
pub use step::{
    Attempts, Build, Cmd, Container, Mount, Network, Pull, SecretLocation, SecretReference, Step,
    StepWork, Task, Volume,
};
pub use traced::Traced;

use crate::template::{Limits, Piece, PieceKind, Template, Value};

/// The longest task file, and the longest text that may become of one, in bytes.
pub const LONGEST: usize = 1 << 20;

/// The JSON schema of task files, for editors.
pub const SCHEMA: &str = include_str!("../../acr-task.schema.json");

/// What a task file is compiled with.
#[derive(Clone, Default)]
pub struct Inputs {
    /// The run variables.
    pub run: RunVariables,
    /// The values.
    pub values: Values,
    /// The secrets by their ids.
    pub secrets: Secrets,
    /// The content of the alias files that [`needs`] named.
    pub alias_files: BTreeMap<String, String>,
    /// What the operator's image aliases stand for, such as `bash`.
    pub image_aliases: BTreeMap<String, String>,
    /// The working directory of steps of a task that names none; relative to the workspace.
    pub working_directory: Option<String>,
}

/// A file that compiled.
#[derive(Debug)]
pub struct Compiled {
    /// What its steps do.
    pub task: Task,
    /// The text that was read as YAML, with all values in it.
    pub rendered: Traced,
    /// What is unusual in it.
    pub warnings: Vec<Mistake>,
}

/// What must be read before a file can be compiled.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The alias files: URLs, and paths relative to the working directory.
    pub alias_files: Vec<String>,
    /// The secrets.
    pub secrets: Vec<SecretReference>,
}

/// Compiles a task file.
///
/// # Errors
/// Everything that is wrong with it, and the warnings too; at least one of them is an error.
pub fn compile(source: &str, inputs: &Inputs) -> Result<Compiled, Vec<Mistake>> {
    let lines = Lines::of(source);
    let mut mistakes = Mistakes::default();
    let mut insertions = Insertions::default();
    let compiled = text(source, inputs, &mut insertions, &mut mistakes).and_then(|rendered| {
        let root = yaml::parse(&rendered.text, &insertions)
            .map_err(|error| mistakes.error(error.at, error.message))
            .ok()?;
        let context = read::Context {
            lines: &lines,
            aliases: &rendered.aliases,
            insertions: &insertions,
            working_directory: inputs.working_directory.as_deref(),
        };
        let task = read::task(root.as_deref(), &context, &mut mistakes);
        Some((task, insertions.restore(rendered.text.as_str())))
    });
    match compiled {
        Some((task, rendered)) if !mistakes.has_errors() => {
            Ok(Compiled { task, rendered, warnings: mistakes.into_list(&lines) })
        }
        Some(_) | None => Err(mistakes.into_list(&lines)),
    }
}

/// What must be read before [`compile`]: the alias files first, and with them the secrets.
///
/// Secrets and alias files that `inputs` lacks are empty meanwhile.
///
/// # Errors
/// Everything that is wrong so far.
pub fn needs(source: &str, inputs: &Inputs) -> Result<Needs, Vec<Mistake>> {
    let lines = Lines::of(source);
    let mut mistakes = Mistakes::default();
    let mut insertions = Insertions::default();
    let uncommented = lines::without_comments(source);
    let mut alias_files = Vec::new();
    if has_aliases(uncommented.as_str()) {
        let (_, declared) = alias_block(&uncommented, inputs, &mut insertions, &mut mistakes);
        alias_files = declared.sources.into_iter().map(|(_, file)| file).collect();
    }
    let mut secrets = Vec::new();
    let is_complete = alias_files.iter().all(|file| inputs.alias_files.contains_key(file));
    if is_complete && let Some(rendered) = text(source, inputs, &mut insertions, &mut mistakes) {
        match yaml::parse(&rendered.text, &insertions) {
            Ok(Some(root)) => {
                secrets = read::secrets(&mut Fields::of("a task", &root, &mut mistakes))
            }
            Ok(None) => {}
            Err(error) => mistakes.error(error.at, error.message),
        }
    }
    if mistakes.has_errors() {
        Err(mistakes.into_list(&lines))
    } else {
        Ok(Needs { alias_files, secrets })
    }
}

/// A text without aliases and templates.
struct Rendered {
    text: Mapped,
    aliases: Aliases,
}

/// Removes comments, replaces aliases and renders templates. `None` after an error.
fn text(
    source: &str,
    inputs: &Inputs,
    insertions: &mut Insertions,
    mistakes: &mut Mistakes,
) -> Option<Rendered> {
    if source.len() > LONGEST {
        mistakes.error(0, format!("the file is longer than {LONGEST} bytes"));
        return None;
    }
    if let Some(at) = insertions::reserved(source) {
        mistakes.error(
            at,
            "this character is for private use and cannot stand in a task file: remove it",
        );
        return None;
    }
    let mut text = lines::without_comments(source);
    let mut aliases = Aliases::default();
    if has_aliases(text.as_str()) {
        let (rest, declared) = alias_block(&text, inputs, insertions, mistakes);
        let files = alias_files(&declared, inputs, mistakes);
        aliases = Aliases::new(declared, inputs.image_aliases.clone(), files);
        let Some(replaced) = aliases.replace(&rest, LONGEST) else {
            mistakes.error(0, format!("the aliases make the file longer than {LONGEST} bytes"));
            return None;
        };
        if let Some(at) = insertions::in_action(replaced.as_str()) {
            let message = "this alias contains a value, so it cannot stand within `{{ }}`: write the value there";
            mistakes.error(replaced.source_offset(at), message);
            return None;
        }
        text = replaced;
    }
    let had_text = !text.as_str().is_empty();
    let text = render(&text, inputs, insertions, mistakes)?;
    if had_text && text.as_str().is_empty() {
        mistakes.error(0, "nothing is left of the file when its template is rendered");
        return None;
    }
    // A value of an alias is short in the text, however long it is and however often it is used.
    if insertions.restored_length(text.as_str()) > 2 * LONGEST {
        mistakes
            .error(0, format!("the file with all its values is longer than {} bytes", 2 * LONGEST));
        return None;
    }
    Some(Rendered { text, aliases })
}

/// Whether the file has a version that knows aliases.
fn has_aliases(text: &str) -> bool {
    lines::version(text).is_some_and(|version| version.to_ascii_lowercase().as_str() >= "v1.1.0")
}

/// Cuts the block of aliases out, and reads it.
fn alias_block(
    text: &Mapped,
    inputs: &Inputs,
    insertions: &mut Insertions,
    mistakes: &mut Mistakes,
) -> (Mapped, Declared) {
    let Some(block) = lines::alias_block(text.as_str()) else {
        return (text.clone(), Declared::default());
    };
    let (mut rest, mut own) = (Mapped::default(), Mapped::default());
    rest.extend(text, 0, block.start);
    rest.extend(text, block.end, text.as_str().len());
    own.extend(text, block.start, block.end);
    let Some(own) = render(&own, inputs, insertions, mistakes) else {
        return (rest, Declared::default());
    };
    let declared = match yaml::parse(&own, insertions) {
        Ok(Some(root)) => {
            let mut fields = Fields::of("a task", &root, mistakes);
            match fields.node("alias") {
                Some(node) => {
                    aliases::declared(Fields::of("`alias`", node, fields.mistakes()), insertions)
                }
                None => Declared::default(),
            }
        }
        Ok(None) => Declared::default(),
        Err(error) => {
            mistakes.error(error.at, error.message);
            Declared::default()
        }
    };
    (rest, declared)
}

/// The aliases in other files, in their order. A mistake in one is told where this file names it.
fn alias_files(
    declared: &Declared,
    inputs: &Inputs,
    mistakes: &mut Mistakes,
) -> Vec<BTreeMap<String, String>> {
    let mut files = Vec::new();
    for (at, name) in &declared.sources {
        let content = inputs.alias_files.get(name).map_or("", String::as_str);
        let mut own_mistakes = Mistakes::default();
        let read = aliases::file(content, &mut own_mistakes);
        for mistake in own_mistakes.into_list(&Lines::of(content)) {
            mistakes.error(*at, format!("{name}:{}: {}", mistake.position, mistake.message));
        }
        files.push(read);
    }
    files
}

/// Renders a template; what values print becomes marks.
fn render(
    text: &Mapped,
    inputs: &Inputs,
    insertions: &mut Insertions,
    mistakes: &mut Mistakes,
) -> Option<Mapped> {
    let data: Value = inputs::template_data(&inputs.run, &inputs.values, &inputs.secrets);
    let rendered = Template::parse(text.as_str())
        .and_then(|template| template.render(&data, Limits::default()));
    let pieces = match rendered {
        Ok(pieces) => pieces,
        Err(error) => {
            mistakes.error(text.source_offset(error.at), error.to_string());
            return None;
        }
    };
    let mut output = Mapped::default();
    for Piece { text: piece, at, kind } in pieces {
        match kind {
            PieceKind::Literal => output.extend(text, at, at + piece.len()),
            PieceKind::NoValue => {
                mistakes.missing_value(text.source_offset(at), no_value(text.as_str(), at))
            }
            PieceKind::Output(None) => output.insert(&piece, text.source_offset(at)),
            PieceKind::Output(Some(origin)) => {
                output.insert(&insertions.keep(piece, origin), text.source_offset(at));
            }
        }
    }
    Some(output)
}

/// What to say of the action at `at`, whose value is missing.
fn no_value(template: &str, at: usize) -> String {
    let action = template.get(at..).unwrap_or("");
    let end = action.find("}}").map_or(action.len(), |end| end + 2);
    let action = action.get(..end).unwrap_or("");
    format!(
        "`{action}` prints nothing, because there is no such value: give it, or add `| default` and a text"
    )
}
