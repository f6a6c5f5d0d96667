//! The options of `gantry task create` and `gantry task update` about images whose changes start the task.

use gantry_api::BaseImageTrigger;

use super::trigger::{list, status};
use crate::client::arguments::yes_or_no;

/// Which images start the task when they change.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Triggers")]
pub(crate) struct BaseTriggerOptions {
    /// Whether it starts when an image changes that it needs; it does, unless told otherwise
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = yes_or_no)]
    base_image_trigger_enabled: Option<bool>,
    /// Which images count: Runtime (the bases of what it builds) or All (every image that its builds read and its commands
    /// run in) [default: Runtime]
    #[arg(long, value_name = "TYPE")]
    base_image_trigger_type: Option<String>,
    /// Images that count, like `node:*` or `ghcr.io/octo/**`; '' for all. May be given several times
    #[arg(long = "base-image", value_name = "PATTERN")]
    base_images: Vec<String>,
    /// The name of the trigger that a changed image fires [default: defaultBaseimageTriggerName]
    #[arg(long, value_name = "NAME")]
    base_image_trigger_name: Option<String>,
}

impl BaseTriggerOptions {
    /// Whether any of them was given.
    pub(super) fn is_given(&self) -> bool {
        *self != Self::default()
    }

    /// The trigger with the given options. Patterns replace former ones.
    pub(super) fn apply(self, trigger: BaseImageTrigger) -> BaseImageTrigger {
        BaseImageTrigger {
            name: self.base_image_trigger_name.unwrap_or(trigger.name),
            status: status(self.base_image_trigger_enabled, trigger.status),
            kind: self.base_image_trigger_type.unwrap_or(trigger.kind),
            images: list(self.base_images, trigger.images),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_stays_and_an_empty_pattern_stands_for_none() {
        let first = BaseTriggerOptions {
            base_image_trigger_type: Some("All".to_owned()),
            base_images: vec!["node:*".to_owned(), "alpine:3".to_owned()],
            ..BaseTriggerOptions::default()
        };
        let before = first.apply(BaseImageTrigger::default());
        assert_eq!((before.status.as_str(), before.kind.as_str()), ("Enabled", "All"));
        assert_eq!(BaseTriggerOptions::default().apply(before.clone()), before);
        let change = BaseTriggerOptions {
            base_image_trigger_enabled: Some(false),
            base_images: vec![String::new()],
            ..BaseTriggerOptions::default()
        };
        let after = change.apply(before);
        assert_eq!((after.status.as_str(), after.kind.as_str()), ("Disabled", "All"));
        assert!(after.images.is_empty());
    }
}
