//! How long one push takes to decide, among few and among many tasks that have nothing to do with it.

use std::time::Instant;

use anyhow::{Result, ensure};
use gantry_domain::event::{Event, EventKind, Push, PushedRef};
use gantry_domain::id::RunPrefix;
use gantry_domain::pull_request::ChangedFiles;
use gantry_domain::source::{GitUrl, Source};
use gantry_scheduler::Scheduler;
use gantry_seams::events;
use gantry_seams::store::{Batch, Key, Kind, Store};
use tokio_util::sync::CancellationToken;

use crate::Effort;
use crate::backend::Backend;
use crate::composition::{Parts, REGISTRY};
use crate::filled::{self, HEAD};
use crate::process;
use crate::report::{Details, Report, Row, say};
use crate::samples::{Samples, milliseconds};
use crate::servers::Servers;

/// The watched repositories of a small installation, and the tasks for each of them.
const REPOSITORIES: usize = 1_000;
const TASKS_EACH: usize = 10;

/// The target for one push, and how much longer it may take among ten times as many tasks.
const REACH_MS: f64 = 5.0;
const RATIO: f64 = 1.25;

/// What one push writes: its runs, the fact and the decision, each of about this many bytes.
const RECORDS: usize = TASKS_EACH + 2;
const RECORD: usize = 2 << 10;

/// Measures both stores, with 10 000 and with 100 000 tasks.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let tasks = REPOSITORIES * TASKS_EACH;
    let [few, many] = if effort.pushes < 10 { [tasks / 10, tasks] } else { [tasks, tasks * 10] };
    let mut rows = Vec::new();
    for is_scaled in [false, true] {
        let name = if is_scaled { "scaled" } else { "embedded" };
        let servers = is_scaled.then(Servers::start).transpose()?;
        let backend = servers.as_ref().map_or(Backend::Embedded, Servers::backend);
        let folder = process::folder()?;
        let runtime = tokio::runtime::Runtime::new()?;
        let [small, large] = runtime.block_on(decide_all(
            &backend,
            folder.path(),
            [few, many],
            effort.pushes.min(REPOSITORIES / 10),
        ))?;
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        for (tasks, Decided { pushes, bare }) in [(few, &small), (many, &large)] {
            rows.push(vec![
                name.to_owned(),
                tasks.to_string(),
                pushes.show(2),
                format!("{:.2}", pushes.quantile(0.95)),
                bare.show(2),
            ]);
        }
        let (median, ratio) =
            (small.pushes.median(), large.pushes.median() / small.pushes.median());
        report.row(Row {
            what: format!("decide a push that starts {TASKS_EACH} of {few} tasks, {name}"),
            reach: "≤ 5 ms; ≤ 1.25 × among ten times as many tasks",
            measured: format!("{median:.2} ms; {ratio:.2} ×"),
            reached: median <= REACH_MS && ratio <= RATIO,
        });
    }
    report.details(Details {
        title: "decide: one push, in ms".to_owned(),
        columns: [
            "store",
            "tasks",
            "decided in",
            "p95",
            "limit: one commit as large, with nothing read",
        ]
        .map(str::to_owned)
        .into(),
        rows,
    });
    Ok(())
}

/// The measurements among one number of tasks.
struct Decided {
    pushes: Samples,
    bare: Samples,
}

async fn decide_all(
    backend: &Backend,
    folder: &std::path::Path,
    sizes: [usize; 2],
    pushes: usize,
) -> Result<[Decided; 2]> {
    let stop = CancellationToken::new();
    let parts =
        Parts::on(backend.store(folder).await?, backend.queues(&stop).await?, folder).await?;
    parts.set_up("registry.test").await?;
    let scheduler = parts.scheduler();
    let mut first = 0;
    let mut measured = Vec::new();
    for (round, size) in sizes.into_iter().enumerate() {
        let began = Instant::now();
        // The later ones are of other repositories.
        let repositories = size / TASKS_EACH;
        filled::fill_tasks(&parts, first..size, first / TASKS_EACH..repositories).await?;
        first = size;
        say(format_args!("  {size} tasks, filled in {:.0} s", began.elapsed().as_secs_f64()));
        measured.push(decide_some(&parts, &scheduler, round, pushes).await?);
    }
    stop.cancel();
    let Ok(measured) = measured.try_into() else { anyhow::bail!("there are two sizes") };
    Ok(measured)
}

async fn decide_some(
    parts: &Parts,
    scheduler: &Scheduler,
    round: usize,
    pushes: usize,
) -> Result<Decided> {
    let (mut took, mut bare) = (Vec::new(), Vec::new());
    // Each push is the first to its repository: an earlier one would leave runs that are looked at.
    for number in round * pushes..(round + 1) * pushes {
        let event = push(parts, number).await?;
        events::notice(parts.store.as_ref(), &event).await?;
        let began = Instant::now();
        ensure!(scheduler.decide().await?, "the push was not decided");
        took.push(milliseconds(began.elapsed()));
        let began = Instant::now();
        commit_as_much(parts.store.as_ref(), number).await?;
        bare.push(milliseconds(began.elapsed()));
    }
    Ok(Decided { pushes: Samples::of(took), bare: Samples::of(bare) })
}

/// A push to a repository.
async fn push(parts: &Parts, number: usize) -> Result<Event> {
    let Source::Git(git) = filled::repository(number).parse()? else {
        anyhow::bail!("a repository's address is one of git");
    };
    let head = "b".repeat(40);
    let url: GitUrl = git.url;
    Ok(Event {
        id: format!("found/{number:024}/1/{head}").parse()?,
        registry: REGISTRY.parse()?,
        prefix: RunPrefix::nth(0),
        received: parts.store.now().await?,
        trace: None,
        kind: EventKind::Push(Push {
            hook: None,
            url,
            reference: PushedRef::Branch("main".parse()?),
            before: Some(HEAD.parse()?),
            after: Some(head.parse()?),
            default_branch: Some("main".parse()?),
            pusher: None,
            changed: ChangedFiles::default(),
            asks_to_skip: false,
        }),
    })
}

/// What the store needs for as much, if nobody decides anything.
async fn commit_as_much(store: &dyn Store, number: usize) -> Result<()> {
    let mut batch = Batch::default();
    for record in 0..RECORDS {
        let key = Key::new(Kind::Quarantine, format!("bench-{number}-{record}"));
        batch.put(key, vec![b'x'; RECORD]);
    }
    Ok(store.commit(batch).await?)
}
