//! Compares the hooks that gantry made with what their code hosts have.

use std::collections::BTreeSet;

use gantry_domain::hook::Hook;
use gantry_domain::id::HookId;
use gantry_domain::registry::Registry;
use gantry_ops::secret::SecretString;
use gantry_remote::code_host::{
    CodeHostError, FoundHook, RepositoryAccess, SentDeliveries, SentDelivery, unaccepted,
};
use gantry_seams::deliveries;
use gantry_seams::place::Place;
use gantry_seams::provisioning::{self, Provisioned, Webhook};

use super::hooks;
use crate::access::{Allowed, Write};
use crate::refusal::Refusal;
use crate::state::State;

/// A hook, and what its code host has.
pub(crate) struct Examined {
    pub(crate) hook: Hook,
    /// `None` if gantry did not make the hook.
    pub(crate) kept: Option<Provisioned>,
    /// Why the code host does not tell, if it does not.
    pub(crate) found: Result<Vec<Found>, String>,
}

/// A webhook of the code host.
pub(crate) struct Found {
    pub(crate) hook: FoundHook,
    /// `None` if the code host does not list them.
    pub(crate) sent: Option<Sent>,
}

/// The last deliveries of a webhook.
pub(crate) struct Sent {
    /// All attempts, newest first.
    pub(crate) all: Vec<SentDelivery>,
    /// The ids of the deliveries that have not arrived.
    lost: BTreeSet<String>,
}

impl Sent {
    /// Whether the delivery of an attempt arrived.
    pub(crate) fn arrived(&self, sent: &SentDelivery) -> bool {
        match &sent.delivery {
            Some(delivery) => !self.lost.contains(delivery),
            None => sent.is_accepted,
        }
    }

    /// The newest attempt of each delivery that has not arrived.
    pub(crate) fn missing(&self) -> Vec<&SentDelivery> {
        let unaccepted = unaccepted(&self.all).into_iter();
        let lost = unaccepted.filter(|(delivery, _)| self.lost.contains(*delivery));
        lost.map(|(_, lost)| lost.newest).collect()
    }
}

/// Asks the code host of a hook what it has.
pub(crate) async fn examine(
    state: &State,
    allowed: &Allowed<Write>,
    id: &HookId,
) -> Result<Examined, Refusal> {
    let hook = hooks::find(state, allowed, id).await?;
    let Some((kept, webhook)) = kept(state, &hook).await? else {
        return Ok(Examined { hook, kept: None, found: Ok(Vec::new()) });
    };
    let token = token(state, &hook, &webhook)?;
    let found = match found(state, access(&hook, &webhook, token.as_ref()), &webhook).await {
        Ok(asked) => Ok(with_ledger(state, &hook, asked).await?),
        Err(error) => Err(error.message),
    };
    Ok(Examined { hook, kept: Some(kept), found })
}

/// Has the code host of a hook send again what gantry does not have. Returns the ids of the deliveries.
pub(crate) async fn redeliver(
    state: &State,
    allowed: &Allowed<Write>,
    id: &HookId,
) -> Result<Vec<String>, Refusal> {
    let hook = hooks::find(state, allowed, id).await?;
    let Some((_, webhook)) = kept(state, &hook).await? else { return Ok(Vec::new()) };
    let token = token(state, &hook, &webhook)?;
    let at = access(&hook, &webhook, token.as_ref());
    let asked = found(state, at, &webhook).await.map_err(refused)?;
    let mut again = Vec::new();
    for Found { hook: at_host, sent } in with_ledger(state, &hook, asked).await? {
        for sent in sent.iter().flat_map(Sent::missing) {
            let redelivered = state.providers.redeliver(at, &at_host, sent).await;
            redelivered.map_err(refused)?;
            again.extend(sent.delivery.clone());
        }
    }
    Ok(again)
}

/// What is recorded for a hook that gantry made.
async fn kept(state: &State, hook: &Hook) -> Result<Option<(Provisioned, Webhook)>, Refusal> {
    let Some(repository) = hook.repositories.first().filter(|_| hook.is_provisioned) else {
        return Ok(None);
    };
    let place = Place { registry: hook.prefix, repository: repository.clone() };
    let kept = provisioning::find(state.store.as_ref(), &place).await?;
    let of_hook = |kept: Provisioned| {
        let webhook = kept.webhook.clone().filter(|webhook| webhook.hook == hook.id)?;
        Some((kept, webhook))
    };
    Ok(kept.and_then(of_hook))
}

/// The token that made the webhook; `None` if that was the App.
fn token(state: &State, hook: &Hook, webhook: &Webhook) -> Result<Option<SecretString>, Refusal> {
    let open = |sealed| state.keyring.open(&Registry::seals_for(hook.prefix), sealed);
    Ok(webhook.made_with.token().map(open).transpose()?)
}

fn access<'a>(
    hook: &'a Hook,
    webhook: &'a Webhook,
    token: Option<&'a SecretString>,
) -> RepositoryAccess<'a> {
    RepositoryAccess { url: &webhook.url, registry: Some(&hook.registry), token, host_keys: &[] }
}

async fn found(
    state: &State,
    at: RepositoryAccess<'_>,
    webhook: &Webhook,
) -> Result<Vec<(FoundHook, SentDeliveries)>, CodeHostError> {
    let mut found = Vec::new();
    for hook in state.providers.find_hooks(at, &webhook.address).await? {
        let sent = state.providers.sent_deliveries(at, &hook).await?;
        found.push((hook, sent));
    }
    Ok(found)
}

async fn with_ledger(
    state: &State,
    hook: &Hook,
    asked: Vec<(FoundHook, SentDeliveries)>,
) -> Result<Vec<Found>, Refusal> {
    let mut all = Vec::new();
    for (at_host, sent) in asked {
        let sent = match sent {
            SentDeliveries::NotListed => None,
            SentDeliveries::Listed(sent) => {
                let mut lost = BTreeSet::new();
                for delivery in unaccepted(&sent).into_keys() {
                    if !is_known(state, hook, delivery).await? {
                        lost.insert(delivery.to_owned());
                    }
                }
                Some(Sent { all: sent, lost })
            }
        };
        all.push(Found { hook: at_host, sent });
    }
    Ok(all)
}

/// Whether gantry has a delivery. It keeps none that mean nothing to it, like pings: those were accepted.
async fn is_known(state: &State, hook: &Hook, delivery: &str) -> Result<bool, Refusal> {
    let Ok(id) = delivery.parse() else { return Ok(false) };
    Ok(deliveries::find(state.store.as_ref(), &hook.id, &id).await?.is_some())
}

fn refused(error: CodeHostError) -> Refusal {
    Refusal::Conflict { code: "code_host_refused", message: error.message }
}
