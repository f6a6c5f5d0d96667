//! Faulty git hosts: each error names the fault and the limit, time, memory and disk are bounded, and no process is
//! left.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_domain::source::GitUrl;
use gantry_remote::git::{Git, GitError, GitLimits, Remote, ResolvedRef};
use gantry_remote::guard::OutboundPolicy;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::broken_host::{BrokenHost, Fault};

const LIMITS: GitLimits =
    GitLimits { fetched_bytes: 64 << 20, checkout_bytes: 1 << 20, checkout_files: 100 };

fn git() -> Git {
    Git::new(Arc::new(OutboundPolicy::parse(["127.0.0.1"]).unwrap()), LIMITS)
}

async fn until_no_program_is_left(host: &BrokenHost) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while host.programs() > 0 {
        assert!(Instant::now() < deadline, "git is still running");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The error of resolving the default branch.
async fn looked(fault: Fault, patience: Duration) -> GitError {
    let host = BrokenHost::start(fault).await.unwrap();
    let url: GitUrl = host.url("app").parse().unwrap();
    let remote = Remote {
        url: &url,
        credentials: None,
        host_keys: &[],
        deadline: Instant::now() + patience,
    };
    let error = git().resolve(remote, None).await.unwrap_err();
    until_no_program_is_left(&host).await;
    error
}

/// The error of a fetch, and the bytes that it left on disk.
async fn fetched(fault: Fault, patience: Duration) -> (GitError, u64) {
    let host = BrokenHost::start(fault).await.unwrap();
    let url: GitUrl = host.url("app").parse().unwrap();
    let remote = Remote {
        url: &url,
        credentials: None,
        host_keys: &[],
        deadline: Instant::now() + patience,
    };
    let folder = TempDir::new().unwrap();
    let repository = folder.path().join("repository");
    let head = match fault {
        Fault::EndlessPack | Fault::ResetInPack => git().resolve(remote, None).await.unwrap(),
        Fault::Silent | Fault::Trickle | Fault::Status(_) | Fault::EndlessRefs => {
            ResolvedRef { commit: "1".repeat(40).parse().unwrap(), name: None, branch: None }
        }
    };
    let error = git().fetch(remote, &head, &repository, None).await.unwrap_err();
    until_no_program_is_left(&host).await;
    (error, bytes_in(&repository.join("objects/pack")))
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| entry.metadata().unwrap().len()).sum()
}

#[tokio::test]
async fn a_host_that_says_nothing_or_a_byte_a_second_is_given_up_in_time() {
    let patience = Duration::from_secs(1);
    for fault in [Fault::Silent, Fault::Trickle] {
        let (looked, (fetched, _)) =
            tokio::join!(looked(fault, patience), fetched(fault, patience));
        for (error, what) in [(looked, "looking at http://"), (fetched, "the fetch of http://")] {
            let text = error.to_string();
            assert!(matches!(error, GitError::TimedOut { .. }), "{fault:?}: {error:?}");
            assert!(text.starts_with(what) && text.contains("did not finish within"), "{text}");
            assert!(error.is_transient());
        }
    }
}

#[tokio::test]
async fn a_server_error_is_reported_with_its_status_and_transient() {
    for status in [429, 500, 502] {
        let error = looked(Fault::Status(status), Duration::from_secs(10)).await;
        let is_as_expected = match status {
            500 => matches!(error, GitError::HostFailed { .. }),
            _ => matches!(error, GitError::Unreachable { .. }),
        };
        assert!(is_as_expected && error.is_transient(), "{error:?}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
    }
}

#[tokio::test]
async fn endless_references_are_refused_by_the_memory_limit() {
    let error = looked(Fault::EndlessRefs, Duration::from_secs(30)).await;
    assert!(matches!(error, GitError::TooLarge { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("looking at http://") && text.contains("1024 MiB of memory"), "{text}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_pack_without_end_is_refused_by_its_limit_and_leaves_nothing_on_the_disk() {
    let (error, left) = fetched(Fault::EndlessPack, Duration::from_secs(30)).await;
    assert!(matches!(error, GitError::TooLarge { .. }), "{error:?}");
    assert!(error.to_string().contains("is larger than 64 MiB"), "{error}");
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_connection_reset_in_a_pack_is_transient_and_leaves_nothing() {
    let (error, left) = fetched(Fault::ResetInPack, Duration::from_secs(30)).await;
    assert!(matches!(error, GitError::Unreachable { .. }) && error.is_transient(), "{error:?}");
    assert_eq!(left, 0);
}
