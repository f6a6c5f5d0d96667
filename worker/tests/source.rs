//! Sources of runs, from real git and from a web server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test says what is wrong by panicking"
)]

#[path = "../../tests/src/git_server.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a module of the tests' own crate as well")]
mod git_server;

#[path = "../../tests/src/ssh_server.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a module of the tests' own crate as well")]
mod ssh_server;

#[path = "source/abbreviated.rs"]
mod abbreviated;
#[path = "source/archives.rs"]
mod archives;
#[path = "source/artifacts.rs"]
mod artifacts;
#[path = "source/contexts.rs"]
mod contexts;
#[path = "source/lfs.rs"]
mod lfs;
#[path = "source/metadata.rs"]
mod metadata;
#[path = "source/mirrors.rs"]
mod mirrors;
#[path = "source/ssh.rs"]
mod ssh;
#[path = "source/submodules.rs"]
mod submodules;
#[path = "source/tls.rs"]
mod tls;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use gantry_domain::source::{GitSource, SourcePath, TarballUrl};
use gantry_ops::secret::{Credentials, SecretString};
use gantry_remote::git::{Git, GitError, GitLimits};
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;
use gantry_worker::source::{Checkout, ContextError, SourceError, Sources, UnpackLimits};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::time::Instant;

use git_server::{Behaviour, GitServer};

struct TestSources {
    folder: TempDir,
    sources: Sources,
}

const LIMITS: UnpackLimits =
    UnpackLimits { archive_bytes: 1 << 20, unpacked_bytes: 1 << 20, entries: 100 };

fn sources(mirror_bytes: u64) -> TestSources {
    sources_with(mirror_bytes, LIMITS)
}

fn sources_with(mirror_bytes: u64, limits: UnpackLimits) -> TestSources {
    let folder = TempDir::new().unwrap();
    let sources = open(folder.path(), mirror_bytes, limits);
    TestSources { folder, sources }
}

fn open(folder: &Path, mirror_bytes: u64, limits: UnpackLimits) -> Sources {
    let http = OutboundClient::new(OutboundPolicy::parse(["127.0.0.1"]).unwrap()).unwrap();
    let most =
        GitLimits { fetched_bytes: 64 << 20, checkout_bytes: 64 << 20, checkout_files: 1000 };
    let git = Git::new(Arc::clone(http.policy()), most);
    Sources::open(folder.to_owned(), git, http, limits, mirror_bytes).unwrap()
}

impl TestSources {
    fn mirrors(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path().join("mirrors")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_none_or(|ending| ending != "lock")).collect()
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn token(password: &str) -> Credentials {
    Credentials { username: String::new(), password: SecretString::from(password) }
}

fn git_source(url: &str) -> GitSource {
    url.parse().unwrap()
}

fn at(path: &str) -> SourcePath {
    path.parse().unwrap()
}

/// Waits for the removal of a folder, which happens on a background thread.
async fn is_gone(folder: &Path) {
    for _ in 0..100 {
        if !folder.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} is still there", folder.display());
}

async fn packed(checkout: &Checkout) -> Vec<String> {
    let mut bytes = Vec::new();
    let ignore = checkout.ignore(&at("Dockerfile")).unwrap();
    checkout.pack(ignore).read_to_end(&mut bytes).await.unwrap();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let paths = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned());
    paths.map(|path| path.display().to_string()).collect()
}

#[tokio::test]
async fn a_folder_of_a_commit_is_packed_by_its_ignore_rules() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    let commit = repository
        .commit(
            "main",
            &[
                ("README", "no"),
                ("web/Dockerfile", "FROM scratch\n"),
                ("web/.dockerignore", "*.log\nDockerfile\n"),
                ("web/a.log", "no"),
                ("web/src/main", "yes"),
            ],
        )
        .unwrap();
    let rig = sources(1 << 30);
    let source = git_source(&format!("{}#main:web", server.url("app")));
    let checkout = rig.sources.from_git(&source, None, soon()).await.unwrap();
    assert_eq!(checkout.commit().unwrap().as_str(), commit);
    assert_eq!(checkout.branch().unwrap().as_str(), "main");
    assert_eq!(checkout.dockerfile(&at("Dockerfile")).unwrap(), "FROM scratch\n");
    assert_eq!(packed(&checkout).await, [".dockerignore", "src", "src/main"]);

    let root = checkout.root().to_owned();
    assert!(root.exists());
    drop(checkout);
    is_gone(&root).await;
}

#[tokio::test]
async fn a_dockerfile_is_only_looked_up_in_the_source() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", repository.work().join("out")).unwrap();
    std::os::unix::fs::symlink("Dockerfile", repository.work().join("in")).unwrap();
    repository.commit("main", &[("Dockerfile", "FROM scratch\n"), ("d/x", "")]).unwrap();
    let rig = sources(1 << 30);
    let source = git_source(&server.url("app"));
    let checkout = rig.sources.from_git(&source, None, soon()).await.unwrap();
    assert_eq!(checkout.dockerfile(&at("in")).unwrap(), "FROM scratch\n");
    let error = checkout.dockerfile(&at("out")).unwrap_err();
    assert!(matches!(error, ContextError::Outside { .. }), "{error}");
    let error = checkout.dockerfile(&at("d")).unwrap_err();
    assert!(matches!(error, ContextError::Folder { .. }), "{error}");
    assert_eq!(
        checkout.dockerfile(&at("build/Dockerfile")).unwrap_err().to_string(),
        "there is no `build/Dockerfile` in the source: check `--file`, and the folder behind `:` of the context"
    );
}

#[tokio::test]
async fn an_unreadable_dockerfile_is_an_error_with_the_reason() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    for (name, target) in [
        ("loop", "loop"),
        ("one", "two"),
        ("two", "sub/../one"),
        ("broken", "sub/absent"),
        ("beyond", "../../etc/passwd"),
        ("absolute", "/nonexistent"),
        ("folder", "sub"),
        ("linked", "sub/to/Dockerfile"),
    ] {
        std::os::unix::fs::symlink(target, repository.work().join(name)).unwrap();
    }
    std::fs::create_dir(repository.work().join("sub")).unwrap();
    std::os::unix::fs::symlink("../prod", repository.work().join("sub/to")).unwrap();
    let large = "#".repeat((1 << 20) + 1);
    let wide = "\u{feff}FROM scratch\n".encode_utf16().flat_map(u16::to_le_bytes);
    std::fs::write(repository.work().join("wide"), wide.collect::<Vec<u8>>()).unwrap();
    repository
        .commit("main", &[("prod/Dockerfile", "FROM linked\n"), ("sub/x", ""), ("large", &large)])
        .unwrap();
    let rig = sources(1 << 30);
    let source = git_source(&server.url("app"));
    let checkout = rig.sources.from_git(&source, None, soon()).await.unwrap();
    assert_eq!(checkout.dockerfile(&at("linked")).unwrap(), "FROM linked\n");
    let missing = ": check `--file`, and the folder behind `:` of the context";
    for (path, said) in [
        ("loop", "`loop` is a link that leads back to itself: make it point to a file".to_owned()),
        ("one", "`one` is a link that leads back to itself: make it point to a file".to_owned()),
        (
            "broken",
            "`broken` is a link to `sub/absent`, which is not in the source: add the file or correct the link"
                .to_owned(),
        ),
        (
            "beyond",
            "`beyond` is a link that leads out of the source: copy the file into the source".to_owned(),
        ),
        (
            // Whether the target exists is not checked.
            "absolute",
            "`absolute` is a link that leads out of the source: copy the file into the source".to_owned(),
        ),
        ("folder", "`folder` is a folder: name a file in it".to_owned()),
        ("sub", "`sub` is a folder: name a file in it".to_owned()),
        ("large", "`large` is larger than 1 MiB: is it the right file?".to_owned()),
        ("wide", "`wide` is encoded in UTF-16: save it as UTF-8".to_owned()),
        ("sub/x/y", format!("there is no `sub/x/y` in the source{missing}")),
        ("Dockerfile", format!("there is no `Dockerfile` in the source{missing}")),
    ] {
        assert_eq!(checkout.dockerfile(&at(path)).unwrap_err().to_string(), said);
    }
}

#[tokio::test]
async fn a_lower_case_dockerfile_without_utf_8_is_read() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    std::fs::write(repository.work().join("dockerfile"), b"# J\xfcrgen\nFROM lower\n").unwrap();
    std::fs::write(repository.work().join(".dockerignore"), b"# J\xfcrgen\n*.log\n").unwrap();
    repository
        .commit(
            "main",
            &[("both/Dockerfile", "FROM upper\n"), ("both/dockerfile", ""), ("a.log", "")],
        )
        .unwrap();
    let rig = sources(1 << 30);
    let source = git_source(&server.url("app"));
    let checkout = rig.sources.from_git(&source, None, soon()).await.unwrap();
    let text = checkout.dockerfile(&at("Dockerfile")).unwrap();
    assert!(text.ends_with("FROM lower\n"), "{text}");
    assert_eq!(gantry_taskfile::encoding::encode(&text), b"# J\xfcrgen\nFROM lower\n");
    assert_eq!(checkout.dockerfile(&at("both/Dockerfile")).unwrap(), "FROM upper\n");
    assert!(!packed(&checkout).await.contains(&"a.log".to_owned()));
}

#[tokio::test]
async fn a_mirror_saves_fetches_but_not_authentication() {
    let server = GitServer::start().await.unwrap();
    server.repository("app").unwrap().commit("main", &[("a", "1")]).unwrap();
    server.require("x-access-token", "good");
    let rig = sources(1 << 30);
    let source = git_source(&server.url("app"));
    rig.sources.from_git(&source, Some(&token("good")), soon()).await.unwrap();
    let before = server.requests().len();
    rig.sources.from_git(&source, Some(&token("good")), soon()).await.unwrap();
    let asked = server.requests().split_off(before);
    assert!(asked.len() <= 3, "{asked:?}");

    let error = rig.sources.from_git(&source, Some(&token("bad")), soon()).await.unwrap_err();
    assert!(matches!(error, SourceError::Git(GitError::Unauthorized { .. })), "{error}");
    let error = rig.sources.from_git(&source, None, soon()).await.unwrap_err();
    assert!(matches!(error, SourceError::Git(GitError::CredentialsWanted { .. })), "{error}");
}

#[tokio::test]
async fn a_broken_mirror_is_fetched_again() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    repository.commit("main", &[("a", "1")]).unwrap();
    let rig = sources(1 << 30);
    let source = git_source(&server.url("app"));
    rig.sources.from_git(&source, None, soon()).await.unwrap();

    let mirror = rig.mirrors().pop().unwrap();
    std::fs::write(mirror.join("shallow.lock"), "").unwrap();
    let commit = repository.commit("main", &[("a", "2")]).unwrap();
    let checkout = rig.sources.from_git(&source, None, soon()).await.unwrap();
    assert_eq!(checkout.commit().unwrap().as_str(), commit);
    assert!(!mirror.join("shallow.lock").exists());
}

/// The number of processes with `url` in their arguments.
fn processes_for(url: &str) -> usize {
    let named = |entry: &std::fs::DirEntry| {
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(url)
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter(named).count()
}

#[tokio::test]
async fn git_processes_of_a_killed_owner_are_killed() {
    let server = GitServer::start().await.unwrap();
    for name in ["app", "other"] {
        server.repository(name).unwrap().commit("main", &[("a", "1")]).unwrap();
    }
    let (killed, another) = (sources(1 << 30), sources(1 << 30));
    server.behave(Behaviour::Silence);
    for (rig, name) in [(&killed, "app"), (&another, "other")] {
        let (sources, url) = (rig.sources.clone(), server.url(name));
        let fetch =
            async move { sources.from_git(&git_source(&url), None, soon()).await.map(drop) };
        let mut fetch = Box::pin(fetch);
        while processes_for(&server.url(name)) < 2 {
            let moment = tokio::time::timeout(Duration::from_millis(20), &mut fetch).await;
            assert!(moment.is_err(), "the host is silent: {moment:?}");
        }
        // As in a killed process, child processes are not ended.
        std::mem::forget(fetch);
    }

    server.behave(Behaviour::Serve);
    let next = open(killed.folder.path(), 1 << 30, LIMITS);
    assert_eq!(processes_for(&server.url("app")), 0);
    assert!(processes_for(&server.url("other")) > 0, "another folder's processes are not ours");
    next.from_git(&git_source(&server.url("app")), None, soon()).await.unwrap();

    open(another.folder.path(), 1 << 30, LIMITS);
    assert_eq!(processes_for(&server.url("other")), 0);
}

#[tokio::test]
async fn a_repository_with_a_new_object_format_is_fetched() {
    let server = GitServer::start().await.unwrap();
    let rig = sources(1 << 30);
    let source = git_source(&server.url("app"));
    for (round, format) in ["sha1", "sha256", "sha1"].into_iter().enumerate() {
        let repository = server.repository_of_format("app", format).unwrap();
        let commit = repository.commit("main", &[("a", &format!("round {round}"))]).unwrap();
        let checkout = rig.sources.from_git(&source, None, soon()).await.unwrap();
        assert_eq!(checkout.commit().unwrap().as_str(), commit);
        let content = std::fs::read_to_string(checkout.root().join("a")).unwrap();
        assert_eq!(content, format!("round {round}"));
    }
}

#[tokio::test]
async fn mirrors_are_bounded_and_many_runs_share_one() {
    let server = GitServer::start().await.unwrap();
    for name in ["a", "b"] {
        server.repository(name).unwrap().commit("main", &[("f", name)]).unwrap();
    }
    let none = sources(0);
    for name in ["a", "b"] {
        none.sources.from_git(&git_source(&server.url(name)), None, soon()).await.unwrap();
        assert!(none.mirrors().is_empty());
    }

    let rig = sources(1 << 30);
    let source = git_source(&server.url("a"));
    let runs = (0..8).map(|_| rig.sources.from_git(&source, None, soon()));
    for run in futures_util::future::join_all(runs).await {
        assert_eq!(std::fs::read_to_string(run.unwrap().root().join("f")).unwrap(), "a");
    }
    assert_eq!(rig.mirrors().len(), 1);
}

/// A web server whose response depends on the number of earlier requests.
async fn web(answer: impl Fn(usize) -> (u16, Vec<u8>) + Send + Sync + 'static) -> TarballUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/a.tar.gz?signature=s3cret", listener.local_addr().unwrap());
    let (answer, asked) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
            tokio::spawn(async move {
                let service = service_fn(|_: Request<hyper::body::Incoming>| {
                    let (status, body) = answer(asked.fetch_add(1, Ordering::SeqCst));
                    let body = Full::new(Bytes::from(body));
                    async move { Response::builder().status(status).body(body) }
                });
                let _gone = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    url.parse().unwrap()
}

fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o644);
    builder.append_data(&mut header, Path::new("d/f"), b"hi".as_slice()).unwrap();
    let mut gzip = builder.into_inner().unwrap();
    gzip.flush().unwrap();
    gzip.finish().unwrap()
}

#[tokio::test]
async fn an_archive_download_is_retried() {
    let rig = sources(0);
    let url = web(|asked| if asked == 0 { (503, Vec::new()) } else { (200, archive()) }).await;
    let checkout = rig.sources.from_tarball(&url, soon()).await.unwrap();
    assert_eq!(std::fs::read_to_string(checkout.root().join("d/f")).unwrap(), "hi");
    assert_eq!(checkout.commit(), None);

    let url = web(|_| (404, Vec::new())).await;
    let error = rig.sources.from_tarball(&url, soon()).await.unwrap_err();
    assert!(matches!(error, SourceError::Status { .. }) && !error.is_transient(), "{error}");
    assert!(!error.to_string().contains("s3cret"), "{error}");

    let url = web(|_| (200, b"<html>".to_vec())).await;
    let error = rig.sources.from_tarball(&url, soon()).await.unwrap_err();
    assert!(matches!(error, SourceError::Unpack(_)), "{error}");
}

#[tokio::test]
async fn an_archive_in_a_private_network_is_not_fetched() {
    let rig = sources(0);
    let inside = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
    inside.set_nonblocking(true).unwrap();
    let port = inside.local_addr().unwrap().port();
    let stranger = GitServer::start().await.unwrap();
    stranger.behave(Behaviour::RedirectTo(format!("http://127.0.0.2:{port}")));
    for (url, rule) in [
        ("http://169.254.169.254/latest.tar.gz".to_owned(), "is not a public address"),
        (format!("http://127.0.0.2:{port}/a.tar.gz"), "is not a public address"),
        (format!("https://0x7f.2:{port}/a.tar.gz"), "is not a public address"),
        (format!("http://[::ffff:127.0.0.2]:{port}/a.tar.gz"), "is not a public address"),
        (format!("http://{}/a.tar.gz", stranger.address()), "is not a public address"),
        ("http://example.com/a.tar.gz".to_owned(), "is not encrypted"),
    ] {
        let parsed: TarballUrl = url.parse().unwrap();
        let error = rig.sources.from_tarball(&parsed, soon()).await.unwrap_err();
        assert!(
            matches!(error, SourceError::Outbound(_)) && !error.is_transient(),
            "{url}: {error}"
        );
        let told = error.to_string();
        assert!(told.contains(rule) && told.ends_with("to `outbound.allow`"), "{url}: {told}");
    }
    assert!(inside.accept().is_err(), "somebody came");
}

fn digest_of(archive: &[u8]) -> gantry_domain::image::Digest {
    format!("sha256:{}", hex::encode(Sha256::digest(archive))).parse().unwrap()
}

#[tokio::test]
async fn an_upload_is_built_only_as_it_was_uploaded() {
    let rig = sources(0);
    let uploaded = archive();
    let digest = digest_of(&uploaded);
    let fetch = async |archive: Vec<u8>| {
        rig.sources.from_upload(std::io::Cursor::new(archive), &digest, soon()).await
    };
    let checkout = fetch(uploaded.clone()).await.unwrap();
    assert_eq!(std::fs::read_to_string(checkout.root().join("d/f")).unwrap(), "hi");

    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    builder.append_data(&mut header, Path::new("d/f"), b"evil".as_slice()).unwrap();
    let exchanged = builder.into_inner().unwrap();
    // Bytes after the end of the archive are not unpacked, but are part of the upload.
    let mut longer = uploaded.clone();
    longer.extend_from_slice(&[0; 1024]);
    for archive in [exchanged.clone(), longer] {
        let error = fetch(archive).await.unwrap_err();
        assert!(matches!(error, SourceError::Exchanged { .. }), "{error}");
        assert!(!error.is_transient());
    }
    let told = fetch(exchanged.clone()).await.unwrap_err().to_string();
    let hash = hex::encode(Sha256::digest(&exchanged));
    assert_eq!(
        told,
        format!(
            "the archive in the object store has the SHA-256 {hash}, and {digest} was uploaded: something else than gantry \
             wrote there, so it is not built: find out who may write to the object store (docs/redis-acl.md), then upload it \
             again"
        )
    );
}
