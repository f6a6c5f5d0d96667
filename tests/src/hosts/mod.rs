//! Stand-ins for the APIs of code hosts, made from what their providers publish about them.

pub mod azure_devops;
pub mod bitbucket;
mod contract;
pub mod gitea;
pub mod github;
pub mod github_app;
pub mod gitlab;
pub mod hooks;
mod lists;
pub mod server;

use std::sync::{Arc, LazyLock};

use gantry_remote::code_host::CodeHosts;
use gantry_remote::git::{Git, GitLimits};
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;

pub use server::{Answer, Asked, HostServer};

/// Created once, because it reads the system's certificates.
static HTTP: LazyLock<OutboundClient> = LazyLock::new(|| {
    let policy = OutboundPolicy::parse(["127.0.0.1"]).expect("an address");
    OutboundClient::new(policy).expect("a client")
});

/// The code hosts with these entries of `code_hosts.apis`. Only 127.0.0.1 may be connected to.
///
/// # Panics
/// If an entry is malformed.
#[must_use]
pub fn code_hosts(entries: &[String]) -> CodeHosts {
    let limits =
        GitLimits { fetched_bytes: 1 << 26, checkout_bytes: 1 << 26, checkout_files: 10_000 };
    let git = Git::new(Arc::clone(HTTP.policy()), limits);
    let entries = entries.iter().map(|entry| entry.parse().expect("an entry")).collect();
    CodeHosts::new(git, &HTTP, entries).expect("a client")
}
