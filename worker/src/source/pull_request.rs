//! Fetches what a run of a pull request builds: the provider's trial merge, or the head.

use gantry_domain::recipe::PullRequestBuild;
use gantry_domain::source::{CommitId, GitSource, RefName};
use gantry_ops::secret::Credentials;
use gantry_remote::git::{GitError, Remote, ResolvedRef};
use tokio::time::Instant;

use super::mirrors::{Shown, Trust};
use super::{Checkout, SourceError, Sources};

/// What was chosen to be built of a pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    /// The trial merge of exactly this head.
    Merge(CommitId),
    /// The head, because the trigger says so or the provider has no trial merges.
    Head,
    /// The head, because the trial merge is of another one, or there is none.
    HeadWithoutMerge,
}

impl Sources {
    /// Fetches a pull request. A fork's is kept apart from all other sources of the repository.
    ///
    /// # Errors
    /// [`SourceError::Git`], [`SourceError::Folder`], [`SourceError::TimedOut`].
    pub async fn from_pull_request(
        &self,
        source: &GitSource,
        of: &PullRequestBuild,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<(Checkout, Chosen), SourceError> {
        let host_keys = &source.host_keys;
        let remote = Remote { url: &source.url, credentials, host_keys, deadline };
        let trust = if of.is_fork { Trust::Fork } else { Trust::Own };
        let chosen = match &of.refs.merge {
            None => Chosen::Head,
            Some(merge) => match self.merge_of(remote, merge, &of.head, trust).await? {
                Some(commit) => Chosen::Merge(commit),
                None => Chosen::HeadWithoutMerge,
            },
        };
        let (commit, shown, reference) = match &chosen {
            // The reference named it a moment ago.
            Chosen::Merge(commit) => (commit, Shown::Already, &of.refs.merge),
            Chosen::Head | Chosen::HeadWithoutMerge => (&of.head, Shown::NotYet, &of.refs.head),
        };
        let name = reference.as_ref().and_then(full).map(String::from);
        let head = ResolvedRef { commit: commit.clone(), name, branch: None };
        Ok((self.checkout_of(remote, head, shown, source, trust).await?, chosen))
    }

    /// The trial merge that a reference names, if its second parent is `head`.
    async fn merge_of(
        &self,
        remote: Remote<'_>,
        reference: &RefName,
        head: &CommitId,
        trust: Trust,
    ) -> Result<Option<CommitId>, SourceError> {
        let merge = match self.git.resolve(remote, full(reference).as_ref()).await {
            Ok(merge) => merge,
            Err(GitError::UnknownRef { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mirror = self.mirrors.of(remote.url, merge.commit.object_format(), trust);
        let reading = mirror.read(&self.git, remote, &merge, Shown::Already).await?;
        let parents = self.git.parents(reading.path(), &merge.commit, remote.deadline).await;
        let parents = match parents {
            Err(error) if error.may_be_local() => {
                let reading = mirror.renew(&self.git, remote, &merge, reading).await?;
                self.git.parents(reading.path(), &merge.commit, remote.deadline).await?
            }
            parents => parents?,
        };
        Ok((parents.get(1) == Some(head)).then_some(merge.commit))
    }
}

/// The full name of a provider's reference.
fn full(reference: &RefName) -> Option<RefName> {
    format!("refs/{reference}").parse().ok()
}
