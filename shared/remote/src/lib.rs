//! Guarded clients of other people's servers: HTTP, registries, git.
//!
//! In: addresses that users named. Out: what stands there, or an error that says whether trying again may help. No
//! client here reaches an address inside the operator's network unless the operator listed it ([`guard`]).

#![warn(missing_docs)]

pub mod git;
pub mod guard;
pub mod http;
pub mod registries;
pub mod registry;

pub mod code_host;
