//! Legs: the runs that a run for several platforms is split into where no engine builds for all of them.
//!
//! Each is a hidden run for one platform, in the pool that has it. The whole run waits for them without a slot, and then
//! makes the index of what they pushed.

use serde::{Deserialize, Serialize};

use super::{Purpose, Run, RunState, WaitReason};
use crate::built_on::SourceRead;
use crate::id::{PoolName, RunId};
use crate::lineage::BaseImage;
use crate::platform::Platform;
use crate::signature::RunSignature;
use crate::source::{CommitId, RefName};
use crate::timestamp::Timestamp;

/// The legs of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "legs")]
pub enum Legs {
    /// A worker has fetched the source, and asks for them.
    Wanted(Split),
    /// A scheduler has made them.
    Made {
        /// In the order of the platforms.
        runs: Vec<RunId>,
    },
    /// The whole run has ended. They have ended, too, or have been asked to.
    Closed {
        /// In the order of the platforms.
        runs: Vec<RunId>,
    },
}

impl Legs {
    /// The runs, in the order of the platforms; none before they are made.
    #[must_use]
    pub fn runs(&self) -> &[RunId] {
        match self {
            Self::Wanted(_) => &[],
            Self::Made { runs } | Self::Closed { runs } => runs,
        }
    }
}

/// A worker's request to split a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// The images that it has resolved: all legs use exactly these.
    pub bases: Vec<BaseImage>,
    /// The worker's pool.
    pub pool: PoolName,
    /// Shows that a worker of this pool made the request: by the pool's key, over [`Run::split_text`].
    pub proof: RunSignature,
}

/// The run that a leg belongs to, and what the variables in its recipe stand for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegOf {
    /// The whole run.
    pub run: RunId,
    /// When it was created.
    pub created: Timestamp,
    /// The first of its platforms.
    pub platform: Platform,
    /// The leg's place among its platforms, from 0.
    pub place: usize,
    /// The branch that it builds, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<RefName>,
}

/// What a scheduler is to do for legs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegWork {
    /// Make the legs of this run.
    Make,
    /// Tell the whole run that this leg has ended.
    Join,
    /// End the legs of this run, which has ended.
    Close,
}

/// What a worker vouches for when it splits a run.
#[derive(Serialize)]
struct SplitText<'a> {
    form: &'static str,
    run: Vec<u8>,
    commit: Option<&'a CommitId>,
    branch: Option<&'a RefName>,
    bases: &'a [BaseImage],
}

impl Run {
    /// The text of a request to split this run, with what its worker has read of its source, on these images.
    #[must_use]
    pub fn split_text(&self, read: Option<&SourceRead>, bases: &[BaseImage]) -> Vec<u8> {
        let text = SplitText {
            form: "gantry split 1",
            run: self.fixed_text(),
            commit: read.map(|read| &read.commit),
            branch: read.and_then(|read| read.branch.as_ref()),
            bases,
        };
        let Ok(text) = serde_json::to_vec(&text) else {
            unreachable!("names, texts and numbers always make JSON")
        };
        text
    }

    /// What is to be done for the legs of this run, or for it as a leg.
    #[must_use]
    pub fn leg_work(&self) -> Option<LegWork> {
        let is_done = self.state.done().is_some();
        match (&self.purpose, &self.legs) {
            (Purpose::Leg(_), _) => (is_done && !self.is_settled).then_some(LegWork::Join),
            (_, Some(Legs::Wanted(_))) => self.waits_for_legs().then_some(LegWork::Make),
            (_, Some(Legs::Made { .. })) => is_done.then_some(LegWork::Close),
            (_, Some(Legs::Closed { .. }) | None) => None,
        }
    }

    /// Whether it waits for its legs.
    #[must_use]
    pub fn waits_for_legs(&self) -> bool {
        matches!(self.state, RunState::Waiting { reason: WaitReason::Legs, .. })
    }
}
