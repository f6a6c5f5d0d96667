//! Ingress, scheduler and worker with separate connections to Redis, RabbitMQ and S3, and nothing else in common.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step of a test that cannot be done has failed"
)]

mod cancels;
mod ingress;
mod installation;
mod logs;
mod uploads;
