//! The processes of a round, and their faults.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use gantry_tests::installation::Program;
use gantry_tests::role::{self, Role};
use gantry_tests::servers::free_port;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::Signal;

use super::environment::{Environment, Pace, now};
use super::plan::{Fault, Kind};
use super::report::Played;
use super::servers::{Servers, Side};
use crate::base_images;

const INGRESSES: usize = 2;
const SCHEDULERS: usize = 2;
const WORKERS: usize = 3;

/// Two ingresses, two schedulers, three workers.
pub(crate) struct Roles {
    ingresses: Vec<Role>,
    schedulers: Vec<Role>,
    workers: Vec<Role>,
    addresses: Vec<SocketAddr>,
}

impl Roles {
    /// Starts all processes concurrently, and waits until they are ready. Workers have a scripted engine for these
    /// repositories. They and the schedulers have a scripted registry.
    pub(crate) async fn start(
        environment: &Environment,
        servers: &Servers,
        seed: u64,
        pace: Option<Pace>,
        repositories: &[String],
    ) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        // A worker without a fixed name is a new one after each start; both cases should occur.
        let is_named = pace.is_none() || random.random();
        let mut roles = Self {
            ingresses: Vec::new(),
            schedulers: Vec::new(),
            workers: Vec::new(),
            addresses: Vec::new(),
        };
        for number in 0..INGRESSES {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let mut settings = environment.settings(servers, Side::Others, pace);
            settings.push(("server.listen", format!("\"{address}\"")));
            let folder = environment.path().join(format!("ingress-{number}"));
            roles.ingresses.push(Role::new(folder, program("ingress"), &settings)?);
            roles.addresses.push(address);
        }
        for number in 0..SCHEDULERS {
            let settings = environment.settings(servers, Side::Others, pace);
            let folder = environment.path().join(format!("scheduler-{number}"));
            let mut program = scripted("scheduler", &environment.registry(), seed, &[]);
            program.environment = base_images::environment();
            roles.schedulers.push(Role::new(folder, program, &settings)?);
        }
        for number in 0..WORKERS {
            let mut settings = environment.settings(servers, Side::Workers, pace);
            if is_named {
                settings.push(("worker.name", format!("\"{}\"", worker_name(number))));
            }
            let folder = environment.path().join(worker_name(number));
            let seed = random.random();
            let program = scripted("worker", &environment.registry(), seed, repositories);
            roles.workers.push(Role::new(folder, program, &settings)?);
        }
        for role in roles.all() {
            role.spawn()?;
        }
        for role in roles.all() {
            role.until_ready().await?;
        }
        Ok(roles)
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Role> {
        self.ingresses.iter_mut().chain(&mut self.schedulers).chain(&mut self.workers)
    }

    /// The addresses of the ingresses.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The worker with this name, if workers have fixed names.
    pub(crate) fn worker(&mut self, name: &str) -> Option<&mut Role> {
        let number = (0..WORKERS).find(|number| worker_name(*number) == name)?;
        self.workers.get_mut(number)
    }

    /// Checks that all processes are running.
    pub(crate) fn live(&mut self) -> Result<()> {
        self.all().try_for_each(|role| role.lives())
    }

    /// The end of each process's output.
    pub(crate) fn last_words(&self) -> String {
        let all = [
            ("ingress", &self.ingresses),
            ("scheduler", &self.schedulers),
            ("worker", &self.workers),
        ];
        let words = all.iter().flat_map(|(name, roles)| {
            let said = roles.iter().enumerate();
            said.map(move |(number, role)| format!("--- {name} {number}\n{}\n", role.last_words()))
        });
        words.collect()
    }

    /// Plays these faults in sequence.
    pub(crate) async fn suffer(&mut self, faults: &[Fault]) -> Result<Vec<Played>> {
        let mut played = Vec::new();
        for fault in faults {
            tokio::time::sleep(fault.after).await;
            let from = now();
            self.happen(fault).await.with_context(|| fault.kind.to_string())?;
            played.push(Played { kind: fault.kind, from, until: now() });
        }
        Ok(played)
    }

    async fn happen(&mut self, fault: &Fault) -> Result<()> {
        match fault.kind {
            Kind::KilledIngress => kill(&mut self.ingresses, fault).await,
            Kind::KilledScheduler => kill(&mut self.schedulers, fault).await,
            Kind::KilledWorker => kill(&mut self.workers, fault).await,
            Kind::PausedWorker => between(&self.workers, fault, Signal::STOP, Signal::CONT).await,
            Kind::PausedScheduler => {
                between(&self.schedulers, fault, Signal::STOP, Signal::CONT).await
            }
            Kind::EngineAway => between(&self.workers, fault, Signal::USR1, Signal::USR2).await,
            Kind::RollingRestart => {
                for role in self.all() {
                    role.terminate().await?;
                    role.spawn()?;
                    role.until_ready().await?;
                }
                Ok(())
            }
            Kind::KilledBroker
            | Kind::BrokerAway
            | Kind::WipedBroker
            | Kind::BrokerWithoutMemory
            | Kind::PausedBroker
            | Kind::BrokerCut
            | Kind::BrokerHalfOpen
            | Kind::BrokerSlow
            | Kind::KilledStore
            | Kind::PausedStore
            | Kind::StoreAway
            | Kind::StoreCut
            | Kind::StoreHalfOpen
            | Kind::StoreSlow => unreachable!("{} happens to a server", fault.kind),
        }
    }
}

async fn kill(roles: &mut [Role], fault: &Fault) -> Result<()> {
    let role = &mut roles[fault.victim % roles.len()];
    role.kill().await?;
    tokio::time::sleep(fault.lasts).await;
    role.spawn()?;
    role.until_ready().await
}

async fn between(roles: &[Role], fault: &Fault, begin: Signal, end: Signal) -> Result<()> {
    let role = &roles[fault.victim % roles.len()];
    role.signal(begin)?;
    tokio::time::sleep(fault.lasts).await;
    role.signal(end)
}

fn worker_name(number: usize) -> String {
    format!("worker-{number}")
}

/// `gantry` itself.
fn program(role: &str) -> Program {
    Program { path: role::gantry(), arguments: vec![role.to_owned()], environment: Vec::new() }
}

/// A role with scripted parts.
fn scripted(role: &str, registry: &Path, seed: u64, repositories: &[String]) -> Program {
    let first = [role.to_owned(), registry.display().to_string(), seed.to_string()];
    Program {
        path: role::program("gantry-scripted-role"),
        arguments: first.into_iter().chain(repositories.iter().cloned()).collect(),
        environment: Vec::new(),
    }
}
