//! The repositories that tasks watch.

use gantry_domain::id::RunPrefix;
use gantry_domain::source::RepositoryKey;
use gantry_domain::task::Task;
use serde::{Deserialize, Serialize};

/// A repository that tasks of a registry watch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The registry.
    pub registry: RunPrefix,
    /// The repository.
    pub repository: RepositoryKey,
}

impl Place {
    /// The place that a task watches, if it watches one.
    #[must_use]
    pub fn of(task: &Task) -> Option<Self> {
        let repository = gantry_domain::decide::matcher::watched_repository(task)?;
        Some(Self { registry: task.prefix, repository })
    }

    /// Its name in keys and indexes.
    pub(crate) fn member(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The place of that name.
    pub(crate) fn of_member(member: &str) -> Option<Self> {
        let (registry, repository) = member.split_once('/')?;
        Some(Self { registry: registry.parse().ok()?, repository: repository.parse().ok()? })
    }
}
