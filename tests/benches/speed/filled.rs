//! A long-used installation: tasks that watch repositories, and ended runs.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gantry_domain::base_trigger::BaseImageTrigger;
use gantry_domain::decide::planner::{self, RunDraft};
use gantry_domain::fact::{self, FactKey};
use gantry_domain::id::{LeaseNonce, RunId, RunPrefix, WorkerId};
use gantry_domain::image::Digest;
use gantry_domain::lineage::OutputImage;
use gantry_domain::platform::Platform;
use gantry_domain::run::{CanceledBy, Outcome, Product, TaskRevision};
use gantry_domain::source::{CommitId, Source};
use gantry_domain::step::Steps;
use gantry_domain::task::{Status, Task};
use gantry_domain::timer::Timers;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::trigger::SourceTrigger;
use gantry_seams::runs::{self, Finish};
use gantry_seams::store::{Batch, SharedStore};
use gantry_seams::{due, facts, tasks};

use crate::composition::{Parts, REGISTRY};
use crate::stored;
use crate::take;

/// The size of the installation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Ended runs, the same number for each task.
    pub(crate) runs: usize,
    /// Tasks, the same number for each repository.
    pub(crate) tasks: usize,
    /// Watched repositories.
    pub(crate) repositories: usize,
}

/// The oldest runs succeeded and pushed to this repository; all others were cancelled before they began.
pub(crate) const RARE: &str = "rare";

/// The number of these oldest runs.
pub(crate) const OLDEST: usize = 20;

/// The number of concurrent writes, which the store commits together.
const AT_ONCE: usize = 256;

/// The number of runs that one commit creates.
const A_COMMIT: usize = 64;

/// The head of every watched branch.
pub(crate) const HEAD: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// The address of a repository.
pub(crate) fn repository(number: usize) -> String {
    format!("https://github.com/example/repository-{number}.git")
}

/// Fills an installation. Returns the ids of its runs, the oldest first.
pub(crate) async fn fill(parts: &Parts, size: Size) -> Result<Vec<RunId>> {
    parts.set_up("registry.test").await?;
    fill_tasks(parts, 0..size.tasks, 0..size.repositories).await?;
    let oldest = create(parts, 0..OLDEST, size.tasks).await?;
    let digest: Digest = format!("sha256:{}", "5".repeat(64)).parse()?;
    stored::make_ready(&parts.store, oldest.clone()).await?;
    for _ in &oldest {
        succeed(&parts.store, &digest).await?;
    }
    let others = create(parts, OLDEST..size.runs, size.tasks).await?;
    let by = CanceledBy::Token { token: stored::BY.parse()? };
    let cancels = others.iter().map(|run| {
        let (store, by) = (Arc::clone(&parts.store), &by);
        async move { runs::cancel(store.as_ref(), *run, by).await }
    });
    stream::iter(cancels).buffer_unordered(AT_ONCE).try_for_each(|_| async { Ok(()) }).await?;
    Ok(oldest.into_iter().chain(others).collect())
}

/// Creates the tasks with these numbers, in turn for each of the repositories with those numbers, whose heads are known.
pub(crate) async fn fill_tasks(
    parts: &Parts,
    numbers: Range<usize>,
    repositories: Range<usize>,
) -> Result<()> {
    let (first, count) = (repositories.start, repositories.len());
    // One after the other: each changes the record of the registry, so that it is not deleted meanwhile.
    for number in numbers {
        save_task(&parts.store, number, first + number % count).await?;
    }
    let learns = repositories.map(|number| learn_head(&parts.store, number));
    stream::iter(learns).buffer_unordered(AT_ONCE).try_for_each(|()| async { Ok(()) }).await
}

/// Creates the runs with these numbers, each of a different task than the previous one.
async fn create(parts: &Parts, numbers: Range<usize>, tasks: usize) -> Result<Vec<RunId>> {
    let store = parts.store.as_ref();
    let build = stored::build(format!("{}#main", repository(0)).parse()?)?;
    let (event, by) = ("request:bench".parse()?, stored::BY.parse()?);
    let draft = planner::for_quick_run(REGISTRY.parse()?, build, None, event, by);
    let mut ids = Vec::new();
    for first in numbers.clone().step_by(A_COMMIT) {
        let now = store.now().await?;
        let signer = parts.keyring.as_ref();
        let mut creation =
            runs::Creation::begin(store, Batch::default(), RunPrefix::nth(0), signer, now).await?;
        for number in first..numbers.end.min(first + A_COMMIT) {
            let name = task_name(number % tasks).parse()?;
            let task = Some(TaskRevision {
                name,
                created: now,
                revision: 1,
                is_unchanged: true,
                reports: true,
            });
            ids.push(creation.add(RunDraft { task, ..draft.clone() }, None)?.id);
        }
        store.commit(creation.finish()).await.context("nobody else creates runs")?;
    }
    Ok(ids)
}

fn task_name(number: usize) -> String {
    format!("task-{number}")
}

async fn save_task(store: &SharedStore, number: usize, of: usize) -> Result<()> {
    let mut task = task(&task_name(number), of, store.now().await?)?;
    task.source_trigger = Some(SourceTrigger::on_pushes("push"));
    task.base_image_trigger = Some(BaseImageTrigger::default());
    save(store, &task).await
}

/// A task for one of the repositories that nothing starts.
pub(crate) fn task(name: &str, of: usize, now: Timestamp) -> Result<Task> {
    Ok(Task {
        id: format!("{REGISTRY}/{name}").parse()?,
        prefix: RunPrefix::nth(0),
        revision: 1,
        status: Status::Enabled,
        recipe: stored::build(format!("{}#main", repository(of)).parse()?)?,
        source_trigger: None,
        base_image_trigger: None,
        timers: Timers::default(),
        git_token: None,
        reports: true,
        api_token: None,
        run_limit: None,
        concurrency_group: None,
        created: now,
        updated: now,
    })
}

/// Creates a task. There is no code host from which a head could be read, so its event is not decided.
pub(crate) async fn save(store: &SharedStore, task: &Task) -> Result<()> {
    tasks::create(store.as_ref(), task).await?;
    for due in due::undecided(store.as_ref(), store.now().await?, 10).await? {
        due::set_aside(store.as_ref(), &due).await?;
    }
    Ok(())
}

async fn learn_head(store: &SharedStore, number: usize) -> Result<()> {
    let Source::Git(git) = repository(number).parse()? else {
        anyhow::bail!("a repository's address is one of git");
    };
    let (registry, branch) = (REGISTRY.parse()?, "main".parse()?);
    let key = FactKey::branch(&registry, &git.url.key(), &branch);
    let head: CommitId = HEAD.parse()?;
    let known = fact::advanced(None, &key, Some(head), store.now().await?);
    let mut batch = Batch::default();
    facts::advance(&mut batch, None, &known)?;
    Ok(store.commit(batch).await?)
}

/// Leases a run and ends it as succeeded.
async fn succeed(store: &SharedStore, digest: &Digest) -> Result<()> {
    let (worker, nonce): (WorkerId, LeaseNonce) = ("worker-0".parse()?, "1".repeat(32).parse()?);
    let pool = Platform::default().pool();
    let (run, holder) = take::take_one(store.as_ref(), &pool, &worker, &nonce).await?;
    let output = OutputImage {
        image: format!("registry.test/{RARE}:{}", run.id).parse()?,
        digest: digest.clone(),
        children: Vec::new(),
    };
    let product = Product { outputs: vec![output], ..Product::default() };
    let finish = Finish::Outcome(Outcome::Succeeded(product));
    runs::finish(store.as_ref(), run.id, &holder, finish, &Steps::default()).await?;
    Ok(())
}
