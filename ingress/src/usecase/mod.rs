//! What people and programs ask for: functions over the seams.
//!
//! In: who asks, as an [`Allowed`](crate::access::Allowed), and what, as texts of `gantry_api` or parsed values. Out: records, or
//! why not. Knows no HTTP: how a request is read and how an answer looks is the business of `api`, and of what else may
//! stand beside it.

mod code_choice;
pub(crate) mod deliveries;
pub(crate) mod hooks;
pub(crate) mod paging;
mod recipe;
mod refused_credentials;
pub(crate) mod registries;
pub(crate) mod requests;
pub(crate) mod runs;
pub(crate) mod status;
pub(crate) mod tasks;
pub(crate) mod tokens;
pub(crate) mod uploads;
pub(crate) mod workers;
