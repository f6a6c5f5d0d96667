//! Sources of builds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::InvalidText;
use crate::id::UploadId;
use crate::image::{Digest, ImageReference, RegistryHost};
use crate::sealed::Sealed;
use crate::ssh::{self, HostKey};
use crate::text::{serde_as_text, text_type};

text_type!(
    /// A branch, tag, commit or `pull/12/head`, valid by git's rules for names and never an option.
    RefName,
    "git reference",
    "a branch, tag or commit by git's rules for names: no space, `..`, `~^:?*[\\`, `@{`, no leading `-`",
    |text| {
        (1..=250).contains(&text.len())
            && !text.starts_with(['-', '/', '.'])
            && !text.ends_with(['/', '.'])
            && !text.contains("..")
            && !text.contains("//")
            && !text.contains("/.")
            && !text.contains("@{")
            && text != "@"
            && !text.split('/').any(|word| word.to_ascii_lowercase().ends_with(".lock"))
            && !text.chars().any(|c| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c))
    }
);

text_type!(
    /// A full commit id in lower case.
    CommitId,
    "commit id",
    "40 or 64 lower-case hexadecimal digits, not all zero",
    |text| {
        (text.len() == 40 || text.len() == 64)
            && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            && text.bytes().any(|b| b != b'0')
    }
);

text_type!(
    /// The first digits of a commit id, as some providers shorten it.
    CommitPrefix,
    "shortened commit id",
    "7 to 64 lower-case hexadecimal digits",
    |text| {
        (7..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    }
);

impl CommitPrefix {
    /// Whether the commit begins with these digits.
    #[must_use]
    pub fn begins(&self, commit: &CommitId) -> bool {
        commit.as_str().starts_with(self.as_str())
    }
}

/// The kind of a git reference, judged by its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefKind {
    /// `HEAD`: the default branch of the repository.
    DefaultBranch,
    /// A branch, without `refs/heads/`. A tag of the same form cannot be told apart.
    Branch(RefName),
    /// `refs/tags/…`.
    Tag,
    /// A full commit id.
    Commit,
    /// Another full reference, like that of a pull request.
    Other,
}

impl RefName {
    /// The kind of the reference. `refs/heads/main`, `heads/main` and `main` are the same branch.
    #[must_use]
    pub fn kind(&self) -> RefKind {
        let text = self.as_str();
        let branch = text.strip_prefix("refs/heads/").or_else(|| text.strip_prefix("heads/"));
        if let Some(branch) = branch.and_then(|branch| branch.parse().ok()) {
            return RefKind::Branch(branch);
        }
        if text == "HEAD" {
            RefKind::DefaultBranch
        } else if text.starts_with("refs/tags/") || text.starts_with("tags/") {
            RefKind::Tag
        } else if text.parse::<CommitId>().is_ok() {
            RefKind::Commit
        } else if text.starts_with("refs/") || is_pull_request(text) {
            RefKind::Other
        } else {
            RefKind::Branch(self.clone())
        }
    }
}

impl RefName {
    /// The commit, if it is the full id of one, in capitals or not.
    #[must_use]
    pub fn commit(&self) -> Option<CommitId> {
        self.as_str().to_ascii_lowercase().parse().ok()
    }

    /// The first digits of a commit, if it can be such an abbreviation. As in git, a branch or tag of that name comes
    /// first.
    #[must_use]
    pub fn commit_prefix(&self) -> Option<CommitPrefix> {
        match self.commit() {
            Some(_) => None,
            None => self.as_str().to_ascii_lowercase().parse().ok(),
        }
    }
}

/// Matches `pull/12/head`.
fn is_pull_request(text: &str) -> bool {
    let words: Vec<&str> = text.split('/').collect();
    matches!(*words, ["pull", number, "head" | "merge"] if number.bytes().all(|b| b.is_ascii_digit()))
}

impl CommitId {
    /// The object format of repositories that can contain this commit.
    #[must_use]
    pub fn object_format(&self) -> ObjectFormat {
        if self.as_str().len() == 64 { ObjectFormat::Sha256 } else { ObjectFormat::Sha1 }
    }
}

/// The hash function of a git repository. It never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectFormat {
    /// 40 hexadecimal digits.
    Sha1,
    /// 64 hexadecimal digits.
    Sha256,
}

impl fmt::Display for ObjectFormat {
    /// As git spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        })
    }
}

text_type!(
    /// The path of a folder or file in a source, relative to its root.
    SourcePath,
    "path in a source",
    "relative, without `..`, empty words or control characters, at most 1024 characters",
    |text| {
        (1..=1024).contains(&text.len())
            && !text.chars().any(|c| c.is_control() || c == '\\')
            && text.split('/').all(|word| !word.is_empty() && word != ".." && !word.eq_ignore_ascii_case(".git"))
    }
);

text_type!(
    /// A repository's key, which is the same for events and tasks: `host[:port]/path` in lower case, without `.git`.
    RepositoryKey,
    "repository",
    "`host/path` of a git repository",
    |text| {
        text.len() <= 500
            && text.split_once('/').is_some_and(|(host, path)| !host.is_empty() && !path.is_empty())
            && !text.chars().any(|c| c.is_control() || c.is_whitespace() || c.is_uppercase())
    }
);

/// The URL of a git repository: `https` or `http`, without user, query and fragment; or `ssh` with a user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GitUrl(Url);

impl GitUrl {
    /// The parsed URL.
    #[must_use]
    pub fn as_url(&self) -> &Url {
        &self.0
    }

    /// Whether the repository is read over ssh.
    #[must_use]
    pub fn is_ssh(&self) -> bool {
        self.0.scheme() == "ssh"
    }

    /// The address of the repository at its host's web server. For ssh this is what code hosts have: https, on the usual
    /// port, with the same path.
    #[must_use]
    pub fn web(&self) -> Url {
        if !self.is_ssh() {
            return self.0.clone();
        }
        self.with_scheme("https", None)
    }

    /// The address whose host and port are connected to, with a scheme for which every form of a host is parsed.
    #[must_use]
    pub fn server(&self) -> Url {
        if !self.is_ssh() {
            return self.0.clone();
        }
        self.with_scheme("https", Some(self.0.port().unwrap_or(ssh::PORT)))
    }

    fn with_scheme(&self, scheme: &str, port: Option<u16>) -> Url {
        let host = self.0.host_str().unwrap_or_default();
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        let url = format!("{scheme}://{host}{port}{}", self.0.path());
        Url::parse(&url).unwrap_or_else(|_| self.0.clone())
    }

    /// The key for comparisons; different spellings of one URL have the same key. So do the addresses of a repository for
    /// https and ssh.
    #[must_use]
    pub fn key(&self) -> RepositoryKey {
        let path = self.0.path().to_lowercase();
        let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
        let host = self.host();
        if let Some(key) = azure_devops_key(&host, &words) {
            return RepositoryKey::from_checked(key);
        }
        let path = words.join("/");
        let path = path.strip_suffix(".git").unwrap_or(&path);
        RepositoryKey::from_checked(format!("{host}/{path}"))
    }

    /// The host, with the port if it is not the scheme's. Without that of ssh: code hosts are known by their web server.
    #[must_use]
    pub fn host(&self) -> String {
        let host = self.0.host_str().unwrap_or_default().trim_end_matches('.');
        let port = self.0.port().filter(|_| !self.is_ssh());
        port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Parses a URL from a code host's payload. A user name in it is ignored, except for ssh, which needs one.
    ///
    /// # Errors
    /// [`InvalidText`].
    pub fn of_payload(text: &str) -> Result<Self, InvalidText> {
        let Some(mut url) = Url::parse(text).ok().filter(|_| !ssh::is_address(text)) else {
            return text.parse();
        };
        let has_user = !url.username().is_empty() || url.password().is_some();
        match has_user && url.set_password(None).and_then(|()| url.set_username("")).is_ok() {
            true => url.as_str().parse(),
            false => text.parse(),
        }
    }
}

/// The key of a repository of Azure DevOps Services; `None` for other hosts and paths. Its organizations have two hosts
/// with several forms of paths, and payloads use another one than people do.
fn azure_devops_key(host: &str, path: &[&str]) -> Option<String> {
    const OF_SSH: [&str; 2] = ["ssh.dev.azure.com", "vs-ssh.visualstudio.com"];
    let (organization, path) = match (host, path) {
        ("dev.azure.com", [organization, path @ ..]) => (*organization, path),
        (host, ["v3", organization, project, repository]) if OF_SSH.contains(&host) => {
            return Some(format!("dev.azure.com/{organization}/{project}/_git/{repository}"));
        }
        (host, path) => (host.strip_suffix(".visualstudio.com")?, path),
    };
    // The name of the collection is reserved: no project has it.
    let path = path.strip_prefix(&["defaultcollection"]).unwrap_or(path);
    let (project, repository) = match path {
        [project, "_git", repository] => (project, repository),
        // The project's repository of the same name.
        ["_git", repository] => (repository, repository),
        _ => return None,
    };
    let repository = repository.strip_suffix(".git").unwrap_or(repository);
    Some(format!("dev.azure.com/{organization}/{project}/_git/{repository}"))
}

impl RepositoryKey {
    /// The parts of a parsed git URL satisfy all rules for a key.
    fn from_checked(text: String) -> Self {
        Self(text)
    }

    /// The host, with its port if that is not the usual one.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// Parses a repository as people write it: its URL, `git@host:path`, or `host/path`.
    ///
    /// # Errors
    /// [`InvalidText`], also for `owner/name`, which would mean a host called `owner`.
    pub fn named(text: &str) -> Result<Self, InvalidText> {
        const RULE: &str = "its address, like `https://github.com/octo/web.git`, or `host/path`, like `github.com/octo/web`";
        let refused = || InvalidText::new("repository", &redacted(text), RULE);
        let address = match text.split_once("://") {
            Some(("https" | "http", _)) => text.to_owned(),
            Some(("ssh" | "git", rest)) => format!("https://{}", without_port(rest)),
            Some(_) => return Err(refused()),
            None => match text.split_once(':') {
                // As in git: a `:` before the first `/` belongs to `user@host:path`, unless it is followed by a port.
                Some((host, path)) if host.contains('@') && !host.contains('/') => {
                    format!("https://{host}/{path}")
                }
                _ => {
                    let host = text.split('/').next().unwrap_or_default();
                    if !host.contains(['.', ':']) && !host.eq_ignore_ascii_case("localhost") {
                        return Err(refused());
                    }
                    format!("https://{text}")
                }
            },
        };
        GitUrl::of_payload(&address).map(|url| url.key()).map_err(|_| refused())
    }
}

/// Removes an ssh port: payloads name the web server.
fn without_port(rest: &str) -> String {
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = host.rsplit_once('@').unwrap_or(("", host));
    let host = host.split(':').next().unwrap_or_default();
    if user.is_empty() { format!("{host}/{path}") } else { format!("{user}@{host}/{path}") }
}

impl FromStr for GitUrl {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WHAT: &str = "git URL";
        let refused = |rule| InvalidText::new(WHAT, &redacted(text), rule);
        let url = match ssh::is_address(text) {
            true => ssh::parse_address(text, &refused)?,
            false => http_url(text, WHAT)?,
        };
        if url.fragment().is_some() || url.query().is_some() {
            return Err(refused("no `?` and no `#` here"));
        }
        if url.path().trim_matches('/').is_empty() || text.len() > 450 {
            return Err(refused("it names a repository on its host, in at most 450 characters"));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for GitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

serde_as_text!(GitUrl);

/// The URL of a `.tar.gz` or `.tar`: `https` or `http`, without user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TarballUrl(Url);

impl TarballUrl {
    /// The parsed URL.
    #[must_use]
    pub fn as_url(&self) -> &Url {
        &self.0
    }
}

impl TarballUrl {
    /// Removes and returns the query, which is stored separately.
    pub fn take_query(&mut self) -> Option<String> {
        let query = self.0.query().map(str::to_owned);
        self.0.set_query(None);
        query
    }

    /// The same URL with this query.
    #[must_use]
    pub fn with_query(&self, query: &str) -> Self {
        let mut url = self.0.clone();
        url.set_query(Some(query));
        Self(url)
    }
}

impl FromStr for TarballUrl {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WHAT: &str = "tarball URL";
        let url = http_url(text, WHAT)?;
        if url.fragment().is_some() {
            let rule = "`#` names a branch of a git repository, whose address ends in `.git`";
            return Err(InvalidText::new(WHAT, &redacted(text), rule));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for TarballUrl {
    /// Prints it without the query, which may be a signature.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.0.clone();
        url.set_query(None);
        url.fmt(f)
    }
}

impl Serialize for TarballUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for TarballUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn http_url(text: &str, what: &'static str) -> Result<Url, InvalidText> {
    let refused = |rule| InvalidText::new(what, &redacted(text), rule);
    let url = Url::parse(text).map_err(|_| refused("an `https://…` or `http://…` address"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none_or(str::is_empty) {
        return Err(refused("an `https://…` or `http://…` address"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused(
            "remove what stands before `@` in the address, and give the token with `--git-access-token`",
        ));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) || text.len() > 2048 {
        return Err(refused("no space or control character, at most 2048 characters"));
    }
    Ok(url)
}

/// `text` without those parts of a URL that may be secret.
fn redacted(text: &str) -> String {
    // The query may be a signature.
    let shown = text.split_once('?').map(|(address, _)| format!("{address}?…"));
    let text = shown.as_deref().unwrap_or(text);
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}…{}", &text[..scheme + 3], &text[at..])
        }
        _ => text.to_owned(),
    }
}

/// A location in a git repository: `url#ref:folder`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GitSource {
    /// The repository.
    pub url: GitUrl,
    /// The branch, tag or commit; the default branch if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<RefName>,
    /// The folder that is the root of the context; the repository's root if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<SourcePath>,
    /// Whether its files that Git LFS keeps are fetched. Not part of its text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lfs: bool,
    /// Whether its submodules are fetched as well. Not part of its text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub submodules: bool,
    /// The keys of which the host must have one, if it is read over ssh. Not part of its text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_keys: Vec<HostKey>,
}

impl FromStr for GitSource {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (url, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, folder) = fragment.split_once(':').unwrap_or((fragment, ""));
        let reference = match reference {
            "" => None,
            reference if is_commit_in_capitals(reference) => {
                Some(reference.to_ascii_lowercase().parse()?)
            }
            reference => Some(reference.parse()?),
        };
        let folder = folder.trim_matches('/');
        let folder = (!folder.is_empty() && folder != ".").then(|| folder.parse()).transpose()?;
        let url = url.parse()?;
        Ok(Self { url, reference, folder, lfs: false, submodules: false, host_keys: Vec::new() })
    }
}

/// Commit ids are case-insensitive.
fn is_commit_in_capitals(text: &str) -> bool {
    text.to_ascii_lowercase().parse::<CommitId>().is_ok()
}

impl fmt::Display for GitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)?;
        match (&self.reference, &self.folder) {
            (None, None) => Ok(()),
            (Some(reference), None) => write!(f, "#{reference}"),
            (None, Some(folder)) => write!(f, "#:{folder}"),
            (Some(reference), Some(folder)) => write!(f, "#{reference}:{folder}"),
        }
    }
}

/// The source of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum Source {
    /// A git repository.
    Git(GitSource),
    /// An uploaded archive.
    Upload {
        upload: UploadId,
        /// The digest of its bytes, which is verified: the object store alone is not trusted with what a run builds.
        digest: Digest,
    },
    /// An archive on a web server.
    Tarball {
        url: TarballUrl,
        /// The query of its URL, which may be a signature that grants access.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        query: Option<Sealed>,
    },
    /// The files of an artifact in a registry.
    Artifact {
        /// Its name, with the tag or digest.
        image: ImageReference,
    },
    /// No files: the steps of a task file need none.
    Nothing,
}

/// How a source without files is written, as in the original.
const NOTHING: &str = "/dev/null";

/// What an artifact's address begins with, as in the original.
const ARTIFACT: &str = "oci://";

impl Source {
    /// The location in a git repository, if it is one.
    #[must_use]
    pub fn git(&self) -> Option<&GitSource> {
        match self {
            Self::Git(git) => Some(git),
            Self::Upload { .. } | Self::Tarball { .. } | Self::Artifact { .. } | Self::Nothing => {
                None
            }
        }
    }

    /// Whether files that Git LFS keeps are fetched.
    #[must_use]
    pub fn has_lfs(&self) -> bool {
        self.git().is_some_and(|git| git.lfs)
    }

    /// Whether it is a git repository that is read over ssh.
    #[must_use]
    pub fn is_ssh(&self) -> bool {
        self.git().is_some_and(|git| git.url.is_ssh())
    }

    /// The pinned keys of its host, if it is read over ssh.
    #[must_use]
    pub fn host_keys(&self) -> &[HostKey] {
        self.git().map_or(&[], |git| &git.host_keys)
    }

    /// Whether submodules are fetched as well.
    #[must_use]
    pub fn has_submodules(&self) -> bool {
        self.git().is_some_and(|git| git.submodules)
    }

    /// The sealed query of a tarball's URL.
    #[must_use]
    pub fn query(&self) -> Option<&Sealed> {
        match self {
            Self::Tarball { query, .. } => query.as_ref(),
            Self::Git(_) | Self::Upload { .. } | Self::Artifact { .. } | Self::Nothing => None,
        }
    }

    /// The sealed query, to be resealed.
    pub fn query_mut(&mut self) -> Option<&mut Sealed> {
        match self {
            Self::Tarball { query, .. } => query.as_mut(),
            Self::Git(_) | Self::Upload { .. } | Self::Artifact { .. } | Self::Nothing => None,
        }
    }
}

impl FromStr for Source {
    type Err = InvalidText;

    /// Parses a context. A URL is a git repository if its path ends in `.git` or contains `/_git/`, or if it is on
    /// github.com or read over ssh. `oci://` is an artifact. Every other URL is a tarball. `/dev/null` is no source.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == NOTHING {
            return Ok(Self::Nothing);
        }
        if let Some(name) = text.strip_prefix(ARTIFACT) {
            return artifact(name).map(|image| Self::Artifact { image });
        }
        let address = text.split('#').next().unwrap_or_default();
        let refused = |rule| Err(InvalidText::new("context", &redacted(text), rule));
        if ssh::is_address(address) {
            return text.parse().map(Self::Git);
        }
        if address.starts_with("git://") {
            return refused(
                "`git://` is not encrypted: give `https://host/repository.git` or `ssh://git@host/repository.git`",
            );
        }
        let Ok(url) = Url::parse(address) else {
            return refused(
                "`https://host/repository.git#ref:folder`, the address of a `.tar.gz`, or `oci://host/repository:tag`",
            );
        };
        let is_git = url.path().trim_end_matches('/').ends_with(".git")
            || url.path().contains("/_git/")
            || (url.host_str() == Some("github.com") && !url.path().ends_with(".tar.gz"));
        if is_git {
            text.parse().map(Self::Git)
        } else {
            text.parse().map(|url| Self::Tarball { url, query: None })
        }
    }
}

/// The name of an artifact. Unlike an image's, it has a host: there is no registry that would go without saying.
fn artifact(name: &str) -> Result<ImageReference, InvalidText> {
    let has_host =
        name.split_once('/').is_some_and(|(host, _)| host.parse::<RegistryHost>().is_ok());
    match has_host {
        true => name.parse(),
        false => Err(InvalidText::new("artifact", &redacted(name), "`oci://host/repository:tag`")),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Git(git) => git.fmt(f),
            Self::Upload { upload, .. } => write!(f, "upload {upload}"),
            Self::Tarball { url, .. } => url.fmt(f),
            Self::Artifact { image } => write!(f, "{ARTIFACT}{image}"),
            Self::Nothing => f.write_str(NOTHING),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_and_abbreviated_commits_are_recognized_in_capitals_too() {
        let parsed = |text: &str| {
            let name: RefName = text.parse().unwrap();
            (name.commit().map(String::from), name.commit_prefix().map(String::from))
        };
        for digits in [40, 64] {
            let (whole, cut) = ("4F2A91C0".repeat(digits / 8), "4F2A91C0".repeat(digits / 8));
            let lower = whole.to_ascii_lowercase();
            assert_eq!(parsed(&whole), (Some(lower.clone()), None));
            let cut = &cut[..digits - 1];
            assert_eq!(parsed(cut), (None, Some(lower[..digits - 1].to_owned())));
        }
        for short in ["4f2a91c", "20260131", "deadbeef"] {
            assert_eq!(parsed(short), (None, Some(short.to_owned())));
        }
        for name in ["main", "v1.2", "4f2a91", "refs/heads/4f2a91c", &"0".repeat(65)] {
            assert_eq!(parsed(name), (None, None), "{name}");
        }
    }

    #[test]
    fn contexts_parse_as_in_the_original() {
        let git = |text: &str| match text.parse::<Source>() {
            Ok(Source::Git(git)) => git,
            other => panic!("{text}: {other:?}"),
        };
        let source = git("https://github.com/u/r.git#main:app/web");
        assert_eq!(source.reference.as_ref().unwrap().as_str(), "main");
        assert_eq!(source.folder.as_ref().unwrap().as_str(), "app/web");
        assert_eq!(source.to_string(), "https://github.com/u/r.git#main:app/web");
        assert_eq!(git("https://github.com/u/r").reference, None);
        assert_eq!(git("https://dev.azure.com/o/p/_git/r#:x").folder.unwrap().as_str(), "x");
        assert_eq!(
            git("http://127.0.0.1:8080/r.git#pull/12/head").reference.unwrap().as_str(),
            "pull/12/head"
        );
        assert!(matches!("https://host/x.tar.gz".parse(), Ok(Source::Tarball { .. })));
        for (text, shown) in [
            ("oci://ghcr.io/octo/src:1", "oci://ghcr.io/octo/src:1"),
            ("oci://localhost:5000/src", "oci://localhost:5000/src:latest"),
            ("oci://docker.io/octo/src", "oci://docker.io/octo/src:latest"),
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), shown);
        }
        let nothing: Source = "/dev/null".parse().unwrap();
        assert_eq!((nothing.to_string().as_str(), nothing), ("/dev/null", Source::Nothing));
        for refused in [
            "",
            ".",
            "ext::sh -c x",
            "file:///etc",
            "git://host/r.git",
            "ssh://host/r.git",
            "ssh://git@host",
            "ssh://git@host/",
            "git@host:",
            "git@host:/",
            "ssh://-oProxyCommand=x/x.git",
            "ssh://-oProxyCommand=x@host/x.git",
            "ssh://git@-oProxyCommand=x/x.git",
            "git@-oProxyCommand=x:x.git",
            "ssh://git:secret@host/x.git",
            "ssh://git@host:0/x.git",
            "ssh://git@host:70000/x.git",
            "ssh://git@host:x/x.git",
            "ssh://git@ho%2dst/x.git",
            "ssh://git@ho st/x.git",
            "ssh://git@host/a b.git",
            "ssh://git@host/a'b.git",
            "ssh://git@host/$(id).git",
            "ssh://git@host/a%0ab.git",
            "ssh://git@host/a%zz.git",
            "ssh://git@host/a/../b.git",
            "ssh://git@host/a/%2e%2E/b.git",
            "ssh://git@host/a/..",
            "git@host:./a.git",
            "ssh://git@host/a\nb.git",
            "git+ssh://git@host/x.git",
            "oci://",
            "oci://src:1",
            "oci://octo/src:1",
            "oci://ann:secret@ghcr.io/src:1",
            "oci://ghcr.io/../src",
        ] {
            assert!(refused.parse::<Source>().is_err(), "{refused}");
        }
    }

    #[test]
    fn both_forms_of_an_ssh_address_are_one_value() {
        for (text, shown) in [
            ("git@github.com:octo/web.git", "ssh://git@github.com/octo/web.git"),
            ("git@GitHub.com:/octo/web", "ssh://git@github.com/octo/web"),
            ("ssh://git@github.com:22/octo/web.git", "ssh://git@github.com/octo/web.git"),
            ("ssh://git@git.example:2222/octo/web.git/", "ssh://git@git.example:2222/octo/web.git"),
            ("ssh://me@[::1]:2222/srv/web.git", "ssh://me@[::1]:2222/srv/web.git"),
            ("ssh://git@127.0.0.1/~ann/web.git", "ssh://git@127.0.0.1/~ann/web.git"),
            (
                "o@vs-ssh.visualstudio.com:v3/o/A%20B/w",
                "ssh://o@vs-ssh.visualstudio.com/v3/o/A%20B/w",
            ),
        ] {
            let url: GitUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.is_ssh()), (shown, true));
            assert_eq!(shown.parse::<GitUrl>().unwrap(), url);
            let source: Source = format!("{text}#main:app").parse().unwrap();
            assert_eq!(source.to_string(), format!("{shown}#main:app"));
        }
        let url: GitUrl = "ssh://git@[::1]:2222/octo/web.git".parse().unwrap();
        assert_eq!(url.web().as_str(), "https://[::1]/octo/web.git");
        assert_eq!(url.server().as_str(), "https://[::1]:2222/octo/web.git");
        let url: GitUrl = "git@git.example:octo/web.git".parse().unwrap();
        assert_eq!(url.server().port_or_known_default(), Some(22));
    }

    #[test]
    fn spellings_of_a_repository_have_one_key() {
        let key = |text: &str| text.parse::<GitUrl>().unwrap().key().to_string();
        assert_eq!(key("https://GitHub.com/Octo/Hello.git"), "github.com/octo/hello");
        assert_eq!(key("https://github.com:443/octo/hello/"), "github.com/octo/hello");
        assert_eq!(key("http://127.0.0.1:8080/hello.git"), "127.0.0.1:8080/hello");
        assert_eq!(key("git@GitHub.com:Octo/Hello.git"), "github.com/octo/hello");
        assert_eq!(key("ssh://git@git.example:2222/octo/hello"), "git.example/octo/hello");
        assert_eq!(key("git@ssh.dev.azure.com:v3/o/p/r"), key("https://dev.azure.com/o/p/_git/r"));
    }

    #[test]
    fn named_and_payload_repositories_have_equal_keys() {
        for text in [
            "https://github.com/octo/hello.git",
            "https://GitHub.com/Octo/Hello",
            "https://github.com:443/octo/hello.git/",
            "https://github.com./octo//hello",
            "https://octo@github.com/octo/hello.git",
            "http://github.com/octo/hello",
            "git@github.com:octo/hello.git",
            "ssh://git@github.com:22/octo/hello.git",
            "git://github.com/octo/hello",
            "github.com/octo/hello",
            "GitHub.com/octo/hello.git/",
        ] {
            let key = RepositoryKey::named(text).unwrap();
            assert_eq!(key.as_str(), "github.com/octo/hello", "{text}");
        }
        assert_eq!(
            RepositoryKey::named("localhost:8080/r.git").unwrap().as_str(),
            "localhost:8080/r"
        );
        assert_eq!(
            RepositoryKey::named("git@host.example:8080/r").unwrap().as_str(),
            "host.example/8080/r"
        );
        for refused in [
            "octo/hello",
            "hello",
            "",
            "file:///etc/x",
            "github.com",
            "https://github.com/",
            "a.b/x y",
        ] {
            assert!(RepositoryKey::named(refused).is_err(), "{refused}");
        }
        let of_host = GitUrl::of_payload("https://octo:secret@dev.azure.com/o/p/_git/r").unwrap();
        assert_eq!(of_host.to_string(), "https://dev.azure.com/o/p/_git/r");
    }

    #[test]
    fn a_repository_of_azure_devops_has_one_key_at_all_its_addresses() {
        for text in [
            "https://dev.azure.com/Fabrikam/Shop%20One/_git/Web",
            "https://fabrikam@dev.azure.com/fabrikam/Shop%20One/_git/web/",
            "https://fabrikam.visualstudio.com/Shop%20One/_git/Web",
            "https://fabrikam.visualstudio.com/DefaultCollection/Shop%20One/_git/web",
            "git@ssh.dev.azure.com:v3/fabrikam/Shop%20One/web",
            "fabrikam@vs-ssh.visualstudio.com:v3/fabrikam/Shop%20One/web",
        ] {
            let key = RepositoryKey::named(text).unwrap();
            assert_eq!(key.as_str(), "dev.azure.com/fabrikam/shop%20one/_git/web", "{text}");
        }
        for text in [
            "https://dev.azure.com/fabrikam/web/_git/web",
            "https://dev.azure.com/fabrikam/_git/web",
            "https://fabrikam.visualstudio.com/_git/web",
            "https://fabrikam.visualstudio.com/DefaultCollection/_git/web",
        ] {
            let key = RepositoryKey::named(text).unwrap();
            assert_eq!(key.as_str(), "dev.azure.com/fabrikam/web/_git/web", "{text}");
        }
        let on_own_server = "https://tfs.example/tfs/DefaultCollection/Shop/_git/Web";
        assert_eq!(
            RepositoryKey::named(on_own_server).unwrap().as_str(),
            "tfs.example/tfs/defaultcollection/shop/_git/web"
        );
    }

    #[test]
    fn the_kind_of_a_reference_is_derived_from_its_text() {
        let kind = |text: &str| text.parse::<RefName>().unwrap().kind();
        for text in ["main", "heads/main", "refs/heads/main"] {
            assert_eq!(kind(text), RefKind::Branch("main".parse().unwrap()), "{text}");
        }
        assert_eq!(kind("feature/x"), RefKind::Branch("feature/x".parse().unwrap()));
        assert_eq!(kind("4f2a91c"), RefKind::Branch("4f2a91c".parse().unwrap()));
        assert_eq!(kind("HEAD"), RefKind::DefaultBranch);
        assert_eq!((kind("refs/tags/v1"), kind("tags/v1")), (RefKind::Tag, RefKind::Tag));
        assert_eq!(
            (kind(&"4f2a".repeat(10)), kind(&"a".repeat(64))),
            (RefKind::Commit, RefKind::Commit)
        );
        assert_eq!(
            (kind("pull/7/head"), kind("refs/pull/7/merge")),
            (RefKind::Other, RefKind::Other)
        );
        assert_eq!(kind("pull/request"), RefKind::Branch("pull/request".parse().unwrap()));
        let source: GitSource =
            format!("https://h.example/r.git#{}", "4F2A".repeat(10)).parse().unwrap();
        assert_eq!(source.reference.unwrap().kind(), RefKind::Commit);
    }

    #[test]
    fn no_reference_is_an_option_and_no_folder_leaves_the_source() {
        for refused in [
            "--upload-pack=x",
            "-x",
            "a..b",
            "a b",
            "a\nb",
            "x.lock",
            "a/.b",
            "@{u}",
            "a//b",
            "",
            "/a",
            "a:b",
        ] {
            assert!(refused.parse::<RefName>().is_err(), "{refused:?}");
        }
        for refused in ["..", "a/../b", "/etc", "a//b", ".git", "a/.GIT/config", "a\0b", ""] {
            assert!(refused.parse::<SourcePath>().is_err(), "{refused:?}");
        }
    }

    #[test]
    fn a_token_in_a_url_is_refused_without_printing_it() {
        let error =
            "https://ghp_secret@github.com/u/r.git".parse::<Source>().unwrap_err().to_string();
        assert!(!error.contains("ghp_secret"), "{error}");
        assert!(error.contains("--git-access-token"), "{error}");
    }
}
