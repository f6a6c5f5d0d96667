//! What a host lists: its references, with their commits.

use std::collections::BTreeMap;

use gantry_domain::source::{CommitId, CommitPrefix, RefName};

use super::abbreviated::ambiguous;
use super::{Git, GitError, Heads, Remote, ResolvedRef};

impl Git {
    /// Resolves the name of a branch, a tag or another reference, an abbreviated commit that one of these leads to, or
    /// the remote's default branch if it is `None`.
    ///
    /// Success means that the credentials may read the repository.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn resolve(
        &self,
        remote: Remote<'_>,
        reference: Option<&RefName>,
    ) -> Result<ResolvedRef, GitError> {
        let Some(reference) = reference else {
            let advertised = self.ls_remote(remote, &["HEAD"]).await?;
            let head = advertised.default_head();
            return head.ok_or_else(|| GitError::Empty { url: remote.url.clone() });
        };
        let unknown =
            || GitError::UnknownRef { url: remote.url.clone(), reference: reference.to_string() };
        let Some(prefix) = reference.commit_prefix() else {
            // The last one is the commit that an annotated tag points to.
            let peeled = format!("{reference}^{{}}");
            let advertised = self.ls_remote(remote, &["HEAD", reference.as_str(), &peeled]).await?;
            return advertised.find(reference).ok_or_else(unknown);
        };
        let advertised = self.ls_remote(remote, &[]).await?;
        if let Some(named) = advertised.find(reference) {
            return Ok(named);
        }
        match advertised.beginning_with(&prefix).as_slice() {
            [] => Err(unknown()),
            [only] => Ok(only.clone()),
            [..] => Err(ambiguous(remote, &prefix)),
        }
    }

    /// Asks the host whether these credentials may read the repository, before a commit of it that was fetched with
    /// others is read.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn prove(&self, remote: Remote<'_>, commit: &CommitId) -> Result<(), GitError> {
        let advertised = self.ls_remote(remote, &["HEAD"]).await?;
        match advertised.may_hold(commit) {
            true => Ok(()),
            false => {
                Err(GitError::UnknownRef { url: remote.url.clone(), reference: commit.to_string() })
            }
        }
    }

    /// All branches and tags of the remote, with the commits that they lead to.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn heads(&self, remote: Remote<'_>) -> Result<Heads, GitError> {
        let advertised = self.ls_remote(remote, &["HEAD", "refs/heads/*", "refs/tags/*"]).await?;
        let named = |prefix: &str| {
            let names = advertised.refs.iter().filter_map(|(name, commit)| {
                Some((name.strip_prefix(prefix)?.parse().ok()?, commit.clone()))
            });
            names.collect()
        };
        Ok(Heads {
            default_branch: advertised.default_branch.as_deref().and_then(branch_of),
            branches: named("refs/heads/"),
            tags: named("refs/tags/"),
        })
    }

    /// The references that match one of these patterns; all of them without a pattern.
    async fn ls_remote(
        &self,
        remote: Remote<'_>,
        patterns: &[&str],
    ) -> Result<Advertised, GitError> {
        let mut command = self.remote_command(remote, "looking at").await?;
        command.args(["ls-remote", "--quiet", "--symref", "--"]);
        command.arg(remote.url.to_string()).args(patterns);
        let output = command.output(remote.deadline).await?;
        Ok(Advertised::parse(&String::from_utf8_lossy(&output)))
    }
}

/// The output of `ls-remote`: references with their commits; annotated tags are peeled.
#[derive(Debug, Default, PartialEq, Eq)]
struct Advertised {
    default_branch: Option<String>,
    refs: BTreeMap<String, CommitId>,
}

impl Advertised {
    fn parse(output: &str) -> Self {
        let mut advertised = Self::default();
        for line in output.lines() {
            let Some((left, name)) = line.split_once('\t') else { continue };
            if let Some(target) = left.strip_prefix("ref: ") {
                if name == "HEAD" {
                    advertised.default_branch = Some(target.to_owned());
                }
                continue;
            }
            let Ok(commit) = left.parse::<CommitId>() else { continue };
            // The peeled form comes after the tag itself.
            let name = name.strip_suffix("^{}").unwrap_or(name);
            advertised.refs.insert(name.to_owned(), commit);
        }
        advertised
    }

    /// A repository has one object format, so it cannot contain a commit with an id of another length.
    fn may_hold(&self, commit: &CommitId) -> bool {
        self.refs.values().all(|other| other.object_format() == commit.object_format())
    }

    fn default_head(&self) -> Option<ResolvedRef> {
        let commit = self.refs.get("HEAD")?.clone();
        let name = self.default_branch.clone();
        let branch = name.as_deref().and_then(branch_of);
        Some(ResolvedRef { commit, name: name.or_else(|| Some("HEAD".to_owned())), branch })
    }

    /// In git's order: the name itself, then a tag, then a branch.
    fn find(&self, reference: &RefName) -> Option<ResolvedRef> {
        if reference.as_str() == "HEAD" {
            return self.default_head();
        }
        ["", "refs/", "refs/tags/", "refs/heads/"].iter().find_map(|prefix| {
            let name = format!("{prefix}{reference}");
            let commit = self.refs.get(&name)?.clone();
            let branch = branch_of(&name);
            Some(ResolvedRef { commit, name: Some(name), branch })
        })
    }

    /// The commits with such an id that a reference leads to.
    fn beginning_with(&self, prefix: &CommitPrefix) -> Vec<ResolvedRef> {
        let found = self.refs.iter().filter(|(_, commit)| prefix.begins(commit));
        let found: BTreeMap<_, _> = found.map(|(name, commit)| (commit, name)).collect();
        let found = found.into_iter().map(|(commit, name)| ResolvedRef {
            commit: commit.clone(),
            name: Some(name.clone()),
            branch: None,
        });
        found.collect()
    }
}

fn branch_of(name: &str) -> Option<RefName> {
    name.strip_prefix("refs/heads/")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> String {
        digit.to_string().repeat(40)
    }

    #[test]
    fn references_resolve_in_gits_order_with_peeled_tags() {
        let output = format!(
            "ref: refs/heads/trunk\tHEAD\n{a}\tHEAD\n{a}\trefs/heads/trunk\n{b}\trefs/heads/v1\n{c}\trefs/tags/v1\n{d}\trefs/tags/v1^{{}}\n{b}\trefs/heads/x/trunk\n{c}\trefs/pull/7/head\n",
            a = id('a'),
            b = id('b'),
            c = id('c'),
            d = id('d'),
        );
        let advertised = Advertised::parse(&output);
        let find = |name: &str| {
            advertised
                .find(&name.parse().unwrap())
                .map(|head| (head.commit.to_string(), head.branch.map(|b| b.to_string())))
        };
        assert_eq!(find("trunk"), Some((id('a'), Some("trunk".to_owned()))));
        assert_eq!(find("refs/heads/v1"), Some((id('b'), Some("v1".to_owned()))));
        assert_eq!(find("v1"), Some((id('d'), None)));
        assert_eq!(find("pull/7/head"), Some((id('c'), None)));
        assert_eq!(find("HEAD"), Some((id('a'), Some("trunk".to_owned()))));
        assert_eq!(find("other"), None);
        assert_eq!(advertised.default_head().unwrap().branch.unwrap().as_str(), "trunk");
        assert_eq!(Advertised::parse("").default_head(), None);
    }
}
