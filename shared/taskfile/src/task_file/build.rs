//! Reads the command of a `build` step: options of `docker build` and a context.

use gantry_domain::image::ImageReference;

use super::fields::{Fields, Placed};
use super::option_values;
use super::options::{self, Given, Known, flag, value};
use super::step::{Build, Container};
use super::traced::Traced;

/// The options of `docker build`, of the classic builder and of buildx.
const OPTIONS: &[Known] = &[
    value("add-host"),
    value("allow"),
    value("annotation"),
    value("attest"),
    value("build-arg"),
    value("build-context"),
    value("builder"),
    value("cache-from"),
    value("cache-to"),
    value("call"),
    value("cgroup-parent"),
    flag("check"),
    flag("compress"),
    value("cpu-period"),
    value("cpu-quota"),
    value("cpu-shares").short('c'),
    value("cpuset-cpus"),
    value("cpuset-mems"),
    flag("disable-content-trust"),
    value("file").short('f'),
    flag("force-rm"),
    value("iidfile"),
    value("isolation"),
    value("label"),
    flag("load"),
    value("memory").short('m'),
    value("memory-swap"),
    value("metadata-file"),
    value("network"),
    flag("no-cache"),
    value("no-cache-filter"),
    value("output").short('o'),
    value("platform"),
    value("progress"),
    value("provenance"),
    flag("pull"),
    flag("push"),
    flag("quiet").short('q'),
    flag("rm"),
    value("sbom"),
    value("secret"),
    value("security-opt"),
    value("shm-size"),
    flag("squash"),
    value("ssh"),
    flag("stream"),
    value("tag").short('t'),
    value("target"),
    value("ulimit"),
];

/// Options that a build may have beside those with a place of their own.
const KEPT: &[&str] = &[
    "add-host",
    "cache-from",
    "cache-to",
    "label",
    "network",
    "no-cache",
    "platform",
    "pull",
    "secret",
    "shm-size",
    "ulimit",
];

/// Options that change nothing about the image that a step builds.
const WITHOUT_EFFECT: &[&str] = &[
    "builder",
    "compress",
    "cpu-period",
    "cpu-quota",
    "cpu-shares",
    "cpuset-cpus",
    "cpuset-mems",
    "disable-content-trust",
    "force-rm",
    "isolation",
    "load",
    "memory",
    "memory-swap",
    "progress",
    "quiet",
    "rm",
    "stream",
];

/// Reads a `build` step. `container` has what its properties say.
pub(super) fn read(
    command: &Placed<Traced>,
    container: Container,
    fields: &mut Fields<'_>,
) -> Option<Build> {
    let attempts = super::container::attempts(fields);
    let cache = cache(fields);
    // A property of `cmd`, which the original ignores here.
    fields.flag("pull");
    let words = super::cmd::split(&command.value, command.at, fields)?;
    let (given, operands) = match options::parse("docker build", OPTIONS, words, false) {
        Ok(read) => read,
        Err(error) => {
            fields.error(command.at, error.to_string());
            return None;
        }
    };
    let context = context(operands, command.at, fields);
    let mut build = Build {
        tags: Vec::new(),
        dockerfile: None,
        context,
        build_args: Vec::new(),
        target: None,
        options: Vec::new(),
        cache,
        container,
        attempts,
    };
    for option in given {
        apply(option, &mut build, command.at, fields);
    }
    Some(build)
}

fn cache(fields: &mut Fields<'_>) -> bool {
    let Some(cache) = fields.text("cache") else { return false };
    match cache.value.exposed().to_ascii_lowercase().as_str() {
        "enabled" => true,
        "disabled" => false,
        _ => {
            fields.error(
                cache.at,
                format!("`cache` is `enabled` or `disabled`, not `{}`", cache.value),
            );
            false
        }
    }
}

fn context(operands: Vec<Traced>, at: usize, fields: &mut Fields<'_>) -> Traced {
    let mut operands = operands.into_iter();
    let context = operands.next().unwrap_or_else(|| {
        fields.warning(
            at,
            "the build names no context, and the working directory is taken: add ` .`",
        );
        Traced::written(".")
    });
    if let Some(other) = operands.next() {
        let message = format!(
            "a build has one context, and this one has `{context}` and `{other}`: put quotes around words with blanks"
        );
        fields.error(at, message);
    }
    context
}

fn apply(option: Given, build: &mut Build, at: usize, fields: &mut Fields<'_>) {
    let Given { name, value } = option;
    // A build may have several, a container one.
    let kind = if name == "platform" { "platforms" } else { name };
    if name != "pull"
        && let Some(form) = option_values::wrong(kind, value.exposed())
    {
        return fields.error(at, format!("`--{name} {value}` is not {form}"));
    }
    match name {
        "tag" => build.tags.extend(tag(&value, at, fields)),
        "file" => build.dockerfile = Some(value),
        "target" => build.target = Some(value),
        "build-arg" => {
            if value.has_secret() {
                fields.warning(
                    at,
                    "a secret build argument stays in the image's history: use `--secret`",
                );
            }
            let (name, value) = match value.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (value, None),
            };
            let name = fields.shown(at, "the name of a build argument", &name);
            build.build_args.extend(name.map(|name| (name, value)));
        }
        "push" => fields.error(at, "a build step does not push: add a step with `push:`"),
        name if KEPT.contains(&name) => build.options.push(Given { name, value }),
        name if WITHOUT_EFFECT.contains(&name) => {}
        name => fields
            .error(at, format!("`docker build --{name}` is not supported in a step: remove it")),
    }
}

fn tag(value: &Traced, at: usize, fields: &mut Fields<'_>) -> Option<ImageReference> {
    let text = fields.shown(at, "a tag", value)?;
    match text.parse::<ImageReference>() {
        Ok(tag) if tag.digest().is_none() => return Some(tag),
        Ok(_) => fields.error(
            at,
            format!("`{text}` names an image by its digest, which a build cannot give: use a tag"),
        ),
        Err(error) => fields.error(at, format!("`{text}` is not a name for an image: {error}")),
    }
    None
}
