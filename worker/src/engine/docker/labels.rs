//! The labels by which gantry recognizes what it made in an engine.

use std::collections::HashMap;

use gantry_domain::id::RunId;
pub(super) use gantry_domain::image_label::INSTALLATION;
use gantry_domain::image_label::{ATTEMPT, IMAGE, RUN};

use crate::engine::BuildOrder;
use crate::engine::containers::Owner;

/// The labels of what `order` makes.
pub(super) fn of(order: &BuildOrder) -> [(&'static str, String); 4] {
    [
        (INSTALLATION, order.installation.clone()),
        (RUN, order.run.to_string()),
        (ATTEMPT, order.attempt.to_string()),
        (IMAGE, order.image.to_string()),
    ]
}

/// The labels of the containers, networks and volumes of an attempt.
pub(super) fn of_attempt(owner: &Owner) -> HashMap<String, String> {
    HashMap::from([
        (INSTALLATION.to_owned(), owner.installation.clone()),
        (RUN.to_owned(), owner.run.to_string()),
        (ATTEMPT.to_owned(), owner.attempt.to_string()),
    ])
}

/// The run and attempt that made an object with these labels.
pub(super) fn owner(labels: &HashMap<String, String>) -> Option<(RunId, u32)> {
    Some((labels.get(RUN)?.parse().ok()?, labels.get(ATTEMPT)?.parse().ok()?))
}

/// The name that an image with these labels was built under. Images that users build from it inherit the labels, so only
/// an image that still has this name is gantry's to remove.
pub(super) fn image(labels: &HashMap<String, String>) -> Option<&str> {
    labels.get(IMAGE).map(String::as_str)
}
