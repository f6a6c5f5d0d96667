//! The server as its users see it: over real sockets, with SQLite, in-process queues and a local object store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot go on must stop"
)]

mod access;
mod api;
mod approvals;
mod attacks;
mod base_trigger;
mod circles;
mod deliveries;
mod deltas;
mod generic;
mod hooks;
mod images;
mod insiders;
mod intake;
mod listing;
mod logs;
mod matrix;
mod overrides;
mod parts_of_sources;
mod payloads;
mod providers;
mod queue;
mod ready;
mod rig;
mod scans;
mod secrets;
mod ssh;
mod steps;
mod subscription;
mod timers;
mod tls;
mod webhooks;
mod wire;
mod words;
mod workers;

mod slow {
    mod subscription;
    mod timing;
    mod welch;
}
