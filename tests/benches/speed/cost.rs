//! The cost of a hook and of a run: the processor time of every process involved, and the number of commands to Redis.
//! Other load on the machine affects these figures little.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::Effort;
use crate::accept;
use crate::composition::{Parts, REGISTRY};
use crate::load;
use crate::memory;
use crate::process::{self, Server};
use crate::report::{Details, Report, say};
use crate::role::Role;
use crate::samples::Samples;
use crate::servers::Servers;
use crate::stored;
use crate::take;

const CONNECTIONS: u64 = 16;

/// The processes involved, in the order of the table.
const ROLES: [(Role, &str); 3] =
    [(Role::Ingress, "ingress"), (Role::Scheduler, "scheduler"), (Role::Worker, "worker")];
const SERVERS: [&str; 2] = ["Redis", "RabbitMQ"];
const PROCESSES: usize = ROLES.len() + SERVERS.len();

/// Long enough for all periodic work.
const IDLE: Duration = Duration::from_secs(20);

/// Until earlier work is finished.
const SETTLE: Duration = Duration::from_secs(8);

/// An installation in the scaled mode, with separate servers.
struct Installation {
    servers: Servers,
    roles: Vec<Server>,
    processes: [u32; PROCESSES],
}

/// The resources that all processes have used since their start.
struct Used {
    processor: [Duration; PROCESSES],
    commands: f64,
}

/// The cost of one item: processor time in milliseconds, and commands.
struct Cost {
    processor_ms: [f64; PROCESSES],
    commands: f64,
}

/// Measures a hook until its decision, a run from waiting to its end, and a second of idling.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let columns = [
        "a hook of 8 KiB, accepted and decided",
        "a run, from waiting to its end, on a scripted engine",
        "a second of rest",
    ];
    let mut all = columns.map(|_| Vec::new());
    for round in 1..=effort.rounds {
        let folder = process::folder()?;
        let installation = Installation::start(folder.path())?;
        let works = [Installation::take_hooks, Installation::build_runs, Installation::rest];
        for ((work, what), costs) in works.into_iter().zip(columns).zip(&mut all) {
            std::thread::sleep(SETTLE);
            let before = installation.used()?;
            let count = work(&installation, effort, folder.path())?;
            let cost = installation.used()?.since(&before, count)?;
            let total: f64 = cost.processor_ms.iter().sum();
            say(format_args!("  round {round}: {total:.2} ms, {what}"));
            costs.push(cost);
        }
    }
    let row = |name: &str, digits: usize, of: &dyn Fn(&Cost) -> f64| {
        let cells = all.iter().map(|costs| Samples::of(costs.iter().map(of)).show(digits));
        std::iter::once(name.to_owned()).chain(cells).collect::<Vec<_>>()
    };
    let names = ROLES.iter().map(|(_, name)| *name).chain(SERVERS);
    let mut rows: Vec<_> = names
        .enumerate()
        .map(|(place, name)| row(name, 2, &|cost| cost.processor_ms[place]))
        .collect();
    rows.push(row("all of them", 2, &|cost| cost.processor_ms.iter().sum()));
    rows.push(row("commands that Redis is sent", 1, &|cost| cost.commands));
    report.details(Details {
        title: "cost, scaled: milliseconds of processor time".to_owned(),
        columns: std::iter::once("").chain(columns).map(str::to_owned).collect(),
        rows,
    });
    Ok(())
}

impl Installation {
    fn start(folder: &Path) -> Result<Self> {
        let servers = Servers::with_own_broker()?;
        let start = |(role, _): (Role, _)| role.start_on(folder, &servers.backend());
        let roles = ROLES.into_iter().map(start).collect::<Result<Vec<_>>>()?;
        let mut processes = [0; PROCESSES];
        let pids =
            roles.iter().map(Server::pid).chain([servers.redis_pid()?, servers.broker_pid()?]);
        processes.iter_mut().zip(pids).for_each(|(place, pid)| *place = pid);
        Ok(Self { servers, roles, processes })
    }

    fn used(&self) -> Result<Used> {
        let mut processor = [Duration::ZERO; PROCESSES];
        for (time, pid) in processor.iter_mut().zip(self.processes) {
            *time = process::processor_time(pid)?;
        }
        let commands = self.servers.redis_info("stats", "total_commands_processed")?.parse()?;
        Ok(Used { processor, commands })
    }

    fn take_hooks(&self, effort: Effort, folder: &Path) -> Result<usize> {
        let hook = accept::signed_push()?;
        load::send_all(self.roles[0].address, &hook, CONNECTIONS, effort.costs[0] as u64, 202)?;
        self.with_parts(folder, async |parts| memory::until_decided(parts).await)?;
        Ok(effort.costs[0])
    }

    fn build_runs(&self, effort: Effort, folder: &Path) -> Result<usize> {
        let count = effort.costs[1];
        self.with_parts(folder, async |parts| {
            stored::create_waiting(parts, &REGISTRY.parse()?, count).await?;
            take::until_idle(parts).await
        })?;
        Ok(count)
    }

    #[expect(clippy::unused_self, reason = "it is one of the works")]
    fn rest(&self, _: Effort, _: &Path) -> Result<usize> {
        std::thread::sleep(IDLE);
        Ok(usize::try_from(IDLE.as_secs())?)
    }

    fn with_parts(
        &self,
        folder: &Path,
        work: impl AsyncFnOnce(&Parts) -> Result<()>,
    ) -> Result<()> {
        let stop = CancellationToken::new();
        Runtime::new()?.block_on(async {
            let parts = Parts::open_on(&self.servers.backend(), folder, &stop).await?;
            work(&parts).await
        })
    }
}

impl Used {
    /// The cost per item, for `count` items.
    fn since(&self, before: &Self, count: usize) -> Result<Cost> {
        ensure!(count > 0, "nothing was done");
        let count = f64::from(u32::try_from(count)?);
        let mut processor_ms = [0.0; PROCESSES];
        for (place, cost) in processor_ms.iter_mut().enumerate() {
            let took = self.processor[place].saturating_sub(before.processor[place]);
            *cost = took.as_secs_f64() * 1e3 / count;
        }
        Ok(Cost { processor_ms, commands: (self.commands - before.commands) / count })
    }
}
