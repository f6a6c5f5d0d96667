//! Guarded clients for external servers: HTTP, registries, git, vaults; and the operator's credential helpers.
//!
//! In: addresses that users gave. Out: the content, or an error that tells whether a retry may help. No client connects
//! to an address inside the operator's network unless the operator listed it ([`guard`]).

#![warn(missing_docs)]

pub mod code_host;
pub mod credential_helper;
pub mod git;
pub mod guard;
pub mod http;
pub mod image_registry;
pub mod lfs;
pub mod registries;
pub mod registry;
pub mod vault;
pub mod webhook;
