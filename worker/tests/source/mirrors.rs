//! Mirrors: what a run asks the host, and what happens when runs, processes and damage meet in one of them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use gantry_domain::event::PullRequestRefs;
use gantry_domain::recipe::PullRequestBuild;
use gantry_remote::git::GitError;
use gantry_worker::source::{Chosen, SourceError};
use tokio::time::Instant;

use super::{LIMITS, TestSources, git_source, open, processes_for, soon, sources, token};
use crate::git_server::{Behaviour, GitServer, TestRepository};

/// A host with one repository, and a worker that has fetched its first commit.
struct Warm {
    server: GitServer,
    repository: TestRepository,
    rig: TestSources,
    first: String,
}

impl Warm {
    async fn start() -> Self {
        let server = GitServer::start().await.unwrap();
        let repository = server.repository("app").unwrap();
        let first = repository.commit("main", &[("a", "1"), ("d/b", "1")]).unwrap();
        let warm = Self { server, repository, rig: sources(1 << 30), first };
        warm.build(&warm.first).await.unwrap();
        warm
    }

    fn url(&self) -> String {
        self.server.url("app")
    }

    /// The content of `a` at a reference.
    async fn build(&self, reference: &str) -> Result<String, SourceError> {
        let source = git_source(&format!("{}#{reference}", self.url()));
        let checkout = self.rig.sources.from_git(&source, None, soon()).await?;
        Ok(std::fs::read_to_string(checkout.root().join("a")).unwrap())
    }

    fn mirror(&self) -> PathBuf {
        let mut mirrors = self.rig.mirrors();
        assert_eq!(mirrors.len(), 1);
        mirrors.pop().unwrap()
    }

    /// What the host is asked meanwhile.
    async fn asked(&self, work: impl Future<Output = ()>) -> Vec<String> {
        let before = self.server.commands().len();
        work.await;
        self.server.commands().split_off(before)
    }
}

#[tokio::test]
async fn a_run_of_a_commit_is_one_fetch_and_lists_nothing() {
    let warm = Warm::start().await;
    let second = warm.repository.commit("main", &[("a", "2")]).unwrap();
    let requests = warm.server.requests().len();
    let asked = warm.asked(async { assert_eq!(warm.build(&second).await.unwrap(), "2") }).await;
    assert_eq!(asked, ["fetch"]);
    assert_eq!(warm.server.requests().len() - requests, 2);

    // What is there already is still only given to those whom the host accepts.
    let asked = warm.asked(async { assert_eq!(warm.build(&second).await.unwrap(), "2") }).await;
    assert_eq!(asked, ["ls-refs"]);
    let asked = warm.asked(async { assert_eq!(warm.build("main").await.unwrap(), "2") }).await;
    assert_eq!(asked, ["ls-refs"]);
}

#[tokio::test]
async fn runs_of_one_commit_at_once_fetch_it_once_and_each_proves_its_own_token() {
    let warm = Warm::start().await;
    let second = warm.repository.commit("main", &[("a", "2")]).unwrap();
    warm.server.require("x-access-token", "good");
    let source = git_source(&format!("{}#{second}", warm.url()));
    let (good, bad) = (token("good"), token("bad"));
    let before = warm.server.commands().len();
    let runs = (0..9).map(|number| {
        let credentials = if number % 3 == 2 { &bad } else { &good };
        warm.rig.sources.from_git(&source, Some(credentials), soon())
    });
    for (number, run) in join_all(runs).await.into_iter().enumerate() {
        match run {
            Ok(checkout) => {
                assert_ne!(number % 3, 2);
                assert_eq!(std::fs::read_to_string(checkout.root().join("a")).unwrap(), "2");
            }
            Err(error) => {
                assert_eq!(number % 3, 2, "{error}");
                let is_refused = matches!(error, SourceError::Git(GitError::Unauthorized { .. }));
                assert!(is_refused, "{error}");
            }
        }
    }
    let mut asked = warm.server.commands().split_off(before);
    asked.sort();
    assert_eq!(asked, ["fetch", "ls-refs", "ls-refs", "ls-refs", "ls-refs", "ls-refs"]);
}

#[tokio::test]
async fn a_fetch_of_another_commit_does_not_wait_for_one_that_is_being_checked_out() {
    let warm = Warm::start().await;
    let commits: Vec<_> = (2..8)
        .map(|number| warm.repository.commit("main", &[("a", &number.to_string())]).unwrap())
        .collect();
    let runs = commits.iter().map(|commit| warm.build(commit));
    let contents: Vec<_> = join_all(runs).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(contents, ["2", "3", "4", "5", "6", "7"]);
}

#[tokio::test]
async fn a_fork_has_a_mirror_of_its_own() {
    let warm = Warm::start().await;
    let head = warm.repository.commit("fork", &[("a", "a stranger's")]).unwrap();
    warm.repository.git(&["push", "-q", "origin", "HEAD:refs/pull/7/head"]).unwrap();
    let source = git_source(&format!("{}#{head}", warm.url()));
    let mut of = PullRequestBuild {
        number: 7,
        head: head.parse().unwrap(),
        refs: PullRequestRefs { head: Some("pull/7/head".parse().unwrap()), merge: None },
        base: "main".parse().unwrap(),
        is_fork: true,
        needs_approval: false,
        may_push: false,
    };
    let asked = warm.asked(async {
        let fetched = warm.rig.sources.from_pull_request(&source, &of, None, soon()).await;
        assert_eq!(fetched.unwrap().1, Chosen::Head);
    });
    assert_eq!(asked.await, ["fetch"]);
    assert_eq!(warm.rig.mirrors().len(), 2);
    of.is_fork = false;
    let asked = warm.asked(async {
        warm.rig.sources.from_pull_request(&source, &of, None, soon()).await.unwrap();
    });
    assert_eq!(asked.await, ["fetch"], "the fork's mirror must not be used");
}

#[tokio::test]
async fn another_processes_fetch_is_waited_for() {
    let warm = Warm::start().await;
    let lock = File::open(warm.mirror().with_extension("lock")).unwrap();
    lock.try_lock().unwrap();
    let second = warm.repository.commit("main", &[("a", "2")]).unwrap();
    // What is there can be read meanwhile.
    assert_eq!(warm.build(&warm.first).await.unwrap(), "1");

    let source = git_source(&format!("{}#{second}", warm.url()));
    let moment = Instant::now() + Duration::from_millis(300);
    let error = warm.rig.sources.from_git(&source, None, moment).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let wait = tokio::time::timeout(Duration::from_millis(100), warm.build(&second));
    assert!(wait.await.is_err());
    lock.unlock().unwrap();
    assert_eq!(warm.build(&second).await.unwrap(), "2");
}

#[tokio::test]
async fn git_of_a_killed_worker_holds_the_lock_until_it_ends() {
    let warm = Warm::start().await;
    let second = warm.repository.commit("main", &[("a", "2")]).unwrap();
    warm.server.behave(Behaviour::Silence);
    let (sources, source) =
        (warm.rig.sources.clone(), git_source(&format!("{}#{second}", warm.url())));
    let mut fetch =
        Box::pin(async move { sources.from_git(&source, None, soon()).await.map(drop) });
    while processes_for(&warm.url()) < 2 {
        let moment = tokio::time::timeout(Duration::from_millis(20), &mut fetch).await;
        assert!(moment.is_err(), "the host is silent: {moment:?}");
    }
    let lock = warm.mirror().with_extension("lock");
    assert!(File::open(&lock).unwrap().try_lock().is_err());
    let has_it = |process: &Path| {
        let files = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        files.into_iter().any(|file| file.path().read_link().is_ok_and(|target| target == lock))
    };
    let programs = std::fs::read_dir("/proc").unwrap().flatten().filter(|process| {
        let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(&warm.url()) && has_it(&process.path())
    });
    assert!(programs.count() >= 2, "git and its helper have the lock");
    // As in a killed process, child processes are not ended.
    std::mem::forget(fetch);
    warm.server.behave(Behaviour::Serve);
    let next = open(warm.rig.folder.path(), 1 << 30, LIMITS);
    assert_eq!(processes_for(&warm.url()), 0);
    drop(next);
}

/// What may happen to a mirror, by a name.
type Damage = (&'static str, fn(&Path));

fn damages() -> Vec<Damage> {
    fn each_pack(mirror: &Path, damage: impl Fn(&Path)) {
        let packs = std::fs::read_dir(mirror.join("objects/pack")).unwrap();
        let paths = packs.map(|entry| entry.unwrap().path());
        for pack in paths.filter(|path| path.extension().is_some_and(|it| it == "pack")) {
            let mut permissions = pack.metadata().unwrap().permissions();
            std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
            std::fs::set_permissions(&pack, permissions).unwrap();
            damage(&pack);
        }
    }
    vec![
        ("deleted", |mirror| std::fs::remove_dir_all(mirror).unwrap()),
        ("without objects", |mirror| std::fs::remove_dir_all(mirror.join("objects")).unwrap()),
        ("without packs", |mirror| each_pack(mirror, |pack| std::fs::remove_file(pack).unwrap())),
        ("with cut packs", |mirror| {
            each_pack(mirror, |pack| {
                File::options().write(true).open(pack).unwrap().set_len(40).unwrap()
            });
        }),
        ("with other bytes in its packs", |mirror| {
            each_pack(mirror, |pack| {
                let length = usize::try_from(pack.metadata().unwrap().len()).unwrap();
                std::fs::write(pack, vec![b'x'; length]).unwrap();
            });
        }),
        ("with empty packs", |mirror| each_pack(mirror, |pack| std::fs::write(pack, "").unwrap())),
        ("without its head", |mirror| std::fs::remove_file(mirror.join("HEAD")).unwrap()),
        ("with an empty configuration", |mirror| {
            std::fs::write(mirror.join("config"), "").unwrap()
        }),
        ("with a broken configuration", |mirror| {
            std::fs::write(mirror.join("config"), "[").unwrap()
        }),
        ("without references", |mirror| std::fs::remove_dir_all(mirror.join("refs")).unwrap()),
        ("with broken references", |mirror| {
            for entry in std::fs::read_dir(mirror.join("refs/kept")).unwrap() {
                std::fs::write(entry.unwrap().path(), "broken").unwrap();
            }
        }),
        ("with a lock", |mirror| std::fs::write(mirror.join("shallow.lock"), "").unwrap()),
        ("with a broken list of borders", |mirror| {
            std::fs::write(mirror.join("shallow"), "x").unwrap()
        }),
    ]
}

#[tokio::test]
async fn a_damaged_mirror_is_fetched_again_by_the_run_that_finds_it() {
    let warm = Warm::start().await;
    let mut number = 1;
    for (what, damage) in damages() {
        damage(&warm.mirror());
        let content =
            warm.build(&warm.first).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(content, "1", "{what}");

        damage(&warm.mirror());
        number += 1;
        let commit = warm.repository.commit("main", &[("a", &number.to_string())]).unwrap();
        for reference in [commit.as_str(), "main"] {
            let content = warm.build(reference).await;
            let content = content.unwrap_or_else(|error| panic!("new, {what}: {error}"));
            assert_eq!(content, number.to_string(), "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_is_deleted_and_damaged_under_runs_costs_them_a_retry_at_most() {
    let warm = Warm::start().await;
    let mirror = warm.mirror();
    let done = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&done);
    let vandal = std::thread::spawn(move || {
        for number in (0..).take_while(|_| !until.load(Ordering::Relaxed)) {
            if number % 2 == 0 {
                let _gone = std::fs::remove_dir_all(&mirror);
            } else {
                let packs = std::fs::read_dir(mirror.join("objects/pack")).into_iter().flatten();
                for pack in packs.flatten() {
                    let _gone = std::fs::remove_file(pack.path());
                }
            }
            std::thread::sleep(Duration::from_millis(15));
        }
    });
    let mut built = 0;
    for _ in 0..8 {
        for run in join_all((0..3).map(|_| warm.build(&warm.first))).await {
            match run {
                Ok(content) => {
                    assert_eq!(content, "1");
                    built += 1;
                }
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
        }
    }
    done.store(true, Ordering::Relaxed);
    vandal.join().unwrap();
    println!("{built} of 24 were built");
    assert_eq!(warm.build(&warm.first).await.unwrap(), "1");
}

#[tokio::test]
async fn a_host_that_shows_nothing_leaves_no_mirror() {
    let server = GitServer::start().await.unwrap();
    server.repository("app").unwrap().commit("main", &[("a", "1")]).unwrap();
    let rig = sources(1 << 30);
    for (url, credentials) in [
        (server.url("missing"), None),
        (format!("{}#{}", server.url("missing"), "1".repeat(40)), None),
        // Its history is in the other object format.
        (format!("{}#{}", server.url("app"), "1".repeat(64)), None),
        ("http://127.0.0.1:1/x.git#1111111111111111111111111111111111111111".to_owned(), None),
        (format!("{}#{}", server.url("app"), "1".repeat(40)), Some(token("bad"))),
    ] {
        if credentials.is_some() {
            server.require("x-access-token", "good");
        }
        let source = git_source(&url);
        let error = rig.sources.from_git(&source, credentials.as_ref(), soon()).await.unwrap_err();
        assert!(rig.mirrors().is_empty(), "{url}: {error}");
        let left: Vec<_> = std::fs::read_dir(rig.folder.path().join("mirrors")).unwrap().collect();
        assert!(left.is_empty(), "{url}: {left:?}");
    }
}

#[tokio::test]
async fn a_commit_that_the_host_shows_later_is_not_there_until_then() {
    let warm = Warm::start().await;
    let second = warm.repository.commit("main", &[("a", "2")]).unwrap();
    let third = warm.repository.commit("main", &[("a", "3")]).unwrap();
    std::fs::write(warm.repository.bare().join("refs/heads/main"), format!("{second}\n")).unwrap();
    warm.repository.hide(&third).unwrap();
    let error = warm.build(&third).await.unwrap_err();
    let is_named = matches!(
        &error,
        SourceError::Git(GitError::UnknownRef { reference, .. }) if *reference == third
    );
    assert!(is_named, "{error}");
    warm.repository.show(&third).unwrap();
    assert_eq!(warm.build(&third).await.unwrap(), "3");
}
