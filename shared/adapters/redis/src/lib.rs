//! The store in Redis 7.0 or later: the truth of an installation of many processes.
//!
//! A commit is one script, and durable when it answers: the server runs with `appendonly yes`, `appendfsync always` and
//! `maxmemory-policy noeviction`, which [`RedisStore::connect`] checks. Connections are held and pipelined. They survive
//! a restart of the server: requests in between fail at once with
//! [`StoreError::Unavailable`](gantry_seams::store::StoreError), the next ones after it succeed. Nothing that was sent is
//! sent again by itself, as nobody can know whether it was done.
//!
//! A batch of 300 puts, one of them of 1 MiB, and 300 index changes holds the server up for some 4 ms; batches of more
//! than 4096 changes or 64 MiB are refused. Time is the server's, without its jumps; a server that takes over should have
//! its clock kept by NTP, as leases are measured with it.
//!
//! # Behind sentinels
//!
//! Connections lead to the master that the sentinels name, and each commit waits until a replica has it too (`WAIT 1`).
//! Only then is it acknowledged. What a failover may still lose: a replica acknowledges what it has in memory, before its
//! own disk has it, and of several replicas the sentinels may choose one that has less than another, if that one is away
//! as well. So what is lost was lost by two machines at nearly the same time. A master that is cut off takes commits until
//! it notices, at most `min-replicas-max-lag` seconds, and none of these is acknowledged. The settings are checked of the
//! server that is master when a store connects: give its replicas the same ones. What is lost all the same is healed where
//! it came from: a hook's sender repeats a delivery, and reconciliation asks the code hosts and registries for their heads.
//! A run whose outcome is lost lapses and is built again.
//!
//! # Rights
//!
//! What a role's user needs, for prefix `gantry`:
//!
//! ```text
//! ACL SETUSER gantry on >… ~gantry:* &gantry:* -@all +info +ping +select +time +wait +config|get
//!     +evalsha +script|load +mget +zrange +getrange +incr +mset +setrange +del
//!     +hmget +hset +hdel +zadd +zrem +publish +pubsub|numsub +subscribe +unsubscribe
//! ```
//!
//! `gantry store export` needs `+scan` too. A worker needs no `config|get`, and may be kept to the kinds of records that workers touch: see the table in `keys`.
//! Every key that a commit touches is named to Redis beforehand, also those that it only expects something of.

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
