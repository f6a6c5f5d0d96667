//! The specification on real parts alone: engine, registry, git.

mod builds;
