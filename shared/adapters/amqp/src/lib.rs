//! Doorbells over RabbitMQ 3.10 or later, for the roles as processes of their own.
//!
//! In: [`AmqpOptions`]. Out: [`gantry_seams::queue::Queues`], and whether the broker is there ([`AmqpQueues::state`]).
//! What a message means is not its business: it sees types that become JSON.
//!
//! - **Two connections**, each kept up by a loop of its own (`link`). A broker in alarm stops reading from connections
//!   that publish; claims go on over the other one.
//! - **Our own recovery, not lapin's.** Lapin's knows one address, gives up after so many tries and replays what was
//!   declared before; ours tries all addresses for as long as it takes and declares what is asked for on each new
//!   connection (`topology`), so that a broker with an empty disk is as good as the old one.
//! - **A queue has a publishing channel of its own.** Lapin hands a returned message to whichever confirm comes next on
//!   its channel, and confirms are pipelined; here it can only be one for the same queue (`publisher`).
//! - **A consumer exists only while somebody waits** (`consumer`), so that a busy worker holds no doorbell that
//!   another could take.

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
