//! Files that a source brings along, read into checked values.
//!
//! In: the text of a Dockerfile or a `.dockerignore`. Out: the images that a build uses and where they are named; the
//! paths that a build does not see. Pure: nothing is opened, no network is asked.

#![warn(missing_docs)]

pub mod dockerfile;
pub mod encoding;
pub mod ignore;
