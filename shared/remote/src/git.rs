//! Reads git repositories with the `git` program.
//!
//! In: a URL, a branch or commit, credentials. Out: the commit, and its files in a folder. No user input becomes an
//! option, a shell word or configuration. The program sees only gantry's configuration, follows no redirects, and
//! connects only to addresses that the guard has resolved and permitted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_domain::source::{CommitId, GitUrl, ObjectFormat, RefName, SourcePath};
use gantry_ops::secret::Credentials;
use tokio::time::Instant;

use crate::guard::{OutboundPolicy, ResolveError};

mod command;
mod error;
mod failure;
mod former;

use command::Command;
pub use error::GitError;

/// The git program, and the limits it runs with.
#[derive(Debug, Clone)]
pub struct Git {
    program: PathBuf,
    /// Marks its processes.
    folder: Option<PathBuf>,
    policy: Arc<OutboundPolicy>,
    limits: GitLimits,
}

/// Size limits of a repository.
#[derive(Debug, Clone, Copy)]
pub struct GitLimits {
    /// The most bytes of one fetch.
    pub fetched_bytes: u64,
    /// The most bytes of the files of one checkout.
    pub checkout_bytes: u64,
    /// The most files of one checkout.
    pub checkout_files: u64,
}

/// A repository, the credentials for it, and a deadline.
#[derive(Debug, Clone, Copy)]
pub struct Remote<'a> {
    /// The repository's URL.
    pub url: &'a GitUrl,
    /// The credentials; `None` for anonymous access.
    pub credentials: Option<&'a Credentials>,
    /// When to give up.
    pub deadline: Instant,
}

/// The commit that a reference currently points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedRef {
    /// The commit.
    pub commit: CommitId,
    /// The full reference, like `refs/heads/main`; `None` if a commit was given.
    pub name: Option<String>,
    /// The branch, if it is one.
    pub branch: Option<RefName>,
}

/// The branches and tags of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heads {
    /// The default branch; `None` if the host names none.
    pub default_branch: Option<RefName>,
    /// The branches with their heads.
    pub branches: BTreeMap<RefName, CommitId>,
    /// The tags with their commits.
    pub tags: BTreeMap<RefName, CommitId>,
}

impl Git {
    /// Uses the `git` in the search path.
    #[must_use]
    pub fn new(policy: Arc<OutboundPolicy>, limits: GitLimits) -> Self {
        Self { program: "git".into(), folder: None, policy, limits }
    }

    /// Uses another program.
    #[must_use]
    pub fn with_program(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }

    /// Marks every process that it starts with `folder`, and kills processes with this mark that a killed gantry
    /// process left behind. `folder` must be absolute and have one owner at a time. Blocking.
    ///
    /// # Errors
    /// The system's error if a process is found but cannot be killed.
    pub fn owning(self, folder: &Path) -> std::io::Result<Self> {
        let ended = former::end(folder)?;
        if ended > 0 {
            tracing::info!("ended {ended} git processes that a killed process left");
        }
        Ok(Self { folder: Some(folder.to_owned()), ..self })
    }

    /// Resolves `reference`, or the remote's default branch if it is `None`.
    ///
    /// A commit is returned as it is; whether it exists is only known when it is fetched. Success always means that the
    /// credentials may read the repository.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn resolve(
        &self,
        remote: Remote<'_>,
        reference: Option<&RefName>,
    ) -> Result<ResolvedRef, GitError> {
        let commit = reference.and_then(|reference| reference.as_str().to_lowercase().parse().ok());
        if let Some(commit) = commit {
            let advertised = self.ls_remote(remote, None).await?;
            if !advertised.may_hold(&commit) {
                return Err(GitError::UnknownRef {
                    url: remote.url.clone(),
                    reference: commit.to_string(),
                });
            }
            return Ok(ResolvedRef { commit, name: None, branch: None });
        }
        let advertised = self.ls_remote(remote, reference).await?;
        match reference {
            None => {
                advertised.default_head().ok_or_else(|| GitError::Empty { url: remote.url.clone() })
            }
            Some(reference) => advertised.find(reference).ok_or_else(|| GitError::UnknownRef {
                url: remote.url.clone(),
                reference: reference.to_string(),
            }),
        }
    }

    /// All branches and tags of the remote, with the commits that they lead to.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn heads(&self, remote: Remote<'_>) -> Result<Heads, GitError> {
        let mut command = self.remote_command(remote, "looking at").await?;
        command.args(["ls-remote", "--quiet", "--symref", "--"]);
        command.arg(remote.url.to_string());
        command.args(["HEAD", "refs/heads/*", "refs/tags/*"]);
        let output = command.output(remote.deadline).await?;
        let advertised = Advertised::parse(&String::from_utf8_lossy(&output));
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

    async fn ls_remote(
        &self,
        remote: Remote<'_>,
        reference: Option<&RefName>,
    ) -> Result<Advertised, GitError> {
        let mut command = self.remote_command(remote, "looking at").await?;
        command.args(["ls-remote", "--quiet", "--symref", "--"]);
        command.arg(remote.url.to_string());
        command.arg("HEAD");
        if let Some(reference) = reference {
            // The second one is the commit that an annotated tag points to.
            command.arg(reference.as_str()).arg(format!("{reference}^{{}}"));
        }
        let output = command.output(remote.deadline).await?;
        Ok(Advertised::parse(&String::from_utf8_lossy(&output)))
    }

    /// Fetches `head` into the bare repository at `repository`, which is created in the object format of `head` if it
    /// does not exist.
    ///
    /// Fetches only that commit if the host allows it, otherwise its history. A commit that was fetched before is not
    /// requested again, so call [`Git::resolve`] first to check that these credentials may read it.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn fetch(
        &self,
        remote: Remote<'_>,
        head: &ResolvedRef,
        repository: &Path,
    ) -> Result<(), GitError> {
        if self.has(repository, &head.commit, remote.deadline).await? {
            return Ok(());
        }
        self.init(repository, head.commit.object_format(), remote.deadline).await?;
        let kept = format!("{KEPT}{}", head.commit);
        let only = format!("+{}:{kept}", head.commit);
        match self.fetch_refs(remote, repository, &["--depth=1"], &[&only]).await {
            Err(GitError::UnknownRef { .. }) => {}
            done => return done,
        }
        // The host only serves commits that its references name. After fetching the history, a commit that is missing
        // does not exist.
        let depth: &[&str] =
            if repository.join("shallow").exists() { &["--unshallow"] } else { &[] };
        let named = head.name.as_ref().map(|name| format!("+{name}:{FETCHED}named"));
        let refs = match &named {
            Some(named) => vec![named.as_str()],
            None => vec!["+refs/heads/*:refs/fetched/heads/*", "+refs/tags/*:refs/fetched/tags/*"],
        };
        self.fetch_refs(remote, repository, depth, &refs).await?;
        self.keep(repository, &head.commit, remote).await
    }

    async fn fetch_refs(
        &self,
        remote: Remote<'_>,
        repository: &Path,
        depth: &[&str],
        refs: &[&str],
    ) -> Result<(), GitError> {
        let mut command = self.remote_command(remote, "the fetch of").await?;
        command.repository(repository);
        command.args(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"]);
        command.args(["--no-recurse-submodules", "--no-auto-maintenance"]);
        command.args(depth).arg("--").arg(remote.url.to_string()).args(refs);
        let packs = repository.join("objects/pack");
        remove_unfinished(&packs).await;
        command.watch(repository.join("objects"), self.limits.fetched_bytes);
        let fetched = command.output(remote.deadline).await.map(drop);
        if fetched.is_err() {
            remove_unfinished(&packs).await;
        }
        fetched
    }

    /// Records that the commit is complete in this repository.
    async fn keep(
        &self,
        repository: &Path,
        commit: &CommitId,
        remote: Remote<'_>,
    ) -> Result<(), GitError> {
        let mut command = self.local_command(repository, "keeping a commit");
        command.args(["update-ref", &format!("{KEPT}{commit}"), commit.as_str()]);
        command.output(remote.deadline).await.map(drop).map_err(|_| GitError::UnknownRef {
            url: remote.url.clone(),
            reference: commit.to_string(),
        })
    }

    /// Whether [`Git::fetch`] has fetched the commit into this repository before.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn has(
        &self,
        repository: &Path,
        commit: &CommitId,
        deadline: Instant,
    ) -> Result<bool, GitError> {
        if !repository.join("HEAD").exists() {
            return Ok(false);
        }
        let mut command = self.local_command(repository, "looking for a commit");
        command.args(["rev-parse", "--quiet", "--verify", &format!("{KEPT}{commit}^{{commit}}")]);
        match command.output(deadline).await {
            Ok(_) => Ok(true),
            Err(GitError::Failed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The parents of a commit in this repository, first to last, also those that were not fetched.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn parents(
        &self,
        repository: &Path,
        commit: &CommitId,
        deadline: Instant,
    ) -> Result<Vec<CommitId>, GitError> {
        let mut command = self.local_command(repository, "reading a commit");
        command.args(["cat-file", "commit", commit.as_str()]);
        let output = command.output(deadline).await?;
        let text = String::from_utf8_lossy(&output);
        // The header ends at the first empty line.
        let header = text.lines().take_while(|line| !line.is_empty());
        Ok(header.filter_map(|line| line.strip_prefix("parent ")?.parse().ok()).collect())
    }

    async fn init(
        &self,
        repository: &Path,
        format: ObjectFormat,
        deadline: Instant,
    ) -> Result<(), GitError> {
        if repository.join("HEAD").exists() {
            return Ok(());
        }
        // Written before `git init`, so that no repository is ever without it.
        write_attributes(repository).await?;
        let mut command = self.bare_command("making a repository".to_owned());
        command.args(["init", "--quiet", "--bare", "--template="]);
        command.arg(format!("--object-format={format}")).arg("--").arg(repository);
        command.output(deadline).await.map(drop)
    }

    /// Writes the files of a commit into the empty folder `into`. If `folder` is given, writes only that folder, at its
    /// path in the repository.
    ///
    /// The folder is looked up in the commit's tree, where a symbolic link is no folder. A checkout that is too large
    /// is refused before a file is written.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn checkout(
        &self,
        repository: &Path,
        commit: &CommitId,
        folder: Option<&SourcePath>,
        into: &Path,
        deadline: Instant,
    ) -> Result<(), GitError> {
        if self.measure(repository, commit, folder, deadline).await? == 0 {
            return Ok(());
        }
        let index = tempfile::TempDir::new().map_err(|source| GitError::Failed {
            what: "the checkout".to_owned(),
            message: source.to_string(),
        })?;
        let command = |arguments: &[&str]| {
            let mut command = self.local_command(repository, "the checkout");
            command.env("GIT_INDEX_FILE", index.path().join("index"));
            command.work_tree(into);
            command.args(arguments);
            command
        };
        // The whole tree is read into the index, so that the attributes of parent folders apply.
        command(&["read-tree", commit.as_str()]).output(deadline).await?;
        let wanted = folder.map_or(".", SourcePath::as_str);
        command(&["checkout", "--quiet", "--force", "--", wanted]).output(deadline).await?;
        match folder {
            // A crafted tree can contain a folder and a link of the same name, and then git writes the link.
            Some(folder) if !is_folder_of(into, folder) => {
                Err(GitError::NoFolder { folder: folder.to_string(), commit: commit.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Counts what a checkout would write, and fails if it is too much.
    async fn measure(
        &self,
        repository: &Path,
        commit: &CommitId,
        folder: Option<&SourcePath>,
        deadline: Instant,
    ) -> Result<u64, GitError> {
        let mut command = self.local_command(repository, &format!("the checkout of {commit}"));
        command.args(["ls-tree", "-r", "-l", "-z", "--full-tree", commit.as_str()]);
        if let Some(folder) = folder {
            command.arg("--").arg(format!("{folder}/"));
        }
        let limits = self.limits;
        let (mut files, mut bytes) = (0_u64, 0_u64);
        // Stops at the first excess: ten small trees can name more files than could ever be counted.
        command
            .each_entry(deadline, |entry| {
                files += 1;
                bytes = bytes.saturating_add(size_of_entry(entry));
                if files > limits.checkout_files {
                    return Err(format!("{} files", limits.checkout_files));
                }
                if bytes > limits.checkout_bytes {
                    return Err(format!("{} MiB", limits.checkout_bytes >> 20));
                }
                let path = entry.splitn(2, |byte| *byte == b'\t').last().unwrap_or_default();
                let path = path.strip_suffix(b"\0").unwrap_or(path);
                if path.split(|byte| *byte == b'/').count() > DEEPEST + 1 {
                    return Err(format!("{DEEPEST} folders in each other"));
                }
                if path.split(|byte| *byte == b'/').any(|name| name.len() > LONGEST_NAME) {
                    return Err(format!("{LONGEST_NAME} bytes in a name"));
                }
                Ok(())
            })
            .await?;
        match folder {
            Some(folder) if files == 0 => {
                Err(GitError::NoFolder { folder: folder.to_string(), commit: commit.clone() })
            }
            _ => Ok(files),
        }
    }

    fn bare_command(&self, what: String) -> Command<'_> {
        let mut command = Command::new(&self.program, what);
        if let Some(folder) = &self.folder {
            command.env(former::MARK, folder);
        }
        command
    }

    fn local_command(&self, repository: &Path, what: &str) -> Command<'_> {
        let mut command = self.bare_command(what.to_owned());
        command.repository(repository);
        command
    }

    /// A command that may connect only to `remote`.
    async fn remote_command<'a>(
        &'a self,
        remote: Remote<'a>,
        what: &str,
    ) -> Result<Command<'a>, GitError> {
        let url = remote.url.as_url();
        let addresses = self.policy.resolve(url).await.map_err(|error| match error {
            ResolveError::Refused(refused) => GitError::Outbound(refused),
            ResolveError::Unknown { host, source } => GitError::Unreachable {
                url: remote.url.clone(),
                message: format!("{host} is no known host ({source})"),
            },
        })?;
        let mut command = self.bare_command(format!("{what} {}", remote.url));
        command.speak_to(remote.url, &addresses);
        if let Some(credentials) = remote.credentials {
            command.credentials(remote.url, credentials)?;
        }
        Ok(command)
    }
}

/// Overrides a tree's `.gitattributes`. Conversions make files up to fifty times larger than the measured blobs, and
/// their content differs from the commit.
const NO_CONVERSIONS: &str = "* -text -eol -crlf -ident -filter -working-tree-encoding\n";

async fn write_attributes(repository: &Path) -> Result<(), GitError> {
    let info = repository.join("info");
    let written = async {
        tokio::fs::create_dir_all(&info).await?;
        tokio::fs::write(info.join("attributes"), NO_CONVERSIONS).await
    };
    written.await.map_err(|source| GitError::Failed {
        what: format!("making the repository {}", repository.display()),
        message: source.to_string(),
    })
}

/// The deepest tree that is written. Walking a tree, even to remove it, needs an open file for each level.
const DEEPEST: usize = 128;
/// The longest file name that file systems accept.
const LONGEST_NAME: usize = 255;

/// Whether `folder` exists in `root` without a symbolic link in its path.
fn is_folder_of(root: &Path, folder: &SourcePath) -> bool {
    let found = root.join(folder.as_str()).canonicalize();
    let wanted = root.canonicalize().map(|root| root.join(folder.as_str()));
    found.is_ok_and(|found| found.is_dir() && wanted.is_ok_and(|wanted| wanted == found))
}

/// Removes what a killed fetch left. It is useless, and may be as large as what is refused for its size.
async fn remove_unfinished(packs: &Path) {
    let Ok(mut entries) = tokio::fs::read_dir(packs).await else { return };
    while let Ok(Some(entry)) = entries.next_entry().await {
        if entry.file_name().as_encoded_bytes().starts_with(b"tmp_") {
            // A file that cannot be removed counts towards the mirror's size, which is limited.
            let _stays = tokio::fs::remove_file(entry.path()).await;
        }
    }
}

/// References to commits that are complete. An interrupted fetch leaves none.
const KEPT: &str = "refs/kept/";
/// References that only a fetch of the whole history creates.
const FETCHED: &str = "refs/fetched/";

/// Parses `100644 blob <id> <size>\t<path>`; a submodule has no size.
fn size_of_entry(entry: &[u8]) -> u64 {
    let header = entry.split(|byte| *byte == b'\t').next().unwrap_or_default();
    let size = header.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    std::str::from_utf8(size).ok().and_then(|size| size.parse().ok()).unwrap_or(0)
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

    #[test]
    fn sizes_are_parsed_from_tree_entries() {
        assert_eq!(size_of_entry(b"100644 blob aaaa     123\tdir/a file"), 123);
        assert_eq!(size_of_entry(b"160000 commit aaaa       -\tsub"), 0);
    }
}
