//! Makes one waiting run ready: reads the secrets that it names, asks the helper of its registry, gets the App's token for its
//! source if it has no other, seals its bundle, and takes a place for it.

use std::time::Duration;

use gantry_domain::id::PoolName;
use gantry_domain::registry::Registry;
use gantry_domain::run::{ErrorCode, Outcome, Purpose, Run, RunError, RunState, WaitReason};
use gantry_domain::sealed::Sealed;
use gantry_domain::timestamp::Timestamp;
use gantry_ops::bundle::Bundle;
use gantry_ops::metrics;
use gantry_ops::secret::SecretError;
use gantry_ops::telemetry;
use gantry_remote::code_host::FetchToken;
use gantry_seams::queue::PoolHasWork;
use gantry_seams::runs::{self, Admission, Limits, OUTAGE, RunOpError};
use gantry_seams::store::StoreError;
use tracing::{Instrument as _, field};

use super::Admitter;
use crate::logins::{self, Logins, RunLogins};
use crate::secrets::{self, ReadSecrets, Unread};

/// The pauses between asking a vault, helper or code host that does not answer: they grow with the outage.
const SHORTEST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The longest pause that a vault or code host may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// What was read for a run, beside what is in its record.
struct Read {
    secrets: ReadSecrets,
    logins: RunLogins,
    /// The App's token for its source.
    fetch: Option<FetchToken>,
}

/// What became of a waiting run.
pub(super) enum Admitted {
    Ready,
    /// Its secrets are being read, and then it becomes ready.
    Asked,
    /// It waits on.
    Waits,
    /// It waits for a place.
    Full(WaitReason),
    /// It will never be ready.
    Ended,
}

impl Admitter {
    /// Makes a run ready, or records what it waits for. Vaults, helpers and code hosts are asked beside the loop: then the run becomes
    /// ready later.
    pub(super) async fn make_ready(
        &self,
        run: &Run,
        pool: &PoolName,
        registry: Registry,
        limits: Limits,
    ) -> Result<Admitted, StoreError> {
        let needs_vault = secrets::declared(run).is_some_and(secrets::needs_vault);
        if needs_vault
            || logins::are_asked_for(run, &registry)
            || secrets::fetched_as_app(self.code_host.as_ref(), run).is_some()
        {
            self.admit_beside(run, pool, registry, limits).await
        } else {
            self.admit_with_secrets(run, pool, &registry, limits).await
        }
    }

    /// Reads the run's secrets beside the loop, once there is a place for the run, and admits it then.
    async fn admit_beside(
        &self,
        run: &Run,
        pool: &PoolName,
        registry: Registry,
        limits: Limits,
    ) -> Result<Admitted, StoreError> {
        if let Some(reason) = runs::full(self.store.as_ref(), run, limits).await? {
            self.hold(run, reason.clone()).await?;
            return Ok(Admitted::Full(reason));
        }
        let Some(begun) = self.logins.vaults.begin(run.id) else { return Ok(Admitted::Waits) };
        // An outage stays the reason until it is over.
        if vault_away_since(run).is_none() {
            self.hold(run, WaitReason::Secrets).await?;
        }
        let (admitter, run, pool) = (self.clone(), run.clone(), pool.clone());
        tokio::spawn(async move {
            let _until_it_ends = begun;
            if let Err(error) = admitter.admit_with_secrets(&run, &pool, &registry, limits).await {
                tracing::warn!(run.id = %run.id, "run {} is not made ready yet: {error}", run.id);
            }
        });
        Ok(Admitted::Asked)
    }

    /// Reads the secrets that the run declares, seals them with its others, and admits it.
    async fn admit_with_secrets(
        &self,
        run: &Run,
        pool: &PoolName,
        registry: &Registry,
        limits: Limits,
    ) -> Result<Admitted, StoreError> {
        let store = self.store.as_ref();
        let read = match self.read(run, registry).await {
            Ok(read) => read,
            Err(Unread::Refused { code, message }) => return self.end(run, code, message).await,
            Err(Unread::Away { code, error, not_before }) => {
                return self.wait_for_answer(run, code, error, not_before).await;
            }
            Err(Unread::Store(error)) => return Err(error),
        };
        let now = store.now().await?;
        let sealed = match self.seal_bundle((run, pool), registry, read, now) {
            Ok(sealed) => sealed,
            Err(error) => return self.give_up(run, error.to_string()).await,
        };
        match runs::ready(store, run.id, pool, sealed, limits).await {
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

    async fn read(&self, run: &Run, registry: &Registry) -> Result<Read, Unread> {
        let Logins { store, keyring, vaults, .. } = &self.logins;
        Ok(Read {
            secrets: secrets::read(store.as_ref(), keyring, vaults, run).await?,
            logins: self.logins.of_run(run, registry).await?,
            fetch: secrets::fetch_token(self.code_host.as_ref(), vaults, run).await?,
        })
    }

    /// Lets the run wait until its vault, helper or code host is asked again, or ends it once the outage has lasted for [`OUTAGE`].
    async fn wait_for_answer(
        &self,
        run: &Run,
        code: ErrorCode,
        error: String,
        not_before: Duration,
    ) -> Result<Admitted, StoreError> {
        let now = self.store.now().await?;
        let away_since = vault_away_since(run).unwrap_or(now);
        let waited = now.since(away_since);
        if waited >= OUTAGE {
            let message = format!("{error} (for {} minutes)", waited.as_secs() / 60);
            return self.end(run, code, message).await;
        }
        tracing::warn!(run.id = %run.id, "run {} waits for its secrets: {error}", run.id);
        let pause = waited.clamp(SHORTEST_PAUSE, LONGEST_PAUSE).max(not_before.min(LONGEST_WAIT));
        let until = now.after(pause);
        self.hold(run, WaitReason::VaultAway { error, away_since, until }).await?;
        Ok(Admitted::Waits)
    }

    pub(super) async fn hold(&self, run: &Run, reason: WaitReason) -> Result<(), StoreError> {
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
        (run, pool): (&Run, &PoolName),
        registry: &Registry,
        read: Read,
        now: Timestamp,
    ) -> Result<Option<Sealed>, SecretError> {
        let (recipe, git_token) = (&run.recipe, run.git_token.as_ref());
        let gathered = match &run.purpose {
            Purpose::Execute | Purpose::Leg(_) if !run.is_of_fork() => {
                Bundle::gather(&self.keyring, registry, recipe, git_token)?
            }
            // The token is for the fetch alone, and never in reach of a step.
            Purpose::Execute | Purpose::Leg(_) | Purpose::Scan => {
                Bundle::of_source(&self.keyring, registry, recipe, git_token)?
            }
        };
        let Read { secrets, logins, fetch } = read;
        let mut bundle = Bundle {
            secrets,
            secret_usernames: logins.secret_usernames,
            take_by: logins.take_within.map(|within| now.after(within)),
            ..gathered
        };
        bundle.registries.extend(logins.registries);
        if let Some(FetchToken { token, valid_for }) = fetch {
            bundle.git_token = Some(token);
            bundle.git_token_until = Some(now.after(valid_for));
        }
        if bundle.is_empty() {
            return Ok(None);
        }
        let pool = self.keyring.pool_key(pool).public();
        // Sealed for exactly this record of the run: after any change the bundle does not open.
        bundle.seal(&pool, run).map(Some)
    }

    /// Write access to run records must not give access to secrets: a worker's Redis user may write them.
    pub(super) async fn refuse(&self, run: &Run) -> Result<Admitted, StoreError> {
        let message = format!(
            "the record of run {} lacks the service's signature, so it got no secrets and was not built: another than an \
             ingress or a scheduler wrote or changed it; assume that the workers are compromised (docs/redis-acl.md), and start the \
             run again from its task or its files",
            run.id
        );
        self.end(run, ErrorCode::Unsigned, message).await
    }

    pub(super) async fn give_up(&self, run: &Run, message: String) -> Result<Admitted, StoreError> {
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
        // Whoever wrote the task can mend a secret that it names wrongly, and give it a token.
        let is_users = matches!(code, ErrorCode::SecretRefused | ErrorCode::SourceUnauthorized);
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
        | RunOpError::OtherCommit { .. }
        | RunOpError::Illegal { .. } => Ok(()),
    }
}
