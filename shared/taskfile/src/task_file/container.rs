//! Reads what `cmd` and `build` steps share: their container and their attempts.

use std::time::Duration;

use super::fields::{Fields, Placed};
use super::option_values;
use super::step::{Attempts, Container, Mount};
use super::traced::Traced;

/// More attempts than anyone waits for.
const MOST_ATTEMPTS: u32 = 1000;

/// The original's default, also for `retryDelay: 0`.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// What a task gives to all its steps.
pub(super) struct Defaults {
    pub(super) timeout: Duration,
    pub(super) working_directory: Option<String>,
    pub(super) env: Vec<(String, Traced)>,
    /// `None`: a network that is no network of the task.
    pub(super) network: Option<Traced>,
}

/// Where the source is in each container.
pub(super) const WORKSPACE: &str = "/workspace";

pub(super) fn attempts(fields: &mut Fields<'_>) -> Attempts {
    Attempts {
        retries: fields.count("retries", MOST_ATTEMPTS),
        retry_delay: fields.seconds("retryDelay").unwrap_or(RETRY_DELAY),
        retry_on: fields.texts("retryOnErrors").into_iter().map(|text| text.value).collect(),
        repeat: fields.count("repeat", MOST_ATTEMPTS),
    }
}

pub(super) fn container(fields: &mut Fields<'_>, defaults: &Defaults) -> Container {
    let own_directory = fields.shown_text("workingDirectory").map(|directory| directory.value);
    let is_image_directory = fields.flag("disableWorkingDirectoryOverride");
    let working_directory = own_directory.as_ref().or(defaults.working_directory.as_ref());
    let text =
        |fields: &mut Fields<'_>, name| fields.text(name).map(|text: Placed<Traced>| text.value);
    Container {
        env: environment(fields, &defaults.env),
        entry_point: text(fields, "entryPoint"),
        user: text(fields, "user"),
        privileged: fields.flag("privileged"),
        isolation: text(fields, "isolation"),
        cpus: fields.text("cpus").and_then(|cpus| checked("cpus", "cpus", cpus, fields)),
        ports: ports("ports", "publish", fields),
        expose: ports("expose", "expose", fields),
        network: text(fields, "network").or_else(|| defaults.network.clone()),
        working_directory: (!is_image_directory)
            .then(|| absolute(working_directory.map_or("", String::as_str))),
        mounts: mounts(fields),
        options: Vec::new(),
        detach: fields.flag("detach"),
        keep: fields.flag("keep"),
    }
}

fn ports(property: &'static str, option: &str, fields: &mut Fields<'_>) -> Vec<Traced> {
    let ports = fields.texts(property);
    ports.into_iter().filter_map(|port| checked(property, option, port, fields)).collect()
}

/// A value that has the form of the option of `docker run`.
fn checked(
    property: &str,
    option: &str,
    value: Placed<Traced>,
    fields: &mut Fields<'_>,
) -> Option<Traced> {
    let Placed { at, value } = value;
    if let Some(form) = option_values::wrong(option, value.exposed()) {
        fields.error(at, format!("`{property}`: `{value}` is not {form}"));
        return None;
    }
    Some(value)
}

/// `NAME=VALUE` for each variable. A name of the step hides the task's; of equal names the last one counts.
fn environment(fields: &mut Fields<'_>, defaults: &[(String, Traced)]) -> Vec<(String, Traced)> {
    let mut variables = own_environment(fields);
    for (name, value) in defaults {
        if !variables.iter().any(|(own, _)| own == name) {
            variables.push((name.clone(), value.clone()));
        }
    }
    variables
}

pub(super) fn own_environment(fields: &mut Fields<'_>) -> Vec<(String, Traced)> {
    let mut variables: Vec<(String, Traced)> = Vec::new();
    let mut places: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    for variable in fields.texts("env") {
        let Some((name, value)) = variable.value.split_once('=') else {
            let message =
                format!("the variable `{}` has no value: write `NAME=VALUE`", variable.value);
            fields.error(variable.at, message);
            continue;
        };
        if let Some(inserted) =
            name.first_inserted().filter(|origin| !super::traced::may_structure(Some(origin)))
        {
            let message =
                format!("`{}` is in the name of a variable: write the name out", inserted.name);
            fields.error(variable.at, message);
            continue;
        }
        if name.exposed().is_empty() || name.exposed().contains(char::is_whitespace) {
            fields.error(
                variable.at,
                format!("`{name}` is not a name for a variable: write `NAME=VALUE`"),
            );
            continue;
        }
        warn_of_quotes(fields, &Placed { at: variable.at, value: &value });
        match places.get(name.exposed()).and_then(|place| variables.get_mut(*place)) {
            Some(variable) => variable.1 = value,
            None => {
                places.insert(name.exposed().to_owned(), variables.len());
                variables.push((name.exposed().to_owned(), value));
            }
        }
    }
    variables
}

/// The original gives values to a shell, which removes quotes.
fn warn_of_quotes(fields: &mut Fields<'_>, variable: &Placed<&Traced>) {
    let text = variable.value.exposed();
    let is_quoted =
        |quote: char| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    if is_quoted('\'') || is_quoted('"') {
        fields.warning(
            variable.at,
            "the quotes are a part of the variable's value: remove them, or put them around the whole entry",
        );
    }
}

/// An absolute path from one that may be relative to the workspace, without `.` and `..`.
pub(super) fn absolute(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let relative = (!path.starts_with('/')).then_some(WORKSPACE);
    for part in relative.into_iter().chain([path]).flat_map(|path| path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn mounts(fields: &mut Fields<'_>) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    for node in fields.maps("volumeMounts", super::read::MOST_DECLARED) {
        let mut mount = Fields::of("a mount", node, fields.mistakes());
        let (volume, path) = (mount.shown_text("name"), mount.text("mountPath"));
        let (Some(volume), Some(path)) = (volume, path) else {
            mount.error(
                node.at,
                "a mount has a `name`, which is a volume of the task, and a `mountPath`",
            );
            mount.finish();
            continue;
        };
        if mounts.iter().any(|other| other.path.exposed() == path.value.exposed()) {
            mount.error(
                path.at,
                format!("two volumes are mounted at `{}`: choose another path", path.value),
            );
        }
        if !path.value.exposed().starts_with('/') {
            let path = &path.value;
            mount.error(
                node.at,
                format!("`{path}` is not an absolute path: begin `mountPath` with `/`"),
            );
        }
        mount.finish();
        mounts.push(Mount { volume: volume.value, path: path.value });
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_working_directory_is_relative_to_the_workspace() {
        for (path, expected) in [
            ("", "/workspace"),
            ("sub", "/workspace/sub"),
            ("/abs/../x", "/x"),
            ("../../etc", "/etc"),
            ("./a//b/..", "/workspace/a"),
            ("/", "/"),
        ] {
            assert_eq!(absolute(path), expected, "{path}");
        }
    }
}
