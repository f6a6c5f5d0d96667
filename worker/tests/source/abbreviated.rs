//! Commits that are named by their first digits.

use gantry_domain::source::CommitId;
use gantry_remote::git::GitError;
use gantry_worker::source::SourceError;

use super::{TestSources, git_source, soon, sources, token};
use crate::git_server::{Behaviour, GitServer, TestRepository};

async fn commit(rig: &TestSources, url: &str, reference: &str) -> Result<CommitId, SourceError> {
    let source = git_source(&format!("{url}#{reference}"));
    let checkout = rig.sources.from_git(&source, None, soon()).await?;
    assert!(checkout.root().join("a").exists());
    Ok(checkout.commit().unwrap().clone())
}

/// Two commits whose ids begin with `6db84fc`.
const ALIKE: [u32; 2] = [5036, 12451];

/// Adds a commit with the file `a` to the repository, which the number and nothing else decides, and returns its id.
fn numbered(repository: &TestRepository, number: u32) -> String {
    let tree = repository.git(&["rev-parse", "HEAD^{tree}"]).unwrap();
    assert_eq!(tree, "dec00055d1aeef644597adecb6680d94b5ed075f");
    let who = "Tester <tester@example.com> 1700000000 +0000";
    let text = format!("tree {tree}\nauthor {who}\ncommitter {who}\n\nchange {number}\n");
    std::fs::write(repository.work().join("text"), text).unwrap();
    repository.git(&["hash-object", "-t", "commit", "-w", "text"]).unwrap()
}

#[tokio::test]
async fn the_first_digits_of_a_commit_name_it_wherever_it_is() {
    for format in ["sha1", "sha256"] {
        let server = GitServer::start().await.unwrap();
        let repository = server.repository_of_format("app", format).unwrap();
        let old = repository.commit("main", &[("a", "1")]).unwrap();
        let tagged = repository.commit("main", &[("a", "2")]).unwrap();
        repository.git(&["tag", "-a", "v1", "-m", "v1"]).unwrap();
        repository.git(&["push", "-q", "origin", "v1"]).unwrap();
        let newest = repository.commit("main", &[("a", "3")]).unwrap();
        let url = server.url("app");
        for behaviour in [Behaviour::Serve, Behaviour::OnlyTips] {
            server.behave(behaviour);
            let rig = sources(1 << 30);
            for wanted in [&newest, &tagged, &old] {
                for digits in [7, wanted.len() - 1] {
                    let found = commit(&rig, &url, &wanted[..digits]).await.unwrap();
                    assert_eq!(found.as_str(), wanted, "{format}");
                }
            }
            let capitals = tagged[..9].to_uppercase();
            assert_eq!(commit(&rig, &url, &capitals).await.unwrap().as_str(), tagged);
        }
    }
}

#[tokio::test]
async fn a_branch_or_tag_of_that_name_comes_first() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    let first = repository.commit("main", &[("a", "1")]).unwrap();
    let second = repository.commit("main", &[("a", "2")]).unwrap();
    let (rig, url) = (sources(1 << 30), server.url("app"));
    let name = &first[..7];
    assert_eq!(commit(&rig, &url, name).await.unwrap().as_str(), first);
    repository.git(&["push", "-q", "origin", &format!("HEAD:refs/heads/{name}")]).unwrap();
    assert_eq!(commit(&rig, &url, name).await.unwrap().as_str(), second);
}

#[tokio::test]
async fn digits_of_no_commit_are_refused_with_what_to_do() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    let first = repository.commit("main", &[("a", "1")]).unwrap();
    let (rig, url) = (sources(1 << 30), server.url("app"));
    let none = if first.starts_with("1234567") { "7654321" } else { "1234567" };
    let error = commit(&rig, &url, none).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "`{none}` is not in {url}: check the name of the branch or tag, or the digits of the commit"
        )
    );
    assert!(!error.is_transient());

    server.repository("empty").unwrap();
    let error = commit(&rig, &server.url("empty"), none).await.unwrap_err();
    assert!(matches!(error, SourceError::Git(GitError::UnknownRef { .. })), "{error}");
    let left: Vec<_> = std::fs::read_dir(rig.folder.path().join("checkouts")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn an_abbreviated_commit_of_a_private_repository_needs_its_token() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    let first = repository.commit("main", &[("a", "1")]).unwrap();
    repository.commit("main", &[("a", "2")]).unwrap();
    server.require("x-access-token", "good");
    let rig = sources(1 << 30);
    let source = git_source(&format!("{}#{}", server.url("app"), &first[..7]));
    let (good, bad) = (token("good"), token("bad"));
    let checkout = rig.sources.from_git(&source, Some(&good), soon()).await.unwrap();
    assert_eq!(checkout.commit().unwrap().as_str(), first);
    let error = rig.sources.from_git(&source, Some(&bad), soon()).await.unwrap_err();
    assert!(matches!(error, SourceError::Git(GitError::Unauthorized { .. })), "{error}");
    let error = rig.sources.from_git(&source, None, soon()).await.unwrap_err();
    assert!(matches!(error, SourceError::Git(GitError::CredentialsWanted { .. })), "{error}");
}

#[tokio::test]
async fn digits_of_several_commits_are_refused_with_what_to_do() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("app").unwrap();
    repository.commit("main", &[("a", "1")]).unwrap();
    let alike = ALIKE.map(|number| numbered(&repository, number));
    let [one, other] = &alike;
    assert!(one[..7] == other[..7] && one != other);
    let (rig, url) = (sources(1 << 30), server.url("app"));
    let is_refused = async || {
        let error = commit(&rig, &url, &one[..7]).await.unwrap_err();
        let told =
            format!("several commits in {url} begin with {}: write more of its digits", &one[..7]);
        assert_eq!(error.to_string(), told);
        assert!(!error.is_transient());
        for id in &alike {
            assert_eq!(commit(&rig, &url, &id[..12]).await.unwrap().as_str(), id);
        }
    };
    for (id, name) in alike.iter().zip(["one", "other"]) {
        repository.git(&["push", "-q", "origin", &format!("{id}:refs/heads/{name}")]).unwrap();
    }
    is_refused().await;
    // Neither is what a reference leads to.
    let tree = repository.git(&["rev-parse", "HEAD^{tree}"]).unwrap();
    let merge = ["commit-tree", "-p", one, "-p", other, "-m", "both", &tree];
    let merge = repository.git(&merge).unwrap();
    repository.git(&["push", "-q", "origin", &format!("+{merge}:refs/heads/both")]).unwrap();
    repository.git(&["push", "-q", "origin", "--delete", "one", "other"]).unwrap();
    is_refused().await;
}
