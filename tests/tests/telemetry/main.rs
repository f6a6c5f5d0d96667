//! What gantry tells of itself, as those hear it who listen: a trace collector, and Prometheus.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step of a test that cannot be done has failed"
)]

mod canary;
mod collector;
mod installation;
mod prometheus;

mod documents;
mod rules;
mod scrapes;
mod traces;
