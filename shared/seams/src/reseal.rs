//! Seals every stored secret and signs every run with the current key, so that an old key can be retired.
//!
//! Records change only in seals and signatures, which no index contains, and under their versions. So others may change
//! them meanwhile, and an interrupted pass is resumed by the next call.

use gantry_domain::hook::Hook;
use gantry_domain::notification::Notification;
use gantry_domain::registry::{Registry, RegistryCredentials};
use gantry_domain::run::{ReadySecrets, Run, RunState};
use gantry_domain::sealed::Sealed;
use gantry_domain::secret::Secret;
use gantry_domain::signature::Signer;
use gantry_domain::task::Task;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, Versioned};
use crate::provisioning::{self, MadeWith, Provisioned};
use crate::retry;
use crate::store::{Batch, CommitError, Expect, From, Index, Key, Kind, Store, StoreError};
use crate::{hooks, notifications, registries, runs, secrets, tasks};

/// How many records are read at once.
const PAGE: usize = 128;

/// Reseals secrets; implemented by the holder of the keys.
pub trait Reseal: Send + Sync {
    /// Reseals a secret of the record `bound_to`; `None` if it has the current seal.
    ///
    /// # Errors
    /// Why the secret does not open.
    fn secret(&self, bound_to: &str, sealed: &Sealed) -> Result<Option<Sealed>, String>;

    /// Reseals the bundle of a ready run; `None` if it has the current seal, or does not open. In the latter case the
    /// next attempt gets a new one.
    fn bundle(&self, run: &Run, sealed: &Sealed) -> Option<Sealed>;

    /// Signs runs with the same keys.
    fn signer(&self) -> &dyn Signer;
}

/// The result of one pass over the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    /// For each kind of record: its name for people, how many there are, and how many were resealed.
    pub kinds: Vec<(&'static str, usize, usize)>,
    /// Records with a secret that does not open, and why. They are left unchanged.
    pub unopened: Vec<(Key, String)>,
}

impl Pass {
    /// How many records were changed.
    #[must_use]
    pub fn changed(&self) -> usize {
        self.kinds.iter().map(|(_, _, changed)| changed).sum()
    }
}

/// Visits every record that holds secrets, once. Records that others create meanwhile may be missed: repeat until a
/// pass changes nothing.
///
/// # Errors
/// [`StoreError`]: records that were already resealed stay so.
pub async fn pass(store: &dyn Store, reseal: &dyn Reseal) -> Result<Pass, StoreError> {
    let mut walk = Walk { store, reseal, pass: Pass::default() };
    // Runs copy from tasks, so tasks come first.
    walk.over::<Registry>("registries", &registries::listing(), Kind::Registry).await?;
    walk.over::<Hook>("hooks", &hooks::listing(), Kind::Hook).await?;
    walk.over::<Secret>("secrets", &secrets::listing(), Kind::Secret).await?;
    let listing = notifications::listing();
    walk.over::<Notification>("notifications", &listing, Kind::Notification).await?;
    walk.over::<Task>("tasks", &tasks::listing(), Kind::Task).await?;
    walk.over::<Task>("revisions of tasks", &tasks::revisions(), Kind::TaskRevision).await?;
    walk.over::<Provisioned>("webhooks", &provisioning::listing(), Kind::Provisioned).await?;
    walk.over::<Run>("runs", &runs::listing_of_all(), Kind::Run).await?;
    walk.over::<Run>("scans", &runs::listing_of_hidden(), Kind::Run).await?;
    Ok(walk.pass)
}

struct Walk<'a> {
    store: &'a dyn Store,
    reseal: &'a dyn Reseal,
    pass: Pass,
}

/// A kind of record that holds secrets.
trait Holder: Serialize + DeserializeOwned + Send + Sync {
    /// The binding that its secrets are sealed with.
    fn bound_to(&self) -> String;
    fn secrets(&mut self) -> Vec<&mut Sealed>;
    /// The record as a run, if it is one.
    fn as_run(&mut self) -> Option<&mut Run> {
        None
    }
}

impl Walk<'_> {
    async fn over<T: Holder>(
        &mut self,
        name: &'static str,
        index: &Index,
        kind: Kind,
    ) -> Result<(), StoreError> {
        let (mut records, mut changed, mut from) = (0, 0, From::Start);
        loop {
            let entries = self.store.range(index, from, PAGE).await?;
            for entry in &entries {
                records += 1;
                changed += usize::from(self.record::<T>(&Key::new(kind, &entry.member)).await?);
            }
            match entries.into_iter().next_back() {
                Some(last) => from = From::After(last),
                None => break,
            }
        }
        self.pass.kinds.push((name, records, changed));
        Ok(())
    }

    /// Returns whether the record was resealed.
    async fn record<T: Holder>(&mut self, key: &Key) -> Result<bool, StoreError> {
        for _ in 0..retry::TRIES {
            let found = match codec::load::<T>(self.store, key).await {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(false),
                Err(error @ StoreError::Undecodable { .. }) => {
                    self.pass.unopened.push((key.clone(), error.to_string()));
                    return Ok(false);
                }
                Err(error) => return Err(error),
            };
            let Some(batch) = self.sealed_anew(key, found).await? else { return Ok(false) };
            match self.store.commit(batch).await {
                Ok(()) => return Ok(true),
                Err(CommitError::Conflict { .. }) => {}
                Err(CommitError::Store(error)) => return Err(error),
            }
        }
        Err(retry::too_busy(key))
    }

    async fn sealed_anew<T: Holder>(
        &mut self,
        key: &Key,
        mut found: Versioned<T>,
    ) -> Result<Option<Batch>, StoreError> {
        let mut batch = Batch::default();
        let signer = self.reseal.signer();
        // A run with an invalid signature is not signed again: that would legitimize a forged record.
        let is_signed = found.value.as_run().is_some_and(|run| run.is_signed(signer));
        let bound_to = found.value.bound_to();
        let mut is_changed = false;
        for sealed in found.value.secrets() {
            match self.reseal.secret(&bound_to, sealed) {
                Ok(Some(anew)) => {
                    *sealed = anew;
                    is_changed = true;
                }
                Ok(None) => {}
                Err(why) => {
                    self.pass.unopened.push((key.clone(), why));
                    return Ok(None);
                }
            }
        }
        if is_signed && let Some(run) = found.value.as_run() {
            let former = run.signature.take();
            run.sign(signer);
            is_changed |= run.signature != former;
        }
        if is_changed {
            found.replace_in(&mut batch, key.clone())?;
        } else {
            batch.expect.push((key.clone(), Expect::Version(found.version)));
        }
        if let Some(run) = found.value.as_run().filter(|run| has_bundle(run)) {
            let key = runs::bundle_key(run);
            let record = self.store.load(std::slice::from_ref(&key)).await?.pop().flatten();
            let anew = record.and_then(|record| {
                let sealed = Sealed::from_text(String::from_utf8(record.bytes.to_vec()).ok()?);
                Some((record.version, self.reseal.bundle(run, &sealed)?))
            });
            if let Some((version, anew)) = anew {
                batch.replace(key, version, anew.as_text().to_owned());
            }
        }
        Ok((!batch.is_empty()).then_some(batch))
    }
}

impl Holder for Registry {
    fn bound_to(&self) -> String {
        Self::seals_for(self.prefix)
    }

    fn secrets(&mut self) -> Vec<&mut Sealed> {
        match &mut self.credentials {
            Some(RegistryCredentials::Given(given)) => vec![&mut given.password],
            Some(RegistryCredentials::Helper) | None => Vec::new(),
        }
    }
}

impl Holder for Hook {
    fn bound_to(&self) -> String {
        hooks::seal_for(&self.id)
    }

    fn secrets(&mut self) -> Vec<&mut Sealed> {
        self.secrets.iter_mut().map(|secret| &mut secret.sealed).collect()
    }
}

impl Holder for Secret {
    fn bound_to(&self) -> String {
        Self::seals_for(self.prefix, &self.name)
    }

    fn secrets(&mut self) -> Vec<&mut Sealed> {
        self.versions.iter_mut().map(|version| &mut version.value).collect()
    }
}

impl Holder for Notification {
    fn bound_to(&self) -> String {
        self.seals_for()
    }

    fn secrets(&mut self) -> Vec<&mut Sealed> {
        let signing = self.secrets.iter_mut().map(|secret| &mut secret.sealed);
        std::iter::once(&mut self.address).chain(signing).collect()
    }
}

impl Holder for Task {
    fn bound_to(&self) -> String {
        Registry::seals_for(self.prefix)
    }

    fn secrets(&mut self) -> Vec<&mut Sealed> {
        let tokens = self.git_token.iter_mut().chain(&mut self.api_token);
        tokens.chain(self.recipe.sealed_mut()).collect()
    }
}

impl Holder for Provisioned {
    fn bound_to(&self) -> String {
        Registry::seals_for(self.place.registry)
    }

    fn secrets(&mut self) -> Vec<&mut Sealed> {
        match self.webhook.as_mut().map(|webhook| &mut webhook.made_with) {
            Some(MadeWith::Token(token)) => vec![token],
            Some(MadeWith::App(_)) | None => Vec::new(),
        }
    }
}

impl Holder for Run {
    fn bound_to(&self) -> String {
        Registry::seals_for(self.id.prefix())
    }

    fn secrets(&mut self) -> Vec<&mut Sealed> {
        self.git_token.iter_mut().chain(self.recipe.sealed_mut()).collect()
    }

    fn as_run(&mut self) -> Option<&mut Run> {
        Some(self)
    }
}

fn has_bundle(run: &Run) -> bool {
    matches!(run.state, RunState::Ready { secrets: ReadySecrets::Stored, .. })
}
