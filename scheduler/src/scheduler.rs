//! A scheduler: its parts, and when each of them runs.

use std::sync::Arc;
use std::time::Duration;

use gantry_ops::secret::Keyring;
use gantry_remote::code_host::{CodeHost, ProviderApi};
use gantry_remote::credential_helper::CredentialHelpers;
use gantry_remote::image_registry::ImageRegistry;
use gantry_remote::webhook::Webhooks;
use gantry_seams::blobs::SharedBlobs;
use gantry_seams::queue::Queues;
use gantry_seams::store::{SharedStore, StoreError};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::admission::Admitter;
use crate::base_images::{BaseImageSettings, BaseImages, ImageLooks};
use crate::decider::{Asks, Decider};
use crate::figures::Figures;
use crate::keeper::{Keeper, Retention};
use crate::legs::Legs;
use crate::logins::Logins;
use crate::notifier::{Notifier, Posts};
use crate::outbox::{Outbox, Sends};
use crate::provisioner::{Provisioner, Provisions};
use crate::reconcile::{Looks, Reconciler};
use crate::resolver::Resolver;
use crate::secrets::VaultReads;
use crate::sweeper::Sweeper;
use crate::ticking::{LOOK_AGAIN, every, often, on_doorbell, when_due};
use crate::timers::Timers;

/// How often expired data is removed.
const RETENTION_INTERVAL: Duration = Duration::from_secs(600);

/// How often the states of runs are reported and told, and webhooks looked at. What changes in between is reported once.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How often watches are read.
const RECONCILE_TICK: Duration = Duration::from_secs(2);

/// The connections and settings of a scheduler process.
#[derive(Clone)]
pub struct Scheduler {
    /// The store, shared by all roles.
    pub store: SharedStore,
    /// The doorbells of the installation.
    pub queues: Queues,
    /// Holds logs, old bodies and uploads.
    pub blobs: SharedBlobs,
    /// Opens secrets and seals them for a run's pool.
    pub keyring: Arc<Keyring>,
    /// Resolves the heads of branches.
    pub code_host: Arc<dyn CodeHost>,
    /// The APIs of code hosts.
    pub providers: Arc<dyn ProviderApi>,
    /// The requests to code hosts that are in progress.
    pub asks: Arc<Asks>,
    /// The reports to code hosts that are being sent.
    pub sends: Arc<Sends>,
    /// Sends the messages of notifications.
    pub webhooks: Webhooks,
    /// The messages that are being sent.
    pub posts: Arc<Posts>,
    /// The looks at repositories that are in progress.
    pub looks: Arc<Looks>,
    /// The webhooks at code hosts that are being made or removed.
    pub provisions: Arc<Provisions>,
    /// Tells what images are.
    pub images: Arc<dyn ImageRegistry>,
    /// The questions to registries that are in progress.
    pub image_looks: Arc<ImageLooks>,
    /// The vaults that secrets are read from when their runs are admitted.
    pub vaults: Arc<VaultReads>,
    /// The programs that give the credentials of registries.
    pub helpers: Arc<CredentialHelpers>,
    /// Its settings.
    pub settings: SchedulerSettings,
}

/// The settings of a scheduler.
#[derive(Debug, Clone)]
pub struct SchedulerSettings {
    /// The interval of the sweeper, which finds lost doorbells and expired leases.
    pub sweep_interval: Duration,
    /// The period of a lease: after the store was away, every lease gets one full period.
    pub lease: Duration,
    /// The URL at which people reach gantry.
    pub public_url: Url,
    /// Whether gantry makes the webhooks that tasks need.
    pub provision: bool,
    /// How long a run may be ready in a pool without workers before it ends.
    pub queue_timeout: Duration,
    /// How often the repository of a task is looked at for changes that no webhook reported, unless the task says so
    /// itself.
    pub reconcile_interval: Duration,
    /// How base images are watched.
    pub base_images: BaseImageSettings,
    /// How long things are kept.
    pub retention: Retention,
}

impl Scheduler {
    /// Runs until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let (decider, resolver, admitter) = (self.decider(), self.resolver(), self.admitter());
        let reconciler = self.reconciler();
        let (sweeper, keeper, figures) = (self.sweeper(), self.keeper(), self.figures());
        let (outbox, notifier, provisioner) = (self.outbox(), self.notifier(), self.provisioner());
        let (timers, interval) = (self.timers(), self.settings.sweep_interval);
        let images = self.base_images();
        let build_waves = || async {
            let recorded = Box::pin(images.record_ended()).await?;
            Ok(recorded + Box::pin(images.advance_waves()).await?)
        };
        let fire_timers = || async {
            timers.tick().await?;
            timers.pause().await
        };
        let legs = self.legs();
        let resolve_and_admit = || async {
            self.image_looks.moved.notify_one();
            let resolved = Box::pin(resolver.tick()).await?;
            let split = Box::pin(legs.tick()).await?;
            Ok(resolved + split + Box::pin(admitter.tick()).await?)
        };
        let look_at_repositories = async {
            if let Err(error) = reconciler.look_again().await {
                tracing::warn!("what was lost before the start is looked for later: {error}");
            }
            every("reconcile", &stop, RECONCILE_TICK, || reconciler.tick()).await;
        };
        tokio::join!(
            on_doorbell("events", &stop, &self.queues.events, || decider.tick()),
            when_due("timers", &stop, fire_timers),
            on_doorbell("admission", &stop, &self.queues.runs, resolve_and_admit),
            every("outbox", &stop, REPORT_INTERVAL, || outbox.tick()),
            every("notifier", &stop, REPORT_INTERVAL, || notifier.tick()),
            look_at_repositories,
            often("images", &stop, &self.image_looks.asked, || images.watch()),
            often("waves", &stop, &self.image_looks.moved, build_waves),
            every("provisioner", &stop, REPORT_INTERVAL, || provisioner.tick()),
            every("sweeper", &stop, interval, || sweeper.tick()),
            every("figures", &stop, interval, || figures.tick()),
            every("logs", &stop, interval, || keeper.seal_logs()),
            every("retention", &stop, RETENTION_INTERVAL, || keeper.forget_old()),
            every("room", &stop, LOOK_AGAIN, || keeper.make_room()),
        );
    }

    /// Makes one pass over the due events, the runs and the due reports, as if every doorbell had rung. For tests, and for
    /// callers that need the effect at once. Returns whether anything moved.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tick(&self) -> Result<bool, StoreError> {
        // Each in a box, because the stack of a thread does not hold the futures of all.
        let fired = Box::pin(self.timers().tick()).await?;
        let resolved = Box::pin(self.resolver().tick()).await?;
        let decided = Box::pin(self.decider().tick_and_settle()).await?;
        let split = Box::pin(self.legs().tick()).await?;
        let admitted = Box::pin(self.admitter().tick_and_settle()).await?;
        let reported = Box::pin(self.outbox().tick_and_settle()).await?;
        let images = self.base_images();
        let recorded = Box::pin(images.record_ended_and_settle()).await?;
        let advanced = Box::pin(images.advance_waves()).await?;
        let told = Box::pin(self.notifier().tick_and_settle()).await?;
        let provisioned = Box::pin(self.provisioner().tick_and_settle()).await?;
        let sent = reported + told + provisioned;
        Ok(fired + resolved + decided + split + admitted + recorded + advanced + sent > 0)
    }

    fn decider(&self) -> Decider {
        Decider {
            store: Arc::clone(&self.store),
            runs_moved: Arc::clone(&self.queues.runs),
            keyring: Arc::clone(&self.keyring),
            code_host: Arc::clone(&self.code_host),
            providers: Arc::clone(&self.providers),
            asks: Arc::clone(&self.asks),
            image_looks: Arc::clone(&self.image_looks),
            canary: self.settings.base_images.canary,
        }
    }

    fn base_images(&self) -> BaseImages {
        BaseImages {
            store: Arc::clone(&self.store),
            events: Arc::clone(&self.queues.events),
            runs_moved: Arc::clone(&self.queues.runs),
            keyring: Arc::clone(&self.keyring),
            logins: self.logins(),
            images: Arc::clone(&self.images),
            looks: Arc::clone(&self.image_looks),
            settings: self.settings.base_images.clone(),
        }
    }

    /// Asks registries for the tags that are due, and waits for the answers. Returns whether there were any.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn watch_images(&self) -> Result<bool, StoreError> {
        Ok(self.base_images().watch_and_settle().await? > 0)
    }

    fn reconciler(&self) -> Reconciler {
        Reconciler {
            store: Arc::clone(&self.store),
            events: Arc::clone(&self.queues.events),
            keyring: Arc::clone(&self.keyring),
            code_host: Arc::clone(&self.code_host),
            providers: Arc::clone(&self.providers),
            looks: Arc::clone(&self.looks),
            interval: self.settings.reconcile_interval,
        }
    }

    /// Makes all looks at repositories due, as a start does. Returns how many were not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn look_again(&self) -> Result<usize, StoreError> {
        self.reconciler().look_again().await
    }

    /// Looks at the repositories whose watches are due, and waits for the answers. Returns whether there were any.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reconcile(&self) -> Result<bool, StoreError> {
        Ok(self.reconciler().tick_and_settle().await? > 0)
    }

    /// Decides the events that are due, and waits for what they need of code hosts. Returns whether there were any.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn decide(&self) -> Result<bool, StoreError> {
        Ok(self.decider().tick_and_settle().await? > 0)
    }

    fn resolver(&self) -> Resolver {
        Resolver { store: Arc::clone(&self.store), events: Arc::clone(&self.queues.events) }
    }

    fn admitter(&self) -> Admitter {
        Admitter {
            store: Arc::clone(&self.store),
            jobs: Arc::clone(&self.queues.jobs),
            keyring: Arc::clone(&self.keyring),
            logins: self.logins(),
            code_host: Arc::clone(&self.code_host),
        }
    }

    fn legs(&self) -> Legs {
        Legs { store: Arc::clone(&self.store), keyring: Arc::clone(&self.keyring) }
    }

    fn logins(&self) -> Logins {
        Logins {
            store: Arc::clone(&self.store),
            keyring: Arc::clone(&self.keyring),
            vaults: Arc::clone(&self.vaults),
            helpers: Arc::clone(&self.helpers),
        }
    }

    fn timers(&self) -> Timers {
        Timers { store: Arc::clone(&self.store), events: Arc::clone(&self.queues.events) }
    }

    /// Fires the timers that are due. Returns how many this scheduler fired.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn fire_timers(&self) -> Result<usize, StoreError> {
        self.timers().tick().await
    }

    fn outbox(&self) -> Outbox {
        Outbox {
            store: Arc::clone(&self.store),
            keyring: Arc::clone(&self.keyring),
            providers: Arc::clone(&self.providers),
            sends: Arc::clone(&self.sends),
            public_url: self.settings.public_url.clone(),
        }
    }

    fn notifier(&self) -> Notifier {
        Notifier {
            store: Arc::clone(&self.store),
            keyring: Arc::clone(&self.keyring),
            webhooks: self.webhooks.clone(),
            posts: Arc::clone(&self.posts),
            public_url: self.settings.public_url.clone(),
        }
    }

    fn provisioner(&self) -> Provisioner {
        Provisioner {
            store: Arc::clone(&self.store),
            keyring: Arc::clone(&self.keyring),
            providers: Arc::clone(&self.providers),
            provisions: Arc::clone(&self.provisions),
            public_url: self.settings.public_url.clone(),
            is_wanted: self.settings.provision,
        }
    }

    /// The part that recovers lost work.
    #[must_use]
    pub fn sweeper(&self) -> Sweeper {
        Sweeper::new(
            Arc::clone(&self.store),
            self.queues.clone(),
            Arc::clone(&self.asks),
            self.settings.lease,
            self.settings.queue_timeout,
        )
    }

    /// The part that enforces retention.
    #[must_use]
    pub fn keeper(&self) -> Keeper {
        Keeper {
            store: Arc::clone(&self.store),
            blobs: Arc::clone(&self.blobs),
            retention: self.settings.retention.clone(),
        }
    }

    fn figures(&self) -> Figures {
        Figures { store: Arc::clone(&self.store) }
    }
}
