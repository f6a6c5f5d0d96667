//! Composes each role from its parts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use gantry_domain::id::WorkerId;
use gantry_ingress::{Ingress, IngressSettings, TlsFiles};
use gantry_ops::health::Health;
use gantry_ops::secret::{Keyring, PoolKey, random_hex};
use gantry_ops::settings::{Settings, Steps};
use gantry_remote::code_host::CodeHosts;
use gantry_remote::credential_helper::CredentialHelpers;
use gantry_remote::git::{Git, GitLimits};
use gantry_remote::http::OutboundClient;
use gantry_remote::image_registry::RemoteImageRegistry;
use gantry_remote::registries::RemoteRegistries;
use gantry_remote::webhook::Webhooks;
use gantry_scheduler::{BaseImageSettings, Retention, Scheduler, SchedulerSettings};
use gantry_seams::blobs::SharedBlobs;
use gantry_seams::queue::Queues;
use gantry_seams::store::SharedStore;
use gantry_worker::engine::containers::ContainerLimits;
use gantry_worker::engine::docker::DockerEngine;
use gantry_worker::engine::measured::{MeasuredContainers, MeasuredEngine};
use gantry_worker::source::{Sources, UnpackLimits};
use gantry_worker::{HeldRuns, LeaseTimes, Permission, Policy, Usage, Worker, WorkerSettings};
use url::Url;

use super::github_app::github_app;
use super::outbound;
use super::servers::Servers;
use super::vaults::vaults;

/// How often a worker looks for what dead attempts left in the engine.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// The parts that all roles of a process share.
pub(super) struct SharedParts<'a> {
    settings: &'a Settings,
    store: SharedStore,
    queues: Queues,
    blobs: SharedBlobs,
    http: OutboundClient,
    git: Git,
    installation: String,
}

impl<'a> SharedParts<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        servers: &Servers,
        installation: String,
    ) -> Result<Self> {
        let http = OutboundClient::new(outbound(settings)?)?;
        let limits = GitLimits {
            fetched_bytes: settings.limits.context,
            checkout_bytes: settings.limits.context,
            checkout_files: settings.limits.context_files,
        };
        Ok(Self {
            settings,
            store: Arc::clone(&servers.store),
            queues: servers.queues.clone(),
            blobs: Arc::clone(&servers.blobs) as SharedBlobs,
            git: Git::new(Arc::clone(http.policy()), limits),
            http,
            installation,
        })
    }

    fn code_hosts(&self) -> Result<Arc<CodeHosts>> {
        let entries = self.settings.code_hosts.apis.clone();
        let hosts = CodeHosts::new(self.git.clone(), &self.http, entries)?;
        Ok(Arc::new(match github_app(self.settings)? {
            Some(app) => hosts.with_app(app),
            None => hosts,
        }))
    }

    pub(super) fn ingress(&self, keyring: &Arc<Keyring>, health: &Health) -> Result<Ingress> {
        let server = &self.settings.server;
        let tls = server.tls_certificate.clone().zip(server.tls_key.clone());
        Ok(Ingress {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: Arc::clone(&self.blobs),
            keyring: Arc::clone(keyring),
            providers: self.code_hosts()?,
            webhooks: Webhooks::new(&self.http)?,
            health: health.clone(),
            settings: IngressSettings {
                public_url: server.public_url.clone(),
                body_budget: server.body_budget,
                body_patience: server.body_patience,
                upload_limit: self.settings.limits.upload,
                uploads_limit: self.settings.limits.uploads,
                min_free: self.settings.objects.min_free,
                tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
                threads: std::thread::available_parallelism().map_or(1, usize::from),
                ..IngressSettings::default()
            },
        })
    }

    pub(super) fn scheduler(
        &self,
        keyring: &Arc<Keyring>,
        public_url: Url,
        helpers: CredentialHelpers,
    ) -> Result<Scheduler> {
        let kept = &self.settings.retention;
        let code_hosts = self.code_hosts()?;
        Ok(Scheduler {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: Arc::clone(&self.blobs),
            keyring: Arc::clone(keyring),
            code_host: code_hosts.clone(),
            providers: code_hosts,
            asks: Arc::default(),
            sends: Arc::default(),
            webhooks: Webhooks::new(&self.http)?,
            posts: Arc::default(),
            looks: Arc::default(),
            provisions: Arc::default(),
            images: Arc::new(RemoteImageRegistry::new(self.http.clone())?),
            image_looks: Arc::default(),
            vaults: Arc::new(vaults(self.settings, &self.http)?),
            helpers: Arc::new(helpers),
            settings: SchedulerSettings {
                sweep_interval: self.settings.sweep.interval,
                lease: self.settings.lease.duration,
                public_url,
                reconcile_interval: self.settings.reconcile.interval,
                provision: self.settings.code_hosts.provision,
                queue_timeout: self.settings.runs.queue_timeout,
                base_images: BaseImageSettings {
                    interval: self.settings.images.interval,
                    intervals: self.settings.images.intervals.clone(),
                    quiet: self.settings.images.quiet,
                    canary: self.settings.images.canary,
                },
                retention: Retention {
                    runs: kept.runs,
                    deliveries: kept.deliveries,
                    bodies: kept.bodies,
                    lineage: kept.lineage,
                    waves: kept.waves,
                    revisions: kept.revisions,
                    messages: kept.messages,
                    uploads: kept.uploads,
                    unused_uploads: kept.unused_uploads,
                },
            },
        })
    }

    pub(super) fn worker(
        &self,
        key: &Arc<PoolKey>,
        engine: &DockerEngine,
        data: &Path,
    ) -> Result<Worker> {
        let settings = self.settings;
        let work_folder = data.join("work");
        let limits = UnpackLimits {
            archive_bytes: settings.limits.upload,
            unpacked_bytes: settings.limits.context,
            entries: settings.limits.context_files,
        };
        let (git, http) = (self.git.clone(), self.http.clone());
        let sources =
            Sources::open(work_folder.clone(), git, http, limits, settings.worker.mirrors)?;
        Ok(Worker {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: Arc::clone(&self.blobs),
            pool_key: Arc::clone(key),
            engine: Arc::new(MeasuredEngine::new(Arc::new(engine.clone()))),
            containers: Arc::new(MeasuredContainers::new(Arc::new(engine.clone()))),
            http: self.http.clone(),
            sources,
            registries: Arc::new(RemoteRegistries::new(self.http.clone())),
            settings: WorkerSettings {
                id: settings.worker.name.clone().map_or_else(random_name, Ok)?,
                has_fixed_name: settings.worker.name.is_some(),
                pool: key.pool().clone(),
                installation: self.installation.clone(),
                slots: settings.worker.slots.get(),
                lease: LeaseTimes { period: settings.lease.duration, renew: settings.lease.renew },
                work_folder,
                min_free: settings.worker.min_free,
                keep_cache: settings.engine.keep,
                log_limit: settings.limits.log,
                step_limits: ContainerLimits {
                    memory: settings.steps.memory,
                    cpus: (settings.steps.cpus > 0.0).then_some(settings.steps.cpus),
                    pids: settings.steps.pids,
                },
                run_limits: Usage {
                    memory: settings.steps.run_memory,
                    pids: settings.steps.run_pids,
                },
                policy: policy(&settings.steps),
                image_aliases: settings.steps.aliases.clone(),
                housekeeping: HOUSEKEEPING,
            },
            held: Arc::new(HeldRuns::default()),
        })
    }
}

fn policy(steps: &Steps) -> Policy {
    let mut policy = Policy::default();
    for (permission, granted) in [
        (Permission::Privileged, &steps.privileged),
        (Permission::HostNetwork, &steps.host_network),
        (Permission::EngineSocket, &steps.engine_socket),
        (Permission::HostMounts, &steps.host_mounts),
        (Permission::NamedVolumes, &steps.named_volumes),
        (Permission::Devices, &steps.devices),
        (Permission::Capabilities, &steps.capabilities),
        (Permission::HostNamespaces, &steps.host_namespaces),
        (Permission::SecurityOptions, &steps.security_options),
        (Permission::Machine, &steps.machine),
    ] {
        policy.grant(permission, granted.clone());
    }
    policy
}

fn random_name() -> Result<WorkerId> {
    Ok(format!("worker-{}", random_hex::<4>()?.as_str()).parse()?)
}
