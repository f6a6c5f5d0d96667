//! Has the code host send again what it could not deliver.

use gantry_domain::registry::Registry;
use gantry_remote::code_host::{RepositoryAccess, SentDeliveries, unaccepted};
use gantry_seams::provisioning::State;
use gantry_seams::{deliveries, provisioning};

use super::{Failed, Looked, Reconciler};

/// How often a delivery is sent in all. One that gantry still does not take has another problem.
const MOST_ATTEMPTS: usize = 3;

impl Reconciler {
    /// Compares what the webhook that gantry made has sent with what has arrived.
    pub(super) async fn look_at_deliveries(&self, looked: &Looked) -> Result<(), Failed> {
        let (store, place) = (self.store.as_ref(), &looked.watch.place);
        let Some(kept) = provisioning::find(store, place).await? else { return Ok(()) };
        let (State::InPlace { .. }, Some(webhook)) = (kept.state, kept.webhook) else {
            return Ok(());
        };
        let open = |sealed| self.keyring.open(&Registry::seals_for(place.registry), sealed);
        // The provisioner reports a token that does not open.
        let Ok(token) = webhook.made_with.token().map(open).transpose() else { return Ok(()) };
        let registry = webhook.made_with.registry();
        let at =
            RepositoryAccess { url: &webhook.url, registry, token: token.as_ref(), host_keys: &[] };
        let hooks = self.providers.find_hooks(at, &webhook.address).await.map_err(Failed::Host)?;
        for hook in hooks {
            let asked = self.providers.sent_deliveries(at, &hook).await;
            let SentDeliveries::Listed(sent) = asked.map_err(Failed::Host)? else { continue };
            for (delivery, lost) in unaccepted(&sent) {
                let is_known = match delivery.parse() {
                    Ok(id) => deliveries::find(store, &webhook.hook, &id).await?.is_some(),
                    Err(_) => true,
                };
                if is_known || lost.attempts >= MOST_ATTEMPTS {
                    continue;
                }
                let again = self.providers.redeliver(at, &hook, lost.newest).await;
                again.map_err(Failed::Host)?;
                let repository = &place.repository;
                tracing::info!(%repository, "{repository} sends delivery {delivery} again, which has not arrived");
            }
        }
        Ok(())
    }
}
