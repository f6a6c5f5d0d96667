//! Commits to a repository that tasks watch, and sends a hook for each commit.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use gantry_domain::base_trigger::BaseImageTrigger;
use gantry_domain::id::RunPrefix;
use gantry_domain::task::{Status, Task};
use gantry_domain::trigger::SourceTrigger;
use gantry_seams::tasks;
use gantry_tests::git_server::{GitServer, TestRepository};

use crate::accept;
use crate::composition::{Parts, REGISTRY};
use crate::github;
use crate::load::{self, Webhook};
use crate::stored;

const NAME: &str = "hello";

/// Commits and sends hooks.
pub(crate) struct Pusher {
    ingress: SocketAddr,
    host: GitServer,
    repository: TestRepository,
    head: String,
}

impl Pusher {
    /// Creates a repository that `watching` tasks watch. Hooks are sent to this ingress.
    pub(crate) async fn begin(parts: &Parts, ingress: SocketAddr, watching: usize) -> Result<Self> {
        let host = GitServer::start().await?;
        let repository = host.repository(NAME)?;
        let head = repository.commit("main", &[("Dockerfile", "FROM scratch\n")])?;
        for number in 0..watching {
            create_task(parts, &host.url(NAME), number).await?;
        }
        Ok(Self { ingress, host, repository, head })
    }

    /// Pushes a commit, and returns it when its hook is answered.
    pub(crate) async fn push(&mut self) -> Result<&str> {
        let before = std::mem::take(&mut self.head);
        // This call blocks on git, and the git host runs in the same runtime.
        self.head =
            tokio::task::block_in_place(|| self.repository.commit("main", &[("before", &before)]))?;
        let body = github::push(&self.host.url(NAME), &before, &self.head)?;
        let hook = Webhook::push(&accept::path(), &github::signature(&body)?, &body);
        let status = load::send_one(self.ingress, &hook).await?;
        ensure!(status == 202, "a push was answered {status}");
        Ok(&self.head)
    }
}

async fn create_task(parts: &Parts, url: &str, number: usize) -> Result<()> {
    let now = parts.store.now().await?;
    let task = Task {
        id: format!("{REGISTRY}/{NAME}-{number}").parse()?,
        prefix: RunPrefix::nth(0),
        revision: 1,
        status: Status::Enabled,
        recipe: stored::build(format!("{url}#main").parse()?)?,
        source_trigger: Some(SourceTrigger::on_pushes("push")),
        base_image_trigger: Some(BaseImageTrigger::default()),
        timers: gantry_domain::timer::Timers::default(),
        git_token: None,
        reports: true,
        api_token: None,
        run_limit: None,
        concurrency_group: None,
        created: now,
        updated: now,
    };
    tasks::create(parts.store.as_ref(), &task).await?;
    Ok(())
}
