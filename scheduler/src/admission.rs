//! Moves waiting runs to ready within the limits of their registry and task. A run that keeps waiting records why.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use gantry_domain::id::{RunPrefix, TaskId};
use gantry_domain::registry::Registry;
use gantry_domain::run::{ErrorCode, Outcome, Purpose, Run, RunError, RunState, WaitReason};
use gantry_domain::sealed::Sealed;
use gantry_domain::timestamp::Timestamp;
use gantry_ops::bundle::Bundle;
use gantry_ops::metrics::{self, Repair};
use gantry_ops::secret::{Keyring, SecretError};
use gantry_ops::telemetry;
use gantry_seams::queue::{JobQueues, PoolHasWork};
use gantry_seams::runs::{Admission, Limits, OUTAGE, RunOpError};
use gantry_seams::store::{SharedStore, Store, StoreError};
use gantry_seams::{registries, runs, tasks};
use tracing::{Instrument as _, field};

use crate::secrets::{self, ReadSecrets, Unread, VaultReads};
use crate::sweeper::MISSED_AFTER;

/// How many waiting runs of a registry are read at once.
const PAGE: usize = 64;

/// How many waiting runs one tick reads after the first page of each registry. A later tick reaches those behind them.
const MOST: usize = 4096;

/// The pauses between asking a vault that does not answer: they grow with the outage.
const SHORTEST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The longest pause that a vault may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// What became of a waiting run.
enum Admitted {
    Ready,
    /// It waits on.
    Waits,
    /// It waits for a place.
    Full(WaitReason),
    /// It will never be ready.
    Ended,
}

/// The next page of a registry's waiting runs.
struct NextPage {
    registry: RunPrefix,
    after: Run,
}

/// The state of one tick. Most waiting runs share a registry and a task, so those are read once per tick.
#[derive(Default)]
struct Look {
    now: Timestamp,
    admitted: usize,
    registries: BTreeMap<RunPrefix, Option<Registry>>,
    task_limits: BTreeMap<TaskId, Option<u32>>,
    full_registries: BTreeMap<RunPrefix, WaitReason>,
    full_tasks: BTreeMap<TaskId, WaitReason>,
}

impl Look {
    async fn registry(
        &mut self,
        store: &dyn Store,
        run: &Run,
    ) -> Result<Option<Registry>, StoreError> {
        let prefix = run.id.prefix();
        if let Some(known) = self.registries.get(&prefix) {
            return Ok(known.clone());
        }
        let found = registries::find_exactly(store, &run.registry, prefix).await?;
        self.registries.insert(prefix, found.clone());
        Ok(found)
    }

    async fn limits(
        &mut self,
        store: &dyn Store,
        registry: &Registry,
        task: Option<&TaskId>,
    ) -> Result<Limits, StoreError> {
        let registry = registry.run_limit.get();
        let Some(id) = task else { return Ok(Limits { registry, task: None }) };
        if let Some(known) = self.task_limits.get(id) {
            return Ok(Limits { registry, task: *known });
        }
        let found = tasks::find(store, id).await?.and_then(|task| task.run_limit);
        let task = found.map(NonZeroU32::get);
        self.task_limits.insert(id.clone(), task);
        Ok(Limits { registry, task })
    }

    fn full(&self, run: &Run, task: Option<&TaskId>) -> Option<WaitReason> {
        if run.is_hidden() {
            return None;
        }
        let registry = self.full_registries.get(&run.id.prefix());
        registry.or_else(|| self.full_tasks.get(task?)).cloned()
    }

    fn remember(&mut self, run: &Run, task: Option<TaskId>, reason: WaitReason) {
        if matches!(reason, WaitReason::RegistryLimit { .. }) {
            self.full_registries.insert(run.id.prefix(), reason);
        } else if let Some(task) = task {
            self.full_tasks.insert(task, reason);
        }
    }
}

/// Admits waiting runs.
#[derive(Clone)]
pub(crate) struct Admitter {
    pub(crate) store: SharedStore,
    pub(crate) jobs: Arc<dyn JobQueues>,
    /// Opens the secrets that a run needs and seals them for its pool.
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) vaults: Arc<VaultReads>,
}

impl Admitter {
    /// Like [`Admitter::tick`], but also waits for the vaults that are asked.
    pub(crate) async fn tick_and_settle(&self) -> Result<usize, StoreError> {
        let admitted = self.tick().await?;
        Ok(admitted + usize::from(self.vaults.settled().await))
    }

    /// Admits waiting runs: one page of each registry in turn, so that a registry does not wait for the many runs of
    /// another. Returns how many became ready.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tick(&self) -> Result<usize, StoreError> {
        let store = self.store.as_ref();
        let mut look = Look { now: store.now().await?, ..Look::default() };
        let mut pages = VecDeque::new();
        let mut last = None;
        while let Some(registry) = runs::next_waiting_registry(store, last).await? {
            pages.extend(self.admit_page(registry, None, &mut look).await?);
            last = Some(registry);
        }
        for _ in 0..MOST / PAGE {
            let Some(page) = pages.pop_front() else { break };
            pages.extend(self.admit_page(page.registry, Some(&page.after), &mut look).await?);
        }
        Ok(look.admitted)
    }

    /// Admits from one page of a registry. Returns the next page if there may be one.
    async fn admit_page(
        &self,
        registry: RunPrefix,
        after: Option<&Run>,
        look: &mut Look,
    ) -> Result<Option<NextPage>, StoreError> {
        let page = runs::waiting_in(self.store.as_ref(), registry, after, PAGE).await?;
        let is_full = page.len() == PAGE;
        let now = look.now;
        let is_asked_for = |run: &&Run| self.vaults.has(run.id);
        for run in page.iter().filter(|run| is_due(run, now) && !is_asked_for(run)) {
            match self.admit(run, look).await {
                Ok(true) => {
                    look.admitted += 1;
                    let was_missed = was_missed(run, now);
                    metrics::repaired(Repair::RunAdmitted, usize::from(was_missed));
                }
                Ok(false) => {}
                // Its registry or task does not decode. Only this run waits for that.
                Err(StoreError::Undecodable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let last = page.into_iter().last().filter(|_| is_full);
        Ok(last.map(|after| NextPage { registry, after }))
    }

    async fn admit(&self, run: &Run, look: &mut Look) -> Result<bool, StoreError> {
        let (store, task) = (self.store.as_ref(), run.task_id());
        if let Some(reason) = look.full(run, task.as_ref()) {
            self.hold(run, reason).await?;
            return Ok(false);
        }
        if !run.is_signed(self.keyring.as_ref()) {
            self.refuse(run).await?;
            return Ok(false);
        }
        let Some(registry) = look.registry(store, run).await? else {
            let message = format!("registry {} was deleted", run.registry);
            self.give_up(run, message).await?;
            return Ok(false);
        };
        let limits = look.limits(store, &registry, task.as_ref()).await?;
        let needs_vault = secrets::declared(run).is_some_and(secrets::needs_vault);
        let admitted = if needs_vault {
            self.admit_beside(run, registry, limits).await?
        } else {
            self.admit_with_secrets(run, &registry, limits).await?
        };
        match admitted {
            Admitted::Ready => Ok(true),
            Admitted::Waits | Admitted::Ended => Ok(false),
            Admitted::Full(reason) => {
                look.remember(run, task, reason);
                Ok(false)
            }
        }
    }

    /// Reads the run's secrets beside the loop, once there is a place for the run, and admits it then.
    async fn admit_beside(
        &self,
        run: &Run,
        registry: Registry,
        limits: Limits,
    ) -> Result<Admitted, StoreError> {
        if let Some(reason) = runs::full(self.store.as_ref(), run, limits).await? {
            self.hold(run, reason.clone()).await?;
            return Ok(Admitted::Full(reason));
        }
        let Some(begun) = self.vaults.begin(run.id) else { return Ok(Admitted::Waits) };
        // An outage stays the reason until it is over.
        if vault_away_since(run).is_none() {
            self.hold(run, WaitReason::Secrets).await?;
        }
        let (admitter, run) = (self.clone(), run.clone());
        tokio::spawn(async move {
            let _until_it_ends = begun;
            if let Err(error) = admitter.admit_with_secrets(&run, &registry, limits).await {
                tracing::warn!(run.id = %run.id, "run {} waits on: {error}", run.id);
            }
        });
        Ok(Admitted::Waits)
    }

    /// Reads the secrets that the run declares, seals them with its others, and admits it.
    async fn admit_with_secrets(
        &self,
        run: &Run,
        registry: &Registry,
        limits: Limits,
    ) -> Result<Admitted, StoreError> {
        let (store, keyring) = (self.store.as_ref(), self.keyring.as_ref());
        let read = match secrets::read(store, keyring, &self.vaults, run).await {
            Ok(read) => read,
            Err(Unread::Refused { code, message }) => return self.end(run, code, message).await,
            Err(Unread::Away { error, not_before }) => {
                return self.wait_for_vault(run, error, not_before).await;
            }
            Err(Unread::Store(error)) => return Err(error),
        };
        let sealed = match self.seal_bundle(run, registry, read) {
            Ok(sealed) => sealed,
            Err(error) => return self.give_up(run, error.to_string()).await,
        };
        match runs::ready(store, run.id, sealed, limits).await {
            Ok(Admission::Ready(run)) => {
                self.ring(&run).await;
                Ok(Admitted::Ready)
            }
            Ok(Admission::Full(reason)) => {
                self.hold(run, reason.clone()).await?;
                Ok(Admitted::Full(reason))
            }
            Err(error) => moved_meanwhile(error).map(|()| Admitted::Waits),
        }
    }

    /// Lets the run wait until its vault is asked again, or ends it once the outage has lasted for [`OUTAGE`].
    async fn wait_for_vault(
        &self,
        run: &Run,
        error: String,
        not_before: Duration,
    ) -> Result<Admitted, StoreError> {
        let now = self.store.now().await?;
        let away_since = vault_away_since(run).unwrap_or(now);
        let waited = now.since(away_since);
        if waited >= OUTAGE {
            let message = format!("{error} (for {} minutes)", waited.as_secs() / 60);
            return self.end(run, ErrorCode::VaultUnavailable, message).await;
        }
        tracing::warn!(run.id = %run.id, "run {} waits for a vault: {error}", run.id);
        let pause = waited.clamp(SHORTEST_PAUSE, LONGEST_PAUSE).max(not_before.min(LONGEST_WAIT));
        let until = now.after(pause);
        self.hold(run, WaitReason::VaultAway { error, away_since, until }).await?;
        Ok(Admitted::Waits)
    }

    async fn hold(&self, run: &Run, reason: WaitReason) -> Result<(), StoreError> {
        if matches!(&run.state, RunState::Waiting { reason: said, .. } if *said == reason) {
            return Ok(());
        }
        runs::hold(self.store.as_ref(), run.id, reason).await.or_else(moved_meanwhile)
    }

    /// A span in the run's trace, only for runs that were admitted.
    async fn ring(&self, run: &Run) {
        let pool = run.pool();
        let span = tracing::info_span!("admit run", run.id = %run.id, trace.id = field::Empty);
        telemetry::follow(&span, run.trace.as_ref());
        tracing::debug!(run.id = %run.id, "run {} is ready in pool {pool}", run.id);
        let jobs = self.jobs.pool(&pool);
        let ringing = jobs.publish(PoolHasWork { pool }, run.trace.clone()).instrument(span);
        if let Err(error) = ringing.await {
            tracing::debug!("workers are not notified of run {} and will poll: {error}", run.id);
        }
    }

    fn seal_bundle(
        &self,
        run: &Run,
        registry: &Registry,
        secrets: ReadSecrets,
    ) -> Result<Option<Sealed>, SecretError> {
        let (recipe, git_token) = (&run.recipe, run.git_token.as_ref());
        let gathered = match run.purpose {
            Purpose::Execute => Bundle::gather(&self.keyring, registry, recipe, git_token)?,
            Purpose::Scan => Bundle::of_source(&self.keyring, registry, recipe, git_token)?,
        };
        let bundle = Bundle { secrets, ..gathered };
        if bundle.is_empty() {
            return Ok(None);
        }
        let pool = self.keyring.pool_key(&run.pool()).public();
        // Sealed for exactly this record of the run: after any change the bundle does not open.
        bundle.seal(&pool, run).map(Some)
    }

    /// Write access to run records must not give access to secrets: a worker's Redis user may write them.
    async fn refuse(&self, run: &Run) -> Result<Admitted, StoreError> {
        let message = format!(
            "the record of run {} lacks the service's signature, so it got no secrets and was not built: another than an \
             ingress or a scheduler wrote or changed it; assume that the workers are compromised (docs/redis-acl.md), and start the \
             run again from its task or its files",
            run.id
        );
        self.end(run, ErrorCode::Unsigned, message).await
    }

    async fn give_up(&self, run: &Run, message: String) -> Result<Admitted, StoreError> {
        self.end(run, ErrorCode::Internal, message).await
    }

    async fn end(
        &self,
        run: &Run,
        code: ErrorCode,
        message: String,
    ) -> Result<Admitted, StoreError> {
        tracing::error!(run.id = %run.id, "run {} cannot be made ready: {message}", run.id);
        let error = RunError { code, step: None, exit_code: None, message };
        // Whoever wrote the task can mend a secret that it names wrongly.
        let is_users = code == ErrorCode::SecretRefused;
        let outcome = if is_users { Outcome::Failed { error } } else { Outcome::Error { error } };
        match runs::give_up(self.store.as_ref(), run.id, outcome).await {
            Ok(ended) => {
                metrics::run_ended(&ended);
                Ok(Admitted::Ended)
            }
            Err(error) => moved_meanwhile(error).map(|()| Admitted::Waits),
        }
    }
}

/// Whether a new run was admitted late, so that its doorbell was probably lost. Runs that wait for a place do not
/// count.
fn was_missed(run: &Run, now: Timestamp) -> bool {
    matches!(&run.state, RunState::Waiting { reason: WaitReason::Admission, since } if now.since(*since) > MISSED_AFTER)
}

/// Whether the run is waiting and its pause is over. A forged index entry may name a run that is not waiting.
fn is_due(run: &Run, now: Timestamp) -> bool {
    matches!(&run.state, RunState::Waiting { reason, .. } if reason.rests_until().is_none_or(|until| until <= now))
}

/// Since when the vault of the run's secrets does not answer.
fn vault_away_since(run: &Run) -> Option<Timestamp> {
    let RunState::Waiting { reason, .. } = &run.state else { return None };
    let WaitReason::VaultAway { away_since, .. } = reason else { return None };
    Some(*away_since)
}

/// If the run moved meanwhile, another process is handling it.
fn moved_meanwhile(error: RunOpError) -> Result<(), StoreError> {
    match error {
        RunOpError::Store(error) => Err(error),
        RunOpError::Absent { .. }
        | RunOpError::LeaseLost { .. }
        | RunOpError::CancelAsked { .. }
        | RunOpError::Illegal { .. } => Ok(()),
    }
}
