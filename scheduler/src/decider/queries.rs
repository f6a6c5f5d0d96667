//! Questions to code hosts and their APIs, with the tokens of the tasks that watch a repository.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use gantry_domain::event::PushedRef;
use gantry_domain::pull_request::{ChangedFiles, PullRequest};
use gantry_domain::registry::Registry;
use gantry_domain::sealed::Sealed;
use gantry_domain::source::{CommitId, Source};
use gantry_domain::task::Task;
use gantry_ops::secret::SecretString;
use gantry_remote::code_host::{CodeHostError, CodeHostFailure, Head, RepositoryAccess};

use super::Decider;
use super::asks::MayAsk;
use super::head::Unresolved;

/// How many tokens are tried. More tasks would only send the same query to the same host.
const TOKENS: usize = 3;

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

    /// Sends a query with the address and token of each task in turn, until one is accepted. It never uses an address
    /// from an event: then a sender of hooks could have the tokens sent to a server of its own.
    async fn ask_with_tokens<T>(
        &self,
        tasks: &[Task],
        may_ask: MayAsk,
        token_of: impl Fn(&Task) -> Option<&Sealed>,
        query: impl for<'q> Fn(RepositoryAccess<'q>) -> BoxFuture<'q, Result<T, CodeHostError>>,
    ) -> Result<T, Unresolved> {
        let with_git = tasks.iter().filter_map(|task| match &task.recipe.source {
            Source::Git(git) => Some((task, &git.url)),
            Source::Upload { .. } | Source::Tarball { .. } | Source::Nothing => None,
        });
        let asked: Vec<_> = with_git.take(TOKENS).collect();
        if let Some((_, url)) = asked.first()
            && may_ask == MayAsk::NotNow
        {
            // With the port: two servers may share a host name.
            return Err(Unresolved::MustAsk(url.as_url().authority().to_owned()));
        }
        let mut last = refused("no task reads the repository from git".to_owned());
        for (task, url) in asked {
            let token = match self.opened(task, token_of(task)) {
                Ok(token) => token,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            match query(RepositoryAccess { url, token: token.as_ref() }).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.refused_token() => last = error,
                Err(error) => return Err(Unresolved::Asking(error)),
            }
        }
        Err(Unresolved::Asking(last))
    }

    fn opened(
        &self,
        task: &Task,
        sealed: Option<&Sealed>,
    ) -> Result<Option<SecretString>, CodeHostError> {
        let Some(sealed) = sealed else { return Ok(None) };
        let opened = self.keyring.open(&Registry::seals_for(task.prefix), sealed);
        opened.map(Some).map_err(|error| refused(error.to_string()))
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

fn refused(message: String) -> CodeHostError {
    CodeHostError { message, kind: CodeHostFailure::RefusedToken }
}
