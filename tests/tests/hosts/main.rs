//! The clients of code hosts' APIs against stand-ins.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by panicking"
)]

use std::sync::{Arc, LazyLock};

use gantry_domain::pull_request::ChangedFiles;
use gantry_domain::report::{ReportState, ReportTarget, StatusReport};
use gantry_domain::source::GitUrl;
use gantry_ops::secret::SecretString;
use gantry_remote::code_host::{CodeHosts, RepositoryAccess};
use gantry_remote::git::{Git, GitLimits};
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;

mod azure_devops;
mod faults;
mod github;
mod table;

/// Commits.
pub(crate) const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(crate) const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
pub(crate) const C: &str = "cccccccccccccccccccccccccccccccccccccccc";

/// Created once, because it reads the system's certificates.
static HTTP: LazyLock<OutboundClient> =
    LazyLock::new(|| OutboundClient::new(OutboundPolicy::parse(["127.0.0.1"]).unwrap()).unwrap());

/// The code hosts with these entries of `code_hosts.apis`. Only 127.0.0.1 may be connected to.
pub(crate) fn hosts(entries: &[String]) -> CodeHosts {
    let limits = GitLimits { fetched_bytes: 1 << 20, checkout_bytes: 1 << 20, checkout_files: 100 };
    let git = Git::new(Arc::clone(HTTP.policy()), limits);
    let entries = entries.iter().map(|entry| entry.parse().unwrap()).collect();
    CodeHosts::new(git, &HTTP, entries).unwrap()
}

/// A repository and its token.
pub(crate) struct Access {
    url: GitUrl,
    token: Option<SecretString>,
}

impl Access {
    pub(crate) fn new(url: &str, token: &str) -> Self {
        Self { url: url.parse().unwrap(), token: Some(token.into()) }
    }

    pub(crate) fn anonymous(url: &str) -> Self {
        Self { url: url.parse().unwrap(), token: None }
    }

    pub(crate) fn at(&self) -> RepositoryAccess<'_> {
        RepositoryAccess { url: &self.url, token: self.token.as_ref() }
    }
}

/// A report of commit [`B`].
pub(crate) fn report(state: ReportState) -> StatusReport {
    StatusReport {
        target: ReportTarget { commit: B.parse().unwrap(), pull_request: None, repository: None },
        context: "gantry/web".parse().unwrap(),
        state,
        description: "Pushed web:1".to_owned(),
        link: "https://gantry.example/runs/ca1".to_owned(),
    }
}

/// All states.
pub(crate) const STATES: [ReportState; 6] = [
    ReportState::Pending,
    ReportState::Running,
    ReportState::Succeeded,
    ReportState::Failed,
    ReportState::Errored,
    ReportState::Canceled,
];

pub(crate) fn all(paths: &[&str]) -> ChangedFiles {
    ChangedFiles::All { paths: paths.iter().map(|path| (*path).to_owned()).collect() }
}

/// Why the files are not known.
pub(crate) fn why(files: &ChangedFiles) -> &str {
    match files {
        ChangedFiles::Unknown { why } => why,
        ChangedFiles::All { paths } => panic!("{} paths", paths.len()),
    }
}
