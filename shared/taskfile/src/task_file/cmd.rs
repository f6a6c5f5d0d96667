//! Reads the command of a `cmd` step: options of `docker run`, an image, its arguments.

use std::collections::BTreeMap;

use super::aliases::Aliases;
use super::fields::{Fields, Placed};
use super::insertions::Insertions;
use super::option_values;
use super::options::{self, Given, Known, flag, value};
use super::step::{Cmd, Container, Pull};
use super::traced::Traced;
use super::words;

/// The options of `docker run`.
const OPTIONS: &[Known] = &[
    value("add-host"),
    value("annotation"),
    value("attach").short('a'),
    value("blkio-weight"),
    value("blkio-weight-device"),
    value("cap-add"),
    value("cap-drop"),
    value("cgroup-parent"),
    value("cgroupns"),
    value("cidfile"),
    value("cpu-period"),
    value("cpu-quota"),
    value("cpu-rt-period"),
    value("cpu-rt-runtime"),
    value("cpu-shares").short('c'),
    value("cpus"),
    value("cpuset-cpus"),
    value("cpuset-mems"),
    flag("detach").short('d'),
    value("detach-keys"),
    value("device"),
    value("device-cgroup-rule"),
    value("device-read-bps"),
    value("device-read-iops"),
    value("device-write-bps"),
    value("device-write-iops"),
    flag("disable-content-trust"),
    value("dns"),
    value("dns-option"),
    value("dns-search"),
    value("domainname"),
    value("entrypoint"),
    value("env").short('e'),
    value("env-file"),
    value("expose"),
    value("gpus"),
    value("group-add"),
    value("health-cmd"),
    value("health-interval"),
    value("health-retries"),
    value("health-start-period"),
    value("health-timeout"),
    value("hostname").short('h'),
    flag("init"),
    flag("interactive").short('i'),
    value("ip"),
    value("ip6"),
    value("ipc"),
    value("isolation"),
    value("kernel-memory"),
    value("label").short('l'),
    value("label-file"),
    value("link"),
    value("link-local-ip"),
    value("log-driver"),
    value("log-opt"),
    value("mac-address"),
    value("memory").short('m'),
    value("memory-reservation"),
    value("memory-swap"),
    value("memory-swappiness"),
    value("mount"),
    value("name"),
    value("net"),
    value("network"),
    value("network-alias"),
    flag("no-healthcheck"),
    flag("oom-kill-disable"),
    value("oom-score-adj"),
    value("pid"),
    value("pids-limit"),
    value("platform"),
    flag("privileged"),
    value("publish").short('p'),
    flag("publish-all").short('P'),
    value("pull"),
    flag("quiet").short('q'),
    flag("read-only"),
    value("restart"),
    flag("rm"),
    value("runtime"),
    value("security-opt"),
    value("shm-size"),
    flag("sig-proxy"),
    value("stop-signal"),
    value("stop-timeout"),
    value("storage-opt"),
    value("sysctl"),
    value("tmpfs"),
    flag("tty").short('t'),
    value("ulimit"),
    value("user").short('u'),
    value("userns"),
    value("uts"),
    value("volume").short('v'),
    value("volume-driver"),
    value("volumes-from"),
    value("workdir").short('w'),
];

/// Options that a step may have beside those that have a property of the same meaning.
const KEPT: &[&str] = &[
    "add-host",
    "cap-add",
    "cap-drop",
    "cpu-period",
    "cpu-quota",
    "cpu-shares",
    "cpuset-cpus",
    "cpuset-mems",
    "device",
    "dns",
    "dns-option",
    "dns-search",
    "gpus",
    "group-add",
    "hostname",
    "init",
    "ipc",
    "label",
    "memory",
    "memory-reservation",
    "memory-swap",
    "mount",
    "network-alias",
    "pid",
    "pids-limit",
    "platform",
    "pull",
    "read-only",
    "security-opt",
    "shm-size",
    "stop-signal",
    "sysctl",
    "tmpfs",
    "ulimit",
    "volume",
];

/// Options that change nothing here: a step has no terminal and no input, its container is removed at the end.
const WITHOUT_EFFECT: &[&str] = &[
    "annotation",
    "attach",
    "detach-keys",
    "disable-content-trust",
    "interactive",
    "quiet",
    "rm",
    "sig-proxy",
    "stop-timeout",
    "tty",
];

/// Reads a `cmd` step. `container` has what its properties say.
pub(super) fn read(
    command: &Placed<Traced>,
    mut container: Container,
    fields: &mut Fields<'_>,
    aliases: &Aliases,
    insertions: &Insertions,
) -> Option<Cmd> {
    let attempts = super::container::attempts(fields);
    let pull = fields.flag("pull");
    let (retries, retry_delay) =
        (fields.count("cmdDownloadRetries", 100), fields.seconds("cmdDownloadRetryDelay"));
    let pull = pull.then(|| Pull { retries, retry_delay: retry_delay.unwrap_or_default() });
    let words = split(&with_image(&command.value, aliases, insertions), command.at, fields)?;
    let (given, operands) = match options::parse("docker run", OPTIONS, words, true) {
        Ok(read) => read,
        Err(error) => {
            fields.error(command.at, error.to_string());
            return None;
        }
    };
    let (env, given): (Vec<Given>, Vec<Given>) =
        given.into_iter().partition(|option| option.name == "env");
    add_env(env, &mut container, command.at, fields);
    for option in given {
        apply(option, &mut container, command.at, fields);
    }
    let mut operands = operands.into_iter();
    let Some(image) = operands.next() else {
        fields.error(command.at, "the command names no image: write `cmd: IMAGE ARGUMENTS`");
        return None;
    };
    if image.has_secret() {
        fields
            .error(command.at, "the image's name contains a secret: write it out, or use a value");
    }
    let arguments: Vec<Traced> = operands.collect();
    if let Some(secret) = arguments.iter().find_map(Traced::secret) {
        let message = format!(
            "`{}` is an argument, which other processes of the engine's machine can read: give it as a variable with `env:`",
            secret.name
        );
        fields.warning(command.at, message);
    }
    Some(Cmd { image, arguments, container, attempts, pull })
}

/// Splits the command and reports what a shell would have done with it.
pub(super) fn split(command: &Traced, at: usize, fields: &mut Fields<'_>) -> Option<Vec<Traced>> {
    match words::split(command) {
        Ok(words) => {
            for variable in words.variables {
                let message = format!(
                    "`{variable}` is passed on as it is written, because no shell runs on the worker: put single quotes around it if a shell in the container is to expand it"
                );
                fields.warning(at, message);
            }
            Some(words.words)
        }
        Err(error) => {
            fields.error(at, error.to_string());
            None
        }
    }
}

/// The command with its first word replaced, if that is an alias.
fn with_image(command: &Traced, aliases: &Aliases, insertions: &Insertions) -> Traced {
    let text = command.exposed();
    let start = text.len() - text.trim_start().len();
    let end = text
        .get(start..)
        .and_then(|text| text.find(char::is_whitespace))
        .map_or(text.len(), |end| start + end);
    let Some(image) = text.get(start..end).and_then(|word| aliases.whole_word(word)) else {
        return command.clone();
    };
    let mut replaced = insertions.restore(image);
    replaced.append(&command.slice(end..text.len()));
    replaced
}

/// `--env` before the image counts instead of a variable of the step; of equal names the last one.
fn add_env(given: Vec<Given>, container: &mut Container, at: usize, fields: &mut Fields<'_>) {
    let mut added: BTreeMap<String, Traced> = BTreeMap::new();
    for Given { value, .. } in given {
        match value.split_once('=') {
            Some((name, value)) => {
                added.insert(name.exposed().to_owned(), value);
            }
            None => fields
                .error(at, format!("`--env {value}` has no value: write `--env {value}=VALUE`")),
        }
    }
    container.env.retain(|(name, _)| !added.contains_key(name));
    container.env.extend(added);
}

/// An option before the image. One with a property of the same meaning counts instead of the property.
fn apply(option: Given, container: &mut Container, at: usize, fields: &mut Fields<'_>) {
    let Given { name, value } = option;
    if let Some(form) = option_values::wrong(name, value.exposed()) {
        return fields.error(at, format!("`--{name} {value}` is not {form}"));
    }
    let is_true = matches!(value.exposed(), "true" | "1");
    match name {
        "workdir" => container.working_directory = fields.shown(at, "`--workdir`", &value),
        "user" => container.user = Some(value),
        "entrypoint" => container.entry_point = Some(value),
        "net" | "network" => container.network = Some(value),
        "publish" => container.ports.push(value),
        "expose" => container.expose.push(value),
        "cpus" => container.cpus = Some(value),
        "isolation" => container.isolation = Some(value),
        "detach" => container.detach = is_true,
        "privileged" => container.privileged = is_true,
        "name" => {
            let message =
                format!("`--name {value}` has no effect: other steps reach this one by its id");
            fields.warning(at, message);
        }
        name if KEPT.contains(&name) => container.options.push(Given { name, value }),
        name if WITHOUT_EFFECT.contains(&name) => {}
        name => {
            fields.error(at, format!("`docker run --{name}` is not supported in a step: remove it"))
        }
    }
}
