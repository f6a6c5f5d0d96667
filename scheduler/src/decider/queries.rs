//! Questions to code hosts and their APIs, with the tokens of the tasks that watch a repository.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use gantry_domain::event::PushedRef;
use gantry_domain::pull_request::{ChangedFiles, PullRequest};
use gantry_domain::sealed::Sealed;
use gantry_domain::source::CommitId;
use gantry_domain::task::Task;
use gantry_remote::code_host::{CodeHostError, Head, RepositoryAccess};

use super::Decider;
use super::asks::MayAsk;
use super::head::Unresolved;
use crate::asking;

impl Decider {
    /// The head of a branch or tag, or of the default branch.
    pub(super) async fn ask(
        &self,
        reference: Option<&PushedRef>,
        tasks: &[Task],
        may_ask: MayAsk,
    ) -> Result<Head, Unresolved> {
        self.ask_with_tokens(
            tasks,
            may_ask,
            |task| task.git_token.as_ref(),
            |at| {
                let (host, reference) = (Arc::clone(&self.code_host), reference.cloned());
                async move { host.head(at, reference.as_ref()).await }.boxed()
            },
        )
        .await
    }

    /// A pull request as it is now; `None` if there is none of this number.
    pub(super) async fn ask_for_pull_request(
        &self,
        number: u64,
        tasks: &[Task],
        may_ask: MayAsk,
    ) -> Result<Option<PullRequest>, Unresolved> {
        self.ask_with_tokens(tasks, may_ask, Task::token_for_api, |at| {
            let providers = Arc::clone(&self.providers);
            async move { providers.pull_request(at, number).await }.boxed()
        })
        .await
    }

    /// The files that differ between two commits.
    pub(super) async fn ask_for_files(
        &self,
        between: &FilesOf,
        tasks: &[Task],
        may_ask: MayAsk,
    ) -> Result<ChangedFiles, Unresolved> {
        self.ask_with_tokens(tasks, may_ask, Task::token_for_api, |at| {
            let (providers, between) = (Arc::clone(&self.providers), between.clone());
            async move {
                match &between {
                    FilesOf::Commits { before, after } => {
                        providers.changed_files(at, before, after).await
                    }
                    FilesOf::PullRequest { number } => {
                        providers.pull_request_files(at, *number).await
                    }
                }
            }
            .boxed()
        })
        .await
    }

    /// Like [`asking::with_tokens`], if a code host may be asked now.
    async fn ask_with_tokens<T>(
        &self,
        tasks: &[Task],
        may_ask: MayAsk,
        token_of: impl Fn(&Task) -> Option<&Sealed>,
        query: impl for<'q> Fn(RepositoryAccess<'q>) -> BoxFuture<'q, Result<T, CodeHostError>>,
    ) -> Result<T, Unresolved> {
        if let Some(url) = tasks.iter().find_map(Task::repository)
            && may_ask == MayAsk::NotNow
        {
            // With the port: two servers may share a host name.
            return Err(Unresolved::MustAsk(url.as_url().authority().to_owned()));
        }
        let asked = asking::with_tokens(&self.keyring, tasks, token_of, query).await;
        asked.map_err(Unresolved::Asking)
    }
}

/// Which changed files are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FilesOf {
    /// Those that differ between two commits.
    Commits { before: CommitId, after: CommitId },
    /// Those of a pull request.
    PullRequest { number: u64 },
}
