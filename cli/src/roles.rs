//! `gantry ingress`, `gantry scheduler` and `gantry worker`: the roles as separate processes.

use anyhow::Result;
use gantry_ops::settings::Settings;
use gantry_worker::WorkerSettings;

use crate::args::{IngressRole, SchedulerRole, WorkerRole};
use crate::compose::{Role, Service};
use crate::environment::Environment;
use crate::exit::Exit;
use crate::serve::{self, Process};

pub(crate) async fn ingress(ingress: IngressRole, environment: &Environment) -> Result<Exit> {
    let settings = serve::read_settings(&ingress.settings, &ingress.flags(), environment)?;
    run(Role::Ingress, settings, environment).await
}

pub(crate) async fn scheduler(scheduler: SchedulerRole, environment: &Environment) -> Result<Exit> {
    let settings = serve::read_settings(&scheduler.settings, &[], environment)?;
    run(Role::Scheduler, settings, environment).await
}

pub(crate) async fn worker(worker: WorkerRole, environment: &Environment) -> Result<Exit> {
    let settings = serve::read_settings(&worker.settings, &worker.flags(), environment)?;
    run(Role::Worker, settings, environment).await
}

async fn run(role: Role, settings: Settings, environment: &Environment) -> Result<Exit> {
    serve::check_servers(role, &settings)?;
    let mut process = Process::begin(role, settings).await?;
    let (settings, health) = (process.settings.clone(), process.health.clone());
    let stop = process.stop.clone();
    let opening = Service::open(role, settings, environment, &health, &stop);
    let Some(mut service) = process.unless_stopped(opening).await? else { return Ok(Exit::Ok) };
    let (name, version) = (role.service(), env!("CARGO_PKG_VERSION"));
    match service.worker() {
        Some(WorkerSettings { id, pool, slots, .. }) => tracing::info!(
            "{name} {version} is up: worker {id} takes runs of pool {pool}, {slots} at once"
        ),
        None if role == Role::Ingress => {
            tracing::info!("{name} {version} is up at {}", service.local_url()?);
        }
        None => tracing::info!("{name} {version} is up"),
    }
    let parts = service.start(&stop);
    process.until_stopped(parts).await
}
