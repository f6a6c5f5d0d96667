//! RabbitMQ fulfils the contract of doorbells, and gantry copes with its absence.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod connect;
mod contract;
mod messages;
mod proxy;
mod recovery;
mod rig;
mod slow {
    mod private;
}
