//! Tasks: saved recipes with triggers.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::base_trigger::BaseImageTrigger;
use crate::id::{GroupName, RunPrefix, TaskId};
use crate::recipe::Recipe;
use crate::sealed::Sealed;
use crate::source::GitUrl;
use crate::timer::Timers;
use crate::timestamp::Timestamp;
use crate::trigger::SourceTrigger;

/// A task, at its current or a former revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its registry and name.
    pub id: TaskId,
    /// The registry's prefix, which distinguishes it from others of the same name.
    pub prefix: RunPrefix,
    /// The number of the revision, from 1.
    pub revision: u64,
    /// Whether triggers may start runs.
    pub status: Status,
    /// The recipe of its runs.
    pub recipe: Recipe,
    /// Starts runs when its repository changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_trigger: Option<SourceTrigger>,
    /// Starts runs when images change that it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_image_trigger: Option<BaseImageTrigger>,
    /// Start runs by the clock.
    #[serde(default, skip_serializing_if = "Timers::is_empty")]
    pub timers: Timers,
    /// The token for its git repository, or the deploy key if that is read over ssh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_token: Option<Sealed>,
    /// Whether the code host shows the states of its runs at their commits.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub reports: bool,
    /// The token for the API of the code host, which no run gets. If `None`, `git_token` is used unless it is a deploy key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_token: Option<Sealed>,
    /// How many of its runs may be admitted and not ended at once; only the registry's limit applies if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_limit: Option<NonZeroU32>,
    /// Runs of tasks in one group of the registry are executed one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_group: Option<GroupName>,
    /// When it was created, which distinguishes it from other tasks of the same name.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

impl Task {
    /// The token for the API of its code host: one of its own, or else the one for git. A deploy key is none.
    #[must_use]
    pub fn token_for_api(&self) -> Option<&Sealed> {
        let git_token = || self.git_token.as_ref().filter(|_| !self.recipe.source.is_ssh());
        self.api_token.as_ref().or_else(git_token)
    }

    /// The run key of the scan of this revision: a revision is scanned once.
    #[must_use]
    pub fn scan_key(&self) -> String {
        // Includes the time of creation, because a later task may have the same name.
        format!("scan/{}@{}/{}", self.id, self.created.as_millis(), self.revision)
    }

    /// Whether it needs a webhook: it watches its repository, and gantry does not look for changes itself.
    #[must_use]
    pub fn needs_webhook(&self) -> bool {
        let watches = self.source_trigger.as_ref().is_some_and(|trigger| trigger.poll.is_none());
        watches && self.repository().is_some()
    }

    /// The address of its git repository; `None` if its source is another.
    #[must_use]
    pub fn repository(&self) -> Option<&GitUrl> {
        self.recipe.source.git().map(|git| &git.url)
    }
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

/// Whether a task or trigger is enabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Enabled.
    #[default]
    Enabled,
    /// Disabled.
    Disabled,
}
