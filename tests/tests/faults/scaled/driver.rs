//! Pushes at a steady rate, delivered as by a code host and its operator: to the ingresses in turn, again after no
//! answer or a 503, and sometimes twice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use futures_util::future::try_join_all;
use gantry_domain::timestamp::Timestamp;
use gantry_tests::git_server::TestRepository;
use gantry_tests::installation::Client;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::StatusCode;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::environment::now;
use crate::ledger::{Delivery, Hook};
use crate::round::move_branch;

/// The pause between two pushes to one branch.
const EVERY: Duration = Duration::from_secs(3);

/// The pause before a delivery is sent again.
const SEND_AGAIN: Duration = Duration::from_millis(300);

/// An answer, or that there was none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) asked: Timestamp,
    pub(crate) at: Timestamp,
    pub(crate) status: Option<StatusCode>,
}

/// A delivery that was accepted.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) delivery: Delivery,
    /// When it was accepted.
    pub(crate) accepted: Timestamp,
}

/// The sender.
pub(crate) struct Driver {
    pub(crate) ingresses: Vec<Client>,
    pub(crate) hook: Hook,
    pub(crate) clone_url: String,
    pub(crate) repository: Arc<Mutex<TestRepository>>,
    turn: AtomicUsize,
    answers: Mutex<Vec<Answer>>,
}

impl Driver {
    pub(crate) fn new(
        ingresses: Vec<Client>,
        hook: Hook,
        clone_url: String,
        repository: TestRepository,
    ) -> Self {
        let repository = Arc::new(Mutex::new(repository));
        Self {
            ingresses,
            hook,
            clone_url,
            repository,
            turn: AtomicUsize::new(0),
            answers: Mutex::default(),
        }
    }

    /// Pushes to all branches until it is stopped; returns once everything is accepted.
    pub(crate) async fn send(
        &self,
        branches: &[String],
        seed: u64,
        stop: &CancellationToken,
    ) -> Result<Vec<Sent>> {
        let sending = branches.iter().zip(0..).map(|(branch, number)| {
            let random = StdRng::seed_from_u64(seed.wrapping_mul(1000) + number);
            self.send_to(branch, random, stop)
        });
        Ok(try_join_all(sending).await?.into_iter().flatten().collect())
    }

    /// All answers so far.
    pub(crate) fn answers(&self) -> Vec<Answer> {
        self.answers.lock().unwrap().clone()
    }

    /// Sends everything again.
    pub(crate) async fn repeat(&self, sent: &mut [Sent]) -> Result<()> {
        for (number, Sent { delivery, .. }) in sent.iter_mut().enumerate() {
            delivery.repeat(&self.ingresses[number % self.ingresses.len()], &self.hook).await?;
        }
        Ok(())
    }

    async fn send_to(
        &self,
        branch: &str,
        mut random: StdRng,
        stop: &CancellationToken,
    ) -> Result<Vec<Sent>> {
        let mut sent = Vec::new();
        let mut next = Instant::now() + random.random_range(Duration::ZERO..EVERY);
        let ids: u64 = random.random();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(sent),
                () = sleep_until(next) => next += EVERY,
            }
            let push = {
                let (repository, branch) = (Arc::clone(&self.repository), branch.to_owned());
                tokio::task::spawn_blocking(move || move_branch(&repository, &branch)).await??
            };
            let id = format!("{ids:016x}-{branch}-{}", sent.len());
            let mut delivery = Delivery::new(id, &self.clone_url, push);
            if random.random_ratio(1, 4) {
                self.send_twice(&mut delivery).await?;
            }
            self.send_until_accepted(&mut delivery).await?;
            sent.push(Sent { delivery, accepted: now() });
        }
    }

    /// Sends it twice concurrently, to different ingresses.
    async fn send_twice(&self, delivery: &mut Delivery) -> Result<()> {
        let mut twin = delivery.clone();
        let (one, other) = tokio::join!(self.ask(delivery), self.ask(&mut twin));
        one.and(other)?;
        delivery.answers += twin.answers;
        delivery.events.extend(twin.events);
        Ok(())
    }

    async fn send_until_accepted(&self, delivery: &mut Delivery) -> Result<()> {
        while delivery.answers == 0 {
            self.ask(delivery).await?;
            if delivery.answers == 0 {
                tokio::time::sleep(SEND_AGAIN).await;
            }
        }
        Ok(())
    }

    /// Sends it to the next ingress, and records the answer.
    async fn ask(&self, delivery: &mut Delivery) -> Result<Option<StatusCode>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let asked = now();
        let status = delivery.ask(&self.ingresses[turn % self.ingresses.len()], &self.hook).await?;
        self.answers.lock().unwrap().push(Answer { asked, at: now(), status });
        Ok(status)
    }
}
