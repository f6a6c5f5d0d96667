//! The state that all handlers share.

use std::net::SocketAddr;
use std::sync::Arc;

use gantry_ops::health::Health;
use gantry_ops::secret::{Keyring, SecretError};
use gantry_remote::code_host::ProviderApi;
use gantry_remote::webhook::Webhooks;
use gantry_seams::blobs::SharedBlobs;
use gantry_seams::store::SharedStore;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::clock::StoreClock;
use crate::doorbell::{Doorbells, Ringer};
use crate::hooks::{ByteBudget, HookDirectory, HookTally};
use crate::intake::Intake;
use crate::logs::Followers;
use crate::{Ingress, IngressSettings};

pub(crate) struct State {
    pub(crate) store: SharedStore,
    pub(crate) blobs: SharedBlobs,
    pub(crate) keyring: Arc<Keyring>,
    /// The APIs of code hosts.
    pub(crate) providers: Arc<dyn ProviderApi>,
    /// Sends messages of notifications.
    pub(crate) webhooks: Webhooks,
    pub(crate) health: Health,
    pub(crate) settings: IngressSettings,
    pub(crate) clock: StoreClock,
    pub(crate) doorbells: Doorbells,
    pub(crate) hooks: HookDirectory,
    pub(crate) tally: HookTally,
    pub(crate) budget: ByteBudget,
    pub(crate) intake: Arc<Intake>,
    pub(crate) followers: Followers,
    /// Where hooks are served.
    pub(crate) hooks_address: SocketAddr,
    /// The runtime that outlives single connections.
    pub(crate) runtime: Handle,
    pub(crate) stop: CancellationToken,
}

impl State {
    /// State for a server whose hooks are served at `hooks_address`, and the task that sends its doorbells.
    ///
    /// # Errors
    /// [`SecretError`]: the system has no random bytes.
    pub(crate) fn new(
        ingress: Ingress,
        hooks_address: SocketAddr,
        stop: CancellationToken,
    ) -> Result<(Self, Ringer), SecretError> {
        let (doorbells, ringer) = Doorbells::new(ingress.queues);
        let state = Self {
            store: ingress.store,
            blobs: ingress.blobs,
            keyring: ingress.keyring,
            providers: ingress.providers,
            webhooks: ingress.webhooks,
            health: ingress.health,
            clock: StoreClock::default(),
            doorbells,
            hooks: HookDirectory::new()?,
            tally: HookTally::default(),
            budget: ByteBudget::new(ingress.settings.body_budget),
            intake: Arc::default(),
            followers: Followers::new(),
            hooks_address,
            runtime: Handle::current(),
            stop,
            settings: ingress.settings,
        };
        Ok((state, ringer))
    }

    /// The URL that senders use, without a trailing slash.
    pub(crate) fn public_url(&self) -> String {
        match &self.settings.public_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None => self.own_url(),
        }
    }

    fn own_url(&self) -> String {
        let scheme = if self.settings.tls.is_some() { "https" } else { "http" };
        let mut address = self.hooks_address;
        if address.ip().is_unspecified() {
            // Nobody can connect to the unspecified address; loopback is covered by it.
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        format!("{scheme}://{address}")
    }

    pub(crate) fn public_path(&self, path: &str) -> Result<Url, url::ParseError> {
        Url::parse(&format!("{}{path}", self.public_url()))
    }
}
