//! The state of an attempt that its parts share.

use gantry_domain::id::StepId;
use gantry_domain::image::ImageReference;
use gantry_domain::registry::Registry;
use gantry_domain::run::Run;
use gantry_domain::timestamp::Timestamp;
use gantry_ops::bundle::Bundle;
use gantry_ops::secret::Credentials;
use gantry_seams::tags::Writer;
use tokio::time::Instant;

use crate::lease::KeptLease;
use crate::log::RunLog;

/// A running attempt.
pub(crate) struct Attempt {
    /// The run.
    pub(crate) run: Run,
    /// Its registry, as it was at the start of the attempt.
    pub(crate) registry: Registry,
    /// The number of the attempt, from 1.
    pub(crate) number: u32,
    /// The slot of the worker, not used by any other running attempt.
    pub(crate) slot: u32,
    /// Its secrets.
    pub(crate) bundle: Bundle,
    /// Its log.
    pub(crate) log: RunLog,
    /// The lease.
    pub(crate) lease: KeptLease,
    /// When it was leased, by the store's clock.
    pub(crate) since: Timestamp,
    /// The deadline of the run.
    pub(crate) deadline: Instant,
}

impl Attempt {
    /// The credentials for an image's registry, if the run has any.
    pub(crate) fn credentials(&self, image: &ImageReference) -> Option<Credentials> {
        self.bundle.registries.get(image.host()).cloned()
    }

    /// One of its steps, as a writer of tags.
    pub(crate) fn writer(&self, step: &StepId) -> Writer {
        Writer { run: self.run.id, attempt: self.number, step: step.clone() }
    }
}
