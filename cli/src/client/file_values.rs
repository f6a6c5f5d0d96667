//! Values of task files, as options and as files.

use std::collections::BTreeMap;

use anyhow::Result;

use super::arguments::read_secret_pairs;
use super::task_file::name_and_value;
use crate::environment::Environment;

/// Values that are given for one run, or saved with a task.
#[derive(Debug, clap::Args)]
pub(crate) struct SetValues {
    /// A value, which the task file reads as `.Values.NAME`. May be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// The same, sealed and masked in logs: from the environment, or `NAME=@FILE`
    #[arg(long, value_name = "NAME[=VALUE]")]
    set_secret: Vec<String>,
}

impl SetValues {
    pub(crate) fn plain(&self) -> Result<BTreeMap<String, String>> {
        let pair = |pair: &String| {
            let (name, value) = name_and_value("--set", pair)?;
            Ok((name.to_owned(), value.to_owned()))
        };
        self.set.iter().map(pair).collect()
    }

    pub(crate) fn secret(&self, environment: &Environment) -> Result<BTreeMap<String, String>> {
        read_secret_pairs("--set-secret", &self.set_secret, environment)
    }
}

/// The secrets that a task file may name.
#[derive(Debug, clap::Args)]
pub(crate) struct DeclaredSecrets {
    /// A secret that the task file may name as `.Secrets.ID`: one of `gantry secret set`, or an address in a vault. May be
    /// given several times; an update keeps those that it does not name, and removes one with `ID=`
    #[arg(long = "secret", value_name = "ID=NAME|URL")]
    secrets: Vec<String>,
}

impl DeclaredSecrets {
    pub(crate) fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// By their ids.
    pub(crate) fn read(&self) -> Result<BTreeMap<String, String>> {
        let pair = |pair: &String| {
            let (id, source) = name_and_value("--secret", pair)?;
            Ok((id.to_owned(), source.to_owned()))
        };
        self.secrets.iter().map(pair).collect()
    }
}

/// Whether a file is a task file by its name, as in the original: any other name is that of a Dockerfile.
pub(crate) fn is_task_file(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".yaml", ".yml"].iter().any(|ending| name.ends_with(ending))
}

/// The task file that runs one command.
pub(crate) fn command_file(command: &str, timeout: Option<u32>) -> String {
    // JSON is YAML, whatever the command contains.
    let command = serde_json::Value::from(command);
    let timeout = timeout.unwrap_or(3600);
    format!("version: v1.1.0\nsteps:\n- cmd: {command}\n  timeout: {timeout}\n")
}

#[cfg(test)]
mod tests {
    use gantry_taskfile::task_file::{Inputs, StepWork, compile};

    use super::*;

    #[test]
    fn a_command_is_a_task_file_of_one_step() {
        let text = command_file("busybox sh -c 'echo \"a: b\" # c'", Some(60));
        let task = compile(&text, &Inputs::default()).unwrap().task;
        let StepWork::Cmd(cmd) = &task.steps[0].work else { panic!("no command") };
        let words: Vec<&str> = cmd.arguments.iter().map(|word| word.exposed()).collect();
        assert_eq!(words, ["sh", "-c", "echo \"a: b\" # c"]);
        assert_eq!(task.steps[0].timeout.as_secs(), 60);
    }

    #[test]
    fn the_name_tells_a_task_file_from_a_dockerfile() {
        for (name, expected) in [
            ("acr-task.yaml", true),
            ("build/ACB.YML", true),
            ("Dockerfile", false),
            ("web.dockerfile", false),
        ] {
            assert_eq!(is_task_file(name), expected, "{name}");
        }
    }
}
