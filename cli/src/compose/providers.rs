//! The APIs of code hosts.

use async_trait::async_trait;
use gantry_domain::pull_request::{ChangedFiles, PullRequest};
use gantry_domain::report::StatusReport;
use gantry_domain::source::CommitId;
use gantry_remote::code_host::{CodeHostError, CodeHostFailure, ProviderApi, RepositoryAccess};

/// No API of any code host.
pub(super) struct NoProviders;

fn no_api<T>(at: RepositoryAccess<'_>) -> Result<T, CodeHostError> {
    let message = format!("gantry knows no API of the host of {}", at.url);
    Err(CodeHostError { message, kind: CodeHostFailure::NoApi })
}

#[async_trait]
impl ProviderApi for NoProviders {
    async fn pull_request(
        &self,
        at: RepositoryAccess<'_>,
        _: u64,
    ) -> Result<Option<PullRequest>, CodeHostError> {
        no_api(at)
    }

    async fn changed_files(
        &self,
        at: RepositoryAccess<'_>,
        _: &CommitId,
        _: &CommitId,
    ) -> Result<ChangedFiles, CodeHostError> {
        no_api(at)
    }

    async fn pull_request_files(
        &self,
        at: RepositoryAccess<'_>,
        _: u64,
    ) -> Result<ChangedFiles, CodeHostError> {
        no_api(at)
    }

    async fn report(
        &self,
        at: RepositoryAccess<'_>,
        _: &StatusReport,
    ) -> Result<(), CodeHostError> {
        no_api(at)
    }
}
