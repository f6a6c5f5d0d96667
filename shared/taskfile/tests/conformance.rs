//! Compares gantry with recorded answers of the original's open-source executor.
//!
//! What must agree: whether a file is accepted, the rendered text, the steps with their ids, order, time limits, working
//! directories, networks, environments, mounts and arguments. Where gantry differs on purpose, the case is in
//! [`DIFFERENCES`]. `GANTRY_CONFORMANCE_EXEC` names another file of cases.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "data that cannot be read has failed the test"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use gantry_domain::image::ImageReference;
use gantry_taskfile::task_file::{
    Compiled, Container, Inputs, RunVariables, Step, StepWork, Traced, compile,
};
use gantry_taskfile::template::{Data, Trust};
use serde::Deserialize;

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    name: String,
    task: String,
    values: Option<String>,
    extra_flags: Vec<String>,
    exit: serde_json::Value,
    output: Vec<String>,
}

/// A case with another answer, and the reason.
struct Difference {
    case: &'static str,
    answer: Answer,
    reason: &'static str,
}

enum Answer {
    Accepted,
    /// With an error that contains this.
    Refused(&'static str),
    RenderedOtherwise,
}

const fn accepted(case: &'static str, reason: &'static str) -> Difference {
    Difference { case, answer: Answer::Accepted, reason }
}

const fn refused(case: &'static str, error: &'static str, reason: &'static str) -> Difference {
    Difference { case, answer: Answer::Refused(error), reason }
}

/// Accepted, with the same steps from a text that is rendered otherwise.
const fn rendered_otherwise(case: &'static str, reason: &'static str) -> Difference {
    Difference { case, answer: Answer::RenderedOtherwise, reason }
}

const DIFFERENCES: &[Difference] = &[
    rendered_otherwise("tmpl-run-json", "a value is one word without the quotes of a shell"),
    rendered_otherwise("tmpl-values-json", "a value is one word without the quotes of a shell"),
    accepted("when-duplicate", "the original never ends"),
    accepted("when-forward", "steps may wait for later ones; a cycle is an error"),
    refused("cmd-shell-chars", "`|` needs a shell", "no shell runs on a worker"),
    refused("id-bad-container-name", "step id", "the original fails when it starts the container"),
    accepted("set-overrides-nested", "values may be nested"),
    accepted("tmpl-nested-values-no-set", "values may be nested"),
    accepted("net-cli-external", "the executor's flag --network is not there"),
    accepted("tmpl-env-function", "`env` is empty: a file does not read the worker's environment"),
];

#[test]
fn task_files_are_read_as_the_original_reads_them() {
    let cases = cases("GANTRY_CONFORMANCE_EXEC", include_str!("conformance/exec-cases.json"));
    let mut wrong = String::new();
    for case in &cases.cases {
        if let Err(difference) = check(case) {
            writeln!(wrong, "{}: {difference}", case.name).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// The values of samples that need some, as they were given for the recording.
const SAMPLE_VALUES: [(&str, &str); 11] = [
    ("acr-builder/templating/testdata/caching/cache.yaml", "pullStep=puller"),
    ("acr/docs/tasks/buildx/build.yaml", "BUILD_CONTEXT=."),
    ("acr/docs/tasks/buildx/build.yaml", "REPOSITORY_NAME=app"),
    ("acr/docs/tasks/buildx/build_with_cache.yaml", "BUILD_CONTEXT=."),
    ("acr/docs/tasks/buildx/build_with_cache.yaml", "REPOSITORY_NAME=app"),
    ("acr/docs/tasks/buildx/build_with_cache_2.yaml", "BUILD_CONTEXT=."),
    ("acr/docs/tasks/buildx/build_with_cache_2.yaml", "REPOSITORY_NAME=app"),
    ("acr-tasks/multipleRegistries/testtask.yaml", "REGISTRY1=one.example"),
    ("acr-tasks/multipleRegistries/testtask.yaml", "REGISTRY2=two.example"),
    ("acr-tasks/mounts-multistep.yaml", "secret1=one"),
    ("acr-tasks/mounts-multistep.yaml", "secret2=two"),
];

#[test]
fn every_difference_is_documented() {
    let page = include_str!("../../../docs/task-files.md");
    for Difference { case, .. } in DIFFERENCES {
        assert!(page.contains(&format!("`{case}`")), "docs/task-files.md does not name {case}");
    }
}

#[test]
fn the_original_s_samples_have_the_steps_that_it_gives_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let mut wrong = String::new();
    let mut compared = 0;
    for trace in files(&root.join("traces")) {
        let name = trace.strip_prefix(root.join("traces")).unwrap().to_str().unwrap().to_owned();
        let Some(name) = name.strip_suffix(".trace.txt") else { continue };
        let source = std::fs::read_to_string(root.join("samples").join(name)).unwrap();
        let output = std::fs::read_to_string(&trace).unwrap();
        let output: Vec<String> = output.lines().map(str::to_owned).collect();
        let mut inputs = common_inputs();
        inputs.run.task_name = "mytask".to_owned();
        for (_, value) in SAMPLE_VALUES.iter().filter(|(sample, _)| *sample == name) {
            let (key, value) = value.split_once('=').unwrap();
            inputs.values.set(key, Data::Text(value.into()), Trust::Saved);
        }
        let answer = compile(&source, &inputs)
            .map_err(|mistakes| format!("is refused: {mistakes:?}"))
            .and_then(|compiled| compare(&compiled, &output));
        if let Err(difference) = answer {
            writeln!(wrong, "{name}: {difference}").unwrap();
        }
        compared += 1;
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert_eq!(compared, 34);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[allow(clippy::disallowed_methods, reason = "a test has no settings but these")]
fn cases(variable: &str, own: &str) -> Cases {
    let text = std::env::var(variable)
        .map_or_else(|_| own.to_owned(), |path| std::fs::read_to_string(path).unwrap());
    serde_json::from_str(&text).unwrap()
}

fn check(case: &Case) -> Result<(), String> {
    let inputs = match inputs(case) {
        Ok(inputs) => inputs,
        Err(_) if case.exit != 0 => return Ok(()),
        Err(error) => return Err(error),
    };
    let compiled = compile(&case.task, &inputs).map_err(|mistakes| {
        mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    });
    let difference = DIFFERENCES.iter().find(|difference| difference.case == case.name);
    match (difference.map(|difference| &difference.answer), compiled) {
        (Some(Answer::Accepted), Ok(_)) => Ok(()),
        (Some(Answer::Refused(error)), Err(text)) if text.contains(error) => Ok(()),
        (Some(Answer::RenderedOtherwise), Ok(compiled)) => compare_steps(&compiled, &case.output),
        (Some(_), answer) => {
            Err(format!("{}: {answer:?}", difference.map_or("", |difference| difference.reason)))
        }
        (None, Err(_)) if case.exit != 0 => Ok(()),
        (None, Err(error)) => Err(format!("is refused: {error}")),
        (None, Ok(compiled)) if case.exit == 0 => compare(&compiled, &case.output),
        (None, Ok(_)) => Err(format!("is accepted, but: {:?}", case.output)),
    }
}

/// The images that the original's agent names.
const IMAGES: [(&str, &str); 5] = [
    ("acr", "mcr.microsoft.com/acr/acr-cli:0.19"),
    ("az", "mcr.microsoft.com/acr/azure-cli:2ff604c"),
    ("bash", "mcr.microsoft.com/acr/bash:2ff604c"),
    ("cssc", "mcr.microsoft.com/acr/cssc:2ff604c"),
    ("curl", "mcr.microsoft.com/acr/curl:2ff604c"),
];

/// What all recordings have in common.
fn common_inputs() -> Inputs {
    Inputs {
        image_aliases: IMAGES.map(|(name, image)| (name.to_owned(), image.to_owned())).into(),
        run: RunVariables {
            id: "ca1".to_owned(),
            registry: "myreg.azurecr.io".to_owned(),
            registry_name: "myreg".to_owned(),
            commit: "0123abc".to_owned(),
            branch: "main".to_owned(),
            shared_volume: "hv".to_owned(),
            date: "<run-date>".to_owned(),
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            ..RunVariables::default()
        },
        ..Inputs::default()
    }
}

fn inputs(case: &Case) -> Result<Inputs, String> {
    let mut inputs = common_inputs();
    if let Some(values) = &case.values {
        inputs.values.add_file(values, Trust::Saved).map_err(|mistakes| mistakes[0].to_string())?;
    }
    for flag in case.extra_flags.chunks(2) {
        let value = flag[1].clone();
        match flag[0].as_str() {
            "--set" => {
                let (name, value) = value.split_once('=').ok_or("no `=`")?;
                inputs.values.set(name, Data::Text(value.into()), Trust::Saved);
            }
            "--name" => inputs.run.task_name = value,
            "--git-tag" => inputs.run.git_tag = value,
            "--repository" => inputs.run.repository = value,
            "--triggered-by" => inputs.run.triggered_by = value,
            "--working-directory" => inputs.working_directory = Some(value),
            "--network" => {}
            other => panic!("unknown flag {other}"),
        }
    }
    Ok(inputs)
}

/// What the original says of one step.
#[derive(Debug, Default, PartialEq, Eq)]
struct Recorded {
    id: String,
    timeout: u64,
    network: String,
    /// The container's command up to the step's own words.
    container: String,
    /// The words after it.
    words: String,
    scan: Option<String>,
    pushed: Vec<String>,
    is_pulled: bool,
}

fn same(what: &str, ours: &str, theirs: &str) -> Result<(), String> {
    if ours == theirs {
        Ok(())
    } else {
        Err(format!("{what}\n  ours:   {ours:?}\n  theirs: {theirs:?}"))
    }
}

fn compare(compiled: &Compiled, output: &[String]) -> Result<(), String> {
    if let Some(rendered) = rendered(output) {
        same("rendered text", compiled.rendered.exposed().trim_end(), rendered.trim_end())?;
    }
    compare_steps(compiled, output)
}

fn compare_steps(compiled: &Compiled, output: &[String]) -> Result<(), String> {
    let recorded = recorded(output);
    let mut done = Vec::new();
    same("number of steps", &compiled.task.steps.len().to_string(), &recorded.len().to_string())?;
    for theirs in &recorded {
        let place = compiled.task.steps.iter().position(|step| step.id.as_str() == theirs.id);
        let step = &compiled.task.steps[place.ok_or_else(|| format!("no step {}", theirs.id))?];
        if let Some(early) = step.after.iter().find(|other| !done.contains(*other)) {
            return Err(format!(
                "{} waits for {}, and ran before it",
                step.id, compiled.task.steps[*early].id
            ));
        }
        done.extend(place);
        same("time limit", &step.timeout.as_secs().to_string(), &theirs.timeout.to_string())?;
        compare_work(step, theirs)?;
    }
    Ok(())
}

fn compare_work(step: &Step, theirs: &Recorded) -> Result<(), String> {
    let same =
        |what: &str, ours: &str, theirs: &str| same(&format!("{}: {what}", step.id), ours, theirs);
    match &step.work {
        StepWork::Cmd(cmd) => {
            same("network", &network(&cmd.container), &theirs.network)?;
            same("container", &docker_run(step, &cmd.container, ""), &theirs.container)?;
            let own: Vec<&str> =
                std::iter::once(&cmd.image).chain(&cmd.arguments).map(Traced::exposed).collect();
            let words = words(&theirs.words);
            let words: Vec<&str> =
                words[words.len().saturating_sub(own.len())..].iter().map(String::as_str).collect();
            same("words", &format!("{own:?}"), &format!("{words:?}"))?;
            same("pull", &cmd.pull.is_some().to_string(), &theirs.is_pulled.to_string())
        }
        StepWork::Build(build) => {
            same("network", &network(&build.container), &theirs.network)?;
            let is_cached = theirs.words.starts_with("buildx build");
            same("cache", &build.cache.to_string(), &is_cached.to_string())?;
            let asks = build
                .container
                .env
                .iter()
                .any(|(name, value)| name == "DOCKER_BUILDKIT" && value.exposed() == "1");
            let classic = if asks || is_cached { "" } else { " --env DOCKER_BUILDKIT=0" };
            let mut container = build.container.clone();
            if build.context.exposed().contains("://") {
                // The original downloads it into a folder of the workspace, and builds there.
                container.working_directory = Some(format!("/workspace/{}", step.id));
            }
            same("container", &docker_run(step, &container, classic), &theirs.container)?;
            let mut scan = format!(
                "-f {} --destination {}",
                build.dockerfile.as_ref().map_or("", Traced::exposed),
                step.id
            );
            for tag in &build.tags {
                write!(scan, " -t {tag}").unwrap();
            }
            for (name, value) in &build.build_args {
                let value =
                    value.as_ref().map(|value| format!("={}", value.exposed())).unwrap_or_default();
                write!(scan, " --build-arg {name}{value}").unwrap();
            }
            if let Some(target) = &build.target {
                write!(scan, " --target {}", target.exposed()).unwrap();
            }
            write!(scan, " {}", build.context.exposed()).unwrap();
            same("build", &scan, &with_complete_tags(theirs.scan.as_deref().unwrap_or_default()))
        }
        StepWork::Push(images) => {
            let ours: Vec<String> = images.iter().map(ToString::to_string).collect();
            let theirs: Vec<String> = theirs.pushed.iter().map(|image| complete(image)).collect();
            same("images", &ours.join(" "), &theirs.join(" "))
        }
    }
}

fn complete(image: &str) -> String {
    image.parse::<ImageReference>().unwrap().to_string()
}

fn with_complete_tags(scan: &str) -> String {
    let mut is_tag = false;
    let words = scan.split(' ').map(|word| {
        let word_is_tag = std::mem::replace(&mut is_tag, word == "-t");
        if word_is_tag { complete(word) } else { word.to_owned() }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn network(container: &Container) -> String {
    match container.network.as_ref().map(Traced::exposed) {
        Some("default") => "acb_default_network".to_owned(),
        Some(network) => network.to_owned(),
        None => String::new(),
    }
}

/// The command with which the original would start the container, up to the step's own words.
fn docker_run(step: &Step, container: &Container, classic: &str) -> String {
    let mut command = "docker run".to_owned();
    let mut add = |text: String| write!(command, " {text}").unwrap();
    if !container.keep {
        add("--rm".to_owned());
    }
    if container.detach {
        add("--detach".to_owned());
    }
    container.ports.iter().for_each(|port| add(format!("-p {}", port.exposed())));
    container.expose.iter().for_each(|port| add(format!("--expose {}", port.exposed())));
    if container.privileged {
        add("--privileged".to_owned());
    }
    let optional = |name: &str, value: &Option<Traced>| {
        value.as_ref().map(|value| format!("--{name} {}", value.exposed()))
    };
    optional("user", &container.user).into_iter().for_each(&mut add);
    let network = network(container);
    if !network.is_empty() {
        add(format!("--network {network}"));
    }
    optional("isolation", &container.isolation).into_iter().for_each(&mut add);
    optional("cpus", &container.cpus).into_iter().for_each(&mut add);
    optional("entrypoint", &container.entry_point).into_iter().for_each(&mut add);
    add(format!("--name {} --volume hv:/workspace", step.id));
    add("--volume /var/run/docker.sock:/var/run/docker.sock --volume home:/acb/home".to_owned());
    container
        .mounts
        .iter()
        .for_each(|mount| add(format!("--volume {}:{}", mount.volume, mount.path.exposed())));
    add("--env HOME=/acb/home".to_owned());
    container.env.iter().for_each(|(name, value)| add(format!("--env {name}={}", value.exposed())));
    command.push_str(classic);
    if let Some(directory) = &container.working_directory {
        write!(command, " --workdir {directory}").unwrap();
    }
    command
}

/// The text after `Rendered template:`.
fn rendered(output: &[String]) -> Option<String> {
    let begin = output.iter().position(|line| line == "Rendered template:")? + 1;
    let ends = [
        "Creating Docker network",
        "Skip creating network",
        "failed to",
        "Setting up Docker",
        "Task will use",
        "Volume source",
    ];
    let lines =
        output[begin..].iter().take_while(|line| !ends.iter().any(|end| line.starts_with(end)));
    Some(lines.map(String::as_str).collect::<Vec<_>>().join("\n"))
}

fn recorded(output: &[String]) -> Vec<Recorded> {
    let mut steps: Vec<Recorded> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut is_command = None;
    let mut last = String::new();
    for line in output {
        if let Some(rest) = line.strip_prefix("Executing step ID: ") {
            let (id, rest) = rest.split_once(". Timeout(sec): ").unwrap();
            let (timeout, rest) = rest.split_once(", Working directory: ").unwrap();
            let network = rest.rsplit_once("Network: '").unwrap().1.trim_end_matches('\'');
            places.insert(id.to_owned(), steps.len());
            last = id.to_owned();
            steps.push(Recorded {
                id: id.to_owned(),
                timeout: timeout.parse().unwrap(),
                network: network.to_owned(),
                ..Recorded::default()
            });
        } else if let Some(command) = line.strip_prefix("Step args: /bin/sh, -c, ") {
            let name = command.split_once("--name ").unwrap().1.split(' ').next().unwrap();
            let place = places[name];
            is_command = Some(place);
            // The longest prefix that consists of the executor's own options.
            let end = command.find(" --workdir ").map(|at| at + " --workdir ".len());
            let end = match end {
                Some(at) => at + command[at..].find(' ').unwrap_or(command.len() - at),
                None => end_of_environment(command),
            };
            steps[place].container = command[..end].trim_end().to_owned();
            steps[place].words = command[end..].trim_start().to_owned();
        } else if line.starts_with("Launching container") || line.starts_with("[DRY RUN]") {
            is_command = None;
        } else if let Some(scan) = line.strip_prefix("Scan args: [") {
            let scan = scan.split_once("acb scan ").unwrap().1.trim_end_matches(']');
            let id = scan.split_once("--destination ").unwrap().1.split(' ').next().unwrap();
            steps[places[id]].scan = Some(scan.to_owned());
        } else if let Some(image) = line.strip_prefix("Pushing image: ") {
            let image = image.split_once(", attempt").unwrap().0.to_owned();
            steps[places[&last]].pushed.push(image);
        } else if line.starts_with("pull image args") {
            steps[places[&last]].is_pulled = true;
        } else if let Some(place) = is_command {
            write!(steps[place].words, "\n{line}").unwrap();
        }
    }
    steps
}

/// The end of the last `--env NAME=VALUE`, for commands without `--workdir`.
fn end_of_environment(command: &str) -> usize {
    let at = command.rfind("--env ").unwrap() + "--env ".len();
    at + command[at..].find(' ').unwrap_or(command.len() - at)
}

/// Splits recorded words as a shell would.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for char in text.chars() {
        match (quote, char) {
            (Some(open), close) if open == close => quote = None,
            (None, '\'' | '"') => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            (None, ' ' | '\n') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    words
}
