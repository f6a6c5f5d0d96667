//! Compares branches and tags with the facts about them.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::FutureExt as _;
use gantry_domain::decide::matcher;
use gantry_domain::event::{EventKind, Push, PushedRef};
use gantry_domain::fact::FactKey;
use gantry_domain::id::TaskId;
use gantry_domain::pull_request::ChangedFiles;
use gantry_domain::source::{CommitId, GitUrl, RefName};
use gantry_domain::task::Task;
use gantry_domain::timestamp::Timestamp;
use gantry_ops::aside;
use gantry_remote::code_host::Heads;
use gantry_seams::facts;
use gantry_seams::store::StoreError;
use gantry_seams::watches::Part;

use super::{BEHIND, Failed, Learned, Looked, MOST_CHANGES, Reconciler};
use crate::asking;

/// How many branches and tags of one repository are compared.
const MOST_HEADS: usize = 4096;

/// A branch or tag that tasks watch, as it is now.
struct Watched {
    push: Push,
    /// Whether it would be news to one of them.
    is_news: bool,
}

impl Reconciler {
    /// Reports the heads that have changed, and records those that newcomers see for the first time.
    pub(super) async fn look_at_heads(&self, looked: &Looked) -> Result<(), Failed> {
        let asked_at = self.store.now().await?;
        let asked = asking::with_tokens(
            &self.keyring,
            &looked.tasks,
            |task| task.git_token.as_ref(),
            |at| {
                let host = Arc::clone(&self.code_host);
                async move { host.heads(at).await }.boxed()
            },
        );
        let heads = asked.await.map_err(Failed::Host)?;
        self.catch_up(&looked.watch.place).await?;
        let newcomers = self.newcomers(looked, Part::Heads).await?;
        let (url, tasks, new) = (looked.url.clone(), looked.tasks.clone(), newcomers.clone());
        // Each head is compared with the patterns of each task.
        let watched = aside::read(move || watched(&url, &tasks, &new, &heads)).await;
        let watched = watched.unwrap_or_else(|error| {
            let repository = &looked.watch.place.repository;
            tracing::warn!(%repository, "the heads of {repository} are not compared: {error}");
            Vec::new()
        });
        self.compare(looked, &newcomers, watched, asked_at).await.map_err(Failed::Store)
    }

    /// `asked_at` is a time before the host made its list.
    async fn compare(
        &self,
        looked: &Looked,
        newcomers: &[TaskId],
        watched: Vec<Watched>,
        asked_at: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(registry) = looked.tasks.first().map(|task| &task.id.registry) else {
            return Ok(());
        };
        let repository = &looked.watch.place.repository;
        let key = |it: &Watched| FactKey::moved(registry, repository, &it.push.reference);
        let keys: Vec<FactKey> = watched.iter().map(key).collect();
        let mut known = facts::find_all::<CommitId>(self.store.as_ref(), &keys).await?;
        let (mut learned, mut changed, mut is_behind) = (Vec::new(), Vec::new(), false);
        for (Watched { push, is_news }, key) in watched.into_iter().zip(keys) {
            let known = known.remove(&key);
            // A webhook may have told more than the host's list.
            if known.as_ref().is_some_and(|known| known.value.since > asked_at) {
                is_behind = true;
                continue;
            }
            let value = known.as_ref().map(|known| known.value.value.clone());
            match (value, is_news) {
                (Some(value), _) if value == push.after => {}
                (None, _) if push.after.is_none() => {}
                (_, false) => learned.push(Learned { key, known, value: push.after }),
                (value, true) => {
                    let generation = known.map_or(0, |known| known.value.generation);
                    changed.push((key, generation, Push { before: value.flatten(), ..push }));
                }
            }
        }
        if !newcomers.is_empty() {
            self.learn(looked, Part::Heads, newcomers, &learned).await?;
        }
        changed.truncate(MOST_CHANGES);
        for (key, generation, push) in changed {
            let head = push.after.as_ref().map_or("gone", CommitId::as_str).to_owned();
            self.report(looked, &key, generation, &head, EventKind::Push(push)).await?;
        }
        if is_behind {
            self.look_soon(&looked.watch, BEHIND).await?;
        }
        Ok(())
    }
}

/// The branches and tags that tasks watch, and watched branches that are gone, as pushes to them.
fn watched(url: &GitUrl, tasks: &[Task], newcomers: &[TaskId], heads: &Heads) -> Vec<Watched> {
    let push = |reference: PushedRef, after: Option<CommitId>| Push {
        hook: None,
        url: url.clone(),
        reference,
        before: None,
        after,
        default_branch: heads.default_branch.clone(),
        pusher: None,
        changed: ChangedFiles::Unknown { why: "gantry found the change itself".to_owned() },
        asks_to_skip: false,
    };
    let branches = heads
        .branches
        .iter()
        .map(|(name, head)| push(PushedRef::Branch(name.clone()), Some(head.clone())));
    let tags = heads
        .tags
        .iter()
        .map(|(name, head)| push(PushedRef::Tag(name.clone()), Some(head.clone())));
    let own = tasks
        .iter()
        .filter_map(|task| matcher::watched_branch(task).or_else(|| heads.default_branch.clone()));
    let gone: BTreeSet<RefName> =
        own.filter(|branch| !heads.branches.contains_key(branch)).collect();
    let gone = gone.into_iter().map(|branch| push(PushedRef::Branch(branch), None));
    let newcomers: BTreeSet<&TaskId> = newcomers.iter().collect();
    let by_tasks = |push: Push| {
        let mut watching =
            tasks.iter().filter(|task| matcher::moved_source(&push, task).is_ok()).peekable();
        watching.peek()?;
        let is_news = watching.any(|task| !newcomers.contains(&task.id));
        Some(Watched { push, is_news })
    };
    branches.chain(tags).take(MOST_HEADS).chain(gone).filter_map(by_tasks).collect()
}
