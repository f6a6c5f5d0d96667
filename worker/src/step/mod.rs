//! The steps of a run. None knows another's order: the executor does.

use std::time::Duration;

pub(crate) mod build;
pub(crate) mod build_log;
pub(crate) mod push;
mod staging;

/// How long a registry may be away before the attempt is given up.
const REGISTRY_WITHIN: Duration = Duration::from_secs(30);
