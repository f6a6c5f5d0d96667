//! The clients of code hosts' APIs against stand-ins.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by panicking"
)]

use std::sync::LazyLock;

use gantry_domain::pull_request::ChangedFiles;
use gantry_domain::report::{ReportState, ReportTarget, StatusReport};
use gantry_domain::source::GitUrl;
use gantry_ops::secret::SecretString;
use gantry_remote::code_host::{ReportedRun, RepositoryAccess};

mod azure_devops;
mod bitbucket;
mod faults;
mod gitea;
mod github;
mod github_app;
mod gitlab;
mod guide;
mod hooks;
mod open;
mod table;

/// Commits.
pub(crate) const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(crate) const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
pub(crate) const C: &str = "cccccccccccccccccccccccccccccccccccccccc";

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
        RepositoryAccess {
            url: &self.url,
            registry: None,
            token: self.token.as_ref(),
            host_keys: &[],
        }
    }
}

/// A report of commit [`B`].
pub(crate) fn report(state: ReportState) -> StatusReport {
    StatusReport {
        target: ReportTarget { commit: B.parse().unwrap(), pull_request: None, repository: None },
        context: "gantry/web".parse().unwrap(),
        state,
        description: "Pushed web:1".to_owned(),
        details: String::new(),
        started: None,
        link: "https://gantry.example/runs/ca1".to_owned(),
    }
}

/// The run that is reported.
pub(crate) static RUN: LazyLock<ReportedRun> =
    LazyLock::new(|| ReportedRun { run: "ca1".parse().unwrap(), check_run: None });

/// All states.
pub(crate) const STATES: [ReportState; 8] = [
    ReportState::Pending,
    ReportState::Held,
    ReportState::Running,
    ReportState::Succeeded,
    ReportState::Failed,
    ReportState::TimedOut,
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
