//! What every role needs to be run well: settings, telemetry, secrets, back-off.

#![warn(missing_docs)]

pub mod backoff;
pub mod bundle;
pub mod secret;
pub mod settings;
pub mod telemetry;
