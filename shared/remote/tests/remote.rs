//! The clients of this crate against real git and a real registry.
//!
//! These tests need `git`, and a registry without users at `GANTRY_TEST_REGISTRY` (default `127.0.0.1:5055`) that holds
//! `busybox:1`: run `deploy/bootstrap.sh registry start` and `base-image`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test says what is wrong by panicking, and is told by the environment where its registry is"
)]

#[path = "../../../tests/src/git_server.rs"]
#[allow(unreachable_pub, dead_code, reason = "it is a module of the tests' own crate as well")]
mod git_server;

#[path = "../../../tests/src/broken_host.rs"]
#[allow(unreachable_pub, dead_code, reason = "it is a module of the tests' own crate as well")]
mod broken_host;

#[path = "remote/broken_hosts.rs"]
mod broken_hosts;
#[path = "../../../tests/src/faulty_registry.rs"]
#[allow(unreachable_pub, dead_code, reason = "it is a module of the tests' own crate as well")]
mod faulty_registry;

#[path = "remote/canary.rs"]
mod canary;
#[path = "remote/credential_helper.rs"]
mod credential_helper;
#[path = "remote/credentials.rs"]
mod credentials;
#[path = "remote/git.rs"]
mod git;
#[path = "remote/hashicorp_server.rs"]
mod hashicorp_server;
#[path = "remote/hostile_git.rs"]
mod hostile_git;
#[path = "remote/http.rs"]
mod http;
#[path = "remote/images/mod.rs"]
mod images;
#[path = "remote/key_vault_server.rs"]
mod key_vault_server;
#[path = "remote/outbound.rs"]
mod outbound;
#[path = "remote/registry.rs"]
mod registry;
#[path = "remote/registry_faults.rs"]
mod registry_faults;
#[path = "remote/vault.rs"]
mod vault;
#[path = "remote/vault_canary.rs"]
mod vault_canary;
#[path = "remote/vault_hashicorp.rs"]
mod vault_hashicorp;
#[path = "remote/vault_key_vault.rs"]
mod vault_key_vault;
#[path = "remote/vault_server.rs"]
mod vault_server;
