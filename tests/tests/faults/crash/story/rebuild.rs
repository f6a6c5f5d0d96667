//! The story of a base image: one task pushes it, another is built on it, and a push to the first changes both.

use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};
use gantry_domain::run::{Run, RunStatus};
use gantry_domain::wave::{NodeTask, WaveState};
use gantry_seams::runs::{self, RunFilter};
use gantry_seams::waves;
use gantry_tests::git_server::TestRepository;
use gantry_tests::kept_registry;

use super::{QUIET_WITHIN, Scene};
use crate::crash::Crashes;
use crate::evidence::{self, MANY};
use crate::parts::Parts;
use crate::round::{create_task, quiet};

/// The task that pushes the base image.
pub(super) const BASE: &str = "base";

/// The task that is built on it.
pub(super) const WEB: &str = "web";

impl Scene {
    /// Builds both tasks once, then pushes to the base.
    pub(super) async fn rebuild_and_crash(
        &mut self,
        crashes: Crashes,
        repository: &Mutex<TestRepository>,
    ) -> Result<()> {
        self.push(repository, 0).await?;
        self.built().await?;
        let dockerfile = Parts::Scripted.dockerfile("0.3");
        let dockerfile = dockerfile.replace(kept_registry::BASE, &self.tasks[0].latest);
        repository.lock().unwrap().commit(WEB, &[("Dockerfile", &dockerfile)])?;
        create_task(&self.site.client, &self.clone_url, &self.tasks[1]).await?;
        self.built().await?;
        self.push(repository, 1).await?;
        self.built().await?;
        self.site.restart(crashes).await?;
        self.push_and_crash(crashes, repository).await?;
        self.built().await
    }

    /// Waits until nothing is left to build.
    async fn built(&self) -> Result<()> {
        let store = self.site.store.as_ref();
        quiet("build all", QUIET_WITHIN, || async {
            let mut open = evidence::open(store).await?;
            open.extend(evidence::unbuilt(store).await?);
            Ok(open)
        })
        .await
    }

    /// The push has led to one run of each task, the second by a wave that is over, on what the base's tag is now.
    pub(super) async fn rebuilt_once(&mut self) -> Result<()> {
        let store = self.site.store.as_ref();
        let mut all = runs::list(store, &RunFilter::default(), None, MANY).await?;
        all.sort_by_key(|run| run.id.number());
        let names: Vec<_> = all.iter().filter_map(name).collect();
        ensure!(names == [BASE, WEB, BASE, WEB], "the runs are of {names:?}");
        for run in &all {
            ensure!(run.status() == RunStatus::Succeeded, "{} is {:?}", run.id, run.state);
        }
        let nodes: Vec<NodeTask> = all.iter().filter_map(Run::stands_for_task).collect();
        let open = waves::nodes(store, &nodes).await?;
        ensure!(nodes.len() == all.len() && open.is_empty(), "there are nodes: {open:?}");

        let web = all.pop().context("there are four runs")?;
        let product = web.state.done().and_then(|done| done.outcome.product());
        let used = product.map(|product| product.bases.iter().map(|it| it.digest.to_string()));
        let used: Vec<String> = used.into_iter().flatten().collect();
        let base = self.site.tag(&self.tasks[0].latest.parse()?);
        ensure!(used.iter().eq(&base), "{} used {used:?}, and its base is {base:?}", web.id);
        let found = waves::list(store, web.id.prefix(), None, MANY).await?;
        let ended = found.iter().filter(|wave| matches!(wave.state, WaveState::Done { .. }));
        let ended: Vec<_> = ended.map(|wave| wave.id).collect();
        let is_one = found.len() == 1 && ended.first() == web.cause.wave().as_ref();
        ensure!(is_one, "{} was started by {}, and there are {found:?}", web.id, web.cause);

        self.judge().await
    }
}

fn name(run: &Run) -> Option<String> {
    Some(run.task.as_ref()?.name.to_string())
}
