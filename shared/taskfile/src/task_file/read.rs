//! YAML to a checked task.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_domain::id::StepId;
use gantry_domain::image::ImageReference;

use super::aliases::Aliases;
use super::container::{self, Defaults};
use super::fields::{Fields, Placed};
use super::graph;
use super::insertions::Insertions;
use super::mistake::{Mistakes, Severity};
use super::position::Lines;
use super::step::{Network, SecretLocation, SecretReference, Step, StepWork, Task, Volume};
use super::traced::Traced;
use super::yaml::{Kind, Node};

/// The original's default time limit of a step.
const STEP_TIMEOUT: Duration = Duration::from_secs(600);

/// The network that a task has unless it declares others.
pub(super) const DEFAULT_NETWORK: &str = "default";

/// More steps than any task has.
const MOST_STEPS: usize = 1000;

/// More secrets, networks or volumes than any task has.
pub(super) const MOST_DECLARED: usize = 256;

/// What is needed beside the YAML.
pub(super) struct Context<'a> {
    pub(super) lines: &'a Lines<'a>,
    pub(super) aliases: &'a Aliases,
    pub(super) insertions: &'a Insertions,
    /// The working directory of steps of a task that names none.
    pub(super) working_directory: Option<&'a str>,
}

/// Reads a whole file. With errors among the mistakes the task is of no use.
pub(super) fn task(root: Option<&Node>, context: &Context<'_>, mistakes: &mut Mistakes) -> Task {
    let Some(root) = root else {
        mistakes.warning(0, "the file has no steps, so a run does nothing: add `steps:`");
        return Task::default();
    };
    let mut fields = Fields::of("a task", root, mistakes);
    version(&mut fields);
    let timeout = fields.seconds("stepTimeout").unwrap_or(STEP_TIMEOUT);
    let working_directory = fields.shown_text("workingDirectory").map(|directory| directory.value);
    let env = container::own_environment(&mut fields);
    let secrets = secrets(&mut fields);
    let (networks, network) = networks(&mut fields);
    let volumes = volumes(&mut fields);
    let working_directory =
        working_directory.or_else(|| context.working_directory.map(str::to_owned));
    let defaults = Defaults { timeout, working_directory, env, network };
    let steps = steps(&mut fields, &defaults, &volumes, context);
    fields.node("alias");
    fields.finish();
    Task { steps, networks, volumes, secrets }
}

fn version(fields: &mut Fields<'_>) {
    let Some(version) = fields.shown_text("version") else { return };
    let known = ["1.0-preview-1", "v1.0.0", "v1.1.0"];
    let text = version.value.to_ascii_lowercase();
    if !text.is_empty() && !known.contains(&text.as_str()) {
        let message =
            format!("`{}` is no version of task files: write `v1.1.0` or `v1.0.0`", version.value);
        fields.error(version.at, message);
    }
}

/// The secrets that a file names, with the mistakes in them.
pub(super) fn secrets(fields: &mut Fields<'_>) -> Vec<SecretReference> {
    let mut secrets: Vec<SecretReference> = Vec::new();
    for node in fields.maps("secrets", MOST_DECLARED) {
        let mut secret = Fields::of("a secret", node, fields.mistakes());
        let (id, url) = (secret.shown_text("id"), secret.shown_text("keyvault"));
        let (client, resource) = (secret.text("clientID"), secret.text("aadResourceId"));
        let Some(id) = id else {
            secret.error(node.at, "a secret has an `id`: templates read it as `.Secrets.ID`");
            secret.finish();
            continue;
        };
        if secrets.iter().any(|other| other.id == id.value) {
            secret
                .error(id.at, format!("another secret has the id `{}`: choose another", id.value));
        }
        let at = match (url, client.is_some() && resource.is_some()) {
            (Some(url), _) => Some(SecretLocation::Vault(url.value)),
            (None, true) => Some(SecretLocation::Identity),
            (None, false) => None,
        };
        if at.is_none() {
            secret.error(
                node.at,
                format!("the secret `{}` says not where it is: add `keyvault: URL`", id.value),
            );
        }
        secret.finish();
        secrets.extend(at.map(|at| SecretReference { id: id.value, at }));
    }
    secrets
}

/// The networks, and the one of steps that name none.
fn networks(fields: &mut Fields<'_>) -> (Vec<Network>, Option<Traced>) {
    let nodes = fields.maps("networks", MOST_DECLARED);
    let mut networks: Vec<Network> = Vec::new();
    let mut default = None;
    for node in nodes {
        let mut network = Fields::of("a network", node, fields.mistakes());
        let name = network.shown_text("name");
        let driver = network.shown_text("driver").map(|driver| driver.value);
        let (ipv6, exists) = (network.flag("ipv6"), network.flag("skipCreation"));
        let is_default = network.flag("isDefault");
        let Some(Placed { value: name, .. }) = name else {
            network.error(node.at, "a network has a `name`");
            network.finish();
            continue;
        };
        network.finish();
        if is_default {
            default = Some(Traced::written(name.clone()));
        }
        networks.retain(|other| other.name != name);
        networks.push(Network { name, driver, ipv6, exists });
    }
    if nodes.is_empty() {
        let name = DEFAULT_NETWORK.to_owned();
        networks.push(Network { name, driver: None, ipv6: false, exists: false });
        default = Some(Traced::written(DEFAULT_NETWORK));
    }
    (networks, default)
}

fn volumes(fields: &mut Fields<'_>) -> Vec<Volume> {
    let mut volumes: Vec<Volume> = Vec::new();
    for node in fields.maps("volumes", MOST_DECLARED) {
        let mut volume = Fields::of("a volume", node, fields.mistakes());
        let (name, files) = (volume.shown_text("name"), volume.node("secret"));
        let name_at = name.as_ref().map_or(node.at, |name| name.at);
        let name = name.map(|name| name.value).unwrap_or_default();
        if !is_name(&name, b"-_") {
            volume.error(
                name_at,
                format!("`{name}` is not a name for a volume: use letters, digits, `-` or `_`"),
            );
        }
        if volumes.iter().any(|other| other.name == name) {
            volume.error(name_at, format!("another volume has the name `{name}`: choose another"));
        }
        let files = match files {
            Some(files) => read_files(files, &mut volume),
            None => {
                volume.error(
                    node.at,
                    "a volume has files: add `secret: {NAME: BASE64}`, the only source there is",
                );
                BTreeMap::new()
            }
        };
        volume.finish();
        volumes.push(Volume { name, files });
    }
    volumes
}

fn read_files(node: &Rc<Node>, fields: &mut Fields<'_>) -> BTreeMap<String, Vec<u8>> {
    let Kind::Map(entries) = &node.kind else {
        fields.error(
            node.at,
            format!("`secret` is a map of file names and base64, not {}", node.kind_name()),
        );
        return BTreeMap::new();
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let name = entry.key.exposed();
        if !is_name(name, b"-_.") || matches!(name, "." | "..") {
            let message = format!(
                "`{}` is not a name for a file: use letters, digits, `-`, `_` or `.`",
                entry.key
            );
            fields.error(entry.at, message);
        }
        let text = match &entry.value.kind {
            Kind::Scalar(scalar) => scalar.text.exposed(),
            Kind::Null => "",
            Kind::List(_) | Kind::Map(_) => {
                let message = format!(
                    "the file `{}` is a text in base64, not {}",
                    entry.key,
                    entry.value.kind_name()
                );
                fields.error(entry.value.at, message);
                continue;
            }
        };
        // Base64 is often wrapped.
        let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        match STANDARD.decode(text) {
            Ok(content) => drop(files.insert(name.to_owned(), content)),
            Err(_) => {
                let message = format!(
                    "the content of `{}` is not base64: write `{{{{ … | b64enc }}}}`",
                    entry.key
                );
                fields.error(entry.value.at, message);
            }
        }
    }
    files
}

fn is_name(name: &str, others: &[u8]) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || others.contains(&b))
}

fn steps(
    fields: &mut Fields<'_>,
    defaults: &Defaults,
    volumes: &[Volume],
    context: &Context<'_>,
) -> Vec<Step> {
    let nodes = fields.maps("steps", MOST_STEPS);
    let at = fields.at();
    let is_empty = |node: &Rc<Node>| matches!(&node.kind, Kind::List(items) if items.is_empty());
    if fields.node("steps").is_none_or(is_empty) {
        fields.warning(at, "the task has no steps, so a run does nothing: add one under `steps:`");
    }
    let mut steps = Vec::with_capacity(nodes.len());
    let mut graph_nodes = Vec::with_capacity(nodes.len());
    for (place, node) in nodes.iter().enumerate() {
        let mut step = Fields::of("a step", node, fields.mistakes());
        let id = id(&mut step, place);
        let when = when(&mut step);
        let work = work(&mut step, defaults, context);
        let (start_delay, timeout) = (step.seconds("startDelay"), step.seconds("timeout"));
        let ignore_errors = step.flag("ignoreErrors");
        unused(&mut step);
        check_mounts(work.as_ref(), volumes, &mut step);
        step.finish();
        graph_nodes.push(graph::Node { at: node.at, id: id.clone(), when });
        steps.extend(work.map(|work| Step {
            id,
            position: context.lines.position(node.at),
            after: Vec::new(),
            start_delay: start_delay.unwrap_or_default(),
            timeout: timeout.unwrap_or(defaults.timeout),
            ignore_errors,
            work,
        }));
    }
    let after = graph::dependencies(&graph_nodes, fields.mistakes());
    // A step that could not be read is an error, so places are right whenever they are used.
    steps.iter_mut().zip(after).for_each(|(step, after)| step.after = after);
    steps
}

/// The step's id; without one it is numbered by its place in the file, from 0.
fn id(step: &mut Fields<'_>, place: usize) -> StepId {
    let numbered = || format!("acb_step_{place}").parse::<StepId>();
    let id = match step.shown_text("id") {
        None => numbered(),
        Some(id) if id.value == "acb_root" => {
            step.error(id.at, "the id `acb_root` is reserved: choose another");
            numbered()
        }
        Some(id) => id.value.parse().or_else(|error| {
            step.error(id.at, format!("{error}"));
            numbered()
        }),
    };
    id.unwrap_or_else(|_| unreachable!("a number makes a valid id"))
}

fn when(step: &mut Fields<'_>) -> Option<Vec<Placed<String>>> {
    let when = step.shown_texts("when");
    if when.is_empty() {
        return None;
    }
    let at_once = when.iter().position(|id| id.value == "-");
    match at_once {
        Some(_) if when.len() == 1 => Some(Vec::new()),
        Some(place) => {
            step.error(
                when[place].at,
                "`-` means at once, so it stands alone: remove it or the other ids",
            );
            None
        }
        None => Some(when),
    }
}

fn work(step: &mut Fields<'_>, defaults: &Defaults, context: &Context<'_>) -> Option<StepWork> {
    let (cmd, build) = (non_empty(step, "cmd"), non_empty(step, "build"));
    let push = step.shown_texts("push");
    let kinds =
        usize::from(cmd.is_some()) + usize::from(build.is_some()) + usize::from(!push.is_empty());
    let at = step.at();
    match kinds {
        0 => step.error(at, "the step does nothing: add `cmd`, `build` or `push`"),
        1 => {}
        _ => step.error(
            at,
            "the step has several of `cmd`, `build` and `push`: write one step for each",
        ),
    }
    let container = container::container(step, defaults);
    let work = match (cmd, build) {
        (Some(cmd), _) => {
            super::cmd::read(&cmd, container, step, context.aliases, context.insertions)
                .map(|cmd| StepWork::Cmd(Box::new(cmd)))
        }
        (None, Some(build)) => super::build::read(&build, container, step)
            .map(|build| StepWork::Build(Box::new(build))),
        (None, None) => {
            if !container.mounts.is_empty() {
                step.error(
                    at,
                    "a push has no container, so it mounts nothing: remove `volumeMounts`",
                );
            }
            Some(StepWork::Push(images(&push, step)))
        }
    };
    work.filter(|_| kinds == 1)
}

fn non_empty(step: &mut Fields<'_>, name: &'static str) -> Option<Placed<Traced>> {
    step.text(name).filter(|text| !text.value.exposed().is_empty())
}

/// Complete references, each once.
fn images(push: &[Placed<String>], step: &mut Fields<'_>) -> Vec<ImageReference> {
    let mut seen = HashSet::new();
    let mut images = Vec::with_capacity(push.len());
    for image in push {
        match image.value.parse::<ImageReference>() {
            Ok(image) if seen.insert(image.clone()) => images.push(image),
            Ok(_) => {}
            Err(error) => step
                .error(image.at, format!("`{}` is not a name for an image: {error}", image.value)),
        }
    }
    images
}

/// Properties that the original reads and that have no effect on this kind of step, or on any.
fn unused(step: &mut Fields<'_>) {
    for name in ["exitedWith", "exitedWithout"] {
        if let Some(node) = step.node(name) {
            let at = node.at;
            step.warning(
                at,
                format!("`{name}` has no effect, as in the original: the exit code 0 is success"),
            );
        }
    }
    for name in ["retries", "retryDelay", "retryOnErrors", "repeat", "cache", "pull"] {
        step.node(name);
    }
    for name in ["cmdDownloadRetries", "cmdDownloadRetryDelay"] {
        step.node(name);
    }
}

fn check_mounts(work: Option<&StepWork>, volumes: &[Volume], step: &mut Fields<'_>) {
    let container = match work {
        Some(StepWork::Cmd(cmd)) => &cmd.container,
        Some(StepWork::Build(build)) => &build.container,
        Some(StepWork::Push(_)) | None => return,
    };
    let at = step.at();
    for mount in &container.mounts {
        if step.mistakes().is_full(Severity::Error) {
            return;
        }
        if !volumes.iter().any(|volume| volume.name == mount.volume) {
            let names: Vec<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
            let remedy = super::similar::suggestion(&mount.volume, &names);
            step.error(at, format!("the task has no volume `{}`{remedy}", mount.volume));
        }
    }
}
