//! An installation in which a process crashes, in either mode.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use gantry_domain::image::ImageReference;
use gantry_objects::ObjectBlobs;
use gantry_seams::store::SharedStore;
use gantry_tests::installation::Client;
use gantry_tests::kept_registry::KeptRegistry;

use super::embedded::Embedded;
use super::scaled::Scaled;
use super::{Crashes, Old};

/// The time limit for reaching a crash point on a busy machine. A timer is due up to a minute after it was saved.
pub(super) const CRASHES_WITHIN: Duration = Duration::from_secs(120);

/// The mode of gantry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// One process over SQLite, which ends the leases of its predecessor.
    Embedded,
    /// A process for each role, over Redis and RabbitMQ.
    Scaled,
}

impl Mode {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Scaled => "scaled",
        }
    }
}

/// A running installation.
pub(super) struct Site {
    /// A separate connection to the store.
    pub(super) store: SharedStore,
    pub(super) blobs: ObjectBlobs,
    pub(super) client: Client,
    registry: PathBuf,
    processes: Processes,
}

/// The processes, and their folder.
pub(super) enum Processes {
    Embedded(Box<Embedded>),
    Scaled(Box<Scaled>),
}

impl Site {
    /// Starts an installation for builds of these repositories, with these crash points. Only if its schedulers
    /// look at images, all of them must have the scripted registry.
    pub(super) async fn start(
        mode: Mode,
        repositories: &[String],
        looks_at_images: bool,
        crashes: Crashes,
    ) -> Result<Self> {
        match mode {
            Mode::Embedded => Embedded::start(repositories, crashes).await,
            Mode::Scaled => Scaled::start(repositories, looks_at_images, crashes).await,
        }
    }

    pub(super) fn new(
        store: SharedStore,
        blobs: ObjectBlobs,
        client: Client,
        registry: PathBuf,
        processes: Processes,
    ) -> Self {
        Self { store, blobs, client, registry, processes }
    }

    /// Waits until all processes have crashed at their points, and starts others in their place.
    pub(super) async fn crashes(&mut self, crashes: Crashes) -> Result<()> {
        match &mut self.processes {
            Processes::Embedded(embedded) => embedded.crashes(crashes).await,
            Processes::Scaled(scaled) => scaled.crashes(crashes).await,
        }
    }

    /// Restarts the scheduler, or the process that it is part of, which is to crash at these points from now on.
    pub(super) async fn restart(&mut self, crashes: Crashes) -> Result<()> {
        match &mut self.processes {
            Processes::Embedded(embedded) => embedded.restart(crashes).await,
            Processes::Scaled(scaled) => scaled.restart(crashes).await,
        }
    }

    /// Makes data expire: restarts the process that removes it, and the one that is to crash.
    pub(super) async fn forget(&mut self, old: Old, crashes: Crashes) -> Result<()> {
        match &mut self.processes {
            Processes::Embedded(embedded) => embedded.forget(old, crashes).await,
            Processes::Scaled(scaled) => scaled.forget(old, crashes).await,
        }
    }

    /// The digest of a tag in the registry.
    pub(super) fn tag(&self, image: &ImageReference) -> Option<String> {
        KeptRegistry::tag_in(&self.registry, image).map(|digest| digest.to_string())
    }
}

impl Old {
    /// The argument of the scripted program.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Bodies => "bodies",
            Self::Runs => "runs",
            Self::Unused => "unused",
        }
    }
}
