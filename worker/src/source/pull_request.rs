//! Fetches what a run of a pull request builds: the provider's trial merge, or the head.

use gantry_domain::recipe::PullRequestBuild;
use gantry_domain::source::{CommitId, GitSource, RefName};
use gantry_ops::secret::Credentials;
use gantry_remote::git::{GitError, Remote, ResolvedRef};
use tokio::time::Instant;

use super::mirrors::Trust;
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
        let remote = Remote { url: &source.url, credentials, deadline };
        let trust = if of.is_fork { Trust::Fork } else { Trust::Own };
        let chosen = match &of.refs.merge {
            None => Chosen::Head,
            Some(merge) => match self.merge_of(remote, merge, &of.head, trust).await? {
                Some(commit) => Chosen::Merge(commit),
                None => Chosen::HeadWithoutMerge,
            },
        };
        let (commit, reference) = match &chosen {
            Chosen::Merge(commit) => (commit, &of.refs.merge),
            Chosen::Head | Chosen::HeadWithoutMerge => (&of.head, &of.refs.head),
        };
        // Before the mirror is used, since only users whom the host accepts may read it.
        let shown = match reference {
            Some(reference) => full(reference),
            None => commit.as_str().parse().ok(),
        };
        self.git.resolve(remote, shown.as_ref()).await?;
        let name = shown.map(String::from);
        let head = ResolvedRef { commit: commit.clone(), name, branch: None };
        Ok((self.checkout_of(remote, head, source, trust).await?, chosen))
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
        let read = mirror.read(&self.git, remote, &merge).await?;
        let parents = self.git.parents(read.path(), &merge.commit, remote.deadline).await?;
        Ok((parents.get(1) == Some(head)).then_some(merge.commit))
    }
}

/// The full name of a provider's reference.
fn full(reference: &RefName) -> Option<RefName> {
    format!("refs/{reference}").parse().ok()
}
