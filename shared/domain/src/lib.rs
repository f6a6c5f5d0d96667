//! The types of gantry, and the rules on them.
//!
//! In: parsed input. Out: decisions. No I/O, no clock, no async: the current state is passed as an argument.

#![warn(missing_docs)]

mod text;

pub mod attempt;
pub mod base_trigger;
pub mod built_on;
pub mod cause;
pub mod code_host;
pub mod credential_helper;
pub mod decide;
pub mod delivery;
pub mod event;
pub mod fact;
pub mod github_app;
pub mod hook;
pub mod id;
pub mod image;
pub mod image_label;
pub mod image_version;
pub mod image_watch;
pub mod lineage;
pub mod log;
pub mod login;
pub mod mapping;
pub mod notification;
pub mod pattern;
pub mod platform;
pub mod platforms;
pub mod pull_request;
pub mod recipe;
pub mod registry;
pub mod report;
pub mod run;
pub mod scan;
pub mod schedule;
pub mod sealed;
pub mod secret;
pub mod signature;
pub mod source;
pub mod ssh;
pub mod step;
pub mod tag_pattern;
pub mod task;
pub mod template;
pub mod timer;
pub mod timestamp;
pub mod token;
pub mod trace;
pub mod tracked_image;
pub mod trigger;
pub mod vault;
pub mod wave;
pub mod worker;

pub use text::InvalidText;
