//! The door as its users meet it: over real sockets, with SQLite, in-process queues and a local object store.

mod access;
mod api;
mod deliveries;
mod hooks;
mod logs;
mod rig;
