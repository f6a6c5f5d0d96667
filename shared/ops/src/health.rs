//! Health checks of the parts that a process depends on.
//!
//! In: the parts, each with a probe. Out: a [`Report`], for `/readyz` and for people. Knows no store, queue or engine:
//! they are represented by their probes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::join_all;
use serde::ser::{Serialize, SerializeMap, Serializer};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The time limit of one probe.
const PROBE_WITHIN: Duration = Duration::from_secs(2);

/// How long a result is shared by all callers. They need no token, and each probe is a request to another server.
const GOOD_FOR: Duration = Duration::from_millis(500);

type Probe =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// Whether a process works without a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It does not work.
    Needed,
    /// It works, but later or more slowly.
    Helpful,
}

/// The parts of one process. Clones share them.
#[derive(Clone, Default)]
pub struct Health {
    parts: Arc<RwLock<Vec<Part>>>,
    latest: Arc<Mutex<Option<(Instant, Report)>>>,
}

#[derive(Clone)]
struct Part {
    name: &'static str,
    need: Need,
    known: Known,
}

#[derive(Clone)]
enum Known {
    Absent { why: String },
    Probed(Probe),
}

impl Health {
    /// Registers a part that the start waits for. Until [`Health::watches`] replaces it, it counts as missing because
    /// of `why`.
    pub fn awaits(&self, part: &'static str, why: impl Into<String>) {
        let known = Known::Absent { why: why.into() };
        self.put(Part { name: part, need: Need::Needed, known });
    }

    /// Registers a part that is available, with a probe that returns an error when it is not.
    pub fn watches<F>(
        &self,
        part: &'static str,
        need: Need,
        probe: impl Fn() -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let probe: Probe = Arc::new(move || Box::pin(probe()));
        self.put(Part { name: part, need, known: Known::Probed(probe) });
    }

    /// Probes all parts at once, for at most two seconds. Callers within half a second share a result.
    pub async fn check(&self) -> Report {
        let mut latest = self.latest.lock().await;
        if let Some((_, report)) = latest.as_ref().filter(|(at, _)| at.elapsed() < GOOD_FOR) {
            return report.clone();
        }
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner).clone();
        let report = Report { parts: join_all(parts.into_iter().map(Part::check)).await };
        *latest = Some((Instant::now(), report.clone()));
        report
    }

    fn put(&self, part: Part) {
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        match parts.iter_mut().find(|known| known.name == part.name) {
            Some(known) => *known = part,
            None => parts.push(part),
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_list().entries(parts.iter().map(|part| part.name)).finish()
    }
}

impl Part {
    async fn check(self) -> Checked {
        let condition = match self.known {
            Known::Absent { why } => Condition::MissingBecause(why),
            Known::Probed(probe) => match tokio::time::timeout(PROBE_WITHIN, probe()).await {
                Ok(Ok(())) => Condition::Ready,
                Ok(Err(why)) => Condition::MissingBecause(why),
                Err(_) => {
                    Condition::MissingBecause(format!("it did not answer within {PROBE_WITHIN:?}"))
                }
            },
        };
        Checked { name: self.name, need: self.need, condition }
    }
}

/// The state of all parts at one check. Its JSON is `{"store":"ready","queue":"missing: …"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    parts: Vec<Checked>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Checked {
    name: &'static str,
    need: Need,
    condition: Condition,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Ready,
    Missing,
    MissingBecause(String),
}

impl Report {
    /// Whether all needed parts are available.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.parts
            .iter()
            .all(|part| part.condition == Condition::Ready || part.need == Need::Helpful)
    }

    /// Whether `part` is available, or why not; `None` if the process has no such part.
    #[must_use]
    pub fn part(&self, part: &str) -> Option<Result<(), &str>> {
        let found = self.parts.iter().find(|known| known.name == part)?;
        Some(match &found.condition {
            Condition::Ready => Ok(()),
            Condition::Missing => Err("it is missing"),
            Condition::MissingBecause(why) => Err(why),
        })
    }

    /// The report without reasons, which contain addresses: for callers without a token.
    #[must_use]
    pub fn for_strangers(mut self) -> Self {
        for part in &mut self.parts {
            if part.condition != Condition::Ready {
                part.condition = Condition::Missing;
            }
        }
        self
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.condition {
            Condition::Ready => f.write_str("ready"),
            Condition::Missing => f.write_str("missing"),
            Condition::MissingBecause(why) => write!(f, "missing: {why}"),
        }
    }
}

/// One line for each part, for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| writeln!(f, "{}: {part}", part.name))
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.parts.len()))?;
        for part in &self.parts {
            map.serialize_entry(part.name, &part.to_string())?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn missing_parts_are_named_and_only_needed_ones_count() {
        let health = Health::default();
        health.awaits("store", "connection refused");
        health.watches("queue", Need::Helpful, || async { Err("it is away".to_owned()) });
        let starting = health.check().await;
        assert!(!starting.is_ready());
        insta::assert_snapshot!(starting, @r"
        store: missing: connection refused
        queue: missing: it is away
        ");

        let health = Health::default();
        health.awaits("store", "connection refused");
        health.watches("store", Need::Needed, || async { Ok(()) });
        health.watches("queue", Need::Helpful, || async { Err("it is away".to_owned()) });
        let started = health.check().await;
        assert!(started.is_ready());
        assert_eq!(started.part("store"), Some(Ok(())));
        assert_eq!(started.part("queue"), Some(Err("it is away")));
        assert_eq!(started.part("engine"), None);
        let json = serde_json::to_string(&started).unwrap();
        assert_eq!(json, r#"{"store":"ready","queue":"missing: it is away"}"#);
        let json = serde_json::to_string(&started.for_strangers()).unwrap();
        assert_eq!(json, r#"{"store":"ready","queue":"missing"}"#);
    }

    #[tokio::test]
    async fn hanging_probes_time_out_concurrently() {
        let health = Health::default();
        health.watches("store", Need::Needed, std::future::pending);
        health.watches("engine", Need::Needed, std::future::pending);
        let began = tokio::time::Instant::now();
        let report = health.check().await;
        assert!(!report.is_ready());
        assert!(began.elapsed() < 2 * PROBE_WITHIN);
    }
}
