//! The steps of a run. Their order is the executor's business.

use std::time::Duration;

pub(crate) mod build;
pub(crate) mod build_log;
pub(crate) mod cmd;
pub(crate) mod images;
pub(crate) mod output;
pub(crate) mod push;
mod staging;

pub(crate) use staging::refuse_staging;

/// How long a registry may be unavailable before the attempt fails.
const REGISTRY_WITHIN: Duration = Duration::from_secs(30);
