//! Pull requests, as their providers describe them.

use serde::{Deserialize, Serialize};

use crate::source::{CommitId, RefName};
use crate::text::{text_type, words};

text_type!(
    /// A provider's own id of a repository, which survives renames: a number or a GUID.
    ProviderRepository,
    "provider's repository id",
    "1 to 100 letters, digits or `-{}`",
    |text| (1..=100).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-{}".contains(&b))
);

/// A pull request at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// Its number in the repository.
    pub number: u64,
    /// Whether it can still be merged: neither merged nor closed.
    pub is_open: bool,
    /// What it wants to merge.
    pub head: PullRequestHead,
    /// What it wants to merge into.
    pub base: PullRequestBase,
    /// The provider's trial merge of both; `None` if there is none, or not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<CommitId>,
    /// Whether its author marked it as unfinished.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_draft: bool,
    /// Its labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The account that opened it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The author's relation to the repository, in the provider's word.
    #[serde(default)]
    pub association: Association,
}

/// The head of a pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequestHead {
    /// The head.
    pub commit: CommitId,
    /// The branch; `None` if the provider's name is no branch's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<RefName>,
    /// The repository with the branch; `None` if it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<ProviderRepository>,
}

/// The base of a pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequestBase {
    /// The branch.
    pub branch: RefName,
    /// The repository.
    pub repository: ProviderRepository,
}

impl PullRequest {
    /// Whether the head is in another repository. A head whose repository is unknown counts as one of a fork.
    #[must_use]
    pub fn is_from_fork(&self) -> bool {
        self.head.repository.as_ref() != Some(&self.base.repository)
    }

    /// Its version; `None` if it is closed.
    #[must_use]
    pub fn version(&self) -> Option<PullRequestVersion> {
        let version =
            PullRequestVersion { head: self.head.commit.clone(), base: self.base.branch.clone() };
        self.is_open.then_some(version)
    }
}

/// What a pull request wants to merge, and into what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequestVersion {
    /// The head.
    pub head: CommitId,
    /// The base branch.
    pub base: RefName,
}

words!(
    /// The relation of an account to a repository, from the least trusted to the most.
    #[derive(Default)]
    Association, "relation to a repository",
    "`stranger`, `contributor`, `collaborator`, `member` or `owner`", {
    /// None, or the provider does not tell.
    #[default]
    Stranger = "stranger",
    /// It contributed before.
    Contributor = "contributor",
    /// It may push to the repository.
    Collaborator = "collaborator",
    /// It is a member of the organization that owns the repository.
    Member = "member",
    /// It owns the repository.
    Owner = "owner",
});

/// The files that a change touches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "files")]
pub enum ChangedFiles {
    /// All of them, with old and new names of renamed ones, relative to the repository's root.
    All {
        /// The paths.
        paths: Vec<String>,
    },
    /// The list is not known, or may not be complete.
    Unknown {
        /// Why, for people.
        why: String,
    },
}

impl Default for ChangedFiles {
    fn default() -> Self {
        Self::Unknown { why: "the webhook does not list them".to_owned() }
    }
}
