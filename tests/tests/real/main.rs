//! The specification on real parts alone: engine, registry, git, and the program as a user has it.

mod builds;
mod service;
