//! Which API the host of a repository has, and where.

use gantry_domain::code_host::{CodeHostEntry, HostKind};
use gantry_domain::source::GitUrl;
use percent_encoding::percent_decode_str;
use url::Url;

/// The hosts that the operator configured, and the well-known ones.
#[derive(Debug, Clone)]
pub(super) struct HostTable {
    configured: Vec<CodeHostEntry>,
}

/// The API of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostApi {
    pub(super) kind: HostKind,
    /// The address that all its paths are below.
    pub(super) root: Url,
}

impl HostTable {
    pub(super) fn new(configured: Vec<CodeHostEntry>) -> Self {
        Self { configured }
    }

    /// The API of the host of `url`; `None` if the host is neither configured nor well known.
    pub(super) fn find(&self, url: &GitUrl) -> Option<HostApi> {
        let host = url.host();
        let Some(entry) = self.configured.iter().find(|entry| entry.host == host) else {
            return well_known(&host);
        };
        let root = entry.api.clone().unwrap_or_else(|| {
            let mut root = url.web();
            root.set_path(default_path(entry.kind));
            root
        });
        Some(HostApi { kind: entry.kind, root })
    }
}

/// The words of a repository's path, decoded.
pub(super) fn words(url: &GitUrl) -> Vec<String> {
    let words = url.as_url().path().split('/').filter(|word| !word.is_empty());
    words.map(|word| percent_decode_str(word).decode_utf8_lossy().into_owned()).collect()
}

/// The words of a repository's path, without `.git` at its end.
pub(super) fn words_without_git(url: &GitUrl) -> Vec<String> {
    let mut words = words(url);
    if let Some(name) = words.last_mut().filter(|name| name.ends_with(".git")) {
        name.truncate(name.len() - ".git".len());
    }
    words
}

/// `root` with more words, each of which is encoded.
pub(super) fn below<'a>(root: &Url, words: impl IntoIterator<Item = &'a str>) -> Url {
    let mut url = root.clone();
    // Addresses without a path are refused where they are parsed.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(words);
    }
    url
}

fn well_known(host: &str) -> Option<HostApi> {
    let (kind, root) = match host {
        "github.com" => (HostKind::GitHub, "https://api.github.com/".to_owned()),
        "dev.azure.com" => (HostKind::AzureDevOps, "https://dev.azure.com/".to_owned()),
        "gitlab.com" => (HostKind::GitLab, "https://gitlab.com/api/v4".to_owned()),
        "codeberg.org" => (HostKind::Gitea, "https://codeberg.org/api/v1".to_owned()),
        "bitbucket.org" => (HostKind::Bitbucket, "https://api.bitbucket.org/2.0".to_owned()),
        // The former address of an Azure DevOps organization.
        _ if is_below(host, "visualstudio.com") => {
            (HostKind::AzureDevOps, format!("https://{host}/"))
        }
        // GitHub Enterprise Cloud with data residency.
        _ if is_below(host, "ghe.com") => (HostKind::GitHub, format!("https://api.{host}/")),
        _ => return None,
    };
    Some(HostApi { kind, root: Url::parse(&root).ok()? })
}

/// Whether `host` is one word and `domain`.
fn is_below(host: &str, domain: &str) -> bool {
    let word = host.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.'));
    word.is_some_and(|word| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

/// Where self-hosted software has its API.
fn default_path(kind: HostKind) -> &'static str {
    match kind {
        HostKind::GitHub => "/api/v3",
        HostKind::AzureDevOps => "/",
        HostKind::GitLab => "/api/v4",
        HostKind::Gitea => "/api/v1",
        HostKind::Bitbucket => "/2.0",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> HostTable {
        let entries = [
            "git.corp=github",
            "git.corp:8443=gitlab@https://git.corp:8443/gitlab/api/v4",
            "ado.corp=azure-devops",
            "forge.corp:3000=gitea",
            "github.com.corp=github",
        ];
        HostTable::new(entries.map(|entry| entry.parse().unwrap()).to_vec())
    }

    fn root(url: &str) -> Option<String> {
        Some(table().find(&url.parse().unwrap())?.root.to_string())
    }

    #[test]
    fn well_known_and_configured_hosts_have_an_api() {
        for (url, api) in [
            ("https://github.com/octo/web.git", "https://api.github.com/"),
            ("https://GitHub.com./octo/web", "https://api.github.com/"),
            ("https://octo.ghe.com/octo/web", "https://api.octo.ghe.com/"),
            ("https://dev.azure.com/org/project/_git/web", "https://dev.azure.com/"),
            ("https://org.visualstudio.com/project/_git/web", "https://org.visualstudio.com/"),
            ("https://gitlab.com/group/sub/web.git", "https://gitlab.com/api/v4"),
            ("https://codeberg.org/octo/web.git", "https://codeberg.org/api/v1"),
            ("https://bitbucket.org/octo/web.git", "https://api.bitbucket.org/2.0"),
            ("https://git.corp/octo/web.git", "https://git.corp/api/v3"),
            ("https://git.corp:8443/gitlab/octo/web.git", "https://git.corp:8443/gitlab/api/v4"),
            ("https://ado.corp/Collection/project/_git/web", "https://ado.corp/"),
            ("http://forge.corp:3000/octo/web.git", "http://forge.corp:3000/api/v1"),
        ] {
            assert_eq!(root(url).as_deref(), Some(api), "{url}");
        }
    }

    #[test]
    fn hosts_that_only_look_like_a_known_one_have_no_api() {
        for url in [
            "https://github.com.evil.test/octo/web",
            "https://evilgithub.com/octo/web",
            "https://github.com:8443/octo/web",
            "https://evil.test/github.com/octo/web",
            "https://visualstudio.com/project/_git/web",
            "https://a.b.visualstudio.com/project/_git/web",
            "https://evil-visualstudio.com/project/_git/web",
            "https://git.corp:9443/octo/web",
            "https://sub.git.corp/octo/web",
        ] {
            assert_eq!(root(url), None, "{url}");
        }
    }

    #[test]
    fn words_of_a_path_stay_words() {
        let url = "https://h.test/My%20Project/_git/a%2Fb.git".parse().unwrap();
        assert_eq!(words(&url), ["My Project", "_git", "a/b.git"]);
        assert_eq!(words_without_git(&url), ["My Project", "_git", "a/b"]);
        let root = Url::parse("https://h.test/api/").unwrap();
        let api = below(&root, ["My Project", "a/b?c#d", "é"]);
        assert_eq!(api.as_str(), "https://h.test/api/My%20Project/a%2Fb%3Fc%23d/%C3%A9");
    }
}
