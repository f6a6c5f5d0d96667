//! The labels of what gantry makes in an engine.

/// The installation that made it.
pub const INSTALLATION: &str = "gantry.installation";

/// The run that made it.
pub const RUN: &str = "gantry.run";

/// The number of the run's attempt.
pub const ATTEMPT: &str = "gantry.attempt";

/// The name of an image in the engine that built it.
pub const IMAGE: &str = "gantry.image";

/// Whether gantry sets a label with this name.
#[must_use]
pub fn is_of_gantry(name: &str) -> bool {
    [INSTALLATION, RUN, ATTEMPT, IMAGE].contains(&name)
}
