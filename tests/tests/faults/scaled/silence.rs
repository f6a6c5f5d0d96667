//! A worker is killed with all intervals at their defaults: another worker has its run within a time limit.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gantry_seams::runs;
use tokio_util::sync::CancellationToken;

use super::report::Report;
use super::round::Round;
use super::verdict;

/// The longest time until another worker has the run.
const LEASED_AGAIN_WITHIN: Duration = Duration::from_secs(35);

/// The time limit until a worker has a run.
const BUSY_WITHIN: Duration = Duration::from_secs(60);

const LOOK: Duration = Duration::from_millis(50);

pub(crate) async fn play(seed: u64) -> Report {
    let began = Instant::now();
    let mut report = Report::new(seed);
    match Round::set_up(seed, 1, None).await {
        Ok(mut round) => {
            if let Err(error) = round.silence(seed, &mut report).await {
                report.fault(format!("{error:#}"));
                report.note(round.roles.last_words());
            }
        }
        Err(error) => report.fault(format!("it could not be set up: {error:#}")),
    }
    report.took(began.elapsed());
    report
}

impl Round {
    async fn silence(&mut self, seed: u64, report: &mut Report) -> Result<()> {
        let branches: Vec<String> = self.tasks.iter().map(|task| task.branch.clone()).collect();
        let stop = CancellationToken::new();
        let sending = self.driver.send(&branches[..1], seed, &stop);
        let killing = async {
            let store = self.store.as_ref();
            let began = Instant::now();
            let (run, worker) = loop {
                let leased = runs::leased(store, 1).await?.pop();
                let held = leased.and_then(|run| Some((run.id, run.state.lease()?.worker.clone())));
                if let Some(held) = held {
                    break held;
                }
                ensure!(began.elapsed() < BUSY_WITHIN, "no worker takes a run");
                tokio::time::sleep(LOOK).await;
            };
            stop.cancel();
            let worker = self.roles.worker(worker.as_str()).context("it is one of ours")?;
            worker.kill().await?;
            let silent = Instant::now();
            loop {
                let run = runs::find(store, run).await?.context("it is there")?;
                ensure!(run.state.done().is_none(), "run {} ended before its worker", run.id);
                if run.state.lease().is_some_and(|lease| lease.attempt > 1) {
                    break;
                }
                ensure!(silent.elapsed() < 2 * LEASED_AGAIN_WITHIN, "nobody takes run {}", run.id);
                tokio::time::sleep(LOOK).await;
            }
            let waited = silent.elapsed();
            worker.spawn()?;
            anyhow::Ok(waited)
        };
        let (sent, silence) = tokio::join!(sending, killing);
        let (mut sent, waited) = (sent?, silence?);
        report.figures.push(format!(
            "worker killed, its run leased again {:.1} s later, with the default lease",
            waited.as_secs_f64()
        ));
        ensure!(waited <= LEASED_AGAIN_WITHIN, "a run was leased again only after {waited:?}");
        self.come_to_rest(&mut sent).await?;
        verdict::judge(self, &sent, &[], report).await
    }
}
