//! Moves the final tags, after the store has permitted it, and within a deadline inside the lease.

use std::sync::Arc;
use std::time::Duration;

use gantry_domain::built_on::BuiltOn;
use gantry_domain::id::{RunId, StepId};
use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::lineage::OutputImage;
use gantry_domain::run::{ErrorCode, SupersededTag};
use gantry_ops::secret::Credentials;
use gantry_remote::registries::Registries;
use gantry_seams::runs;
use gantry_seams::store::SharedStore;
use gantry_seams::tags::{self, Permit, Writer};
use tokio::time::Instant;

use crate::attempt::Attempt;
use crate::away::{Refused, ask_until_answered};
use crate::failure;
use crate::lease::KeptLease;
use crate::step::push::PushedImage;

/// The share of a lease that moving tags may use. The rest covers the time of the store's answer.
const SHARE_OF_LEASE: f64 = 0.7;

/// How long correcting a tag is retried.
const PUT_RIGHT_WITHIN: Duration = Duration::from_secs(30);

/// How long a scheduler may take to resolve the facts that a run was built on; it may have to ask the code host.
const UNDECIDED_FOR: Duration = Duration::from_secs(60);

/// The pause until it is asked again.
const UNDECIDED_PAUSE: Duration = Duration::from_millis(250);

pub(crate) struct Tagger {
    pub(crate) store: SharedStore,
    pub(crate) registries: Arc<dyn Registries>,
}

/// The result of moving the final tags.
pub(crate) struct Tagged {
    /// The tags that point to the image now.
    pub(crate) outputs: Vec<OutputImage>,
    /// The tags that belong to newer runs.
    pub(crate) superseded: Vec<SupersededTag>,
}

/// The tags that may move, and when the store was asked.
struct Permitted {
    asked: Instant,
    images: Vec<ImageReference>,
    superseded: Vec<SupersededTag>,
}

impl Tagger {
    /// Moves those tags that no newer run has moved to what the step has `pushed`, and corrects what another attempt may
    /// have written at the same time.
    pub(crate) async fn tag(
        &self,
        attempt: &Attempt,
        step: &StepId,
        pushed: &[PushedImage],
    ) -> Result<Tagged, Refused> {
        let tagged = self.move_tags(attempt, step, pushed).await?;
        self.settle_tags(attempt, &attempt.writer(step), &tagged).await?;
        Ok(tagged)
    }

    async fn move_tags(
        &self,
        attempt: &Attempt,
        step: &StepId,
        pushed: &[PushedImage],
    ) -> Result<Tagged, Refused> {
        let lease = &attempt.lease;
        let wanted: Vec<ImageReference> =
            pushed.iter().flat_map(|pushed| pushed.images.iter().cloned()).collect();
        let Permitted { asked, images, superseded } = self.ask_to_tag(lease, step, &wanted).await?;
        let deadline = asked + lease.period().mul_f64(SHARE_OF_LEASE);
        let mut outputs = Vec::with_capacity(images.len());
        for image in images {
            let Some(pushed) = pushed.iter().find(|pushed| pushed.images.contains(&image)) else {
                continue;
            };
            let manifest = &pushed.manifest;
            self.registries
                .put_tag(&image, manifest, attempt.credentials(&image).as_ref(), deadline)
                .await
                .map_err(|error| {
                    let failure = failure::of_registry(&error, ErrorCode::RegistryRefused);
                    Refused::Failed(failure.in_step(step))
                })?;
            let digest = manifest.digest.clone();
            outputs.push(OutputImage { image, digest, children: pushed.children() });
        }
        Ok(Tagged { outputs, superseded })
    }

    /// Asks the store which tags may move. None moves without its permission.
    async fn ask_to_tag(
        &self,
        lease: &KeptLease,
        step: &StepId,
        images: &[ImageReference],
    ) -> Result<Permitted, Refused> {
        let (store, period) = (self.store.as_ref(), lease.period());
        let ask = || async {
            let asked = Instant::now();
            let permit = runs::tagging(store, lease.run, &lease.holder, step, images, period);
            permit.await.map(|permit| (asked, permit))
        };
        let undecided_until = Instant::now() + UNDECIDED_FOR;
        loop {
            let answer = ask_until_answered(lease, "to tag", ask).await;
            match answer.map_err(|refused| refused.in_step(step))? {
                (asked, Permit::Given { images, superseded }) => {
                    return Ok(Permitted { asked, images, superseded });
                }
                (asked, Permit::Undecided) => {
                    if asked >= undecided_until {
                        self.resolve_as_unknown(lease).await;
                    }
                    tokio::select! {
                        () = lease.lost() => return Err(Refused::LeaseLost),
                        () = tokio::time::sleep(UNDECIDED_PAUSE) => {}
                    }
                }
            }
        }
    }

    /// Called if no scheduler resolved the facts in time. The run's tags then stay with the runs that have them.
    async fn resolve_as_unknown(&self, lease: &KeptLease) {
        let resolved = async {
            let Some(run) = runs::find(self.store.as_ref(), lease.run).await? else {
                return Ok(());
            };
            let BuiltOn::Read(read) = &run.built_on else { return Ok(()) };
            runs::resolve_built_on(self.store.as_ref(), lease.run, read, BuiltOn::Unknown).await
        };
        if let Err(error) = resolved.await {
            tracing::warn!(run.id = %lease.run, "run {} waits to tag: {error}", lease.run);
        }
    }

    /// Re-reads each tag that another attempt may have written at the same time, or that an earlier attempt of this run
    /// may have written over a newer run's, and corrects it. Done before the finish, so that the next attempt does it
    /// if this one crashes here.
    async fn settle_tags(
        &self,
        attempt: &Attempt,
        writer: &Writer,
        tagged: &Tagged,
    ) -> Result<(), Refused> {
        for output in &tagged.outputs {
            self.settle_tag(attempt, writer, &output.image, Some(&output.digest)).await?;
        }
        for superseded in tagged.superseded.iter().filter(|_| attempt.number > 1) {
            self.settle_tag(attempt, writer, &superseded.image, None).await?;
        }
        Ok(())
    }

    async fn settle_tag(
        &self,
        attempt: &Attempt,
        writer: &Writer,
        image: &ImageReference,
        digest: Option<&Digest>,
    ) -> Result<(), Refused> {
        let waits = format!("to settle {image}");
        let mut cleared = None;
        loop {
            let settle =
                || tags::settle(self.store.as_ref(), image, writer, digest, cleared.as_ref());
            let Some(doubt) = ask_until_answered(&attempt.lease, &waits, settle).await? else {
                return Ok(());
            };
            let credentials = attempt.credentials(image);
            self.put_right(attempt.run.id, image, &doubt.rests_at, credentials.as_ref()).await;
            cleared = Some(doubt);
        }
    }

    async fn put_right(
        &self,
        run: RunId,
        image: &ImageReference,
        rests_at: &Digest,
        credentials: Option<&Credentials>,
    ) {
        let deadline = Instant::now() + PUT_RIGHT_WITHIN;
        let is_right = self.registries.resolve(image, credentials, deadline).await;
        if is_right.as_ref().is_ok_and(|digest| digest == rests_at) {
            return;
        }
        tracing::warn!(run.id = %run, "{image} was moved by a late attempt: it is moved back");
        let manifest =
            self.registries.manifest(&image.pinned(rests_at.clone()), credentials, deadline).await;
        let put = match &manifest {
            Ok(manifest) => self.registries.put_tag(image, manifest, credentials, deadline).await,
            Err(error) => {
                tracing::error!(run.id = %run, "{image} cannot be moved back to {rests_at}: {error}");
                return;
            }
        };
        if let Err(error) = put {
            tracing::error!(run.id = %run, "{image} cannot be moved back to {rests_at}: {error}");
        }
    }
}
