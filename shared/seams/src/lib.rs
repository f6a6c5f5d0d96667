//! Where the outside world begins, and the records that live there.
//!
//! Three traits, [`store::Store`], [`queue::Queue`] and [`blobs::Blobs`], each with two implementations and one contract
//! suite. Above the store stand the typed records, written once: each kind changes only through the named operations of
//! its module, which check what must hold and update every index in the same commit.

#![warn(missing_docs)]

pub mod blobs;
pub mod clock;
pub mod queue;
pub mod steps;
pub mod store;

pub mod archive;

mod codec;
mod collection;

pub mod decisions;
pub mod deliveries;
pub mod due;
pub mod events;
pub mod facts;
pub mod hooks;
pub mod image_users;
pub mod image_watches;
pub mod installation;
pub mod last_builds;
pub mod lineages;
pub mod logs;
pub mod messages;
pub mod notifications;
pub mod outbox;
pub mod place;
pub mod provisioning;
pub mod registries;
pub mod requests;
pub mod reseal;
mod retry;
pub mod runs;
pub mod secrets;
pub mod tags;
pub mod task_images;
pub mod tasks;
pub mod timers;
pub mod tokens;
pub mod uploads;
pub mod watches;
pub mod waves;
pub mod workers;

#[cfg(feature = "contract")]
pub mod contract;

pub use codec::Versioned;
pub use collection::CreateError;
pub use registries::AddError;
