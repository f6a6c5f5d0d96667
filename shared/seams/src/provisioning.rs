//! The webhooks that gantry keeps at code hosts, for the tasks of a registry that watch a repository.
//!
//! Every change of a task asks, in its commit, that the repositories it watches be looked at. A scheduler claims one,
//! derives from the tasks what is needed, and records what came of it. The hook of gantry, and so the address that the
//! provider's hook has, is recorded before the provider is asked: whoever continues after a crash looks for that address.

use std::time::Duration;

use gantry_domain::hook::Hook;
use gantry_domain::id::{HookId, LeaseNonce, RegistryName, RunPrefix};
use gantry_domain::sealed::Sealed;
use gantry_domain::source::{GitUrl, RepositoryKey};
use gantry_domain::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::codec;
use crate::place::Place;
use crate::registries::AddError;
use crate::retry::{self, Plan};
use crate::store::{Batch, Entry, Expect, From, Index, Key, Kind, Store, StoreError};
use crate::{hooks, registries};

/// What gantry keeps at the code host of a [`Place`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioned {
    /// Where.
    pub place: Place,
    /// The webhook; `None` if there never was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// The address of a former webhook, which is still to be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<Url>,
    /// How it stands.
    pub state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claim: Option<Claim>,
}

/// A webhook that gantry makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// The hook of gantry that it sends to.
    pub hook: HookId,
    /// The address that it sends to, which no other webhook has.
    pub address: Url,
    /// The repository, as a task named it.
    pub url: GitUrl,
    /// What it was made with, which also removes it once no task needs it.
    #[serde(flatten)]
    pub made_with: MadeWith,
}

/// What a webhook is made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MadeWith {
    /// A task's token.
    Token(Sealed),
    /// The operator's App, on behalf of this registry.
    App(RegistryName),
}

impl MadeWith {
    /// The token, if it is one.
    #[must_use]
    pub fn token(&self) -> Option<&Sealed> {
        match self {
            Self::Token(token) => Some(token),
            Self::App(_) => None,
        }
    }

    /// The registry, if it is the App.
    #[must_use]
    pub fn registry(&self) -> Option<&RegistryName> {
        match self {
            Self::Token(_) => None,
            Self::App(registry) => Some(registry),
        }
    }
}

/// How a webhook stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// It is still to be made.
    Pending,
    /// The code host has it.
    InPlace {
        /// The ids that the code host gave it.
        ids: Vec<String>,
        /// When this was last seen.
        checked: Timestamp,
    },
    /// The code host refuses it or is away. It is tried again.
    Problem {
        /// What failed, and the remedy.
        message: String,
        /// Since when.
        since: Timestamp,
        /// How many requests have failed since one succeeded.
        failures: u32,
        /// When it is tried again.
        next: Timestamp,
    },
    /// gantry does not make it.
    ByHand {
        /// Why, and what to do.
        why: String,
    },
    /// No task needs it any more, and it is removed.
    Removing {
        /// Since when.
        since: Timestamp,
        /// How many requests have failed.
        failures: u32,
        /// Why the last one failed.
        problem: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    nonce: LeaseNonce,
    until: Timestamp,
}

/// The right to change what a code host has for a place. Until it ends or expires, nobody else has it.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// What is recorded.
    pub provisioned: Provisioned,
    nonce: LeaseNonce,
}

impl Provisioned {
    fn is_claimed(&self, now: Timestamp) -> bool {
        self.claim.as_ref().is_some_and(|claim| claim.until > now)
    }
}

fn key_of(place: &Place) -> Key {
    Key::new(Kind::Provisioned, place.member())
}

/// Asks in a batch that a place be looked at, because a task or hook of it changes.
pub(crate) fn ask(batch: &mut Batch, place: &Place, now: Timestamp) {
    batch.index(asked(), now.as_millis(), place.member());
}

/// Places to look at: those that somebody asked for, and those whose time has come at `now`, unless somebody has them.
///
/// # Errors
/// [`StoreError`].
pub async fn due(
    store: &dyn Store,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<Place>, StoreError> {
    let mut entries = store.range(&asked(), From::Start, limit).await?;
    let by_time = store.range(&by_time(), From::Start, limit).await?;
    entries.extend(by_time.into_iter().take_while(|entry| entry.score <= now.as_millis()));
    let mut places: Vec<Place> =
        entries.iter().filter_map(|entry| Place::of_member(&entry.member)).collect();
    places.sort();
    places.dedup();
    let mut free = Vec::new();
    for place in places {
        match find(store, &place).await {
            Ok(Some(found)) if found.is_claimed(now) => {}
            Ok(_) => free.push(place),
            // Only this place waits for the quarantined record.
            Err(StoreError::Undecodable { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(free)
}

/// Whether somebody asked to look at a place since it was claimed last.
///
/// # Errors
/// [`StoreError`].
pub async fn is_asked(store: &dyn Store, place: &Place) -> Result<bool, StoreError> {
    let member = place.member();
    let entries = store.range(&asked(), From::Start, MOST_ASKED).await?;
    Ok(entries.iter().any(|entry| entry.member == member))
}

/// More requests than these are not read: a scheduler answers them within seconds.
const MOST_ASKED: usize = 1000;

/// What is recorded of a place.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, place: &Place) -> Result<Option<Provisioned>, StoreError> {
    Ok(codec::load::<Provisioned>(store, &key_of(place)).await?.map(|found| found.value))
}

/// What is recorded of the places of a registry, by repository, after `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    store: &dyn Store,
    registry: RunPrefix,
    after: Option<&RepositoryKey>,
    limit: usize,
) -> Result<Vec<Provisioned>, StoreError> {
    let prefix = format!("{registry}/");
    let after = after.map_or_else(|| prefix.clone(), |after| format!("{prefix}{after}"));
    let from = From::After(Entry { score: 0, member: after });
    let is_of_registry = |entry: &Entry| entry.member.starts_with(&prefix);
    let key = |entry: &Entry| Some(Key::new(Kind::Provisioned, &entry.member));
    codec::load_members_while(store, &listing(), from, limit, is_of_registry, key).await
}

/// Claims a place for `period`. What is asked for afterwards is due again. `None` if somebody else has it.
///
/// # Errors
/// [`StoreError`].
pub async fn claim(
    store: &dyn Store,
    place: &Place,
    nonce: &LeaseNonce,
    period: Duration,
) -> Result<Option<Claimed>, StoreError> {
    let key = key_of(place);
    retry::commit(store, &key, || async {
        let now = store.now().await?;
        let until = now.after(period);
        let claim = Some(Claim { nonce: nonce.clone(), until });
        let mut batch = Batch::default();
        let provisioned = match codec::load::<Provisioned>(store, &key).await? {
            Some(found) if found.value.is_claimed(now) => {
                return Ok(Plan::Answer(None));
            }
            Some(mut found) => {
                found.value.claim = claim;
                found.replace_in(&mut batch, key.clone())?;
                found.value
            }
            None => {
                let new = Provisioned {
                    place: place.clone(),
                    webhook: None,
                    former: None,
                    state: State::Pending,
                    claim,
                };
                batch.create(key.clone(), codec::encode(&key, &new)?);
                batch.index(listing(), 0, place.member());
                new
            }
        };
        batch.unindex(asked(), place.member());
        // So that another scheduler continues if this one dies.
        batch.index(by_time(), until.as_millis(), place.member());
        Ok(Plan::Commit(batch, Some(Claimed { provisioned, nonce: nonce.clone() })))
    })
    .await
}

/// Records the webhook that is going to be made, with its new hook of gantry if there is one. The former webhook, if its
/// address was another, is still to be removed. `None` if the claim has expired and somebody else has the place.
///
/// # Errors
/// [`AddError::NoRegistry`] if the registry was deleted.
pub async fn prepare(
    store: &dyn Store,
    claimed: &Claimed,
    webhook: &Webhook,
    new_hook: Option<&Hook>,
) -> Result<Option<Claimed>, AddError> {
    let key = key_of(&claimed.provisioned.place);
    retry::commit(store, &key, || async {
        let Some(mut found) = held(store, claimed).await? else { return Ok(Plan::Answer(None)) };
        let mut batch = Batch::default();
        if let Some(hook) = new_hook {
            registries::add_in(store, &mut batch, &hook.registry, hook.prefix).await?;
            hooks::create_in(&mut batch, hook)?;
        }
        let record = &mut found.value;
        let former = record.webhook.take().map(|webhook| webhook.address);
        if let Some(former) = former.filter(|former| *former != webhook.address) {
            record.former = Some(former);
        }
        record.webhook = Some(webhook.clone());
        found.replace_in(&mut batch, key.clone())?;
        let claimed = Claimed { provisioned: found.value, nonce: claimed.nonce.clone() };
        Ok(Plan::Commit(batch, Some(claimed)))
    })
    .await
}

/// Ends a claim with what came of it; the place is looked at again at `next`, or when somebody asks. Changes nothing if
/// the claim has expired and somebody else has the place.
///
/// # Errors
/// [`StoreError`].
pub async fn record(
    store: &dyn Store,
    claimed: &Claimed,
    state: State,
    next: Option<Timestamp>,
) -> Result<(), StoreError> {
    let place = &claimed.provisioned.place;
    let key = key_of(place);
    retry::commit(store, &key, || async {
        let Some(mut found) = held(store, claimed).await? else { return Ok(Plan::Answer(())) };
        if matches!(state, State::InPlace { .. }) {
            found.value.former = None;
        }
        (found.value.state, found.value.claim) = (state.clone(), None);
        let mut batch = Batch::default();
        found.replace_in(&mut batch, key.clone())?;
        match next {
            Some(next) => batch.index(by_time(), next.as_millis(), place.member()),
            None => batch.unindex(by_time(), place.member()),
        }
        Ok(Plan::Commit(batch, ()))
    })
    .await
}

/// Ends a claim: nothing is kept for the place any more. Its hook of gantry is deleted with it.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(store: &dyn Store, claimed: &Claimed) -> Result<(), StoreError> {
    let place = &claimed.provisioned.place;
    let key = key_of(place);
    retry::commit(store, &key, || async {
        let Some(found) = held(store, claimed).await? else { return Ok(Plan::Answer(())) };
        let mut batch = Batch::default();
        batch.expect.push((key.clone(), Expect::Version(found.version)));
        batch.delete.push(key.clone());
        batch.unindex(listing(), place.member());
        batch.unindex(by_time(), place.member());
        if let Some(webhook) = &found.value.webhook
            && let Some(hook) = hooks::find(store, &webhook.hook).await?
        {
            hooks::delete_in(&mut batch, &hook);
        }
        Ok(Plan::Commit(batch, ()))
    })
    .await
}

/// The record, if the claim is still the caller's.
async fn held(
    store: &dyn Store,
    claimed: &Claimed,
) -> Result<Option<codec::Versioned<Provisioned>>, StoreError> {
    let found = codec::load::<Provisioned>(store, &key_of(&claimed.provisioned.place)).await?;
    let is_held = |record: &Provisioned| {
        record.claim.as_ref().is_some_and(|claim| claim.nonce == claimed.nonce)
    };
    Ok(found.filter(|found| is_held(&found.value)))
}

/// All places, by registry and repository.
pub(crate) fn listing() -> Index {
    Index::new("provisioned/all")
}

/// Places that are looked at again, scored by when.
fn by_time() -> Index {
    Index::new("provisioned/due")
}

/// Places that somebody asked to look at, scored by when.
fn asked() -> Index {
    Index::new("provisioned/asked")
}
