//! Receives webhooks: verifies, records and answers them.

mod body;
mod budget;
mod directory;
mod kept;
mod provider;
mod receive;
mod record;
mod replay;
mod tally;
mod trial;
mod verify;

pub(crate) use budget::ByteBudget;
pub(crate) use directory::HookDirectory;
pub(crate) use provider::descriptor;
pub use provider::meaning;
pub(crate) use receive::receive;
pub(crate) use replay::{find_body, replay};
pub(crate) use tally::HookTally;
pub(crate) use trial::send_test_delivery;
pub(crate) use verify::MOST_SECRETS;
