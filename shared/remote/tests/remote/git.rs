use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_domain::source::{GitUrl, RefName};
use gantry_ops::secret::{Credentials, SecretString};
use gantry_remote::git::{Git, GitError, GitLimits, Remote, ResolvedRef};
use gantry_remote::guard::OutboundPolicy;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::git_server::{Behaviour, GitServer};

const LIMITS: GitLimits =
    GitLimits { fetched_bytes: 64 << 20, checkout_bytes: 1 << 20, checkout_files: 100 };

fn git() -> Git {
    git_with(LIMITS)
}

fn git_with(limits: GitLimits) -> Git {
    Git::new(Arc::new(OutboundPolicy::parse(["127.0.0.1"]).unwrap()), limits)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn at(url: &GitUrl) -> Remote<'_> {
    Remote { url, credentials: None, host_keys: &[], deadline: soon() }
}

fn token(password: &str) -> Credentials {
    Credentials { username: String::new(), password: SecretString::from(password) }
}

async fn resolve(url: &GitUrl, reference: Option<&str>) -> Result<ResolvedRef, GitError> {
    resolve_with(&git(), at(url), reference).await
}

async fn resolve_with(
    git: &Git,
    remote: Remote<'_>,
    reference: Option<&str>,
) -> Result<ResolvedRef, GitError> {
    let reference: Option<RefName> = reference.map(|reference| reference.parse().unwrap());
    match reference.as_ref().and_then(RefName::commit) {
        Some(commit) => Ok(ResolvedRef::of_commit(commit)),
        None => git.resolve(remote, reference.as_ref()).await,
    }
}

/// The files of a checkout with their content; links are `-> target`.
fn files(root: &Path) -> Vec<String> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if path.is_symlink() {
                found.push(format!("{name} -> {}", path.read_link().unwrap().display()));
            } else if path.is_dir() {
                walk(root, &path, found);
            } else {
                found.push(format!("{name}={}", std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found
}

async fn fetched(
    git: &Git,
    url: &GitUrl,
    reference: Option<&str>,
    folder: Option<&str>,
) -> Result<(ResolvedRef, Vec<String>), GitError> {
    let temporary = TempDir::new().unwrap();
    let (repository, work) = (temporary.path().join("repository"), temporary.path().join("work"));
    std::fs::create_dir(&work).unwrap();
    let folder = folder.map(|folder| folder.parse().unwrap());
    let head = resolve_with(git, at(url), reference).await?;
    git.fetch(at(url), &head, &repository, None).await?;
    git.checkout(&repository, &head.commit, folder.as_ref(), &work, soon()).await?;
    Ok((head, files(&work)))
}

#[tokio::test]
async fn branches_tags_pull_requests_and_commits_are_checked_out() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    let first = repository.commit("main", &[("a", "1"), ("sub/b", "1")]).unwrap();
    repository.git(&["tag", "-a", "v1", "-m", "v1"]).unwrap();
    repository.git(&["push", "-q", "origin", "v1", "HEAD:refs/pull/7/head"]).unwrap();
    let second = repository.commit("main", &[("a", "2")]).unwrap();
    let url: GitUrl = server.url("app").parse().unwrap();

    let (head, files) = fetched(&git(), &url, None, None).await.unwrap();
    assert_eq!(head.commit.to_string(), second);
    assert_eq!(head.branch.unwrap().as_str(), "main");
    assert_eq!(files, ["a=2", "sub/b=1"]);

    for reference in ["v1", "pull/7/head", &first] {
        let (head, files) = fetched(&git(), &url, Some(reference), None).await.unwrap();
        assert_eq!((head.commit.to_string(), head.branch), (first.clone(), None), "{reference}");
        assert_eq!(files, ["a=1", "sub/b=1"], "{reference}");
    }
    let (_, files) = fetched(&git(), &url, Some("main"), Some("sub")).await.unwrap();
    assert_eq!(files, ["sub/b=1"]);
}

#[tokio::test]
async fn an_older_commit_is_fetched_from_a_host_that_serves_only_tips() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    let first = repository.commit("main", &[("a", "1")]).unwrap();
    repository.commit("main", &[("a", "2")]).unwrap();
    server.behave(Behaviour::OnlyTips);
    let url: GitUrl = server.url("app").parse().unwrap();

    let (_, files) = fetched(&git(), &url, Some(&first), None).await.unwrap();
    assert_eq!(files, ["a=1"]);
    let (_, files) = fetched(&git(), &url, Some("main"), None).await.unwrap();
    assert_eq!(files, ["a=2"]);

    let unknown = "1".repeat(40);
    let error = fetched(&git(), &url, Some(&unknown), None).await.unwrap_err();
    assert!(
        matches!(&error, GitError::UnknownRef { reference, .. } if *reference == unknown),
        "{error}"
    );
}

#[tokio::test]
async fn sha256_repositories_are_supported() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository_of_format("app", "sha256").unwrap();
    let first = repository.commit("main", &[("a", "1"), ("sub/b", "1")]).unwrap();
    repository.git(&["tag", "-a", "v1", "-m", "v1"]).unwrap();
    repository.git(&["push", "-q", "origin", "v1"]).unwrap();
    let second = repository.commit("main", &[("a", "2")]).unwrap();
    assert_eq!(first.len(), 64);
    let url: GitUrl = server.url("app").parse().unwrap();
    for (reference, commit, content) in [
        (None, &second, "a=2"),
        (Some("main"), &second, "a=2"),
        (Some("v1"), &first, "a=1"),
        (Some(first.as_str()), &first, "a=1"),
    ] {
        let (head, files) = fetched(&git(), &url, reference, None).await.unwrap();
        assert_eq!(head.commit.as_str(), commit, "{reference:?}");
        assert_eq!(files, [content, "sub/b=1"], "{reference:?}");
    }
    server.behave(Behaviour::OnlyTips);
    let (_, files) = fetched(&git(), &url, Some(&first), Some("sub")).await.unwrap();
    assert_eq!(files, ["sub/b=1"]);
}

#[tokio::test]
async fn a_commit_of_another_object_format_is_not_in_the_repository() {
    let server = GitServer::start().await.unwrap();
    for (format, digits) in [("sha1", 64), ("sha256", 40)] {
        let repository = server.repository_of_format(format, format).unwrap();
        repository.commit("main", &[("a", "1")]).unwrap();
        let url: GitUrl = server.url(format).parse().unwrap();
        let unknown = "1".repeat(digits);
        let error = fetched(&git(), &url, Some(&unknown), None).await.unwrap_err();
        assert!(
            matches!(&error, GitError::UnknownRef { reference, .. } if *reference == unknown),
            "{error}"
        );
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn a_fetch_asks_the_host_also_for_a_commit_that_is_there_and_lists_nothing() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    let first = repository.commit("main", &[("a", "1")]).unwrap();
    server.require("x-access-token", "good");
    let url: GitUrl = server.url("app").parse().unwrap();
    let mirror = TempDir::new().unwrap();
    let mirror = mirror.path().join("mirror");
    let (good, bad) = (token("good"), token("bad"));
    let as_ = |credentials| Remote { credentials, ..at(&url) };

    let head = ResolvedRef::of_commit(first.parse().unwrap());
    for round in 0..2 {
        assert_eq!(git().has(&mirror, &head.commit), round == 1);
        let asked = server.requests().len();
        git().fetch(as_(Some(&good)), &head, &mirror, None).await.unwrap();
        // Without a token at first, with it, and for the commit: the references are not listed.
        assert_eq!(server.requests().len() - asked, 3, "{:?}", server.requests());
        let error = git().fetch(as_(Some(&bad)), &head, &mirror, None).await.unwrap_err();
        assert!(matches!(error, GitError::Unauthorized { .. }), "{error}");
        let error = git().fetch(as_(None), &head, &mirror, None).await.unwrap_err();
        assert!(matches!(error, GitError::CredentialsWanted { .. }), "{error}");
    }

    // Somebody else's repository has the address now.
    server.repository("app").unwrap().commit("main", &[("a", "2")]).unwrap();
    let error = git().fetch(as_(Some(&good)), &head, &mirror, None).await.unwrap_err();
    assert!(matches!(error, GitError::UnknownRef { .. }), "{error}");
}

#[tokio::test]
async fn missing_references_and_folders_are_named() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    let url: GitUrl = server.url("app").parse().unwrap();
    let error = resolve(&url, None).await.unwrap_err();
    assert!(matches!(error, GitError::Empty { .. }), "{error}");

    std::fs::create_dir(repository.work().join("real")).unwrap();
    std::os::unix::fs::symlink("real", repository.work().join("link")).unwrap();
    repository.commit("main", &[("real/a", "1"), ("file", "x")]).unwrap();
    let error = resolve(&url, Some("nope")).await.unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "`nope` is not in {url}: check the name of the branch or tag, or the digits of the commit"
        )
    );
    for folder in ["nope", "link", "file", "link/../real"] {
        let Ok(folder) = folder.parse::<gantry_domain::source::SourcePath>() else { continue };
        let error = fetched(&git(), &url, None, Some(folder.as_str())).await.unwrap_err();
        assert!(matches!(error, GitError::NoFolder { .. }), "{folder}: {error}");
    }
    let missing: GitUrl = server.url("missing").parse().unwrap();
    let error = resolve(&missing, None).await.unwrap_err();
    assert!(matches!(error, GitError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn only_the_right_credentials_are_accepted() {
    let server = GitServer::start().await.unwrap();
    server.repository("app").unwrap().commit("main", &[("a", "1")]).unwrap();
    let url: GitUrl = server.url("app").parse().unwrap();
    server.require("x-access-token", "s3cr'et $x");

    let error = resolve(&url, None).await.unwrap_err();
    assert!(matches!(error, GitError::CredentialsWanted { .. }), "{error}");

    let wrong = token("wrong");
    let error =
        git().resolve(Remote { credentials: Some(&wrong), ..at(&url) }, None).await.unwrap_err();
    assert!(matches!(error, GitError::Unauthorized { .. }), "{error}");
    assert!(!error.is_transient());

    let right = token("s3cr'et $x");
    let remote = Remote { credentials: Some(&right), ..at(&url) };
    let head = git().resolve(remote, None).await.unwrap();
    let mirror = TempDir::new().unwrap();
    git().fetch(remote, &head, &mirror.path().join("r"), None).await.unwrap();

    let broken = token("a\nhost=evil");
    let error =
        git().resolve(Remote { credentials: Some(&broken), ..at(&url) }, None).await.unwrap_err();
    assert!(matches!(error, GitError::UnusableCredentials), "{error}");
}

#[tokio::test]
async fn a_token_is_in_no_argument_environment_or_file() {
    let server = GitServer::start().await.unwrap();
    server.repository("app").unwrap().commit("main", &[("a", "1")]).unwrap();
    server.require("x-access-token", "needle-4711");
    let url: GitUrl = server.url("app").parse().unwrap();
    let credentials = token("needle-4711");
    let folder = TempDir::new().unwrap();
    let repository = folder.path().join("r");
    let head =
        git().resolve(Remote { credentials: Some(&credentials), ..at(&url) }, None).await.unwrap();

    // The host accepts the token on the first request and then stays silent, so all git processes are running and have
    // it.
    server.behave(Behaviour::Silence);
    let remote = Remote { credentials: Some(&credentials), ..at(&url) };
    let git = git();
    let work = git.fetch(remote, &head, &repository, None);
    let look = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let mut seen = 0;
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let read = |name| std::fs::read(entry.path().join(name)).unwrap_or_default();
            let (arguments, environment) = (read("cmdline"), read("environ"));
            let contains =
                |bytes: &[u8], word: &str| bytes.windows(word.len()).any(|w| w == word.as_bytes());
            if contains(&arguments, &url.to_string()) {
                seen += 1;
            }
            assert!(
                !contains(&arguments, "needle-4711") && !contains(&environment, "needle-4711"),
                "{:?}",
                entry.path()
            );
        }
        assert!(seen > 0, "git was not running");
    };
    tokio::select! { _ = work => panic!("the host is silent"), () = look => {} }
    let grep = std::process::Command::new("grep")
        .args(["-r", "needle-4711"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "");
}

#[tokio::test]
async fn dropping_the_future_kills_all_git_processes() {
    let server = GitServer::start().await.unwrap();
    server.repository("app").unwrap().commit("main", &[("a", "1")]).unwrap();
    let url: GitUrl = server.url("app").parse().unwrap();
    server.behave(Behaviour::Silence);
    let running = || {
        let named = |entry: &std::fs::DirEntry| {
            let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&arguments).contains(&url.to_string())
        };
        std::fs::read_dir("/proc").unwrap().flatten().filter(named).count()
    };
    let cancelled = tokio::time::timeout(Duration::from_millis(700), resolve(&url, None));
    assert!(cancelled.await.is_err());
    let mut tries = 0;
    while running() > 0 {
        assert!(tries < 40, "still running");
        tries += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let remote = Remote { deadline: Instant::now() + Duration::from_millis(500), ..at(&url) };
    let error = git().resolve(remote, None).await.unwrap_err();
    assert!(matches!(error, GitError::TimedOut { .. }) && error.is_transient(), "{error}");
}

#[tokio::test]
async fn outages_are_transient_and_redirects_are_not() {
    let server = GitServer::start().await.unwrap();
    server.repository("app").unwrap().commit("main", &[("a", "1")]).unwrap();
    let url: GitUrl = server.url("app").parse().unwrap();

    server.behave(Behaviour::Status(503));
    let error = resolve(&url, None).await.unwrap_err();
    assert!(error.is_transient(), "{error}");

    let other = GitServer::start().await.unwrap();
    server.behave(Behaviour::RedirectTo(format!("http://{}", other.address())));
    let error = resolve(&url, None).await.unwrap_err();
    assert!(matches!(error, GitError::Moved { .. }), "{error}");
    assert!(other.requests().is_empty(), "a redirect was followed past the guard");

    let closed: GitUrl = "http://127.0.0.1:1/x.git".parse().unwrap();
    let error = resolve(&closed, None).await.unwrap_err();
    assert!(matches!(error, GitError::Unreachable { .. }) && error.is_transient(), "{error}");
}

#[tokio::test]
async fn an_unlisted_private_host_is_not_contacted() {
    let server = GitServer::start().await.unwrap();
    let strict = Git::new(Arc::new(OutboundPolicy::default()), LIMITS);
    for url in [server.url("app"), server.url("app").replace("127.0.0.1", "localhost")] {
        let url: GitUrl = url.parse().unwrap();
        let error = strict.resolve(at(&url), None).await.unwrap_err();
        assert!(error.to_string().contains("outbound.allow"), "{error}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn git_connects_to_the_addresses_that_the_guard_resolved() {
    let server = GitServer::start().await.unwrap();
    server.repository("app").unwrap().commit("main", &[("a", "1")]).unwrap();
    let url: GitUrl = server.url("app").replace("127.0.0.1", "localhost").parse().unwrap();
    let git = Git::new(Arc::new(OutboundPolicy::parse(["localhost"]).unwrap()), LIMITS);
    let (_, files) = fetched(&git, &url, None, None).await.unwrap();
    assert_eq!(files, ["a=1"]);
}

#[tokio::test]
async fn hostile_trees_and_large_checkouts_are_refused() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    let url: GitUrl = server.url("app").parse().unwrap();
    std::os::unix::fs::symlink("/etc", repository.work().join("out")).unwrap();
    repository
        .commit(
            "main",
            &[
                (".gitattributes", "a filter=evil\n"),
                ("a", "1"),
                ("-n", "x"),
                (".gitmodules", "[submodule \"s\"]\n path = s\n url = file:///etc\n"),
            ],
        )
        .unwrap();
    let (_, files) = fetched(&git(), &url, None, None).await.unwrap();
    assert!(
        files.contains(&"out -> /etc".to_owned()) && files.contains(&"-n=x".to_owned()),
        "{files:?}"
    );

    let few = GitLimits { checkout_files: 2, ..LIMITS };
    let error = fetched(&git_with(few), &url, None, None).await.unwrap_err();
    assert!(matches!(error, GitError::TooLarge { .. }), "{error}");
    let small = GitLimits { checkout_bytes: 10, ..LIMITS };
    let error = fetched(&git_with(small), &url, None, None).await.unwrap_err();
    assert!(matches!(error, GitError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn attributes_do_not_convert_files() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    let url: GitUrl = server.url("app").parse().unwrap();
    let lines = "$Id$\n".repeat(1000);
    // Nothing is converted at commit either.
    let info = repository.work().join(".git/info");
    std::fs::create_dir_all(&info).unwrap();
    std::fs::write(info.join("attributes"), "* -text -working-tree-encoding\n").unwrap();
    repository.commit("main", &[("id", &lines), ("sub/wide", &lines), ("win", &lines)]).unwrap();
    repository
        .commit(
            "main",
            &[
                (
                    ".gitattributes",
                    "[attr]all text ident eol=crlf\n* ident filter=x\nid all\nwin text eol=crlf\n",
                ),
                ("sub/.gitattributes", "wide text ident working-tree-encoding=UTF-32LE\n"),
            ],
        )
        .unwrap();
    // The checked-out files have exactly the size that was checked against the limit.
    let exact = GitLimits { checkout_bytes: 15_200, ..LIMITS };
    let (_, files) = fetched(&git_with(exact), &url, None, None).await.unwrap();
    for name in ["id", "sub/wide", "win"] {
        assert!(files.contains(&format!("{name}={lines}")), "{name} was converted");
    }
}

#[tokio::test]
async fn a_missing_git_program_is_named() {
    let git = git().with_program("/nonexistent/git".into());
    let url: GitUrl = "http://127.0.0.1:1/x.git".parse().unwrap();
    let error = git.resolve(at(&url), None).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot run /nonexistent/git: is it installed?");
}
