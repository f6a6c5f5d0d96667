//! Compares the open pull requests with the facts about them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::FutureExt as _;
use gantry_domain::code_host::HostKind;
use gantry_domain::decide::matcher;
use gantry_domain::event::{EventKind, PullRequestChange, PullRequestRefs};
use gantry_domain::fact::{Fact, FactKey};
use gantry_domain::pull_request::{PullRequest, PullRequestVersion};
use gantry_domain::task::Task;
use gantry_remote::code_host::{CodeHostFailure, ListedPullRequest, OpenPullRequests};
use gantry_seams::store::StoreError;
use gantry_seams::watches::Part;
use gantry_seams::{Versioned, facts};

use super::{AWAY, BEHIND, Failed, Learned, Looked, MOST_CHANGES, Reconciler};
use crate::asking;

/// How many facts of open pull requests of one repository are compared.
const MOST_OPEN: usize = 4096;

fn generation_of(fact: &Versioned<Fact<PullRequestVersion>>) -> u64 {
    fact.value.generation
}

impl Reconciler {
    /// Reports the pull requests that have changed, and records those that newcomers see for the first time. Without a
    /// token nobody is asked: then gantry depends on webhooks.
    pub(super) async fn look_at_pull_requests(&self, looked: &Looked) -> Result<(), Failed> {
        let is_asked =
            |task: &&Task| matcher::watches_pull_requests(task) && task.token_for_api().is_some();
        let tasks: Vec<Task> = looked.tasks.iter().filter(is_asked).cloned().collect();
        let (Some(first), Some(kind)) = (tasks.first(), self.providers.kind(&looked.url)) else {
            return Ok(());
        };
        let (store, place) = (self.store.as_ref(), &looked.watch.place);
        let newcomers = self.newcomers(looked, Part::PullRequests).await?;
        let before = facts::open_pull_requests(store, place, MOST_OPEN).await?;
        let OpenPullRequests { listed, is_all } = self.open(&tasks).await?;
        self.catch_up(place).await?;
        let known = facts::open_pull_requests(store, place, MOST_OPEN).await?;
        let is_news = tasks.iter().any(|task| !newcomers.contains(&task.id));
        let numbers: BTreeSet<u64> = listed.iter().map(ListedPullRequest::number).collect();
        // A webhook told more than the host did, which was asked before.
        let generation = |of: &BTreeMap<u64, _>, number| of.get(&number).map(generation_of);
        let has_moved = |number: u64| generation(&before, number) != generation(&known, number);
        let gone = known.keys().filter(|number| is_all && !numbers.contains(number));
        let gone = gone.filter(|number| !has_moved(**number));
        let gone: Vec<u64> = gone.copied().collect();
        let differs = |it: &ListedPullRequest| {
            let fact = known.get(&it.number());
            !fact.is_some_and(|fact| fact.value.value.as_ref().is_some_and(|now| it.is_at(now)))
        };
        let is_behind = before.keys().chain(known.keys()).any(|number| has_moved(*number));
        let changed = listed.into_iter().filter(differs).filter(|it| !has_moved(it.number()));
        let (mut learned, mut asked, mut reported) = (Vec::new(), 0, 0);
        let mut is_complete = true;
        for it in changed.map(Found::Listed).chain(gone.into_iter().map(Found::Gone)) {
            let now = match it {
                Found::Listed(ListedPullRequest::Whole(now)) => Some(now),
                Found::Listed(ListedPullRequest::Short { number, .. }) | Found::Gone(number) => {
                    if asked == MOST_CHANGES {
                        is_complete = false;
                        continue;
                    }
                    asked += 1;
                    self.one(&tasks, number).await?
                }
            };
            let Some(now) = now else { continue };
            let repository = &now.base.repository;
            let key = FactKey::pull_request(
                &first.id.registry,
                &place.repository,
                repository,
                now.number,
            );
            if !is_news && now.is_open {
                let (known, value) = (facts::find(store, &key).await?, now.version());
                learned.push(Learned { key, known, value });
            } else if reported == MOST_CHANGES {
                break;
            } else {
                reported += 1;
                self.report_pull_request(looked, kind, &key, now).await?;
            }
        }
        let newcomers = if is_complete { newcomers.as_slice() } else { &[] };
        if !newcomers.is_empty() || !learned.is_empty() {
            self.learn(looked, Part::PullRequests, newcomers, &learned).await?;
        }
        if !is_complete {
            self.look_soon(&looked.watch, AWAY).await?;
        }
        if is_behind {
            self.look_soon(&looked.watch, BEHIND).await?;
        }
        Ok(())
    }

    async fn open(&self, tasks: &[Task]) -> Result<OpenPullRequests, Failed> {
        let asked = asking::with_tokens(&self.keyring, tasks, Task::token_for_api, |at| {
            let providers = Arc::clone(&self.providers);
            async move { providers.open_pull_requests(at).await }.boxed()
        });
        match asked.await {
            Err(error) if error.kind == CodeHostFailure::NoApi => {
                Ok(OpenPullRequests { listed: Vec::new(), is_all: false })
            }
            asked => asked.map_err(Failed::Host),
        }
    }

    async fn one(&self, tasks: &[Task], number: u64) -> Result<Option<PullRequest>, Failed> {
        let asked = asking::with_tokens(&self.keyring, tasks, Task::token_for_api, |at| {
            let providers = Arc::clone(&self.providers);
            async move { providers.pull_request(at, number).await }.boxed()
        });
        asked.await.map_err(Failed::Host)
    }

    async fn report_pull_request(
        &self,
        looked: &Looked,
        kind: HostKind,
        key: &FactKey,
        now: PullRequest,
    ) -> Result<(), StoreError> {
        let known = facts::find(self.store.as_ref(), key).await?;
        let version = now.version();
        if known.as_ref().is_some_and(|known| known.value.value == version) {
            return Ok(());
        }
        let generation = known.map_or(0, |known| known.value.generation);
        let head = version.map_or_else(|| "closed".to_owned(), |version| version.head.to_string());
        let change = PullRequestChange {
            hook: None,
            url: looked.url.clone(),
            action: None,
            before: None,
            refs: PullRequestRefs::at(kind, &now),
            now,
            asks_to_skip: false,
        };
        self.report(looked, key, generation, &head, EventKind::PullRequest(change)).await
    }
}

/// A pull request that differs from its fact.
enum Found {
    /// It is open.
    Listed(ListedPullRequest),
    /// It was open, and is not listed any more.
    Gone(u64),
}
