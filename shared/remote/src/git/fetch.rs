//! Fetches commits into a bare repository.

use std::fs::File;
use std::path::Path;

use gantry_domain::source::{CommitId, ObjectFormat};
use tokio::time::Instant;

use super::command::{Watched, size_of};
use super::{Git, GitError, Remote, ResolvedRef};

/// References to commits that are complete. An interrupted fetch leaves none.
const KEPT: &str = "refs/kept/";
/// References that only a fetch of the whole history creates.
const FETCHED: &str = "refs/fetched/";
/// What to fetch for the whole history.
pub(super) const EVERYTHING: [&str; 2] =
    ["+refs/heads/*:refs/fetched/heads/*", "+refs/tags/*:refs/fetched/tags/*"];

/// Where a fetch writes, and what it holds meanwhile.
#[derive(Clone, Copy)]
pub(super) struct Into<'a> {
    pub(super) repository: &'a Path,
    pub(super) lock: Option<&'a File>,
}

impl Git {
    /// Fetches `head` into the bare repository at `repository`, which is created in the object format of `head` if it
    /// does not exist. Git holds `lock` as long as one of its processes runs, even if this process is killed.
    ///
    /// Always asks the host, so success means that it serves this commit to these credentials, whatever the repository
    /// already has. Fetches only that commit if the host allows it, otherwise its history. Returns the number of bytes that
    /// were added.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn fetch(
        &self,
        remote: Remote<'_>,
        head: &ResolvedRef,
        repository: &Path,
        lock: Option<&File>,
    ) -> Result<u64, GitError> {
        self.init(repository, head.commit.object_format(), remote.deadline).await?;
        let into = Into { repository, lock };
        let only = format!("+{0}:{KEPT}{0}", head.commit);
        // Without a depth, git asks the host nothing about a commit that it has.
        match self.fetch_refs(remote, into, &["--depth=1"], &[&only]).await {
            Err(GitError::UnknownRef { .. }) => {}
            done => return done,
        }
        // The host only serves commits that its references name. After fetching the history, a commit that is missing
        // does not exist.
        let options: &[&str] = match repository.join("shallow").exists() {
            true => &["--prune", "--unshallow"],
            false => &["--prune"],
        };
        let Some(name) = &head.name else {
            let fetched = self.fetch_refs(remote, into, options, &EVERYTHING).await;
            let grown = match fetched {
                Err(GitError::UnknownRef { .. }) => return Err(unknown(remote, &head.commit)),
                fetched => fetched?,
            };
            self.keep(repository, &head.commit, remote).await?;
            return Ok(grown);
        };
        let named = format!("+{name}:{FETCHED}named");
        let grown = self.fetch_refs(remote, into, options, &[&named]).await?;
        self.keep(repository, &head.commit, remote).await?;
        Ok(grown)
    }

    pub(super) async fn fetch_refs(
        &self,
        remote: Remote<'_>,
        into: Into<'_>,
        options: &[&str],
        refs: &[&str],
    ) -> Result<u64, GitError> {
        let Into { repository, lock } = into;
        let mut command = self.remote_command(remote, "the fetch of").await?;
        command.repository(repository);
        if let Some(lock) = lock {
            command.hold(lock)?;
        }
        command.args(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"]);
        command.args(["--no-recurse-submodules", "--no-auto-maintenance"]);
        command.args(options).arg("--").arg(remote.url.to_string()).args(refs);
        let packs = repository.join("objects/pack");
        remove_unfinished(&packs).await;
        let objects = repository.join("objects");
        let before = size_of(&objects);
        let (used, most) = (self.used.fetched_bytes, self.limits.fetched_bytes);
        command.watch(Watched { folder: objects.clone(), before, used, most });
        let fetched = command.output(remote.deadline).await;
        if fetched.is_err() {
            remove_unfinished(&packs).await;
        }
        fetched.map(|_| size_of(&objects).saturating_sub(before))
    }

    /// Records that the commit is complete in this repository, if a reference that was fetched leads to it.
    async fn keep(
        &self,
        repository: &Path,
        commit: &CommitId,
        remote: Remote<'_>,
    ) -> Result<(), GitError> {
        let mut command = self.local_command(repository, "looking for a commit");
        command.args(["for-each-ref", "--count=1", "--contains", commit.as_str(), FETCHED]);
        // Git fails if it does not know the commit.
        match command.output(remote.deadline).await {
            Ok(found) if !found.is_empty() => {}
            Ok(_) | Err(GitError::Failed { .. }) => return Err(unknown(remote, commit)),
            Err(error) => return Err(error),
        }
        let mut command = self.local_command(repository, "keeping a commit");
        command.args(["update-ref", &format!("{KEPT}{commit}"), commit.as_str()]);
        command.output(remote.deadline).await.map(drop)
    }

    /// Whether [`Git::fetch`] has fetched the commit into this repository before.
    #[must_use]
    pub fn has(&self, repository: &Path, commit: &CommitId) -> bool {
        // References are never packed here.
        repository.join(KEPT).join(commit.as_str()).is_file()
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

    pub(super) async fn init(
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
        command.env("GIT_DEFAULT_REF_FORMAT", "files");
        command.writes_to(repository);
        command.output(deadline).await.map(drop)
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
    written.await.map_err(|source| {
        GitError::of_file("making the repository".to_owned(), repository, &source)
    })
}

fn unknown(remote: Remote<'_>, commit: &CommitId) -> GitError {
    GitError::UnknownRef { url: remote.url.clone(), reference: commit.to_string() }
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
