//! The steps of one attempt.
//!
//! They are stored separately from the run, in a record for each attempt that only this attempt writes. So progress of
//! steps does not compete with the writes of workers, schedulers and people to the run's record.

use serde::{Deserialize, Serialize};

use crate::id::StepId;
use crate::timestamp::Timestamp;

/// The steps that an attempt has begun, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    steps: Vec<Step>,
}

/// A step that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct Step {
    pub id: StepId,
    /// When it began, by the store's clock.
    pub began: Timestamp,
    /// The state of the step.
    #[serde(flatten)]
    pub state: StepState,
}

/// The state of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum StepState {
    /// It is running. In an ended attempt: its end was not recorded.
    Running,
    /// It succeeded.
    Succeeded {
        /// When it ended.
        at: Timestamp,
    },
    /// It failed; the run's error has the reason.
    Failed {
        /// When it ended.
        at: Timestamp,
    },
    /// It was stopped from outside: cancelled, out of time, or handed back.
    Stopped {
        /// When it ended.
        at: Timestamp,
    },
}

impl Steps {
    /// The steps in the order in which they began.
    pub fn iter(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter()
    }

    /// Begins a step. If it began before, it begins again.
    pub fn begin(&mut self, id: &StepId, now: Timestamp) {
        self.steps.retain(|step| step.id != *id);
        self.steps.push(Step { id: id.clone(), began: now, state: StepState::Running });
    }

    /// Ends a running step with this state. Any other step is not changed.
    pub fn end(&mut self, id: &StepId, state: StepState) {
        let running = |step: &&mut Step| step.id == *id && step.state == StepState::Running;
        if let Some(step) = self.steps.iter_mut().find(running) {
            step.state = state;
        }
    }

    /// Whether a step is running.
    #[must_use]
    pub fn is_any_running(&self) -> bool {
        self.steps.iter().any(|step| step.state == StepState::Running)
    }

    /// Ends all running steps with this state.
    pub fn end_all(&mut self, state: StepState) {
        let running = self.steps.iter_mut().filter(|step| step.state == StepState::Running);
        running.for_each(|step| step.state = state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ending_all_steps_affects_only_running_ones() {
        let at = Timestamp::from_millis;
        let (build, push): (StepId, StepId) = ("build".parse().unwrap(), "push".parse().unwrap());
        let mut steps = Steps::default();
        steps.begin(&build, at(1));
        steps.end(&build, StepState::Succeeded { at: at(2) });
        steps.begin(&push, at(2));
        steps.end(&build, StepState::Failed { at: at(3) });
        assert!(steps.is_any_running());
        steps.end_all(StepState::Stopped { at: at(4) });
        assert!(!steps.is_any_running());
        let states: Vec<_> = steps.iter().map(|step| step.state).collect();
        assert_eq!(states, [StepState::Succeeded { at: at(2) }, StepState::Stopped { at: at(4) }]);

        let text = serde_json::to_string(&steps).unwrap();
        assert_eq!(
            text,
            r#"{"steps":[{"id":"build","began":1,"state":"succeeded","at":2},{"id":"push","began":2,"state":"stopped","at":4}]}"#
        );
        assert_eq!(serde_json::from_str::<Steps>(&text).unwrap(), steps);
    }
}
