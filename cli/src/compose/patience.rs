//! Waits at startup for servers that do not answer yet.

use std::future::Future;
use std::time::Duration;

use anyhow::Result;
use gantry_ops::backoff::Backoff;
use gantry_ops::health::Health;
use gantry_ops::said::Said;
use tokio::time::Instant;

/// The deadline for startup, and where to report what it waits for.
pub(super) struct Patience<'a> {
    health: &'a Health,
    patience: Duration,
    deadline: Instant,
}

impl<'a> Patience<'a> {
    /// The time begins now.
    pub(super) fn new(health: &'a Health, patience: Duration) -> Self {
        Self { health, patience, deadline: Instant::now() + patience }
    }

    /// Where waiting is reported.
    pub(super) fn health(&self) -> &Health {
        self.health
    }

    /// Retries `ask` for `part` until it succeeds or fails permanently.
    pub(super) async fn wait<T, E, F>(
        &self,
        part: &'static str,
        is_temporary: impl Fn(&E) -> bool,
        ask: impl Fn() -> F,
    ) -> Result<T>
    where
        E: Into<anyhow::Error>,
        F: Future<Output = Result<T, E>>,
    {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let mut said = Said::default();
        loop {
            let error: anyhow::Error = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) if is_temporary(&error) => error.into(),
                Err(error) => return Err(error.into()),
            };
            let why = format!("{error:#}");
            self.health.awaits(part, &why);
            let wait = backoff.wait();
            if Instant::now() + wait > self.deadline {
                let patience = self.patience;
                return Err(error.context(format!(
                    "the {part} was not there within {patience:?}, as long as `patience` says"
                )));
            }
            if said.is_news(&why) {
                tracing::warn!("the {part} is not there yet: {why}");
            }
            tokio::time::sleep(wait).await;
        }
    }
}
