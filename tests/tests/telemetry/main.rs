//! The telemetry of gantry, as a trace collector and Prometheus receive it.

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
