//! What one attempt at a run knows, for whoever does a part of it.

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

/// An attempt that goes on.
pub(crate) struct Attempt {
    /// The run.
    pub(crate) run: Run,
    /// Its registry as it was when the attempt began.
    pub(crate) registry: Registry,
    /// From 1.
    pub(crate) number: u32,
    /// The worker's slot that it has: of no other attempt that goes on there.
    pub(crate) slot: u32,
    /// Its secrets.
    pub(crate) bundle: Bundle,
    /// Where it talks.
    pub(crate) log: RunLog,
    /// The lease.
    pub(crate) lease: KeptLease,
    /// When it was leased, by the store's clock.
    pub(crate) since: Timestamp,
    /// When the run's time is over.
    pub(crate) deadline: Instant,
}

impl Attempt {
    /// The credentials for an image's registry, if the run has any.
    pub(crate) fn credentials(&self, image: &ImageReference) -> Option<Credentials> {
        self.bundle.registries.get(image.host()).cloned()
    }

    /// Its step, as one that writes tags.
    pub(crate) fn writer(&self, step: &StepId) -> Writer {
        Writer { run: self.run.id, attempt: self.number, step: step.clone() }
    }
}
