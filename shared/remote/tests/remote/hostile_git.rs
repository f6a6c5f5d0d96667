//! Malicious repositories and hosts: each is refused with the violated rule or has no effect, nothing outside of the
//! checkout is read or written, and no internal address is connected to.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gantry_domain::source::{GitSource, GitUrl, RefName};
use gantry_remote::git::{Git, GitError, GitLimits, Remote};
use gantry_remote::guard::OutboundPolicy;
use http_body_util::Full;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::canary::Canary;
use crate::git_server::{GitServer, TestRepository};
use crate::registry::{scripted, status};

const LIMITS: GitLimits =
    GitLimits { fetched_bytes: 64 << 20, checkout_bytes: 1 << 20, checkout_files: 100 };

fn git() -> Git {
    Git::new(Arc::new(OutboundPolicy::parse(["127.0.0.1"]).unwrap()), LIMITS)
}

/// A checkout next to a file that must not change.
struct Checkout {
    folder: TempDir,
}

const CANARY: &str = "nobody may read this";

impl Checkout {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir_all(folder.path().join("outside/d")).unwrap();
        std::fs::create_dir(folder.path().join("work")).unwrap();
        for name in ["canary", "outside/canary", "outside/d/f"] {
            std::fs::write(folder.path().join(name), CANARY).unwrap();
        }
        Self { folder }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn check_out(&self, url: &str, folder: Option<&str>) -> Result<(), GitError> {
        let url: GitUrl = url.parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let remote = Remote { url: &url, credentials: None, host_keys: &[], deadline };
        let folder = folder.map(|folder| folder.parse().unwrap());
        let head = git().resolve(remote, None).await?;
        let (mirror, work) = (self.at("mirror"), self.at("work"));
        git().fetch(remote, &head, &mirror, None).await?;
        git().checkout(&mirror, &head.commit, folder.as_ref(), &work, deadline).await.map(drop)
    }

    /// Whether everything outside is unchanged, and nothing was added.
    fn is_unharmed(&self) -> bool {
        let names = |at: &Path| {
            let mut names: Vec<_> =
                std::fs::read_dir(at).unwrap().map(|it| it.unwrap().file_name()).collect();
            names.retain(|name| name != "mirror");
            names.sort();
            names
        };
        let canary = |name| std::fs::read_to_string(self.at(name)).unwrap() == CANARY;
        names(self.folder.path()) == ["canary", "outside", "work"]
            && names(&self.at("outside")) == ["canary", "d"]
            && names(&self.at("outside/d")) == ["f"]
            && canary("canary")
            && canary("outside/canary")
            && canary("outside/d/f")
    }
}

/// Writes git objects that an honest git would not create.
struct Forge<'a> {
    repository: &'a TestRepository,
    /// The path of the bare repository on the host.
    host: String,
}

impl<'a> Forge<'a> {
    fn new(repository: &'a TestRepository) -> Self {
        Self { repository, host: repository.git(&["remote", "get-url", "origin"]).unwrap() }
    }

    fn git(&self, arguments: &[&str]) -> String {
        self.repository.git(&[&["--git-dir", &self.host], arguments].concat()).unwrap()
    }

    fn object(&self, kind: &str, content: &[u8]) -> String {
        let file = self.repository.work().join("forged");
        std::fs::write(&file, content).unwrap();
        self.git(&["hash-object", "-t", kind, "-w", "--literally", file.to_str().unwrap()])
    }

    fn file(&self, content: &str) -> String {
        self.object("blob", content.as_bytes())
    }

    /// Writes `(mode, name, object)` entries in this order, unchecked.
    fn tree(&self, entries: &[(&str, &str, &str)]) -> String {
        let mut tree = Vec::new();
        for (mode, name, object) in entries {
            tree.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            tree.extend(
                (0..40).step_by(2).map(|at| u8::from_str_radix(&object[at..at + 2], 16).unwrap()),
            );
        }
        self.object("tree", &tree)
    }

    fn push(&self, tree: &str) {
        let commit = self.git(&["commit-tree", "-m", "forged", tree]);
        self.git(&["update-ref", "refs/heads/main", &commit]);
    }
}

#[test]
fn what_git_would_obey_is_no_address_no_reference_and_no_folder() {
    for address in [
        "--upload-pack=touch x",
        "-u touch x",
        "-x.git",
        "ext::sh -c touch% x",
        "EXT::sh",
        "fd::17",
        "fd::17/x.git",
        "file:///etc",
        "FiLe:///etc/x.git",
        "/etc/x.git",
        "./x.git",
        "~/x.git",
        "x.git",
        "git@-oProxyCommand=touch:x.git",
        "ssh://git@-oProxyCommand=touch/x.git",
        "ssh://-oProxyCommand=touch@host/x.git",
        "ssh://git@host/$(touch x).git",
        "host:path.git",
        "ssh://-oProxyCommand=touch/x.git",
        "ssh://host/x.git",
        "SSH://host/x.git",
        "git://host/x.git",
        "git+ssh://host/x.git",
        "rsync://host/x.git",
        "ftp://host/x.git",
        "http+unix://%2Frun%2Fdocker.sock/x.git",
        "unix:///run/docker.sock",
        "javascript:x.git",
        "data:,x.git",
        "http::https://host/x.git",
        "transport::address",
        "https://good@evil/x.git",
        "https://good:@evil/x.git",
        "https://good%40evil@host/x.git",
        "https://@host/x.git#-",
        "https://",
        "https:///",
        "https:// host/x.git",
        "https://ho st/x.git",
        "https://host/a b.git",
        "https://host/x.git\n--upload-pack=x",
        "https://host/x.git\0",
        "\thttps://host/x.git",
        "https://host:99999/x.git",
        "https://[fe80::1%25eth0]/x.git",
        "https://host/x.git?ref=x",
        "https://host",
        "https://host/",
    ] {
        let read = address.parse::<GitSource>();
        // An empty user counts as none, and the part after `#` was refused.
        assert!(read.is_err(), "{address}: {read:?}");
        let told = read.unwrap_err().to_string();
        assert!(told.contains(" is no git "), "{told}");
    }
    // Where several spellings are possible, every parser finds the same host.
    for (written, read) in [
        ("https:\\\\good\\@evil/x.git", "https://good/@evil/x.git"),
        ("https://good\\.evil/x.git", "https://good/.evil/x.git"),
        ("https:host/x.git", "https://host/x.git"),
        ("HTTPS://HOST/x.git", "https://host/x.git"),
        ("https://host/a/../../x.git", "https://host/x.git"),
        ("https://host/%2e%2e/x.git", "https://host/x.git"),
        ("https://h\u{f6}st/x.git", "https://xn--hst-sna/x.git"),
    ] {
        assert_eq!(written.parse::<GitSource>().unwrap().to_string(), read);
    }
    for reference in [
        "--output=x",
        "--upload-pack=x",
        "-x",
        "-",
        "a..b",
        "a...b",
        "@{u}",
        "main@{1}",
        "@",
        "HEAD^",
        "HEAD~1",
        "refs/heads/a:refs/heads/b",
        ":refs/heads/a",
        "^main",
        "a\0b",
        "a\nb",
        "a b",
        "a\tb",
        "a*",
        "a?",
        "[a]",
        "a\\b",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a/.b",
        "a.",
        "a.lock",
        "a/b.LOCK",
        "\u{7f}",
        "",
        "\u{2028}a",
    ] {
        assert!(reference.parse::<RefName>().is_err(), "{reference:?}");
        let source = format!("https://host/x.git#{reference}").parse::<GitSource>();
        assert!(
            reference.is_empty() || reference.contains(':') || source.is_err(),
            "{reference:?}"
        );
    }
    for folder in [
        "..",
        "../x",
        "a/../b",
        "a/..",
        ".git",
        "a/.GIT/hooks",
        "a//b",
        "a\\..\\b",
        "a\0b",
        "a\nb",
        "\u{1b}[2J",
    ] {
        let source = format!("https://host/x.git#main:{folder}").parse::<GitSource>();
        assert!(source.is_err(), "{folder:?}: {source:?}");
    }
}

#[tokio::test]
async fn no_name_in_a_tree_is_gits_own_folder_or_leads_out() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    let forge = Forge::new(&repository);
    let file = forge.file("evil");
    let checkout = Checkout::new();
    let out = forge.file(checkout.at("outside").to_str().unwrap());
    let inner = forge.tree(&[("100644", "config", &file)]);
    let absolute = checkout.at("outside/x");
    let mut trees: Vec<_> = [
        ".git",
        ".GIT",
        ".Git",
        "git~1",
        "GIT~1",
        ".git::$INDEX_ALLOCATION",
        ".git ",
        ".git.",
        ".g\u{200c}it",
        "\u{202a}.git",
        ".gi\u{feff}t",
        "..",
        ".",
        "../outside",
        "a/../../outside",
    ]
    .iter()
    .map(|name| forge.tree(&[("40000", name, &inner)]))
    .collect();
    for name in [".git", "../x", "a/../../x", absolute.to_str().unwrap(), "a/", "/"] {
        trees.push(forge.tree(&[("100644", name, &file)]));
    }
    for name in [".gitmodules", ".GITMODULES", "gitmod~1", ".g\u{200c}itmodules"] {
        trees.push(forge.tree(&[("120000", name, &out)]));
    }
    for tree in trees {
        forge.push(&tree);
        let error = checkout.check_out(&server.url("app"), None).await.unwrap_err();
        assert!(matches!(error, GitError::UnsafePath { .. }), "{error}");
        let told = error.to_string();
        assert!(
            told.ends_with("is a path that no checkout may write: rename or remove it"),
            "{told}"
        );
        assert!(!told.contains(['\u{202a}', '\u{feff}']), "{told:?}");
        assert!(!error.is_transient() && checkout.is_unharmed(), "{error}");
    }
}

#[tokio::test]
async fn a_folder_and_a_link_of_one_name_are_no_way_out() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    let forge = Forge::new(&repository);
    let checkout = Checkout::new();
    let out = forge.file(checkout.at("outside").to_str().unwrap());
    let inner = forge.tree(&[("100644", "f", &forge.file("mine"))]);
    let both = forge.tree(&[("40000", "d", &inner), ("120000", "d", &out)]);
    let nested = forge.tree(&[("40000", "a", &both), ("100644", "b", &forge.file("x"))]);
    for (tree, folder) in [
        (both.clone(), "d"),
        (forge.tree(&[("120000", "d", &out), ("40000", "d", &inner)]), "d"),
        (nested, "a/d"),
        (forge.tree(&[("40000", "a", &both), ("120000", "a", &out)]), "a/d"),
    ] {
        forge.push(&tree);
        let checkout = Checkout { folder: TempDir::new_in(checkout.folder.path()).unwrap() };
        std::fs::create_dir(checkout.at("work")).unwrap();
        let done = checkout.check_out(&server.url("app"), Some(folder)).await;
        let inside = checkout.at("work").join(folder);
        match done {
            Err(GitError::NoFolder { .. } | GitError::UnsafePath { .. }) => {}
            Err(error) => panic!("{error}"),
            Ok(()) => assert_eq!(std::fs::read_to_string(inside.join("f")).unwrap(), "mine"),
        }
    }
    assert_eq!(std::fs::read_to_string(checkout.at("outside/canary")).unwrap(), CANARY);
    assert_eq!(std::fs::read_dir(checkout.at("outside")).unwrap().count(), 2);
}

#[tokio::test]
async fn nothing_in_a_tree_is_obeyed() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    let inside = Canary::start();
    let checkout = Checkout::new();
    let touch = format!("touch {}", checkout.at("harmed").display());
    let address = format!("http://127.0.0.2:{}", inside.port());
    let config = format!(
        "[core]\n bare = true\n fsmonitor = {touch}\n hooksPath = hooks\n sshCommand = {touch}\n pager = {touch}\n\
         [filter \"evil\"]\n smudge = {touch}\n process = {touch}\n required = true\n\
         [diff \"evil\"]\n textconv = {touch}\n[include]\n path = /etc/passwd\n[lfs]\n url = {address}\n\
         [http]\n proxy = {address}\n[url \"{address}/\"]\n insteadOf = http\n"
    );
    let hook = format!("#!/bin/sh\n{touch}\n");
    let modules = format!(
        "[submodule \"s\"]\n path = s\n url = {address}/s.git\n update = !{touch}\n[submodule \"-u\"]\n path = -u{touch}\n url = -u{touch}\n"
    );
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let mut files = vec![
        ("HEAD", "ref: refs/heads/main\n"),
        ("objects/x", ""),
        ("refs/x", ""),
        ("config", &config),
        ("commondir", "/"),
        (".gitconfig", &config),
        (".lfsconfig", &config),
        (".gitmodules", &modules),
        ("large", pointer),
        ("info/attributes", "* filter=evil\n"),
        (
            ".gitattributes",
            "* filter=evil diff=evil merge=evil export-subst\nlarge filter=lfs -text\nid ident\n",
        ),
        ("version", "$Format:%H %(describe)$\n"),
        (".mailmap", "x"),
        (".gitignore", "*"),
    ];
    let hooks = [
        "post-checkout",
        "post-index-change",
        "reference-transaction",
        "pre-auto-gc",
        "fsmonitor-watchman",
    ];
    let hooks = hooks.map(|name| format!("hooks/{name}"));
    files.extend(hooks.iter().map(|name| (name.as_str(), hook.as_str())));
    for (name, content) in &files {
        let file = repository.work().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, content).unwrap();
        repository.git(&["add", "-f", "--chmod=+x", name]).unwrap();
    }
    let module = format!("160000,{},s", "1".repeat(40));
    repository.git(&["update-index", "--add", "--cacheinfo", &module]).unwrap();
    repository.git(&["commit", "-q", "-m", "x"]).unwrap();
    let honest = repository.git(&["rev-parse", "HEAD"]).unwrap();
    repository.git(&["push", "-q", "origin", "HEAD:refs/heads/main"]).unwrap();
    // A replacement ref, which makes git show another commit in place of the honest one.
    repository.git(&["commit", "-q", "--allow-empty", "-m", "other"]).unwrap();
    repository.git(&["rm", "-q", "--cached", "version"]).unwrap();
    repository.git(&["commit", "-q", "-m", "without"]).unwrap();
    let other = repository.git(&["rev-parse", "HEAD"]).unwrap();
    repository.git(&["push", "-q", "origin", &format!("{other}:refs/replace/{honest}")]).unwrap();

    checkout.check_out(&server.url("app"), None).await.unwrap();
    for (name, content) in &files {
        assert_eq!(
            std::fs::read_to_string(checkout.at("work").join(name)).unwrap(),
            *content,
            "{name}"
        );
    }
    assert_eq!(std::fs::read_dir(checkout.at("work/s")).unwrap().count(), 0);
    assert!(checkout.is_unharmed() && inside.is_untouched());
    assert!(!server.requests().iter().any(|request| request.contains("lfs")));
}

#[tokio::test]
async fn a_repository_made_to_cost_is_refused_by_its_limit() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    let forge = Forge::new(&repository);
    let checkout = Checkout::new();
    let file = forge.file("x");
    let names: Vec<_> = (0..10).map(|n| format!("n{n}")).collect();
    let bomb = (0..12).fold(forge.tree(&[("100644", "f", &file)]), |tree, _| {
        let entries: Vec<_> =
            names.iter().map(|name| ("40000", name.as_str(), tree.as_str())).collect();
        forge.tree(&entries)
    });
    let deep = |levels, name: &str| {
        (0..levels).fold(forge.tree(&[("100644", "f", &file)]), |tree, _| {
            forge.tree(&[("40000", name, &tree)])
        })
    };
    let zeros = forge.object("blob", &vec![0; 33 << 20]);
    let many: Vec<_> = (0..101).map(|n| format!("f{n:03}")).collect();
    let many: Vec<_> = many.iter().map(|name| ("100644", name.as_str(), file.as_str())).collect();
    for (tree, limit) in [
        (bomb, "100 files"),
        (forge.tree(&many), "100 files"),
        (deep(130, "d"), "128 folders in each other"),
        (deep(40, &"d".repeat(200)), "4096 bytes in a path"),
        (forge.tree(&[("100644", &"n".repeat(5000), &file)]), "4096 bytes in a path"),
        (forge.tree(&[("100644", &"n".repeat(256), &file)]), "255 bytes in a name"),
        (forge.tree(&[("100644", "zeros", &zeros)]), "1 MiB"),
    ] {
        forge.push(&tree);
        let error = checkout.check_out(&server.url("app"), None).await.unwrap_err();
        let told = error.to_string();
        assert!(
            told.starts_with("the checkout of ")
                && told.ends_with(&format!("is larger than {limit}: ask the operator to raise the limit, or make it smaller")),
            "{told}"
        );
        assert!(!error.is_transient(), "{told}");
        assert_eq!(std::fs::read_dir(checkout.at("work")).unwrap().count(), 0, "{told}");
    }
}

#[tokio::test]
async fn a_host_cannot_redirect_git() {
    let inside = Canary::start();
    let address = format!("http://127.0.0.2:{}", inside.port());
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    repository.commit("main", &[("a", "1")]).unwrap();
    let blob = repository.git(&["rev-parse", "HEAD:a"]).unwrap();
    let pack = format!("{blob} {} {address}/x.pack", "1".repeat(40));
    let forge = Forge::new(&repository);
    for (key, value) in [
        ("uploadpack.advertiseBundleURIs", "true"),
        ("bundle.version", "1"),
        ("bundle.mode", "any"),
        ("bundle.one.uri", &format!("{address}/x.bundle")),
        ("uploadpack.blobPackfileUri", &pack),
    ] {
        forge.git(&["config", key, value]);
    }
    let checkout = Checkout::new();
    checkout.check_out(&server.url("app"), None).await.unwrap();
    assert_eq!(std::fs::read_to_string(checkout.at("work/a")).unwrap(), "1");
    assert!(inside.is_untouched());

    // A host with the dumb HTTP protocol, which claims that missing objects are in an alternate.
    forge.git(&["update-server-info"]);
    let files = forge.host.clone();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::clone(&asked);
    let old = scripted(move |_, path| {
        let path = path.split('?').next().unwrap().trim_start_matches("/app.git/").to_owned();
        requests.lock().unwrap().push(path.clone());
        let alternates = ["objects/info/http-alternates", "objects/info/alternates"];
        let body = match std::fs::read(Path::new(&files).join(&path)) {
            _ if alternates.contains(&path.as_str()) => {
                format!("{address}/x.git/objects\n/etc\n").into_bytes()
            }
            // The host does not serve its objects.
            _ if path.starts_with("objects/") && path.len() > 40 => {
                return status(404).body(Full::default()).unwrap();
            }
            Ok(content) => content,
            Err(_) => return status(404).body(Full::default()).unwrap(),
        };
        status(200).body(Full::new(Bytes::from(body))).unwrap()
    })
    .await;
    let checkout = Checkout::new();
    let error = checkout.check_out(&format!("http://{old}/app.git"), None).await.unwrap_err();
    assert!(asked.lock().unwrap().iter().any(|path| path.starts_with("objects/")), "{error}");
    assert!(inside.is_untouched() && checkout.is_unharmed(), "{error}");
}

/// A line in git's pkt-line format.
fn line(text: &str) -> String {
    format!("{:04x}{text}", text.len() + 4)
}

#[tokio::test]
async fn messages_of_a_host_are_one_line_without_control_characters() {
    const EVIL: &str = "\u{1b}]0;owned\u{7}\u{1b}[31m\u{1b}]8;;http://evil\u{7}\u{202e}txt\u{9b}2J\u{200b}\r\0over\u{8}\u{2066}";
    let service = line("# service=git-upload-pack\n") + "0000";
    let head = format!("{} HEAD\0symref=HEAD:refs/heads/{EVIL}\n", "1".repeat(40));
    for body in [
        service.clone() + &line(&format!("ERR {EVIL}\n")),
        line(&format!("ERR {EVIL}")),
        service.clone() + &line(&head) + "0000",
        service.clone() + &line("version 9\n") + "0000",
        service.clone() + &line("version 2\n") + &line(&format!("{EVIL}\n")) + "0000",
        service.clone() + &line("version 1\n") + &line(EVIL) + "0000",
        service.clone() + &line("version 2\n") + &line("object-format=sha9\n") + "0000",
        service.clone() + "zzzz",
        service.clone() + "ffff",
        service.clone() + "0001" + "0002" + "0003",
        service + &line("version 2\n") + &line("ls-refs\n") + &line("fetch\n") + "0000",
        "<html>".to_owned(),
        String::new(),
    ] {
        let answer = body.clone();
        let host = scripted(move |_, path| {
            let kind = if path.contains("/info/refs") { "advertisement" } else { "result" };
            let answered =
                status(200).header("content-type", format!("application/x-git-upload-pack-{kind}"));
            let answer = if path.contains("/info/refs") {
                answer.clone()
            } else {
                line(&format!("ERR {EVIL}"))
            };
            answered.body(Full::new(Bytes::from(answer))).unwrap()
        })
        .await;
        let url: GitUrl = format!("http://{host}/app.git").parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let remote = Remote { url: &url, credentials: None, host_keys: &[], deadline };
        let reference = "main".parse().unwrap();
        let error = git().resolve(remote, Some(&reference)).await.unwrap_err();
        assert!(!matches!(error, GitError::TimedOut { .. }), "{body:?}: {error}");
        let told = format!("{error}");
        assert!(
            !told.chars().any(|c| c.is_control() || "\u{202e}\u{200b}\u{2066}".contains(c)),
            "{told:?}"
        );
        assert!(told.contains(&host) && told.len() < 600, "{told:?}");
    }
}
