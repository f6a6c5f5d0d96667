//! The lists of open pull requests.

use gantry_domain::pull_request::PullRequestVersion;
use gantry_remote::code_host::{CodeHosts, ListedPullRequest, OpenPullRequests, ProviderApi as _};
use gantry_tests::hosts::azure_devops::{self, AzureDevOpsServer};
use gantry_tests::hosts::bitbucket::{self, BitbucketServer};
use gantry_tests::hosts::code_hosts;
use gantry_tests::hosts::gitea::{self, GiteaServer};
use gantry_tests::hosts::github::{self, GitHubServer};
use gantry_tests::hosts::gitlab::{self, GitLabServer};
use serde_json::{Value, json};

use crate::{A, Access, B, C};

/// A pull request that is put at a host, into `main`.
#[derive(Clone, Copy)]
enum Put {
    /// Its head is [`B`].
    Open,
    Closed,
    /// It has no head.
    Odd,
}

/// A repository at a host of each kind.
struct Host {
    kind: &'static str,
    hosts: CodeHosts,
    access: Access,
    /// Whether its list has all of a pull request.
    is_whole: bool,
    put: Box<dyn Fn(u64, Put)>,
}

impl Host {
    async fn each() -> [Self; 5] {
        [github().await, azure().await, gitlab().await, gitea().await, bitbucket().await]
    }

    fn put(&self, numbers: impl IntoIterator<Item = u64>, put: Put) {
        numbers.into_iter().for_each(|number| (self.put)(number, put));
    }

    async fn listed(&self) -> OpenPullRequests {
        self.hosts.open_pull_requests(self.access.at()).await.unwrap()
    }
}

async fn github() -> Host {
    let server = GitHubServer::start().await.unwrap();
    let (hosts, access) =
        (code_hosts(&[server.entry()]), Access::new(&server.url(), github::TOKEN));
    let put = move |number, put| {
        let mut pull = json!({
            "state": "open", "head": {"sha": B}, "base": {"ref": "main"},
            "labels": [{"name": "ready"}], "merge_commit_sha": C,
        });
        match put {
            Put::Open => {}
            Put::Closed => pull["state"] = "closed".into(),
            Put::Odd => pull["head"]["sha"] = Value::Null,
        }
        server.state().pulls.insert(number, pull);
    };
    Host { kind: "github", hosts, access, is_whole: true, put: Box::new(put) }
}

async fn azure() -> Host {
    let server = AzureDevOpsServer::start().await.unwrap();
    let (hosts, access) =
        (code_hosts(&[server.entry()]), Access::new(&server.url(), azure_devops::TOKEN));
    let put = move |number, put| {
        let mut pull = json!({
            "pullRequestId": number, "status": "active", "isDraft": true,
            "sourceRefName": "refs/heads/x", "targetRefName": "refs/heads/main",
            "lastMergeSourceCommit": {"commitId": B}, "repository": {"id": "r-1"},
            "forkSource": {"repository": {"id": "r-2"}}, "labels": [{"name": "ready"}],
        });
        match put {
            Put::Open => {}
            Put::Closed => pull["status"] = "completed".into(),
            Put::Odd => pull["lastMergeSourceCommit"] = Value::Null,
        }
        server.state().pulls.insert(number, pull);
    };
    Host { kind: "azure-devops", hosts, access, is_whole: false, put: Box::new(put) }
}

async fn gitlab() -> Host {
    let server = GitLabServer::start().await.unwrap();
    let (hosts, access) =
        (code_hosts(&[server.entry()]), Access::new(&server.url(), gitlab::TOKEN));
    let put = move |number, put| {
        let mut it = json!({
            "iid": number, "state": "opened", "sha": B, "source_branch": "x", "labels": ["ready"],
            "target_branch": "main", "source_project_id": 4, "target_project_id": 4,
        });
        match put {
            Put::Open => {}
            Put::Closed => it["state"] = "merged".into(),
            Put::Odd => it["sha"] = Value::Null,
        }
        server.state().merge_requests.insert(number, it);
    };
    Host { kind: "gitlab", hosts, access, is_whole: true, put: Box::new(put) }
}

async fn gitea() -> Host {
    let server = GiteaServer::start().await.unwrap();
    let (hosts, access) = (code_hosts(&[server.entry()]), Access::new(&server.url(), gitea::TOKEN));
    let put = move |number, put| {
        let mut pull = json!({
            "number": number, "state": "open", "labels": [{"name": "ready"}],
            "head": {"sha": B, "ref": "x", "repo": {"id": 5}},
            "base": {"sha": A, "ref": "main", "repo": {"id": 5}},
        });
        match put {
            Put::Open => {}
            Put::Closed => pull["state"] = "closed".into(),
            Put::Odd => pull["head"]["sha"] = "".into(),
        }
        server.state().pulls.insert(number, pull);
    };
    Host { kind: "gitea", hosts, access, is_whole: true, put: Box::new(put) }
}

async fn bitbucket() -> Host {
    let server = BitbucketServer::start().await.unwrap();
    let (hosts, access) =
        (code_hosts(&[server.entry()]), Access::new(&server.url(), bitbucket::TOKEN));
    let put = move |number, put| {
        let mut pull = json!({
            "id": number, "state": "OPEN", "draft": false,
            "source": {
                "branch": {"name": "x"}, "commit": {"hash": B[..12]}, "repository": {"uuid": "{1}"},
            },
            "destination": {
                "branch": {"name": "main"}, "commit": {"hash": A[..12]}, "repository": {"uuid": "{1}"},
            },
        });
        match put {
            Put::Open => {}
            Put::Closed => pull["state"] = "MERGED".into(),
            Put::Odd => pull["source"]["commit"] = Value::Null,
        }
        server.state().pulls.insert(number, (pull, B.to_owned()));
    };
    Host { kind: "bitbucket", hosts, access, is_whole: false, put: Box::new(put) }
}

fn numbers(open: &OpenPullRequests) -> Vec<u64> {
    open.listed.iter().map(ListedPullRequest::number).collect()
}

#[tokio::test]
async fn open_pull_requests_are_listed_over_several_pages_those_that_changed_last_first() {
    for host in Host::each().await {
        host.put(1..=250, Put::Open);
        host.put([7, 250], Put::Closed);
        let open = host.listed().await;
        let expected: Vec<u64> = (1..=249).rev().filter(|number| *number != 7).collect();
        assert_eq!(numbers(&open), expected, "{}", host.kind);
        assert!(open.is_all, "{}", host.kind);
    }
}

#[tokio::test]
async fn a_listed_pull_request_is_at_the_version_of_its_head_and_its_base() {
    let version = |head: &str, base: &str| PullRequestVersion {
        head: head.parse().unwrap(),
        base: base.parse().unwrap(),
    };
    for host in Host::each().await {
        host.put([7], Put::Open);
        let listed = host.listed().await.listed.pop().unwrap();
        assert!(listed.is_at(&version(B, "main")), "{}: {listed:?}", host.kind);
        assert!(!listed.is_at(&version(A, "main")), "{}: {listed:?}", host.kind);
        assert!(!listed.is_at(&version(B, "next")), "{}: {listed:?}", host.kind);
        match listed {
            ListedPullRequest::Whole(pull_request) => {
                assert!(host.is_whole && pull_request.is_open, "{}", host.kind);
                assert_eq!((pull_request.labels, pull_request.merge), (vec!["ready".into()], None));
            }
            // The list of Azure DevOps does not tell forks, and Bitbucket's heads are cut.
            ListedPullRequest::Short { .. } => assert!(!host.is_whole, "{}", host.kind),
        }
    }
}

#[tokio::test]
async fn at_most_a_thousand_open_pull_requests_are_listed_and_then_there_may_be_more() {
    for host in Host::each().await {
        host.put(1..=1001, Put::Open);
        let open = host.listed().await;
        assert_eq!(numbers(&open), (2..=1001).rev().collect::<Vec<_>>(), "{}", host.kind);
        assert!(!open.is_all, "{}", host.kind);
    }
}

#[tokio::test]
async fn without_open_pull_requests_the_list_is_empty_and_that_is_all() {
    for host in Host::each().await {
        host.put([3], Put::Closed);
        let nothing = OpenPullRequests { listed: Vec::new(), is_all: true };
        assert_eq!(host.listed().await, nothing, "{}", host.kind);
    }
}

#[tokio::test]
async fn a_pull_request_that_cannot_be_read_is_left_out_and_the_list_is_not_all() {
    for host in Host::each().await {
        host.put([1, 3], Put::Open);
        host.put([2], Put::Odd);
        let open = host.listed().await;
        assert_eq!((numbers(&open), open.is_all), (vec![3, 1], false), "{}", host.kind);
    }
}
