//! Makes the webhooks that tasks need at their code hosts, and keeps them.
//!
//! In: the places that changes of tasks asked to look at, and those whose time has come. Out: webhooks at code hosts, and
//! records of how they stand. What a place needs is derived from its tasks each time, so a lost or repeated look costs
//! nothing.

use std::sync::Arc;

use gantry_ops::secret::Keyring;
use gantry_remote::code_host::ProviderApi;
use gantry_seams::place::Place;
use gantry_seams::provisioning;
use gantry_seams::store::{SharedStore, StoreError};
use url::Url;

use crate::beside::{Beside, Bounds};

mod keeping;
mod needs;

/// How many places one tick looks at.
const PLACES: usize = 256;

/// Providers limit how many requests of an account they handle at once.
const BOUNDS: Bounds = Bounds { a_host: 2, at_once: 16, most: 1024 };

/// The places that this process looks at.
#[derive(Debug)]
pub struct Provisions(Arc<Beside<Place>>);

impl Default for Provisions {
    fn default() -> Self {
        Self(Arc::new(Beside::new(BOUNDS)))
    }
}

/// Keeps the webhooks.
#[derive(Clone)]
pub(crate) struct Provisioner {
    pub(crate) store: SharedStore,
    /// Opens the tokens for code hosts, and seals the secrets of hooks.
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) providers: Arc<dyn ProviderApi>,
    pub(crate) provisions: Arc<Provisions>,
    /// What the addresses of hooks begin with.
    pub(crate) public_url: Url,
    /// Whether the operator lets gantry make webhooks.
    pub(crate) is_wanted: bool,
}

impl Provisioner {
    /// Like [`Provisioner::tick`], but also waits for the requests.
    pub(crate) async fn tick_and_settle(&self) -> Result<usize, StoreError> {
        let begun = self.tick().await?;
        self.provisions.0.settled().await;
        Ok(begun)
    }

    /// Begins to look at the places that are due, each beside this loop: a slow code host delays only its own. Returns how
    /// many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tick(&self) -> Result<usize, StoreError> {
        let store = self.store.as_ref();
        let due = provisioning::due(store, store.now().await?, PLACES).await?;
        Ok(due.into_iter().filter(|place| self.look_beside(place)).count())
    }

    /// Returns `false` if this process is looking at it already, or at too many.
    fn look_beside(&self, place: &Place) -> bool {
        let Some(begun) = self.provisions.0.begin(place) else { return false };
        let (provisioner, place) = (self.clone(), place.clone());
        tokio::spawn(async move {
            let _until_it_ends = begun;
            match provisioner.look_at(&place).await {
                // Only this place waits for the quarantined record.
                Ok(()) | Err(StoreError::Undecodable { .. }) => {}
                Err(error) => {
                    let repository = &place.repository;
                    tracing::warn!(%repository, "the webhook of {repository} is looked at later: {error}");
                }
            }
        });
        true
    }

    async fn look_at(&self, place: &Place) -> Result<(), StoreError> {
        let host = place.repository.as_str().split('/').next().unwrap_or_default();
        let Some(_turn) = self.provisions.0.turn(host).await else { return Ok(()) };
        let (store, nonce) = (self.store.as_ref(), crate::asking::nonce()?);
        match provisioning::claim(store, place, &nonce, keeping::CLAIM).await? {
            Some(claimed) => self.keep(claimed).await,
            None => Ok(()),
        }
    }
}
