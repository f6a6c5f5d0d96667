//! Reads which other repositories a commit contains.
//!
//! In: a commit. Out: the path, commit and address of each submodule. Nothing of the commit configures git: its
//! `.gitmodules` is only read for paths and addresses, and each repository is then fetched like any other.

use std::collections::BTreeMap;
use std::path::Path;

use gantry_domain::source::{CommitId, GitUrl, SourcePath};
use gantry_ops::terminal::one_line;
use tokio::time::Instant;
use url::Url;

use super::{Git, GitError};

/// The file with the addresses.
const MODULES: &str = ".gitmodules";

/// A repository within another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submodule {
    /// Its place in the repository around it.
    pub path: SourcePath,
    /// Its commit.
    pub commit: CommitId,
    /// Its repository.
    pub url: GitUrl,
}

/// What a tree says of its submodules.
#[derive(Default)]
struct Links {
    /// The commit at each path.
    commits: BTreeMap<String, CommitId>,
    has_modules: bool,
}

impl Git {
    /// The submodules of a commit, at most `most`, in the order of their paths; only those below `folder` if it is
    /// given. Relative addresses are below `url`, that of the repository.
    ///
    /// # Errors
    /// [`GitError::Submodule`] for one that cannot be fetched, [`GitError::TooLarge`], and others.
    pub async fn submodules(
        &self,
        repository: &Path,
        commit: &CommitId,
        folder: Option<&SourcePath>,
        url: &GitUrl,
        most: usize,
        deadline: Instant,
    ) -> Result<Vec<Submodule>, GitError> {
        let mut links = self.links(repository, commit, most, deadline).await?;
        if let Some(folder) = folder {
            let below = format!("{folder}/");
            links.commits.retain(|path, _| path.starts_with(&below));
        }
        if links.commits.is_empty() {
            return Ok(Vec::new());
        }
        let addresses = match links.has_modules {
            true => self.addresses(repository, commit, deadline).await?,
            false => BTreeMap::new(),
        };
        let found = links.commits.into_iter().map(|(path, commit)| {
            let refused = |why: String| GitError::Submodule { path: one_line(&path), why };
            let Some(address) = addresses.get(&path) else {
                return Err(refused(format!("{MODULES} names no address for it")));
            };
            let url = absolute(url, address).map_err(refused)?;
            let path = path.parse().map_err(|error| refused(format!("{error}")))?;
            Ok(Submodule { path, commit, url })
        });
        found.collect()
    }

    async fn links(
        &self,
        repository: &Path,
        commit: &CommitId,
        most: usize,
        deadline: Instant,
    ) -> Result<Links, GitError> {
        let what = format!("the search for submodules of {commit}");
        let mut command = self.local_command(repository, &what);
        command.args(["ls-tree", "-r", "-z", "--full-tree", commit.as_str()]);
        let mut links = Links::default();
        command
            .each_entry(deadline, |entry| {
                let entry = String::from_utf8_lossy(entry.strip_suffix(b"\0").unwrap_or(entry));
                let Some((header, path)) = entry.split_once('\t') else { return Ok(()) };
                if path == MODULES && header.starts_with("100") {
                    links.has_modules = true;
                }
                let of_commit = header.strip_prefix("160000 commit ");
                if let Some(id) = of_commit.and_then(|id| id.parse().ok()) {
                    if links.commits.len() == most {
                        return Err(format!("{most} submodules"));
                    }
                    links.commits.insert(path.to_owned(), id);
                }
                Ok(())
            })
            .await?;
        Ok(links)
    }

    /// The address of each path.
    async fn addresses(
        &self,
        repository: &Path,
        commit: &CommitId,
        deadline: Instant,
    ) -> Result<BTreeMap<String, String>, GitError> {
        let mut command = self.local_command(repository, "reading .gitmodules");
        // Without the second option, it would read files of this machine that the commit names.
        command.args(["config", "--no-includes", "--null"]);
        command.arg(format!("--blob={commit}:{MODULES}"));
        command.args(["--get-regexp", r"^submodule\..*\.(path|url)$"]);
        let output = match command.output(deadline).await {
            Err(GitError::Failed { message, .. }) => {
                let (path, why) = (MODULES.to_owned(), format!("it cannot be read: {message}"));
                return Err(GitError::Submodule { path, why });
            }
            output => output?,
        };
        Ok(parse(&String::from_utf8_lossy(&output)))
    }
}

/// Parses `submodule.<name>.<key>` and its value, which a line break separates, each ended by a zero byte. As in git, the
/// last value of a key counts.
fn parse(output: &str) -> BTreeMap<String, String> {
    let mut modules: BTreeMap<&str, [Option<&str>; 2]> = BTreeMap::new();
    for entry in output.split('\0') {
        let Some((key, value)) = entry.split_once('\n') else { continue };
        let Some((name, key)) = key.strip_prefix("submodule.").and_then(|key| key.rsplit_once('.'))
        else {
            continue;
        };
        let [path, url] = modules.entry(name).or_default();
        match key {
            "path" => *path = Some(value),
            "url" => *url = Some(value),
            _ => {}
        }
    }
    let whole = modules.into_values().filter_map(|[path, url]| {
        let path = path?.trim_end_matches('/');
        Some((path.to_owned(), url?.to_owned()))
    });
    whole.collect()
}

/// The address of a submodule; a relative one is below its repository's, as in git.
fn absolute(repository: &GitUrl, address: &str) -> Result<GitUrl, String> {
    if !address.starts_with("./") && !address.starts_with("../") {
        // Only a source that is read over ssh has a key for it.
        let of_ssh = ["ssh://", "git@"].iter().filter(|_| repository.is_ssh());
        if !["https://", "http://"].iter().chain(of_ssh).any(|start| address.starts_with(start)) {
            let shown = one_line(&address.chars().take(200).collect::<String>());
            return Err(format!("`{shown}` is no `https://` address: give one in {MODULES}"));
        }
        // As for addresses that hosts report, a user in it is ignored: the token decides who asks.
        return GitUrl::of_payload(address).map_err(|error| error.to_string());
    }
    let mut rest = address;
    let mut words: Vec<&str> =
        repository.as_url().path().split('/').filter(|word| !word.is_empty()).collect();
    loop {
        if let Some(below) = rest.strip_prefix("./") {
            rest = below;
        } else if let Some(above) = rest.strip_prefix("../") {
            if words.pop().is_none() {
                return Err(format!("`{}` leads out of its host", one_line(address)));
            }
            rest = above;
        } else {
            break;
        }
    }
    words.push(rest);
    let mut url: Url = repository.as_url().clone();
    url.set_path(&words.join("/"));
    url.as_str().parse().map_err(|error| format!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_relative_to_the_repository_as_in_git() {
        let repository: GitUrl = "https://host.example:8443/team/app.git".parse().unwrap();
        let of = |address: &str| absolute(&repository, address).map(|url| url.to_string());
        for (address, url) in [
            ("../lib.git", "https://host.example:8443/team/lib.git"),
            ("./lib", "https://host.example:8443/team/app.git/lib"),
            ("../../other/lib.git", "https://host.example:8443/other/lib.git"),
            ("https://ann:pw@other.example/lib.git", "https://other.example/lib.git"),
        ] {
            assert_eq!(of(address).unwrap(), url);
        }
        for refused in [
            "git@host.example:team/lib.git",
            "ssh://git@host.example/team/lib.git",
            "file:///etc",
            "/etc",
            "ext::sh -c x",
            "-u",
            "",
            "../../../x",
            "../lib.git?x=1",
            "../a b",
            "https://host.example/lib.git#x",
            "https://",
        ] {
            // What the parser of addresses takes as part of a path is in that path.
            let url = of(refused);
            let is_harmless = url.as_ref().is_ok_and(|url| {
                url.starts_with("https://host.example:8443/team/") && !url.contains(['?', ' ', '#'])
            });
            assert!(url.is_err() || is_harmless, "{refused}: {url:?}");
        }
        assert!(of("git@host.example:team/lib.git").unwrap_err().contains("https://"));
    }

    #[test]
    fn only_paths_and_addresses_of_gitmodules_count() {
        let output = "submodule.a b.path\nlib/a/\0submodule.a b.url\n../a.git\0submodule.x.y.path\np\0submodule.x.y.url\nu\0submodule.x.y.url\nlast\0submodule.no.path\nq\0submodule.bare\0";
        let found = parse(output);
        let expected = [("lib/a", "../a.git"), ("p", "last")];
        let expected = expected.map(|(path, url)| (path.to_owned(), url.to_owned()));
        assert_eq!(found, BTreeMap::from(expected));
    }
}
