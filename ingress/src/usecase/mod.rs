//! The operations of the API, as functions over the seams.
//!
//! In: the caller as an [`Allowed`](crate::access::Allowed), and the request as texts of `gantry_api` or parsed values.
//! Out: records, or a refusal. Knows no HTTP: reading requests and writing answers is the business of `api`.

pub(crate) mod circles;
mod code_choice;
pub(crate) mod deliveries;
pub(crate) mod hooks;
pub(crate) mod images;
pub(crate) mod notifications;
pub(crate) mod paging;
mod recipe;
mod refused_credentials;
pub(crate) mod registries;
pub(crate) mod requests;
pub(crate) mod runs;
pub(crate) mod secrets;
mod senders;
pub(crate) mod simulation;
pub(crate) mod status;
mod task_change;
pub(crate) mod tasks;
pub(crate) mod tokens;
pub(crate) mod uploads;
pub(crate) mod waves;
pub(crate) mod webhooks;
pub(crate) mod workers;
