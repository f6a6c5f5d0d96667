//! What the steps of a task would do, as text and as JSON. Secrets are shown as `***`.

use std::fmt;

use gantry_taskfile::task_file::{Attempts, Build, Cmd, Container, Step, StepWork, Task, Traced};
use serde_json::{Value, json};

use crate::client::lanes;

/// The steps, and at their left who waits for whom.
pub(super) struct Plan<'a>(pub(super) &'a Task);

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task = self.0;
        let after: Vec<Vec<usize>> = task.steps.iter().map(|step| step.after.clone()).collect();
        let rows = lanes::draw(&after);
        let width = rows
            .iter()
            .flat_map(|row| [&row.dot, &row.beside])
            .map(|line| line.chars().count())
            .max();
        let width = width.unwrap_or(0);
        for row in &rows {
            let step = &task.steps[row.step];
            if let Some(line) = &row.before {
                writeln!(f, "{line}")?;
            }
            writeln!(f, "{:<width$}  {}{}", row.dot, step.id, after_text(step, task))?;
            for (name, value) in properties(step, task) {
                writeln!(f, "{:<width$}    {name:<11} {value}", row.beside)?;
            }
            if let Some(line) = &row.after {
                writeln!(f, "{line}")?;
            }
        }
        Ok(())
    }
}

fn after_text(step: &Step, task: &Task) -> String {
    let names: Vec<&str> = step.after.iter().map(|other| task.steps[*other].id.as_str()).collect();
    if names.is_empty() { String::new() } else { format!("  after {}", names.join(", ")) }
}

/// What a step does, by name, in the order in which it matters.
fn properties(step: &Step, task: &Task) -> Vec<(&'static str, String)> {
    let mut properties = Vec::new();
    match &step.work {
        StepWork::Cmd(cmd) => {
            properties.push(("image", cmd.image.to_string()));
            if !cmd.arguments.is_empty() {
                properties.push(("arguments", quoted(&cmd.arguments)));
            }
            if let Some(pull) = cmd.pull {
                properties
                    .push(("pull", format!("before it runs, tried {} more times", pull.retries)));
            }
            container(&cmd.container, &mut properties);
            attempts(&cmd.attempts, &mut properties);
        }
        StepWork::Build(build) => {
            build_properties(build, &mut properties);
            attempts(&build.attempts, &mut properties);
        }
        StepWork::Push(images) => {
            properties.extend(images.iter().map(|image| ("push", image.to_string())));
        }
    }
    properties.extend(task.asks(&step.work).iter().map(|ask| ("asks for", ask.to_string())));
    properties.push(("time limit", format!("{} s", step.timeout.as_secs())));
    if !step.start_delay.is_zero() {
        properties.push(("delay", format!("{} s before it begins", step.start_delay.as_secs())));
    }
    if step.ignore_errors {
        properties.push(("errors", "a failure counts as success".to_owned()));
    }
    properties
}

fn build_properties(build: &Build, properties: &mut Vec<(&'static str, String)>) {
    let dockerfile = build.dockerfile.as_ref().map_or("Dockerfile".to_owned(), ToString::to_string);
    properties.push(("build", format!("{} with {dockerfile}", build.context)));
    properties.extend(build.tags.iter().map(|tag| ("tag", tag.to_string())));
    properties.extend(build.target.iter().map(|target| ("target", target.to_string())));
    for (name, value) in &build.build_args {
        let value = value
            .as_ref()
            .map_or_else(|| " from the environment".to_owned(), |value| format!("={value}"));
        properties.push(("argument", format!("{name}{value}")));
    }
    properties.extend(
        build
            .options
            .iter()
            .map(|option| ("option", format!("--{} {}", option.name, option.value))),
    );
    if build.cache {
        properties.push(("cache", "in the registry of the first tag".to_owned()));
    }
    let container = &build.container;
    properties.extend(
        container.working_directory.iter().map(|directory| ("directory", directory.clone())),
    );
}

fn container(container: &Container, properties: &mut Vec<(&'static str, String)>) {
    let mut add = |name, value: String| properties.push((name, value));
    container.entry_point.iter().for_each(|program| add("entry point", program.to_string()));
    container.env.iter().for_each(|(name, value)| add("env", format!("{name}={value}")));
    container
        .mounts
        .iter()
        .for_each(|mount| add("mount", format!("{} at {}", mount.volume, mount.path)));
    add(
        "directory",
        container.working_directory.clone().unwrap_or_else(|| "the image's".to_owned()),
    );
    match &container.network {
        Some(network) if network.exposed() == "default" => {}
        Some(network) => add("network", network.to_string()),
        None => add("network", "the engine's default, without names of steps".to_owned()),
    }
    container.user.iter().for_each(|user| add("user", user.to_string()));
    container.cpus.iter().for_each(|cpus| add("cpus", cpus.to_string()));
    container.ports.iter().for_each(|port| add("port", port.to_string()));
    container.expose.iter().for_each(|port| add("expose", port.to_string()));
    container
        .options
        .iter()
        .for_each(|option| add("option", format!("--{} {}", option.name, option.value)));
    for (is_set, name, value) in [
        (container.detach, "detached", "the step ends when the container has started"),
        (container.keep, "kept", "until the run ends"),
    ] {
        if is_set {
            add(name, value.to_owned());
        }
    }
}

fn attempts(attempts: &Attempts, properties: &mut Vec<(&'static str, String)>) {
    if attempts.retries > 0 {
        let delay = attempts.retry_delay.as_secs();
        properties
            .push(("retries", format!("{} after a failure, {delay} s apart", attempts.retries)));
    }
    properties.extend(
        attempts.retry_on.iter().map(|text| ("retried on", format!("output with {text:?}"))),
    );
    if attempts.repeat > 0 {
        properties.push(("repeat", format!("runs {} times", attempts.repeat.saturating_add(1))));
    }
}

/// Words as a shell would take them.
fn quoted(words: &[Traced]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+*".contains(c);
    let words = words.iter().map(|word| {
        let word = word.to_string();
        if !word.is_empty() && word.chars().all(plain) {
            word
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The steps for programs.
pub(super) fn json(task: &Task) -> Value {
    let steps = task.steps.iter().map(|step| {
        let after: Vec<&str> =
            step.after.iter().map(|other| task.steps[*other].id.as_str()).collect();
        json!({
            "id": step.id.as_str(),
            "line": step.position.line,
            "after": after,
            "timeout": step.timeout.as_secs(),
            "start_delay": step.start_delay.as_secs(),
            "ignore_errors": step.ignore_errors,
            "asks": task.asks(&step.work).iter().map(ToString::to_string).collect::<Vec<_>>(),
            "work": work(&step.work),
        })
    });
    json!({"steps": steps.collect::<Vec<_>>()})
}

fn work(work: &StepWork) -> Value {
    match work {
        StepWork::Cmd(cmd) => json!({"cmd": cmd_json(cmd)}),
        StepWork::Build(build) => {
            let arguments = build.build_args.iter().map(|(name, value)| match value {
                Some(value) => json!(format!("{name}={value}")),
                None => json!(name),
            });
            json!({"build": {
                "context": build.context.to_string(),
                "dockerfile": build.dockerfile.as_ref().map(ToString::to_string),
                "tags": build.tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "target": build.target.as_ref().map(ToString::to_string),
                "build_args": arguments.collect::<Vec<_>>(),
                "cache": build.cache,
                "working_directory": build.container.working_directory,
            }})
        }
        StepWork::Push(images) => {
            json!({"push": images.iter().map(ToString::to_string).collect::<Vec<_>>()})
        }
    }
}

fn cmd_json(cmd: &Cmd) -> Value {
    let container = &cmd.container;
    let texts = |texts: &[Traced]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let optional = |text: &Option<Traced>| text.as_ref().map(ToString::to_string);
    let env = container.env.iter().map(|(name, value)| format!("{name}={value}"));
    let mounts = container
        .mounts
        .iter()
        .map(|mount| json!({"volume": mount.volume, "path": mount.path.to_string()}));
    let options =
        container.options.iter().map(|option| format!("--{}={}", option.name, option.value));
    json!({
        "image": cmd.image.to_string(),
        "arguments": texts(&cmd.arguments),
        "entry_point": optional(&container.entry_point),
        "env": env.collect::<Vec<_>>(),
        "mounts": mounts.collect::<Vec<_>>(),
        "working_directory": container.working_directory,
        "network": optional(&container.network),
        "user": optional(&container.user),
        "cpus": optional(&container.cpus),
        "ports": texts(&container.ports),
        "expose": texts(&container.expose),
        "options": options.collect::<Vec<_>>(),
        "privileged": container.privileged,
        "detach": container.detach,
        "keep": container.keep,
        "retries": cmd.attempts.retries,
        "repeat": cmd.attempts.repeat,
    })
}

#[cfg(test)]
mod tests {
    use gantry_taskfile::task_file::{Inputs, compile};
    use gantry_taskfile::template::{Data, Trust};

    use super::*;

    #[test]
    fn a_plan_shows_each_step_and_hides_secrets() {
        let source = r"
version: v1.1.0
env: [CI=true]
volumes:
- name: keys
  secret: {key: aGk=}
steps:
- id: build
  build: -t web:$ID --build-arg A=1 .
- id: test
  cmd: -m 1g web:$ID sh -c 'npm test'
  env: ['TOKEN={{.Values.token}}']
  volumeMounts: [{name: keys, mountPath: /keys}]
  retries: 2
- id: lint
  cmd: linter
  when: ['-']
  ignoreErrors: true
- push: ['web:$ID']
  when: [test, lint]
";
        let mut inputs = Inputs::default();
        inputs.run.id = "ca1".to_owned();
        inputs.values.set("token", Data::Text("hunter2".into()), Trust::Secret);
        let task = compile(source, &inputs).unwrap().task;
        insta::assert_snapshot!(Plan(&task), @r"
        ●    build
        │      build       . with Dockerfile
        │      tag         docker.io/library/web:ca1
        │      argument    A=1
        │      directory   /workspace
        │      time limit  600 s
        ●    test  after build
        │      image       web:ca1
        │      arguments   sh -c 'npm test'
        │      env         TOKEN=***
        │      env         CI=true
        │      mount       keys at /keys
        │      directory   /workspace
        │      option      --memory 1g
        │      retries     2 after a failure, 5 s apart
        │      time limit  600 s
        │ ●  lint
        │ │    image       linter
        │ │    env         CI=true
        │ │    directory   /workspace
        │ │    time limit  600 s
        │ │    errors      a failure counts as success
        ├─┘
        ●    acb_step_3  after test, lint
               push        docker.io/library/web:ca1
               time limit  600 s
        ");
        assert!(!json(&task).to_string().contains("hunter2"));
    }
}
