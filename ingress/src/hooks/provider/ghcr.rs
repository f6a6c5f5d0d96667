//! GitHub's container registry. GitHub reports its packages by webhooks of repositories, organizations and apps; those of
//! containers become events. Hooks of GitHub itself take them too.

use gantry_domain::delivery::Verdict;
use gantry_domain::hook::Provider;
use gantry_domain::id::HookId;
use gantry_domain::image::RegistryHost;
use gantry_domain::mapping::Mapping;
use serde::Deserialize;

use super::reading::{Envelope, Found, Meaning, id_or_hash, lenient, unreadable, word};
use super::registry::{Report, split_host};
use super::{Descriptor, Setup, github};

pub(super) const DESCRIPTOR: Descriptor = Descriptor {
    name: Provider::Ghcr,
    read,
    setup: Setup {
        content_type: github::DESCRIPTOR.setup.content_type,
        events: &["package"],
        instructions,
    },
    ..github::DESCRIPTOR
};

fn instructions(url: &str, secret: &str, _: Option<&Mapping>) -> Vec<String> {
    vec![
        "In the settings of the organization, or of the repository that the package is linked to, under Webhooks, add a webhook:"
            .to_owned(),
        format!("Payload URL: {url}"),
        format!("Content type: {}", DESCRIPTOR.setup.content_type),
        format!("Secret: {secret}"),
        "Which events: packages; for an app, registry packages".to_owned(),
    ]
}

fn read(envelope: &Envelope, body: &[u8]) -> Meaning {
    let id = id_or_hash(envelope.id.as_deref(), body);
    let kind = word(envelope.kind.as_deref());
    let found = match kind.as_str() {
        "package" | "registry_package" => {
            github::json(envelope, body).and_then(|json| read_package(&envelope.hook, &json))
        }
        "ping" => Err(Verdict::Ping),
        "unknown" => Err(unreadable("there is no X-GitHub-Event")),
        _ => Ok(Found::nothing(&format!(
            "a hook of `ghcr` reads packages only: `{kind}` is for one of `github`"
        ))),
    };
    Meaning::of(id, kind, found)
}

/// What packages of all types have.
#[derive(Deserialize)]
struct Body {
    action: String,
    #[serde(alias = "registry_package")]
    package: Package,
}

#[derive(Deserialize)]
struct Package {
    package_type: String,
    #[serde(default, deserialize_with = "lenient")]
    package_version: Option<Version>,
}

#[derive(Deserialize)]
struct Version {
    /// The digest of a container.
    #[serde(default, deserialize_with = "lenient")]
    version: Option<String>,
    /// The image; an untagged one ends in a bare `:`.
    package_url: String,
    #[serde(default, deserialize_with = "lenient")]
    container_metadata: Option<Metadata>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default, deserialize_with = "lenient")]
    tag: Option<Tag>,
    #[serde(default, deserialize_with = "lenient")]
    manifest: Option<Manifest>,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default, deserialize_with = "lenient")]
    media_type: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    config: Option<Config>,
}

#[derive(Deserialize)]
struct Config {
    media_type: String,
}

/// Charts are packages of the type `CONTAINER` as well.
const CHART: &str = "application/vnd.cncf.helm.config.v1+json";

/// Reads a `package` or `registry_package`, which differ only in a name.
pub(super) fn read_package(hook: &HookId, json: &[u8]) -> Result<Found, Verdict> {
    let Body { action, package } = serde_json::from_slice(json).map_err(unreadable)?;
    let is_pushed = matches!(action.as_str(), "published" | "updated");
    let is_container = ["container", "docker"]
        .iter()
        .any(|container| package.package_type.eq_ignore_ascii_case(container));
    if !is_pushed || !is_container {
        return Ok(Found::Never);
    }
    let why = "the package has no version with an address";
    let version = package.package_version.ok_or_else(|| unreadable(why))?;
    let Metadata { tag, manifest } = version.container_metadata.unwrap_or_default();
    let (media_type, config) =
        manifest.map_or((None, None), |manifest| (manifest.media_type, manifest.config));
    if config.is_some_and(|config| config.media_type == CHART) {
        return Ok(Found::Never);
    }
    // GitHub writes names of owners as they were registered; those of images are in lower case.
    let url = version.package_url.to_ascii_lowercase();
    let (host, image) = split_host(&url);
    let host: RegistryHost = host.unwrap_or_default().parse().map_err(unreadable)?;
    let (image, _) = image.split_once('@').unwrap_or((image, ""));
    let (repository, _) = image.rsplit_once(':').unwrap_or((image, ""));
    let report = Report {
        host,
        repository,
        tag: tag.as_ref().map(|tag| tag.name.as_str()),
        digest: version.version.as_deref().filter(|version| version.starts_with("sha256:")),
        media_type: media_type.as_deref(),
    };
    Ok(Found::one(report.proven(hook).map_err(unreadable)?))
}
