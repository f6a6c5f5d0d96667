//! The store in Redis 7.0 or later, for installations of several processes.
//!
//! A commit is one script, and durable when it returns: the server must run with `appendonly yes`, `appendfsync always`
//! and `maxmemory-policy noeviction`, which [`RedisStore::connect`] checks. Connections are kept open and pipelined.
//! They are reopened after a restart of the server; requests in between fail at once with
//! [`StoreError::Unavailable`](gantry_seams::store::StoreError). No request is retried automatically, because it may
//! already have been applied.
//!
//! A batch of 300 puts, one of them of 1 MiB, and 300 index changes blocks the server for about 4 ms. Batches of more
//! than 4096 changes or 64 MiB are refused. Time is the server's clock, without its jumps. All servers that may become
//! master should be synchronized by NTP, because leases are measured with that clock.
//!
//! # Behind sentinels
//!
//! Connections lead to the master that the sentinels name, and each commit is acknowledged only when a replica has it
//! too (`WAIT 1`). A failover may still lose commits: a replica acknowledges what is in its memory but not yet on its
//! disk, and the sentinels may promote a replica that is behind another one if that one is down as well. So a loss
//! needs two failures at nearly the same time. A master that is cut off accepts commits until it notices, for at most
//! `min-replicas-max-lag` seconds, but none of these is acknowledged. The settings are checked on the server that is
//! master when a store connects; its replicas should have the same. Lost data is restored from its origin: senders
//! repeat deliveries, and reconciliation asks code hosts and registries for their heads. A run whose outcome is lost
//! lapses and is built again.
//!
//! # Rights
//!
//! The rights of a role's user, for prefix `gantry`:
//!
//! ```text
//! ACL SETUSER gantry on >… ~gantry:* &gantry:* -@all +info +ping +select +time +wait +config|get
//!     +evalsha +script|load +mget +zrange +getrange +incr +mset +setrange +del
//!     +hmget +hset +hdel +zadd +zrem +publish +pubsub|numsub +subscribe +unsubscribe
//! ```
//!
//! `gantry store export` also needs `+scan`. A worker needs no `config|get`, and may be limited to the kinds of records
//! that workers touch: see the table in `keys`. All keys of a commit are declared to Redis, also those with only a
//! precondition.

#![warn(missing_docs)]

mod address;
mod checks;
mod commit;
mod connect_error;
mod connections;
mod dial;
mod error;
mod info;
mod keys;
mod link;
mod options;
mod place;
mod store;
mod walk;

pub use address::{Address, AddressError};
pub use connect_error::ConnectError;
pub use options::{RedisOptions, Servers};
pub use store::RedisStore;
