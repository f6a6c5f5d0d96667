//! Git over ssh, from a real `sshd`: who gets a source, and who gets the deploy key.

use std::time::Duration;

use gantry_domain::source::GitSource;
use gantry_ops::secret::{Credentials, deploy_key};
use gantry_remote::git::GitError;
use gantry_worker::source::SourceError;
use tokio::time::Instant;

use super::{TestSources, git_source, processes_for, soon, sources, token};
use crate::git_server::{GitServer, TestRepository};
use crate::ssh_server::SshServer;

/// A host with one repository, `app`.
pub(super) struct Host {
    pub(super) git: GitServer,
    pub(super) ssh: SshServer,
    pub(super) repository: TestRepository,
}

impl Host {
    pub(super) async fn start() -> Self {
        let git = GitServer::start().await.unwrap();
        let repository = git.repository("app").unwrap();
        repository.commit("main", &[("f", "1")]).unwrap();
        let ssh = SshServer::start(git.folder()).unwrap();
        Self { git, ssh, repository }
    }

    /// The source at `app` with this reference, and the right host key.
    fn source(&self, reference: &str) -> GitSource {
        let host_keys = vec![self.ssh.host_key().unwrap().parse().unwrap()];
        GitSource { host_keys, ..git_source(&format!("{}{reference}", self.ssh.url("app"))) }
    }

    fn key(&self) -> Credentials {
        key(&self.ssh.deploy_key().unwrap())
    }
}

/// A private key as it is stored.
pub(super) fn key(text: &str) -> Credentials {
    Credentials { username: "gantry".to_owned(), password: deploy_key(text).unwrap() }
}

async fn build(
    rig: &TestSources,
    source: &GitSource,
    key: Option<&Credentials>,
) -> Result<String, GitError> {
    match rig.sources.from_git(source, key, soon()).await {
        Ok(checkout) => Ok(std::fs::read_to_string(checkout.root().join("f")).unwrap()),
        Err(SourceError::Git(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_repository_is_read_with_its_key_from_its_host_alone() {
    let (host, rig) = (Host::start().await, sources(1 << 30));
    let (source, right) = (host.source("#main"), host.key());
    assert_eq!(build(&rig, &source, Some(&right)).await.unwrap(), "1");

    // What is in the mirror now is shown to nobody else.
    let commit = host.repository.git(&["rev-parse", "HEAD"]).unwrap();
    let unknown = key(&host.ssh.unknown_key().unwrap());
    for source in [source, host.source(&format!("#{commit}"))] {
        assert_eq!(build(&rig, &source, Some(&right)).await.unwrap(), "1");
        let error = build(&rig, &source, Some(&unknown)).await.unwrap_err();
        assert!(matches!(error, GitError::KeyRefused { .. }) && !error.is_transient(), "{error}");
        let error = build(&rig, &source, None).await.unwrap_err();
        assert!(matches!(error, GitError::KeyWanted { .. }), "{error}");
        let error = build(&rig, &source, Some(&token("a token"))).await.unwrap_err();
        assert!(matches!(error, GitError::UnusableKey { .. }), "{error}");
        let unpinned = GitSource { host_keys: Vec::new(), ..source.clone() };
        let error = build(&rig, &unpinned, Some(&right)).await.unwrap_err();
        assert!(matches!(error, GitError::KeyWanted { .. }), "{error}");
        let another = host.ssh.another_host_key().unwrap().parse().unwrap();
        let mut other = GitSource { host_keys: vec![another], ..source.clone() };
        let error = build(&rig, &other, Some(&right)).await.unwrap_err();
        assert!(matches!(error, GitError::OtherHostKey { .. }) && !error.is_transient(), "{error}");
        // While a host replaces its key, both are pinned.
        other.host_keys.extend(source.host_keys);
        assert_eq!(build(&rig, &other, Some(&right)).await.unwrap(), "1");
    }
    assert!(deploy_key(&host.ssh.locked_key().unwrap()).is_err());
}

#[tokio::test]
async fn a_host_that_is_not_there_is_asked_again_later() {
    let host = Host::start().await;
    let (rig, source, key) = (sources(1 << 30), host.source(""), host.key());
    drop(host.ssh);
    let error = build(&rig, &source, Some(&key)).await.unwrap_err();
    assert!(matches!(error, GitError::Unreachable { .. }) && error.is_transient(), "{error}");
    assert!(error.to_string().contains("Connection refused"), "{error}");

    let inside: GitSource = "ssh://git@127.0.0.2/x.git".parse().unwrap();
    let error = build(&rig, &inside, Some(&key)).await.unwrap_err();
    assert!(matches!(error, GitError::Outbound(_)), "{error}");
}

/// What every process shows of itself.
fn shown_by_processes() -> Vec<u8> {
    let mut shown = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        for name in ["cmdline", "environ"] {
            shown.extend(std::fs::read(entry.path().join(name)).unwrap_or_default());
        }
    }
    shown
}

#[tokio::test]
async fn a_silent_host_is_left_at_the_deadline_and_nothing_shows_the_key() {
    let host = Host::start().await;
    let (rig, source, right) = (sources(1 << 30), host.source(""), host.key());
    let path = source.url.as_url().path().to_owned();
    let silence = host.ssh.silence();
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut fetch = Box::pin(rig.sources.from_git(&source, Some(&right), deadline));
    // git, the shell, and ssh.
    while processes_for(&path) < 3 {
        let moment = tokio::time::timeout(Duration::from_millis(20), &mut fetch).await;
        assert!(moment.is_err(), "the host is silent: {:?}", moment.map(|it| it.map(drop)));
    }
    let key = host.ssh.deploy_key().unwrap();
    let needle = key.lines().nth(2).unwrap().as_bytes();
    assert!(!shown_by_processes().windows(needle.len()).any(|window| window == needle));
    let error = fetch.await.map(drop).unwrap_err();
    assert!(
        matches!(error, SourceError::Git(GitError::TimedOut { .. }) | SourceError::TimedOut),
        "{error}"
    );
    let until = Instant::now() + Duration::from_secs(10);
    while processes_for(&path) > 0 {
        assert!(Instant::now() < until, "ssh runs on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(silence);
    assert_eq!(build(&rig, &source, Some(&right)).await.unwrap(), "1");
}

#[tokio::test]
async fn the_key_is_used_for_submodules_on_the_same_host_alone() {
    let (host, rig) = (Host::start().await, sources(1 << 30));
    let inner = host.git.repository("inner").unwrap();
    let commit = inner.commit("main", &[("g", "2")]).unwrap();
    let outer = |repository: &TestRepository, url: &str| {
        let text = format!("[submodule \"s\"]\n\tpath = s\n\turl = {url}\n");
        let link = format!("160000,{commit},s");
        std::fs::create_dir_all(repository.work().join("s")).unwrap();
        repository.git(&["update-index", "--add", "--cacheinfo", &link]).unwrap();
        repository.commit("main", &[(".gitmodules", &text)]).unwrap();
    };
    let other = host.ssh.url("inner").replace("127.0.0.1", "localhost");
    for (url, is_read) in [
        ("../inner.git".to_owned(), true),
        (host.ssh.url("inner"), true),
        (host.git.url("inner"), true),
        // Another host gets neither the key nor the host key.
        (other, false),
    ] {
        outer(&host.repository, &url);
        let source = GitSource { submodules: true, ..host.source("#main") };
        let built = rig.sources.from_git(&source, Some(&host.key()), soon()).await;
        match (built, is_read) {
            (Ok(checkout), true) => {
                assert_eq!(std::fs::read_to_string(checkout.root().join("s/g")).unwrap(), "2");
            }
            (Err(error), false) => {
                let told = format!("{error:?}");
                assert!(told.contains("KeyWanted") || told.contains("Outbound"), "{told}");
            }
            (built, _) => panic!("{url}: {:?}", built.map(drop)),
        }
    }
}
