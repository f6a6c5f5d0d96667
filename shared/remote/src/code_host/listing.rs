//! The open pull requests of a repository, as its provider lists them.

use gantry_domain::pull_request::{PullRequest, PullRequestVersion};
use gantry_domain::source::{GitUrl, RefName};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::CodeHostError;
use super::client::{Operation, RepositoryClient};
use super::pages::Pages;

/// The most pull requests that are listed.
pub(super) const MOST_LISTED: usize = 1000;

/// The fewest digits of a commit that tell it from another one.
const FEWEST_DIGITS: usize = 7;

/// The open pull requests of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenPullRequests {
    /// At most 1000.
    pub listed: Vec<ListedPullRequest>,
    /// Whether there are no more than these. There may be more if the list is longer, or if one on it cannot be read.
    pub is_all: bool,
}

/// A pull request on a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedPullRequest {
    /// The list has all of it.
    Whole(PullRequest),
    /// The list has only a part: ask for the pull request itself.
    Short {
        /// Its number in the repository.
        number: u64,
        /// The commit of its head, of which there may be only the first digits.
        head: String,
        /// The branch that it wants to merge into.
        base: RefName,
    },
}

impl ListedPullRequest {
    /// Its number in the repository.
    #[must_use]
    pub fn number(&self) -> u64 {
        match self {
            Self::Whole(pull_request) => pull_request.number,
            Self::Short { number, .. } => *number,
        }
    }

    /// Whether it still has this version.
    #[must_use]
    pub fn is_at(&self, version: &PullRequestVersion) -> bool {
        match self {
            Self::Whole(pull_request) => pull_request.version().as_ref() == Some(version),
            Self::Short { head, base, .. } => {
                head.len() >= FEWEST_DIGITS
                    && version.head.as_str().starts_with(head)
                    && base == &version.base
            }
        }
    }
}

/// An entry of a list. One that cannot be read leaves the others readable.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Entry<T> {
    Readable(T),
    Other(IgnoredAny),
}

/// Collects what is listed for a repository.
pub(super) struct Listing<'a> {
    url: &'a GitUrl,
    listed: Vec<ListedPullRequest>,
    is_whole: bool,
}

impl<'a> Listing<'a> {
    pub(super) fn of(url: &'a GitUrl) -> Self {
        Self { url, listed: Vec::new(), is_whole: true }
    }

    /// Adds an entry, unless it cannot be read or there are too many.
    pub(super) fn add<T>(
        &mut self,
        entry: Entry<T>,
        read: impl FnOnce(T) -> Option<ListedPullRequest>,
    ) {
        let found = match entry {
            Entry::Readable(found) => read(found),
            Entry::Other(IgnoredAny) => None,
        };
        match found {
            Some(found) if self.listed.len() < MOST_LISTED => self.listed.push(found),
            Some(_) => self.is_whole = false,
            None => {
                self.is_whole = false;
                let (after, url) = (self.listed.len(), self.url);
                tracing::debug!(
                    "a pull request on the list of {url} cannot be read and is left out, after {after} others"
                );
            }
        }
    }

    /// What was collected from a list, which was read to its end or not.
    pub(super) fn finish(self, is_end: bool) -> OpenPullRequests {
        OpenPullRequests { listed: self.listed, is_all: is_end && self.is_whole }
    }
}

impl RepositoryClient<'_> {
    /// Reads a list that has all of each pull request.
    pub(super) async fn list_open<T: DeserializeOwned>(
        &self,
        words: &[&str],
        filter: &[(&str, &str)],
        size: usize,
        read: impl Fn(T) -> Option<PullRequest> + Send + Sync,
    ) -> Result<OpenPullRequests, CodeHostError> {
        let mut listing = Listing::of(self.url);
        let pages = Pages { size, most: MOST_LISTED };
        let take = |entry| listing.add(entry, |found| read(found).map(ListedPullRequest::Whole));
        let operation = Operation::ListPullRequests;
        let is_end = self.read_pages(operation, words, filter, pages, take).await?;
        Ok(listing.finish(is_end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_pull_request_has_a_version_whose_head_begins_with_its_digits() {
        let version = |head: &str, base: &str| PullRequestVersion {
            head: head.parse().unwrap(),
            base: base.parse().unwrap(),
        };
        let (a, b) = (format!("{}b", "a".repeat(39)), "b".repeat(40));
        let short = |head: &str| ListedPullRequest::Short {
            number: 3,
            head: head.to_owned(),
            base: "main".parse().unwrap(),
        };
        for (digits, is_same) in [(6, false), (7, true), (12, true), (40, true)] {
            assert_eq!(short(&a[..digits]).is_at(&version(&a, "main")), is_same, "{digits}");
            assert!(!short(&a[..digits]).is_at(&version(&b, "main")));
            assert!(!short(&a[..digits]).is_at(&version(&a, "next")));
        }
    }
}
