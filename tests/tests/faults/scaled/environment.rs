//! What a round needs besides servers: a folder, keys, a code host, and the settings of its processes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use gantry_domain::platform::Platform;
use gantry_domain::timestamp::Timestamp;
use gantry_objects::ObjectBlobs;
use gantry_ops::secret::Keyring;
use gantry_redis::{RedisOptions, RedisStore};
use gantry_seams::store::SharedStore;
use gantry_tests::git_server::GitServer;
use gantry_tests::role::Setting;
use gantry_tests::servers::{rabbitmq, redis};
use tempfile::TempDir;

use super::servers::{Servers, Side};

/// The intervals of a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) lease: Duration,
    pub(crate) renew: Duration,
    pub(crate) sweep: Duration,
}

impl Pace {
    /// Short intervals for short rounds.
    pub(crate) const QUICK: Self = Self {
        lease: Duration::from_secs(3),
        renew: Duration::from_secs(1),
        sweep: Duration::from_millis(500),
    };
}

/// The folder of a round with its keys and objects, and a code host.
pub(crate) struct Environment {
    pub(crate) folder: TempDir,
    pub(crate) git: GitServer,
}

impl Environment {
    pub(crate) async fn create() -> Result<Self> {
        let environment = Self { folder: tempfile::tempdir()?, git: GitServer::start().await? };
        let ring = Keyring::create(&environment.key_file())?;
        ring.pool_key(&Platform::default().pool()).write(&environment.pool_key_file())?;
        std::fs::write(environment.password_file(), rabbitmq::PASSWORD)?;
        std::fs::create_dir(environment.objects())?;
        Ok(environment)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn registry(&self) -> PathBuf {
        self.path().join("registry")
    }

    pub(crate) fn blobs(&self) -> Result<ObjectBlobs> {
        Ok(ObjectBlobs::local(self.objects())?)
    }

    fn objects(&self) -> PathBuf {
        self.path().join("objects")
    }

    fn key_file(&self) -> PathBuf {
        self.path().join("service.key")
    }

    fn pool_key_file(&self) -> PathBuf {
        self.path().join("pool.key")
    }

    fn password_file(&self) -> PathBuf {
        self.path().join("password")
    }

    /// The settings of processes on one side of the network; without a pace they use the default intervals.
    pub(crate) fn settings(
        &self,
        servers: &Servers,
        side: Side,
        pace: Option<Pace>,
    ) -> Vec<Setting> {
        let text = |text: String| format!("{text:?}");
        let file = |path: PathBuf| text(path.display().to_string());
        let urls: Vec<String> = servers.brokers(side).map(rabbitmq::url).collect();
        let mut settings = vec![
            // A broker may take minutes to start when everything starts at once.
            ("patience", text("400s".to_owned())),
            ("store.url", text(redis::url(servers.store(side)))),
            ("queue.urls", format!("{urls:?}")),
            ("queue.password_file", file(self.password_file())),
            ("objects.url", text(format!("file://{}", self.objects().display()))),
            ("outbound.allow", "[\"127.0.0.1\"]".to_owned()),
            ("worker.min_free", text("0B".to_owned())),
            ("worker.slots", "2".to_owned()),
            ("log.format", text("human".to_owned())),
        ];
        match side {
            Side::Workers => settings.push(("secrets.pool_key_file", file(self.pool_key_file()))),
            Side::Others => settings.push(("secrets.key_file", file(self.key_file()))),
        }
        if let Some(pace) = pace {
            let millis = |time: Duration| text(format!("{}ms", time.as_millis()));
            settings.push(("lease.duration", millis(pace.lease)));
            settings.push(("lease.renew", millis(pace.renew)));
            settings.push(("sweep.interval", millis(pace.sweep)));
        }
        settings
    }
}

/// A connection to the store that bypasses the proxies.
pub(crate) async fn open_store(servers: &Servers) -> Result<SharedStore> {
    let options = RedisOptions::parse(&servers.redis().url())?;
    Ok(Arc::new(RedisStore::connect(options).await?))
}

/// The time of the store, which is on this machine.
#[allow(
    clippy::disallowed_methods,
    reason = "what is compared with the store's records must be its kind of time"
)]
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::from_millis(i64::try_from(since.unwrap_or_default().as_millis()).unwrap())
}
