//! The types of metrics. All series are created at the start, so counting is one atomic addition, and a scrape shows 0
//! instead of nothing before the first event.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gantry_domain::id::PoolName;
use prometheus::core::Collector;
use prometheus::{
    Gauge as Number, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts,
    Registry,
};

use super::labels::{Label as _, Labels, Waiting};

/// More pools than an installation has. Pools beyond this are counted together.
const MOST_POOLS: usize = 32;

/// The description of a metric, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// `gantry_<what>_<unit>`; counters end in `_total`.
    pub name: &'static str,
    /// The Prometheus type: counter, gauge, or histogram.
    pub kind: &'static str,
    /// What is counted or measured.
    pub help: &'static str,
    /// The labels, each with all possible values; an empty list means the names of pools.
    pub labels: Vec<(&'static str, Vec<&'static str>)>,
}

/// The metrics of the process, during registration.
pub(super) struct Table {
    pub(super) registry: Registry,
    pub(super) descriptions: Vec<Description>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { registry: Registry::new(), descriptions: Vec::new() }
    }

    pub(super) fn counter<L: Labels>(
        &mut self,
        name: &'static str,
        help: &'static str,
    ) -> Counter<L> {
        let metric = known(IntCounterVec::new(Opts::new(name, help), &L::names()));
        self.list::<L>(name, "counter", help, &metric);
        let series = L::all().iter().map(|words| metric.with_label_values(words)).collect();
        Counter { series, labels: PhantomData }
    }

    pub(super) fn gauge<L: Labels>(&mut self, name: &'static str, help: &'static str) -> Gauge<L> {
        let metric = known(GaugeVec::new(Opts::new(name, help), &L::names()));
        self.list::<L>(name, "gauge", help, &metric);
        Gauge { metric, labels: PhantomData }
    }

    pub(super) fn histogram<L: Labels>(
        &mut self,
        name: &'static str,
        help: &'static str,
        buckets: &[f64],
    ) -> Histogram<L> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let metric = known(HistogramVec::new(options, &L::names()));
        self.list::<L>(name, "histogram", help, &metric);
        let series = L::all().iter().map(|words| metric.with_label_values(words)).collect();
        Histogram { series, labels: PhantomData }
    }

    pub(super) fn by_pool(&mut self, name: &'static str, help: &'static str) -> ByPool {
        let metric = known(GaugeVec::new(Opts::new(name, help), &["pool"]));
        let labels = vec![("pool", Vec::new())];
        self.register(Description { name, kind: "gauge", help, labels }, &metric);
        ByPool { metric, shown: Mutex::default() }
    }

    pub(super) fn by_pool_and_reason(
        &mut self,
        name: &'static str,
        help: &'static str,
    ) -> ByPoolAndReason {
        let metric = known(GaugeVec::new(Opts::new(name, help), &["pool", Waiting::NAME]));
        let reasons = Waiting::ALL.iter().map(|reason| reason.word()).collect();
        let labels = vec![("pool", Vec::new()), (Waiting::NAME, reasons)];
        self.register(Description { name, kind: "gauge", help, labels }, &metric);
        ByPoolAndReason { metric, shown: Mutex::default() }
    }

    fn list<L: Labels>(
        &mut self,
        name: &'static str,
        kind: &'static str,
        help: &'static str,
        metric: &(impl Collector + Clone + 'static),
    ) {
        let all = L::all();
        let values = |place: usize| {
            let mut values: Vec<&'static str> = Vec::new();
            for value in all.iter().filter_map(|words| words.get(place)) {
                if !values.contains(value) {
                    values.push(value);
                }
            }
            values
        };
        let labels =
            L::names().into_iter().enumerate().map(|(place, name)| (name, values(place))).collect();
        self.register(Description { name, kind, help, labels }, metric);
    }

    fn register(&mut self, description: Description, metric: &(impl Collector + Clone + 'static)) {
        known(self.registry.register(Box::new(metric.clone())));
        self.descriptions.push(description);
    }
}

/// The table is static, and a test registers all of it.
fn known<T>(made: prometheus::Result<T>) -> T {
    match made {
        Ok(made) => made,
        Err(error) => unreachable!("the table of metrics has a mistake: {error}"),
    }
}

pub(super) struct Counter<L> {
    series: Vec<IntCounter>,
    labels: PhantomData<fn(L)>,
}

impl<L: Labels> Counter<L> {
    pub(super) fn add(&self, labels: L, how_many: u64) {
        if let Some(series) = self.series.get(labels.place()) {
            series.inc_by(how_many);
        }
    }
}

/// A gauge, shown once it was set.
pub(super) struct Gauge<L> {
    metric: GaugeVec,
    labels: PhantomData<fn(L)>,
}

impl<L: Labels> Gauge<L> {
    pub(super) fn set(&self, labels: L, value: f64) {
        if let Some(words) = L::all().get(labels.place()) {
            self.metric.with_label_values(words).set(value);
        }
    }
}

/// A histogram of durations in seconds.
pub(super) struct Histogram<L> {
    series: Vec<prometheus::Histogram>,
    labels: PhantomData<fn(L)>,
}

impl<L: Labels> Histogram<L> {
    pub(super) fn observe(&self, labels: L, took: Duration) {
        if let Some(series) = self.series.get(labels.place()) {
            series.observe(took.as_secs_f64());
        }
    }
}

/// A gauge for each pool.
pub(super) struct ByPool {
    metric: GaugeVec,
    shown: Mutex<BTreeSet<PoolName>>,
}

impl ByPool {
    /// Replaces all values. A pool without a value is no longer shown.
    pub(super) fn set(&self, values: &BTreeMap<PoolName, f64>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let now: BTreeSet<PoolName> = values.keys().take(MOST_POOLS).cloned().collect();
        for pool in &now {
            let value = values.get(pool).copied().unwrap_or_default();
            self.metric.with_label_values(&[pool.as_str()]).set(value);
        }
        for pool in shown.difference(&now) {
            // An error means that it was already removed.
            let _gone = self.metric.remove_label_values(&[pool.as_str()]);
        }
        *shown = now;
    }
}

/// The number of waiting runs for each pool and reason.
pub(super) struct ByPoolAndReason {
    metric: GaugeVec,
    shown: Mutex<BTreeSet<PoolName>>,
}

impl ByPoolAndReason {
    /// Replaces all values. A pool without a value is no longer shown.
    pub(super) fn set(&self, values: &BTreeMap<(PoolName, Waiting), f64>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let named: BTreeSet<PoolName> = values.keys().map(|(pool, _)| pool.clone()).collect();
        let now: BTreeSet<PoolName> = named.into_iter().take(MOST_POOLS).collect();
        let series = |pool: &PoolName, reason: Waiting| -> Number {
            self.metric.with_label_values(&[pool.as_str(), reason.word()])
        };
        for pool in &now {
            for reason in Waiting::ALL {
                let value = values.get(&(pool.clone(), *reason)).copied().unwrap_or_default();
                series(pool, *reason).set(value);
            }
        }
        for pool in shown.difference(&now) {
            for reason in Waiting::ALL {
                // An error means that it was already removed.
                let _gone = self.metric.remove_label_values(&[pool.as_str(), reason.word()]);
            }
        }
        *shown = now;
    }
}
