//! The steps of one attempt.
//!
//! They are stored separately from the run, in a record for each attempt that only this attempt writes. So progress of
//! steps does not compete with the writes of workers, schedulers and people to the run's record.

use serde::{Deserialize, Serialize};

use crate::id::StepId;
use crate::image::Digest;
use crate::timestamp::Timestamp;

/// The steps of an attempt, in the order of the task file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    steps: Vec<Step>,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct Step {
    pub id: StepId,
    pub kind: StepKind,
    /// The steps that must end before it begins, as places in the list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<usize>,
    /// How often it was executed.
    #[serde(default)]
    pub tries: u32,
    /// The state of the step.
    #[serde(flatten)]
    pub state: StepState,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Builds an image.
    Build,
    /// Pushes images.
    Push,
    /// Runs a command in a container.
    Cmd,
}

/// The state of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum StepState {
    /// It waits for others. In an ended attempt: it was never begun.
    Waiting,
    /// It is running. In an ended attempt: its end was not recorded.
    Running { began: Timestamp },
    /// It ended.
    Ended { began: Timestamp, at: Timestamp, end: StepEnd },
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "how")]
pub enum StepEnd {
    /// It succeeded.
    Succeeded {
        /// The image that was built, by its configuration, or the first that was pushed, by its manifest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<Digest>,
    },
    /// It failed.
    Failed {
        /// The exit code of its process, if it had one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i64>,
        /// Whether this counts as success, so that other steps went on.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_ignored: bool,
    },
    /// It was stopped from outside: cancelled, out of time, handed back, or because another step failed.
    Stopped,
}

impl Steps {
    /// Steps that have not begun, in the order of the task file.
    #[must_use]
    pub fn planned(steps: impl IntoIterator<Item = (StepId, StepKind, Vec<usize>)>) -> Self {
        let waiting =
            |(id, kind, after)| Step { id, kind, after, tries: 0, state: StepState::Waiting };
        Self { steps: steps.into_iter().map(waiting).collect() }
    }

    /// The steps in the order of the task file.
    pub fn iter(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter()
    }

    /// Whether there are no steps.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The step at this place.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&Step> {
        self.steps.get(place)
    }

    /// Begins a waiting step, or counts one more execution of a running one. An ended step is not changed.
    pub fn begin(&mut self, place: usize, now: Timestamp) {
        let Some(step) = self.steps.get_mut(place) else { return };
        match step.state {
            StepState::Waiting => step.state = StepState::Running { began: now },
            StepState::Running { .. } => {}
            StepState::Ended { .. } => return,
        }
        step.tries = step.tries.saturating_add(1);
    }

    /// Takes over the state of a step that another run has executed. Only a waiting step is changed.
    pub fn adopt(&mut self, place: usize, other: &Step) {
        if let Some(step) = self.steps.get_mut(place)
            && step.state == StepState::Waiting
        {
            step.tries = other.tries;
            step.state = other.state.clone();
        }
    }

    /// Ends a running step. Any other step is not changed.
    pub fn end(&mut self, place: usize, end: StepEnd, at: Timestamp) {
        if let Some(step) = self.steps.get_mut(place)
            && let StepState::Running { began } = step.state
        {
            step.state = StepState::Ended { began, at, end };
        }
    }

    /// The latest time in them.
    #[must_use]
    pub fn latest(&self) -> Option<Timestamp> {
        let times = self.steps.iter().filter_map(|step| match step.state {
            StepState::Waiting => None,
            StepState::Running { began } => Some(began),
            StepState::Ended { at, .. } => Some(at),
        });
        times.max()
    }

    /// Whether a step is running.
    #[must_use]
    pub fn is_any_running(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.state, StepState::Running { .. }))
    }

    /// Ends all running steps in this way.
    pub fn end_all(&mut self, end: &StepEnd, at: Timestamp) {
        for place in 0..self.steps.len() {
            self.end(place, end.clone(), at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn build_and_push() -> Steps {
        let (build, push) = ("build".parse().unwrap(), "push".parse().unwrap());
        Steps::planned([(build, StepKind::Build, vec![]), (push, StepKind::Push, vec![0])])
    }

    #[test]
    fn a_step_ends_once() {
        let mut steps = build_and_push();
        assert!(!steps.is_any_running());
        steps.begin(0, at(1));
        steps.begin(0, at(2));
        steps.end(0, StepEnd::Succeeded { digest: None }, at(3));
        steps.end(0, StepEnd::Stopped, at(4));
        steps.begin(0, at(5));
        let build = steps.get(0).unwrap();
        assert_eq!(build.tries, 2);
        let ended =
            StepState::Ended { began: at(1), at: at(3), end: StepEnd::Succeeded { digest: None } };
        assert_eq!((&build.state, steps.latest()), (&ended, Some(at(3))));
    }

    #[test]
    fn ending_all_steps_affects_only_running_ones() {
        let mut steps = build_and_push();
        steps.begin(0, at(1));
        steps.end_all(&StepEnd::Stopped, at(4));
        assert!(!steps.is_any_running());
        assert_eq!(steps.get(1).unwrap().state, StepState::Waiting);

        let text = serde_json::to_string(&steps).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"steps":[{"id":"build","kind":"build","tries":1,"state":"ended","began":1,"at":4,"end":{"how":"stopped"}},"#,
                r#"{"id":"push","kind":"push","after":[0],"tries":0,"state":"waiting"}]}"#
            )
        );
        assert_eq!(serde_json::from_str::<Steps>(&text).unwrap(), steps);
    }
}
