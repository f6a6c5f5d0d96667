//! Submodules, of real git over real servers.

use std::net::TcpListener;
use std::path::Path;

use gantry_domain::event::PullRequestRefs;
use gantry_domain::recipe::PullRequestBuild;
use gantry_domain::source::GitSource;
use gantry_remote::git::GitError;
use gantry_worker::source::{Checkout, SourceError};

use super::{git_source, soon, sources, token};
use crate::git_server::{GitServer, TestRepository};

/// A source with its submodules.
fn whole(address: &str) -> GitSource {
    GitSource { submodules: true, ..git_source(address) }
}

/// Adds submodules by hand, whatever git would say, and commits. Each is a path, an address and a commit.
fn commit_with(repository: &TestRepository, submodules: &[(&str, &str, &str)]) -> String {
    let mut text = String::new();
    for (number, (path, url, commit)) in submodules.iter().enumerate() {
        text += &format!("[submodule \"s{number}\"]\n\tpath = {path}\n\turl = {url}\n");
        std::fs::create_dir_all(repository.work().join(path)).unwrap();
        let link = format!("160000,{commit},{path}");
        repository.git(&["update-index", "--add", "--cacheinfo", &link]).unwrap();
    }
    repository.commit("main", &[(".gitmodules", &text)]).unwrap()
}

/// The files below a folder with their content, without git's own.
fn files(root: &Path) -> Vec<String> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if path.file_name().is_some_and(|name| name == ".git") {
                continue;
            }
            if path.is_dir() {
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

/// The error of a submodule, and its path.
fn of_submodule(error: SourceError) -> (String, SourceError) {
    match error {
        SourceError::Submodule { path, source } => (path.to_string(), *source),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_in_submodules_are_those_of_a_recursive_clone_if_they_are_wanted() {
    let server = GitServer::start().await.unwrap();
    let leaf = server.repository("leaf").unwrap();
    let old = leaf.commit("main", &[("leaf", "old")]).unwrap();
    leaf.commit("main", &[("leaf", "new")]).unwrap();
    let lib = server.repository("lib").unwrap();
    lib.commit("main", &[("lib", "1")]).unwrap();
    commit_with(&lib, &[("deep/leaf", "../leaf.git", &old)]);
    let app = server.repository("app").unwrap();
    app.commit("main", &[("a", "1"), ("other/file", "1")]).unwrap();
    // As people add them.
    app.git(&["submodule", "add", "-q", &server.url("lib"), "vendor/lib"]).unwrap();
    app.git(&["submodule", "add", "-q", "-b", "main", &server.url("leaf"), "other/leaf"]).unwrap();
    app.commit("main", &[]).unwrap();

    let clone = tempfile::TempDir::new().unwrap();
    let folder = clone.path().to_str().unwrap();
    app.git(&["clone", "-q", "--recurse-submodules", &server.url("app"), folder]).unwrap();
    let rig = sources(1 << 30);
    let fetch = async |source: GitSource| rig.sources.from_git(&source, None, soon()).await;
    let url = server.url("app");
    let checkout: Checkout = fetch(whole(&url)).await.unwrap();
    assert_eq!(files(checkout.root()), files(clone.path()));
    assert!(files(checkout.root()).contains(&"vendor/lib/deep/leaf/leaf=old".to_owned()));
    let lines = checkout.notes();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let line = format!("submodule vendor/lib/deep/leaf is {} at {old}", server.url("leaf"));
    assert_eq!(lines[2], line);

    let checkout = fetch(git_source(&url)).await.unwrap();
    assert!(!files(checkout.root()).iter().any(|file| file.starts_with("vendor/")));
    assert!(checkout.notes().is_empty());

    // Of a folder, only those in it.
    let checkout = fetch(whole(&format!("{url}#main:other"))).await.unwrap();
    assert_eq!(files(checkout.root()), ["file=1", "leaf/leaf=new"]);
    assert_eq!(checkout.notes().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_sent_to_the_host_of_the_source_alone_and_for_no_fork() {
    let (server, other) = (GitServer::start().await.unwrap(), GitServer::start().await.unwrap());
    let on_server = server.repository("lib").unwrap();
    let here = on_server.commit("main", &[("lib", "here")]).unwrap();
    let there = other.repository("lib").unwrap().commit("main", &[("lib", "there")]).unwrap();
    let (near, far) = (server.repository("near").unwrap(), server.repository("far").unwrap());
    commit_with(&near, &[("lib", "../lib.git", &here)]);
    let head = near.git(&["rev-parse", "HEAD"]).unwrap();
    commit_with(&far, &[("lib", &other.url("lib"), &there)]);
    for host in [&server, &other] {
        host.require("x-access-token", "good");
    }
    let rig = sources(1 << 30);
    let good = token("good");
    let near = whole(&format!("{}#{head}", server.url("near")));
    let checkout = rig.sources.from_git(&near, Some(&good), soon()).await.unwrap();
    assert!(files(checkout.root()).contains(&"lib/lib=here".to_owned()));

    let far = whole(&server.url("far"));
    let error = rig.sources.from_git(&far, Some(&good), soon()).await.unwrap_err();
    assert!(!error.is_transient());
    let (path, error) = of_submodule(error);
    assert_eq!(path, "lib");
    // With the token it would be there, and with a wrong one it would be refused.
    let is_anonymous = matches!(error, SourceError::Git(GitError::CredentialsWanted { .. }));
    assert!(is_anonymous, "{error}");

    let mut of = PullRequestBuild {
        number: 7,
        head: head.parse().unwrap(),
        refs: PullRequestRefs { head: None, merge: None },
        base: "main".parse().unwrap(),
        is_fork: true,
        needs_approval: false,
        may_push: false,
    };
    let fetched = rig.sources.from_pull_request(&near, &of, Some(&good), soon()).await;
    let (_, error) = of_submodule(fetched.unwrap_err());
    let is_anonymous = matches!(error, SourceError::Git(GitError::CredentialsWanted { .. }));
    assert!(is_anonymous, "{error}");
    of.is_fork = false;
    rig.sources.from_pull_request(&near, &of, Some(&good), soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_submodule_leads_past_the_guard_or_out_of_the_source() {
    let server = GitServer::start().await.unwrap();
    let commit = server.repository("lib").unwrap().commit("main", &[("lib", "1")]).unwrap();
    let inside = TcpListener::bind("127.0.0.2:0").unwrap();
    inside.set_nonblocking(true).unwrap();
    let port = inside.local_addr().unwrap().port();
    let rig = sources(1 << 30);
    let no_address = "is no `https://` address";
    for (url, told) in [
        (format!("http://127.0.0.2:{port}/x.git"), "is not a public address"),
        (format!("https://0x7f.2:{port}/x.git"), "is not a public address"),
        ("http://169.254.169.254/x.git".to_owned(), "is not a public address"),
        ("https://[::1]/x.git".to_owned(), "is not a public address"),
        ("file:///etc".to_owned(), no_address),
        ("/etc".to_owned(), no_address),
        ("ext::sh -c touch% /tmp/x".to_owned(), no_address),
        ("ssh://git@127.0.0.1/x.git".to_owned(), no_address),
        ("git@127.0.0.1:x.git".to_owned(), no_address),
        ("--upload-pack=x".to_owned(), no_address),
        ("../../x.git".to_owned(), "leads out of its host"),
        (server.url("lib").replace("lib.git", "lib.git?x=1"), "no `?` and no `#`"),
    ] {
        let app = server.repository("app").unwrap();
        commit_with(&app, &[("lib", &url, &commit)]);
        let source = whole(&server.url("app"));
        let error = rig.sources.from_git(&source, None, soon()).await.unwrap_err();
        let (words, transient) = (format!("{error:?} {error}"), error.is_transient());
        let inner = match error {
            SourceError::Submodule { source, .. } => source.to_string(),
            _ => String::new(),
        };
        assert!(words.contains(told) || inner.contains(told), "{url}: {words} {inner}");
        assert!(!transient, "{url}");
    }
    assert!(inside.accept().is_err(), "a connection was made");

    let app = server.repository("app").unwrap();
    let text = format!(
        "[include]\n\tpath = /etc/passwd\n[core]\n\tsshCommand = touch /x\n[submodule \"s\"]\n\tpath = lib\n\turl = {}\n\tupdate = !touch /x\n",
        server.url("lib")
    );
    commit_with(&app, &[("lib", &server.url("lib"), &commit)]);
    app.commit("main", &[(".gitmodules", &text)]).unwrap();
    let source = whole(&server.url("app"));
    let checkout = rig.sources.from_git(&source, None, soon()).await.unwrap();
    assert!(files(checkout.root()).contains(&"lib/lib=1".to_owned()));

    // A tree with a link and a folder of one name, which an honest git does not write.
    let outside = tempfile::TempDir::new().unwrap();
    std::fs::create_dir(outside.path().join("lib")).unwrap();
    let app = server.repository("app").unwrap();
    commit_with(&app, &[("a/lib", &server.url("lib"), &commit)]);
    std::fs::write(app.work().join("target"), outside.path().to_str().unwrap()).unwrap();
    let link = app.git(&["hash-object", "-w", "target"]).unwrap();
    let modules = app.git(&["rev-parse", "HEAD:.gitmodules"]).unwrap();
    let folder = app.git(&["rev-parse", "HEAD:a"]).unwrap();
    for (first, second) in [
        (format!("120000 blob {link}\ta"), format!("040000 tree {folder}\ta")),
        (format!("040000 tree {folder}\ta"), format!("120000 blob {link}\ta")),
    ] {
        let entries = format!("100644 blob {modules}\t.gitmodules\n{first}\n{second}\n");
        let file = app.work().join("entries");
        std::fs::write(&file, entries).unwrap();
        let tree = std::process::Command::new("git")
            .args(["mktree", "--missing"])
            .current_dir(app.work())
            .stdin(std::fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        let tree = String::from_utf8(tree.stdout).unwrap();
        let forged = app.git(&["commit-tree", "-m", "forged", tree.trim()]).unwrap();
        app.git(&["push", "-q", "origin", &format!("+{forged}:refs/heads/main")]).unwrap();
        let source = whole(&server.url("app"));
        let fetched = rig.sources.from_git(&source, None, soon()).await.map(drop);
        assert_eq!(files(outside.path()), Vec::<String>::new(), "{fetched:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_that_are_not_there_are_named_with_what_to_do() {
    let server = GitServer::start().await.unwrap();
    let commit = server.repository("lib").unwrap().commit("main", &[("lib", "1")]).unwrap();
    server.repository("empty").unwrap();
    let rig = sources(1 << 30);
    let unknown = "1".repeat(40);
    let is_unknown: fn(&GitError) -> bool = |error| matches!(error, GitError::UnknownRef { .. });
    let is_missing: fn(&GitError) -> bool = |error| matches!(error, GitError::NotFound { .. });
    for (url, commit, is_expected) in [
        ("../lib.git", &unknown, is_unknown),
        ("../empty.git", &commit, is_unknown),
        ("../missing.git", &commit, is_missing),
    ] {
        let app = server.repository("app").unwrap();
        commit_with(&app, &[("vendor/lib", url, commit)]);
        let source = whole(&server.url("app"));
        let error = rig.sources.from_git(&source, None, soon()).await.unwrap_err();
        assert_eq!(error.to_string(), "the submodule `vendor/lib` could not be fetched");
        let (_, error) = of_submodule(error);
        assert!(matches!(&error, SourceError::Git(error) if is_expected(error)), "{url}: {error}");
    }
    let app = server.repository("app").unwrap();
    commit_with(&app, &[("vendor/lib", "../lib.git", &commit)]);
    app.commit(
        "main",
        &[(".gitmodules", "[submodule \"x\"]\n\tpath = other\n\turl = ../lib.git\n")],
    )
    .unwrap();
    let source = whole(&server.url("app"));
    let error = rig.sources.from_git(&source, None, soon()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the submodule `vendor/lib` cannot be fetched: .gitmodules names no address for it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_are_limited_in_number_depth_and_size_together() {
    let server = GitServer::start().await.unwrap();
    let rig = sources(1 << 30);
    let files: Vec<_> = (0..400).map(|number| (format!("f{number}"), "x")).collect();
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    let lib = server.repository("lib").unwrap().commit("main", &files).unwrap();
    let small = server.repository("small").unwrap().commit("main", &[("a", "1")]).unwrap();
    let fetch = async |name: &str| {
        let source = whole(&server.url(name));
        rig.sources.from_git(&source, None, soon()).await.map(drop)
    };
    let is_too_large = |error: &SourceError, most: &str| {
        let inner = match error {
            SourceError::Submodule { source, .. } => source.to_string(),
            other => other.to_string(),
        };
        assert!(inner.contains(&format!("is larger than {most}")), "{inner}");
        assert!(!error.is_transient());
    };

    let two = server.repository("two").unwrap();
    commit_with(&two, &[("a", "../lib.git", &lib), ("b", "../lib.git", &lib)]);
    fetch("two").await.unwrap();
    let three = server.repository("three").unwrap();
    let paths = ["a", "b", "c"].map(|path| (path, "../lib.git", lib.as_str()));
    commit_with(&three, &paths);
    is_too_large(&fetch("three").await.unwrap_err(), "1000 files");

    let many = server.repository("many").unwrap();
    let paths: Vec<_> = (0..129).map(|number| format!("s{number}")).collect();
    let paths: Vec<_> =
        paths.iter().map(|path| (path.as_str(), "../small.git", small.as_str())).collect();
    commit_with(&many, &paths);
    is_too_large(&fetch("many").await.unwrap_err(), "128 submodules");

    let (mut inner, mut commit) = ("../small.git".to_owned(), small);
    for depth in 1..=9 {
        let name = format!("depth-{depth}");
        let repository = server.repository(&name).unwrap();
        commit = commit_with(&repository, &[("s", &inner, &commit)]);
        inner = format!("../{name}.git");
        match fetch(&name).await {
            Ok(()) => assert!(depth <= 8),
            Err(error) => {
                assert_eq!(depth, 9, "{error}");
                is_too_large(&error, "8 submodules in each other");
            }
        }
    }
}
