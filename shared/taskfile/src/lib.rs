//! Parsers for the build files of a source.
//!
//! In: the text of a Dockerfile, a `.dockerignore` or a task file's template. Out: the images that a build uses and
//! where they are named; the paths that a build does not see; the rendered task file and where its text is from. Pure:
//! no files, no network.

#![warn(missing_docs)]

pub mod dockerfile;
pub mod encoding;
pub mod ignore;
pub mod task_file;
pub mod template;
