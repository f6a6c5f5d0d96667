//! Doorbells over RabbitMQ 3.10 or later, for roles in separate processes.
//!
//! In: [`AmqpOptions`]. Out: [`gantry_seams::queue::Queues`], and the state of the broker ([`AmqpQueues::state`]). Does
//! not interpret messages: it encodes any type as JSON.
//!
//! - **Two connections**, each kept open by its own task (`link`). A broker in alarm stops reading from connections
//!   that publish; claims continue on the other one.
//! - **Own recovery instead of lapin's.** Lapin's knows one address, gives up after some tries and replays earlier
//!   declarations. This one tries all addresses for as long as it takes, and declares objects on each new connection
//!   when they are used (`topology`), so that a broker with an empty disk works too.
//! - **One publishing channel per queue.** Lapin assigns a returned message to the next confirm on its channel, and
//!   confirms are pipelined. This way it can only be one for the same queue (`publisher`).
//! - **A consumer exists only while somebody waits** (`consumer`), so that a busy worker holds no doorbell that another
//!   one could take.

#![warn(missing_docs)]

mod backoff;
mod consumer;
mod dial;
mod error;
mod fanout;
mod link;
mod message;
mod options;
mod publisher;
mod queues;
mod topology;

pub use error::ConnectError;
pub use fanout::AmqpFanout;
pub use options::{Address, AmqpOptions, InvalidUrl};
pub use queues::{AmqpQueue, AmqpQueues};
