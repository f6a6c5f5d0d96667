//! Packages of type `container`: the images in Gitea's own registry.

use gantry_domain::delivery::Verdict;
use gantry_domain::id::HookId;
use gantry_domain::image::RegistryHost;
use serde::Deserialize;
use url::Url;

use super::super::reading::{Found, unreadable};
use super::super::registry::Report;

/// What packages of all types have.
#[derive(Deserialize)]
struct Body {
    action: String,
    package: Package,
}

#[derive(Deserialize)]
struct Package {
    #[serde(rename = "type")]
    kind: String,
    owner: Owner,
    name: String,
    /// A tag in lower case, however it was pushed, or a digest.
    version: String,
    /// The page of the package, on the host of the registry.
    html_url: String,
}

#[derive(Deserialize)]
struct Owner {
    login: String,
}

/// A tag that moves is reported as created again.
pub(super) fn read(hook: &HookId, body: &[u8]) -> Result<Found, Verdict> {
    let Body { action, package } = serde_json::from_slice(body).map_err(unreadable)?;
    if action != "created" || package.kind != "container" {
        return Ok(Found::Never);
    }
    // Images are named in lower case, their owners as they were registered.
    let repository = format!("{}/{}", package.owner.login, package.name).to_ascii_lowercase();
    let report = Report {
        host: host_of(&package.html_url)?,
        repository: &repository,
        tag: Some(&package.version),
        digest: None,
        media_type: None,
    };
    Ok(Found::one(report.proven(hook).map_err(unreadable)?))
}

/// The registry is at the root of Gitea's host, even if Gitea itself is below a path.
fn host_of(page: &str) -> Result<RegistryHost, Verdict> {
    let url: Url = page.parse().map_err(unreadable)?;
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    host.parse().map_err(unreadable)
}
