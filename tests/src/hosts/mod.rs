//! Stand-ins for the APIs of code hosts, made from what their providers publish about them.

pub mod azure_devops;
mod contract;
pub mod github;
pub mod server;

pub use server::{Answer, Asked, HostServer};
