//! HTTP to events; the users' door.

pub mod api;
