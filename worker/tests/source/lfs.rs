//! Files that Git LFS keeps: pushed by the original client, and from servers that may answer anything.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gantry_domain::source::GitSource;
use gantry_remote::git::GitError;
use gantry_remote::lfs::LfsError;
use gantry_worker::source::{Checkout, SourceError};
use http_body_util::Full;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{TestSources, git_source, soon, sources, token};
use crate::git_server::{Aside, GitServer, TestRepository};

const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";

/// A source with its files of Git LFS.
fn whole(address: &str) -> GitSource {
    GitSource { lfs: true, ..git_source(address) }
}

/// The LFS server of a host: it takes and gives files, and remembers what was asked.
#[derive(Clone, Default)]
struct Lfs(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: HashMap<String, Bytes>,
    asked: Vec<(String, Option<String>)>,
    /// Changes what a request for files is answered with.
    twist: Option<fn(&mut Value)>,
    /// What downloads are answered with instead.
    content: Option<(u16, Bytes)>,
}

impl Lfs {
    fn of(server: &GitServer) -> Self {
        let lfs = Self::default();
        let (served, host) = (lfs.clone(), server.address());
        server.keep_lfs(move |asked| served.answer(asked, &format!("http://{host}")));
        lfs
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn answer(&self, asked: &Aside, host: &str) -> Response<Full<Bytes>> {
        let mut state = self.state();
        state.asked.push((format!("{} {}", asked.method, asked.path), asked.authorization.clone()));
        let (lfs, rest) = asked.path.split_once("/info/lfs/").unwrap();
        let respond = |status: u16, body: Bytes| {
            let response = Response::builder().status(status).header("content-type", MEDIA_TYPE);
            response.body(Full::new(body)).unwrap()
        };
        match (asked.method.as_str(), rest) {
            ("POST", "objects/batch") => {
                let wanted: Value = serde_json::from_slice(&asked.body).unwrap();
                let operation = wanted["operation"].as_str().unwrap();
                let files = wanted["objects"].as_array().unwrap().iter().map(|file| {
                    let oid = file["oid"].as_str().unwrap();
                    if operation == "download" && !state.files.contains_key(oid) {
                        let error = json!({"code": 404, "message": "no such file"});
                        return json!({"oid": oid, "size": file["size"], "error": error});
                    }
                    let href = format!("{host}{lfs}/info/lfs/files/{oid}");
                    let header = json!({"X-Signed": "yes"});
                    let action = json!({operation: {"href": href, "header": header}});
                    json!({"oid": oid, "size": file["size"], "actions": action})
                });
                let files: Vec<Value> = files.collect();
                let mut answer = json!({"transfer": "basic", "objects": files});
                if let Some(twist) = state.twist.filter(|_| operation == "download") {
                    twist(&mut answer);
                }
                respond(200, answer.to_string().into())
            }
            ("PUT", rest) => {
                let oid = rest.rsplit('/').next().unwrap().to_owned();
                state.files.insert(oid, asked.body.clone());
                respond(200, Bytes::new())
            }
            ("GET", rest) => {
                let oid = rest.rsplit('/').next().unwrap();
                match (&state.content, state.files.get(oid)) {
                    (Some((status, content)), _) => respond(*status, content.clone()),
                    (None, Some(file)) => respond(200, file.clone()),
                    (None, None) => respond(404, Bytes::new()),
                }
            }
            _ => respond(404, Bytes::new()),
        }
    }

    /// Keeps a file, and returns its pointer.
    fn keep(&self, content: &[u8]) -> String {
        let oid = hex::encode(Sha256::digest(content));
        self.state().files.insert(oid.clone(), Bytes::copy_from_slice(content));
        pointer(&oid, content.len() as u64)
    }
}

fn pointer(oid: &str, size: u64) -> String {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n")
}

const ATTRIBUTES: (&str, &str) = (".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n");

/// A checkout, with the folder that it is in.
struct Fetched {
    checkout: Checkout,
    _sources: TestSources,
}

impl std::ops::Deref for Fetched {
    type Target = Checkout;

    fn deref(&self) -> &Checkout {
        &self.checkout
    }
}

async fn fetch(source: &GitSource) -> Result<Fetched, SourceError> {
    let sources = sources(1 << 30);
    let checkout = sources.sources.from_git(source, None, soon()).await?;
    Ok(Fetched { checkout, _sources: sources })
}

fn read(checkout: &Checkout, path: &str) -> String {
    std::fs::read_to_string(checkout.root().join(path)).unwrap()
}

fn lfs_error(error: SourceError) -> (String, LfsError) {
    match error {
        SourceError::Lfs { path, source } => (path, *source),
        other => panic!("{other}"),
    }
}

/// A repository with one file that Git LFS keeps.
async fn with_one() -> (GitServer, Lfs, TestRepository) {
    let server = GitServer::start().await.unwrap();
    let lfs = Lfs::of(&server);
    let repository = server.repository("app").unwrap();
    let kept = lfs.keep(b"the content");
    repository.commit("main", &[ATTRIBUTES, ("a.bin", &kept)]).unwrap();
    (server, lfs, repository)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_original_client_pushed_is_fetched_if_it_is_wanted() {
    let server = GitServer::start().await.unwrap();
    let _lfs = Lfs::of(&server);
    let repository = server.repository("app").unwrap();
    repository.git(&["lfs", "install", "--local", "--skip-repo"]).unwrap();
    repository.git(&["lfs", "track", "*.bin"]).unwrap();
    let content = "large\n".repeat(100_000);
    std::fs::create_dir_all(repository.work().join("inner/deep")).unwrap();
    repository.write_program("tool.bin", b"#!/bin/sh\necho a tool\n").unwrap();
    let files =
        [("a.bin", content.as_str()), ("inner/deep/b.bin", &content), ("plain", "as it is")];
    repository.commit("main", &files).unwrap();
    let url = server.url("app");
    let pushing = std::thread::scope(|scope| {
        scope.spawn(|| repository.git(&["lfs", "push", "--all", &url])).join().unwrap()
    });
    pushing.unwrap();
    assert!(
        repository.git(&["show", "HEAD:a.bin"]).unwrap().starts_with("version https://git-lfs")
    );

    let checkout = fetch(&whole(&format!("{url}#main"))).await.unwrap();
    assert_eq!(read(&checkout, "a.bin"), content);
    assert_eq!(read(&checkout, "inner/deep/b.bin"), content);
    assert_eq!(read(&checkout, "plain"), "as it is");
    let tool = std::fs::metadata(checkout.root().join("tool.bin")).unwrap();
    assert_eq!(tool.permissions().mode() & 0o777, 0o755);
    let note = format!("3 files of Git LFS from {url}/info/lfs, 586 KiB");
    assert_eq!(checkout.notes(), [note]);

    let inner = fetch(&whole(&format!("{url}#main:inner"))).await.unwrap();
    assert_eq!(read(&inner, "deep/b.bin"), content, "the attributes are those of the root");

    let without = fetch(&git_source(&format!("{url}#main"))).await.unwrap();
    assert!(read(&without, "a.bin").starts_with("version https://git-lfs"));
    assert!(without.notes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pointers_that_the_attributes_name_are_replaced_and_lfsconfig_is_not_obeyed() {
    let (server, lfs, repository) = with_one().await;
    let kept = lfs.keep(b"another");
    let config =
        format!("[lfs]\n\turl = http://127.0.0.1:1/\n[remote \"origin\"]\n\tlfsurl = {kept}\n");
    let files = [
        ("pointer.txt", kept.as_str()),
        ("no-pointer.bin", "version https://git-lfs.github.com/spec/v1\nnothing\n"),
        (".lfsconfig", &config),
    ];
    std::os::unix::fs::symlink("pointer.txt", repository.work().join("link.bin")).unwrap();
    repository.commit("main", &files).unwrap();
    let url = server.url("app");
    let checkout = fetch(&whole(&format!("{url}#main"))).await.unwrap();
    assert_eq!(read(&checkout, "a.bin"), "the content");
    assert_eq!(read(&checkout, "pointer.txt"), kept);
    assert!(checkout.root().join("link.bin").is_symlink());
    assert!(read(&checkout, "no-pointer.bin").ends_with("nothing\n"));
    assert!(
        checkout.notes()[0].starts_with("`.lfsconfig` is not obeyed"),
        "{:?}",
        checkout.notes()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_have_servers_of_their_own() {
    let (server, lfs, _) = with_one().await;
    let outer = server.repository("outer").unwrap();
    outer.git(&["submodule", "add", "-q", &server.url("app"), "lib"]).unwrap();
    let kept = lfs.keep(b"outer content");
    outer.commit("main", &[ATTRIBUTES, ("o.bin", &kept)]).unwrap();
    let source = GitSource { submodules: true, ..whole(&format!("{}#main", server.url("outer"))) };
    let checkout = fetch(&source).await.unwrap();
    assert_eq!(read(&checkout, "o.bin"), "outer content");
    assert_eq!(read(&checkout, "lib/a.bin"), "the content");
    let asked: Vec<String> = lfs.state().asked.iter().map(|(line, _)| line.clone()).collect();
    for repository in ["outer", "app"] {
        let batch = format!("POST /{repository}.git/info/lfs/objects/batch");
        assert!(asked.contains(&batch), "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_goes_to_the_server_of_the_repository_alone() {
    let (server, lfs, _) = with_one().await;
    let sources = sources(1 << 30);
    let source = whole(&format!("{}#main", server.url("app")));
    server.require("x-access-token", "t0ken");
    let wrong = sources.sources.from_git(&source, Some(&token("wrong")), soon()).await;
    assert!(matches!(wrong.unwrap_err(), SourceError::Git(GitError::Unauthorized { .. })));

    // The files are on another host, which sees what the server gave for them and nothing else.
    let other = GitServer::start().await.unwrap();
    let files = Lfs::of(&other);
    *files.state() = State { files: lfs.state().files.clone(), ..State::default() };
    static OTHER: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    OTHER.set(format!("http://{}/app.git/info/lfs/files/", other.address())).unwrap();
    lfs.state().twist = Some(|answer| {
        let file = &mut answer["objects"][0];
        let href = format!("{}{}", OTHER.get().unwrap(), file["oid"].as_str().unwrap());
        file["actions"]["download"]["href"] = href.into();
    });
    let checkout = sources.sources.from_git(&source, Some(&token("t0ken")), soon()).await.unwrap();
    assert_eq!(read(&checkout, "a.bin"), "the content");
    let asked = files.state().asked.clone();
    assert!(!asked.is_empty() && asked.iter().all(|(_, sent)| sent.is_none()), "{asked:?}");
    let asked = lfs.state().asked.clone();
    assert!(asked.iter().all(|(_, sent)| sent.is_some()), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_no_lfs_or_not_the_file_is_named() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    let oid = "a".repeat(64);
    repository.commit("main", &[ATTRIBUTES, ("d/a.bin", &pointer(&oid, 5))]).unwrap();
    let source = whole(&format!("{}#main", server.url("app")));
    let (path, error) = lfs_error(fetch(&source).await.err().unwrap());
    assert!(path == "d/a.bin" && matches!(error, LfsError::NoServer { .. }), "{path}: {error}");
    let _lfs = Lfs::of(&server);
    let (path, error) = lfs_error(fetch(&source).await.err().unwrap());
    assert!(path == "d/a.bin" && matches!(error, LfsError::Missing { .. }), "{path}: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_larger_than_the_limits_is_refused_before_it_is_asked_for() {
    let (server, lfs, repository) = with_one().await;
    let oid = "b".repeat(64);
    for size in [1 << 40, u64::MAX] {
        repository.commit("main", &[("a.bin", &pointer(&oid, size))]).unwrap();
        let error = fetch(&whole(&format!("{}#main", server.url("app")))).await.err().unwrap();
        assert!(matches!(error, SourceError::Git(GitError::TooLarge { .. })), "{error}");
    }
    assert!(lfs.state().asked.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_of_a_server_puts_anything_else_in_the_place_of_a_pointer() {
    type Twist = fn(&mut Value);
    type Case = (&'static str, Twist, fn(&LfsError) -> bool);
    fn href(answer: &mut Value, href: &str) {
        answer["objects"][0]["actions"]["download"]["href"] = href.into();
    }
    let twists: [Case; 12] = [
        (
            "a metadata service",
            |it| href(it, "http://169.254.169.254/latest"),
            |it| matches!(it, LfsError::Refused(_)),
        ),
        (
            "a file of the machine",
            |it| href(it, "file:///etc/passwd"),
            |it| matches!(it, LfsError::Refused(_)),
        ),
        (
            "a password in the address",
            |it| href(it, "http://a:b@127.0.0.1/"),
            |it| !matches!(it, LfsError::OtherContent { .. }),
        ),
        (
            "nobody",
            |it| href(it, "http://127.0.0.1:1/"),
            |it| matches!(it, LfsError::Unreachable { .. }),
        ),
        ("no address", |it| href(it, "http://[::"), |it| matches!(it, LfsError::Malformed { .. })),
        ("no files", |it| it["objects"] = json!([]), |it| matches!(it, LfsError::Malformed { .. })),
        (
            "no action",
            |it| it["objects"][0]["actions"] = json!({}),
            |it| matches!(it, LfsError::Missing { .. }),
        ),
        (
            "another transfer",
            |it| it["transfer"] = "tus".into(),
            |it| matches!(it, LfsError::Malformed { .. }),
        ),
        (
            "a broken header",
            |it| {
                it["objects"][0]["actions"]["download"]["header"] = json!({"X": "a\r\nHost: b"});
            },
            |it| matches!(it, LfsError::Malformed { .. }),
        ),
        (
            "no list",
            |it| *it = json!({"objects": 5}),
            |it| matches!(it, LfsError::Malformed { .. }),
        ),
        (
            "too much",
            |it| *it = json!({"objects": [], "x": "x".repeat(5 << 20)}),
            |it| matches!(it, LfsError::BrokeOff { .. }),
        ),
        (
            "a refusal with control characters",
            |it| {
                it["objects"][0]["error"] = json!({"code": 422, "message": "no\u{1b}[2J\nway"});
            },
            |it| {
                matches!(it, LfsError::File { code: 422, .. })
                    && !it.to_string().contains(['\u{1b}', '\n'])
            },
        ),
    ];
    let (server, lfs, _) = with_one().await;
    let source = whole(&format!("{}#main", server.url("app")));
    for (what, twist, is_expected) in twists {
        lfs.state().twist = Some(twist);
        let (path, error) = lfs_error(fetch(&source).await.err().unwrap());
        assert!(path == "a.bin" && is_expected(&error), "{what}: {error:?}");
    }
    lfs.state().twist = None;
    for (what, status, content) in [
        ("other content", 200, &b"the kontent"[..]),
        ("less", 200, b"the"),
        ("more", 200, b"the content and more"),
        ("nothing", 200, b""),
        ("not the file", 404, b""),
        ("a refusal", 403, b""),
    ] {
        lfs.state().content = Some((status, Bytes::from_static(content)));
        let (_, error) = lfs_error(fetch(&source).await.err().unwrap());
        let is_expected = match StatusCode::from_u16(status).unwrap() {
            StatusCode::OK => matches!(error, LfsError::OtherContent { .. }),
            StatusCode::NOT_FOUND => matches!(error, LfsError::Missing { .. }),
            _ => matches!(error, LfsError::Unauthorized { .. }),
        };
        assert!(is_expected, "{what}: {error:?}");
    }
}
