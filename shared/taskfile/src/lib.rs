//! Parsers for the files that say what a run does.
//!
//! In: the text of a task file, a Dockerfile or a `.dockerignore`. Out: the checked steps of a task; the images that a
//! build uses and where they are named; the paths that a build does not see. Pure: no files, no network.

#![warn(missing_docs)]

pub mod dockerfile;
pub mod encoding;
pub mod ignore;
pub mod task_file;
pub mod template;
