//! Takes runs, builds their images on a container engine and tells the outcome. Keeps nothing.

pub mod engine;
