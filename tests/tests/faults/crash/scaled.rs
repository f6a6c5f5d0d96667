//! An ingress, a scheduler and a worker as separate processes, which share Redis, RabbitMQ and a folder.
//!
//! The process that crashes has scripted parts. Its successor and the others are `gantry` itself, except workers, and
//! schedulers that look at images.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use gantry_domain::platform::Platform;
use gantry_objects::ObjectBlobs;
use gantry_ops::secret::{Keyring, random_hex};
use gantry_redis::{RedisOptions, RedisStore};
use gantry_seams::store::SharedStore;
use gantry_tests::backend::Vhost;
use gantry_tests::crash::{self, CrashPoint};
use gantry_tests::installation::{Client, Program};
use gantry_tests::real;
use gantry_tests::role::{self, Role, Setting};
use gantry_tests::servers::free_port;
use tempfile::TempDir;

use super::site::{CRASHES_WITHIN, Processes, Site};
use super::{Crashes, Old, Part};

const PARTS: [Part; 3] = [Part::Ingress, Part::Scheduler, Part::Worker];

pub(super) struct Scaled {
    repositories: Vec<String>,
    looks_at_images: bool,
    settings: Vec<Setting>,
    /// The process of each part, in the parts' order.
    roles: Vec<Role>,
    /// The number of processes started so far; each has its own folder.
    started: usize,
    _vhost: Vhost,
    folder: TempDir,
}

impl Scaled {
    pub(super) async fn start(
        repositories: &[String],
        looks_at_images: bool,
        crashes: Crashes,
    ) -> Result<Site> {
        let folder = tempfile::tempdir()?;
        let (vhost, prefix) =
            (Vhost::make().await, format!("crash-{}", random_hex::<6>()?.as_str()));
        let ring = Keyring::create(&folder.path().join("service.key"))?;
        ring.pool_key(&Platform::default().pool()).write(&folder.path().join("pool.key"))?;
        std::fs::create_dir(folder.path().join("objects"))?;
        let listen = ([127, 0, 0, 1], free_port()).into();
        let text = |text: String| format!("{text:?}");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let settings = vec![
            ("patience", text("60s".to_owned())),
            ("server.listen", text(format!("{listen}"))),
            ("store.url", text(real::redis())),
            ("store.prefix", text(prefix.clone())),
            ("queue.urls", format!("[{:?}]", vhost.address())),
            ("objects.url", text(format!("file://{}", path("objects")))),
            ("outbound.allow", "[\"127.0.0.1\"]".to_owned()),
            ("secrets.key_file", text(path("service.key"))),
            ("secrets.pool_key_file", text(path("pool.key"))),
            ("worker.min_free", text("0B".to_owned())),
            ("worker.slots", "2".to_owned()),
            ("lease.duration", text("2s".to_owned())),
            ("lease.renew", text("400ms".to_owned())),
            ("sweep.interval", text("250ms".to_owned())),
            ("log.format", text("human".to_owned())),
        ];
        let mut scaled = Self {
            repositories: repositories.to_vec(),
            looks_at_images,
            settings,
            roles: Vec::new(),
            started: 0,
            _vhost: vhost,
            folder,
        };
        for part in PARTS {
            let role = scaled.spawn(part, first_of(part, crashes))?;
            scaled.roles.push(role);
        }
        for role in &mut scaled.roles {
            role.until_ready().await?;
        }
        let mut options = RedisOptions::parse(&real::redis())?;
        options.prefix = prefix;
        let store: SharedStore = Arc::new(RedisStore::connect(options).await?);
        let token = gantry_ingress::issue_admin_token(store.as_ref()).await?;
        Ok(Site::new(
            store,
            ObjectBlobs::local(scaled.path("objects"))?,
            Client::at(listen, token.as_str()),
            scaled.path("registry"),
            Processes::Scaled(Box::new(scaled)),
        ))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spawn(&mut self, part: Part, crashes_at: Option<CrashPoint>) -> Result<Role> {
        self.started += 1;
        let folder = self.path(&format!("process-{}", self.started));
        let needs_registry = match part {
            Part::Ingress => false,
            Part::Scheduler => self.looks_at_images,
            Part::Worker => true,
        };
        let program = if needs_registry || crashes_at.is_some() {
            self.scripted(part, crashes_at)
        } else {
            Program {
                path: role::gantry(),
                arguments: vec![part.as_str().to_owned()],
                environment: Vec::new(),
            }
        };
        let mut role = Role::new(folder, program, &self.settings)?;
        role.spawn()?;
        Ok(role)
    }

    fn scripted(&self, part: Part, crashes_at: Option<CrashPoint>) -> Program {
        let registry = self.path("registry").display().to_string();
        let first = [part.as_str().to_owned(), registry, "1".to_owned()];
        let point = crashes_at.map(|point| (crash::VARIABLE.to_owned(), point.as_str().to_owned()));
        Program {
            path: role::program("gantry-scripted-role"),
            arguments: first.into_iter().chain(self.repositories.clone()).collect(),
            environment: point.into_iter().collect(),
        }
    }

    pub(super) async fn crashes(&mut self, crashes: Crashes) -> Result<()> {
        for (number, (part, point)) in crashes.iter().enumerate() {
            self.roles[*part as usize].crashes_at(*point, CRASHES_WITHIN).await?;
            let next = first_of(*part, &crashes[number + 1..]);
            self.roles[*part as usize] = self.spawn(*part, next)?;
        }
        for role in &mut self.roles {
            role.until_ready().await?;
        }
        Ok(())
    }

    pub(super) async fn forget(&mut self, old: Old, crashes: Crashes) -> Result<()> {
        let setting = match old {
            Old::Bodies => "retention.bodies",
            Old::Runs => "retention.runs",
            Old::Unused => "retention.unused_uploads",
        };
        self.settings.push((setting, "\"1ms\"".to_owned()));
        self.restart(crashes).await
    }

    pub(super) async fn restart(&mut self, crashes: Crashes) -> Result<()> {
        let scheduler = Part::Scheduler;
        self.roles[scheduler as usize].terminate().await?;
        self.roles[scheduler as usize] = self.spawn(scheduler, first_of(scheduler, crashes))?;
        Ok(())
    }
}

/// The first crash point of a part.
fn first_of(part: Part, crashes: &[(Part, CrashPoint)]) -> Option<CrashPoint> {
    crashes.iter().find(|(crashed, _)| *crashed == part).map(|(_, point)| *point)
}

impl Part {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Scheduler => "scheduler",
            Self::Worker => "worker",
        }
    }
}
