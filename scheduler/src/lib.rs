//! Turns undecided events into runs and waiting runs into ready ones, reports runs to code hosts, tells of them by
//! notifications, and recovers what was lost on the way.
//!
//! In: the store's undecided events, the runs, the clock. Out: decisions, ready runs, reports, messages, doorbells. Any
//! number of schedulers may run: if two do the same thing at once, one commit succeeds and the other conflicts and is
//! retried.

#![warn(missing_docs)]

mod admission;
mod asking;
mod base_images;
mod beside;
mod decider;
mod figures;
mod keeper;
mod legs;
mod logins;
mod notifier;
mod outbox;
mod provisioner;
mod reconcile;
mod resolver;
mod scheduler;
mod secrets;
mod stranded;
mod sweeper;
mod ticking;
mod timers;

pub use base_images::{BaseImageSettings, ImageLooks};
pub use decider::Asks;
pub use keeper::{Keeper, Retention};
pub use notifier::Posts;
pub use outbox::Sends;
pub use provisioner::Provisions;
pub use reconcile::Looks;
pub use scheduler::{Scheduler, SchedulerSettings};
pub use secrets::VaultReads;
pub use sweeper::Sweeper;
