//! Git repositories, through the `git` program.
//!
//! In: an address, a branch or commit, credentials. Out: what stands there, and its files in a folder. Nothing that a
//! user gives becomes an option, a shell's word or configuration; the program sees no configuration but ours, follows no
//! redirect and connects only to addresses that the guard has resolved and permitted.

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

/// The git program and the bounds it is run with.
#[derive(Debug, Clone)]
pub struct Git {
    program: PathBuf,
    /// What its processes are marked with.
    folder: Option<PathBuf>,
    policy: Arc<OutboundPolicy>,
    limits: GitLimits,
}

/// How much a repository may be.
#[derive(Debug, Clone, Copy)]
pub struct GitLimits {
    /// What one fetch may bring.
    pub fetched_bytes: u64,
    /// The files of one checkout together.
    pub checkout_bytes: u64,
    /// How many they may be.
    pub checkout_files: u64,
}

/// A repository as one user, until a time.
#[derive(Debug, Clone, Copy)]
pub struct Remote<'a> {
    /// Where it is.
    pub url: &'a GitUrl,
    /// Who asks.
    pub credentials: Option<&'a Credentials>,
    /// When to give up.
    pub deadline: Instant,
}

/// The commit that a reference names now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedRef {
    /// The commit.
    pub commit: CommitId,
    /// The reference in full: `refs/heads/main`; `None` if a commit was asked for.
    pub name: Option<String>,
    /// The branch, if it is one.
    pub branch: Option<RefName>,
}

impl Git {
    /// The `git` of the path.
    #[must_use]
    pub fn new(policy: Arc<OutboundPolicy>, limits: GitLimits) -> Self {
        Self { program: "git".into(), folder: None, policy, limits }
    }

    /// Another program than the path's.
    #[must_use]
    pub fn with_program(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }

    /// Marks every process that it starts with `folder`, and ends those that a killed process of ours left with this mark.
    /// `folder` must be absolute and have one owner at a time. Blocking.
    ///
    /// # Errors
    /// What the system says when a process can be seen and not ended.
    pub fn owning(self, folder: &Path) -> std::io::Result<Self> {
        let ended = former::end(folder)?;
        if ended > 0 {
            tracing::info!("ended {ended} git processes that a killed process left");
        }
        Ok(Self { folder: Some(folder.to_owned()), ..self })
    }

    /// What `reference` stands for now; the remote's own default branch if `None`.
    ///
    /// A commit is taken as it is: whether it is there shows when it is fetched. That the credentials may read the
    /// repository is known afterwards in every case.
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
            // The second is the commit that an annotated tag points to.
            command.arg(reference.as_str()).arg(format!("{reference}^{{}}"));
        }
        let output = command.output(remote.deadline).await?;
        Ok(Advertised::parse(&String::from_utf8_lossy(&output)))
    }

    /// Brings `head` into the bare repository at `repository`, which is made if there is none, in the object format of
    /// `head`.
    ///
    /// Only that commit where the host lets it, else the history that leads to it. What is there already is not asked
    /// for again: [`Git::resolve`] with the same credentials must have come before.
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
        // The host gives only what its references name. Once the history is here, the commit is or is nowhere.
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

    /// Marks the commit as complete in this repository.
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

    /// Whether [`Git::fetch`] has brought the commit into this repository before.
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

    async fn init(
        &self,
        repository: &Path,
        format: ObjectFormat,
        deadline: Instant,
    ) -> Result<(), GitError> {
        if repository.join("HEAD").exists() {
            return Ok(());
        }
        // Before the repository is one, so that none is without.
        write_attributes(repository).await?;
        let mut command = self.bare_command("making a repository".to_owned());
        command.args(["init", "--quiet", "--bare", "--template="]);
        command.arg(format!("--object-format={format}")).arg("--").arg(repository);
        command.output(deadline).await.map(drop)
    }

    /// Writes the files of a commit beneath `into`, an empty folder; only those of `folder` if there is one, still at
    /// their places in the repository.
    ///
    /// The folder is looked up in the commit's tree, where a link is no folder, and what would be too large is refused
    /// before a file is written.
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
        // The whole tree goes into the index, so that the attributes of folders above count.
        command(&["read-tree", commit.as_str()]).output(deadline).await?;
        let wanted = folder.map_or(".", SourcePath::as_str);
        command(&["checkout", "--quiet", "--force", "--", wanted]).output(deadline).await?;
        match folder {
            // A tree made by hand can hold a folder and a link of one name, and then the link is what is written.
            Some(folder) if !is_folder_of(into, folder) => {
                Err(GitError::NoFolder { folder: folder.to_string(), commit: commit.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Counts what a checkout would write, and refuses too much.
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
        // Ended at the first that is too much: ten small trees can name more files than anybody could count.
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

    /// A command that may speak to `remote` and to nobody else.
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

/// Goes over what a tree's `.gitattributes` say. Conversions make files larger than the blobs that were measured, up to
/// fifty times, and give other bytes than the commit has.
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

/// Whoever walks a tree, be it to remove it, holds one open file for each folder above.
const DEEPEST: usize = 128;
/// No file system takes more.
const LONGEST_NAME: usize = 255;

/// Whether `folder` stands in `root` without a link on the way.
fn is_folder_of(root: &Path, folder: &SourcePath) -> bool {
    let found = root.join(folder.as_str()).canonicalize();
    let wanted = root.canonicalize().map(|root| root.join(folder.as_str()));
    found.is_ok_and(|found| found.is_dir() && wanted.is_ok_and(|wanted| wanted == found))
}

/// Removes what a fetch was writing when it was killed: as large as what is refused for its size, and of no use.
async fn remove_unfinished(packs: &Path) {
    let Ok(mut entries) = tokio::fs::read_dir(packs).await else { return };
    while let Ok(Some(entry)) = entries.next_entry().await {
        if entry.file_name().as_encoded_bytes().starts_with(b"tmp_") {
            // What cannot be removed counts as part of the mirror, which is bounded.
            let _stays = tokio::fs::remove_file(entry.path()).await;
        }
    }
}

/// Commits that are here with all their files. A fetch that broke off leaves none of these.
const KEPT: &str = "refs/kept/";
/// What only a whole history could bring.
const FETCHED: &str = "refs/fetched/";

/// `100644 blob <id> <size>\t<path>`; a submodule has no size.
fn size_of_entry(entry: &[u8]) -> u64 {
    let header = entry.split(|byte| *byte == b'\t').next().unwrap_or_default();
    let size = header.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    std::str::from_utf8(size).ok().and_then(|size| size.parse().ok()).unwrap_or(0)
}

/// What `ls-remote` said: references with their commits, annotated tags followed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Advertised {
    default_branch: Option<String>,
    refs: std::collections::BTreeMap<String, CommitId>,
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
            // The peeled form comes behind the tag's own.
            let name = name.strip_suffix("^{}").unwrap_or(name);
            advertised.refs.insert(name.to_owned(), commit);
        }
        advertised
    }

    /// A repository has one object format: it holds no commit whose id has another length.
    fn may_hold(&self, commit: &CommitId) -> bool {
        self.refs.values().all(|other| other.object_format() == commit.object_format())
    }

    fn default_head(&self) -> Option<ResolvedRef> {
        let commit = self.refs.get("HEAD")?.clone();
        let name = self.default_branch.clone();
        let branch = name.as_deref().and_then(branch_of);
        Some(ResolvedRef { commit, name: name.or_else(|| Some("HEAD".to_owned())), branch })
    }

    /// By git's own order: the name itself, then a tag, then a branch.
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
    fn references_are_found_in_gits_own_order_and_tags_followed() {
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
    fn sizes_are_read_from_a_tree() {
        assert_eq!(size_of_entry(b"100644 blob aaaa     123\tdir/a file"), 123);
        assert_eq!(size_of_entry(b"160000 commit aaaa       -\tsub"), 0);
    }
}
