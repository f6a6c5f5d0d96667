//! What all roles need for operation: settings, telemetry, health, secrets, back-off.

#![warn(missing_docs)]

pub mod aside;
pub mod backoff;
pub mod bundle;
pub mod health;
pub mod metrics;
pub mod process;
pub mod receiver;
pub mod said;
pub mod secret;
pub mod settings;
pub mod standard_webhooks;
pub mod telemetry;
pub mod terminal;
