//! Webhooks that get lost, come twice, late or in another order: the same is built as without.
//!
//! Each story is a random sequence of changes of branches and pull requests. What is told to gantry of each is random, too.
//! In the end every head that is left was built once, whatever was told.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_domain::pull_request::{
    Association, ProviderRepository, PullRequest as Known, PullRequestBase, PullRequestHead,
};
use gantry_domain::registry::Registry;
use gantry_domain::run::RunStatus;
use gantry_domain::task::Status;
use gantry_ops::secret::SecretString;
use gantry_seams::runs::{self, RunFilter};
use gantry_tests::git_server::TestRepository;
use gantry_tests::github::{self, PullRequest, REPOSITORY};
use gantry_tests::pipeline::{DOCKERFILE, Door, TestPipeline};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};

/// How many changes a story has.
const CHANGES: usize = 10;

const BRANCHES: [&str; 3] = ["release/1", "release/2", "release/3"];

/// How many pull requests are open at once.
const MOST_OPEN: usize = 3;

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    ArrivesTwice,
    IsLost,
    /// It arrives after others that were sent later.
    IsLate,
}

const FATES: [Fate; 4] = [Fate::Arrives, Fate::ArrivesTwice, Fate::IsLost, Fate::IsLate];

/// A delivery that was sent.
#[derive(Debug, Clone)]
struct Sent {
    id: String,
    kind: &'static str,
    body: String,
}

struct Story {
    gantry: TestPipeline,
    repository: TestRepository,
    url: String,
    random: StdRng,
    /// The heads that are there.
    branches: BTreeMap<&'static str, String>,
    pull_requests: BTreeMap<u64, String>,
    /// How many pull requests were opened.
    opened: u64,
    late: Vec<Sent>,
    sent: usize,
}

impl Story {
    async fn begin(seed: u64) -> Self {
        let gantry = super::start().await;
        let repository = gantry.git.repository("hello").unwrap();
        repository.commit("main", DOCKERFILE).unwrap();
        let bound_to = Registry::seals_for(TestPipeline::prefix());
        let token = gantry.keyring.seal(&bound_to, &SecretString::from("token"));
        gantry
            .task_with("hello", "hello:{{.Run.ID}}", |task| {
                task.api_token = Some(token.unwrap());
                let trigger = task.source_trigger.as_mut().unwrap();
                trigger.pull_request.status = Status::Enabled;
                let releases = vec!["release/*".parse().unwrap()];
                trigger.commit.branches = releases.try_into().unwrap();
            })
            .await;
        gantry.providers.open();
        gantry.scheduler().reconcile().await.unwrap();
        gantry.settle().await;
        let url = gantry.git.url("hello");
        Self {
            gantry,
            repository,
            url,
            random: StdRng::seed_from_u64(seed),
            branches: BTreeMap::new(),
            pull_requests: BTreeMap::new(),
            opened: 0,
            late: Vec::new(),
            sent: 0,
        }
    }

    /// Commits to a branch, and returns its former and its new head.
    fn push(&mut self) -> Sent {
        let branch = *BRANCHES.choose(&mut self.random).unwrap();
        let before = self.branches.get(branch).cloned();
        let is_deleted = before.is_some() && self.random.random_ratio(1, 5);
        let after = if is_deleted {
            self.repository.git(&["push", "-q", "origin", &format!(":{branch}")]).unwrap();
            self.branches.remove(branch);
            None
        } else {
            let content = format!("{branch} {}", self.sent);
            let head = self.repository.commit(branch, &[("file", &content)]).unwrap();
            self.branches.insert(branch, head.clone());
            Some(head)
        };
        let push = github::Push {
            url: &self.url,
            branch,
            before: before.as_deref(),
            after: after.as_deref(),
            default_branch: Some("main"),
        };
        self.send("push", push.body())
    }

    /// Opens a pull request, moves its head, or closes it.
    fn change_pull_request(&mut self) -> Sent {
        let open: Vec<u64> = self.pull_requests.keys().copied().collect();
        let is_new = open.len() < MOST_OPEN && self.random.random_ratio(1, 2);
        let number = open.choose(&mut self.random).filter(|_| !is_new).copied();
        let Some(number) = number else {
            self.opened += 1;
            let number = self.opened;
            let head = self.move_head(number);
            return self.tell_of(number, PullRequest::opened("", &head));
        };
        let before = self.pull_requests[&number].clone();
        if self.random.random_ratio(1, 3) {
            self.pull_requests.remove(&number);
            self.show(number, &before, false);
            let closed = PullRequest { action: "closed", ..PullRequest::opened("", &before) };
            return self.tell_of(number, closed);
        }
        let head = self.move_head(number);
        let action = "synchronize";
        let moved = PullRequest { action, before: Some(&before), ..PullRequest::opened("", &head) };
        self.tell_of(number, moved)
    }

    /// Commits to the head of a pull request.
    fn move_head(&mut self, number: u64) -> String {
        let content = format!("{number} {}", self.sent);
        let topic = format!("topic/{number}");
        let head = self.repository.commit(&topic, &[("file", &content)]).unwrap();
        let to = format!("HEAD:refs/pull/{number}/head");
        self.repository.git(&["push", "-q", "-f", "origin", &to]).unwrap();
        self.pull_requests.insert(number, head.clone());
        self.show(number, &head, true);
        head
    }

    /// What the provider's API shows.
    fn show(&self, number: u64, head: &str, is_open: bool) {
        let repository: ProviderRepository = REPOSITORY.to_string().parse().unwrap();
        self.gantry.providers.put_pull_request(Known {
            number,
            is_open,
            head: PullRequestHead {
                commit: head.parse().unwrap(),
                branch: Some(format!("topic/{number}").parse().unwrap()),
                repository: Some(repository.clone()),
            },
            base: PullRequestBase { branch: "main".parse().unwrap(), repository },
            merge: None,
            is_draft: false,
            labels: Vec::new(),
            author: None,
            association: Association::Member,
        });
    }

    fn tell_of(&mut self, number: u64, change: PullRequest<'_>) -> Sent {
        let url = self.url.clone();
        self.send("pull_request", PullRequest { number, url: &url, ..change }.body())
    }

    fn send(&mut self, kind: &'static str, body: String) -> Sent {
        self.sent += 1;
        Sent { id: format!("d{}", self.sent), kind, body }
    }

    async fn deliver(&self, door: &Door, sent: &Sent) {
        door.receive_kind(&sent.id, sent.kind, sent.body.clone()).await;
    }

    /// Changes something, and lets its delivery meet its fate.
    async fn go_on(&mut self, door: &Door) {
        let sent = match self.random.random_ratio(1, 2) {
            true => self.push(),
            false => self.change_pull_request(),
        };
        match *FATES.choose(&mut self.random).unwrap() {
            Fate::Arrives => self.deliver(door, &sent).await,
            Fate::ArrivesTwice => {
                self.deliver(door, &sent).await;
                self.deliver(door, &sent).await;
                // From another hook.
                let again = Sent { id: format!("{}-again", sent.id), ..sent };
                self.deliver(door, &again).await;
            }
            Fate::IsLost => {}
            Fate::IsLate => self.late.push(sent),
        }
        if self.random.random_ratio(1, 2) {
            self.late.shuffle(&mut self.random);
            if let Some(late) = self.late.pop() {
                self.deliver(door, &late).await;
            }
        }
        if self.random.random_ratio(1, 3) {
            self.gantry.settle().await;
        }
    }

    /// Delivers what is late, and lets gantry look for what was lost.
    async fn end(&mut self) {
        let door = self.gantry.door();
        self.late.shuffle(&mut self.random);
        for late in std::mem::take(&mut self.late) {
            self.deliver(&door, &late).await;
        }
        self.gantry.settle().await;
        // Nobody knows how late a change is until the host has had time to show it.
        self.gantry.clock.advance(Duration::from_secs(200));
        self.gantry.settle().await;
        for _ in 0..2 {
            self.gantry.clock.advance(Duration::from_secs(1800));
            self.gantry.scheduler().reconcile().await.unwrap();
            self.gantry.settle().await;
        }
    }

    /// Checks that everything that is there was built once, and nothing twice.
    async fn verdict(&self, seed: u64) {
        let store = self.gantry.store.as_ref();
        let started = runs::list(store, &RunFilter::default(), None, 999).await.unwrap();
        let mut built = BTreeMap::<String, usize>::new();
        for run in &started {
            assert!(run.status() != RunStatus::Queued, "story {seed}: {run:?}");
            let commit = run.cause.commit().expect("a commit").to_string();
            *built.entry(commit).or_default() += 1;
        }
        let twice: Vec<_> = built.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "story {seed}: {twice:?}");
        for head in self.branches.values().chain(self.pull_requests.values()) {
            assert!(built.contains_key(head), "story {seed}: {head} was not built");
        }
    }
}

async fn tell(seed: u64) {
    let mut story = Story::begin(seed).await;
    let door = story.gantry.door();
    for _ in 0..CHANGES {
        story.go_on(&door).await;
    }
    drop(door);
    story.end().await;
    story.verdict(seed).await;
}

#[tokio::test]
async fn whatever_becomes_of_webhooks_each_head_is_built_once() {
    for seed in 0..2 {
        tell(seed).await;
    }
}

#[tokio::test]
async fn what_changes_while_every_webhook_is_lost_is_found() {
    let mut story = Story::begin(0).await;
    for _ in 0..CHANGES {
        story.push();
        story.change_pull_request();
    }
    story.end().await;
    story.verdict(0).await;
}

mod slow {
    #[tokio::test]
    async fn whatever_becomes_of_webhooks_each_head_is_built_once() {
        for seed in 100..160 {
            super::tell(seed).await;
        }
    }
}
