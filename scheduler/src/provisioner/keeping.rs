//! Looks at one place: asks its code host for what its tasks need, and records what came of it.

use std::time::Duration;

use gantry_domain::code_host::HostKind;
use gantry_domain::hook::{Hook, HookSecret, Provider, Sender};
use gantry_domain::id::{HookId, RegistryName};
use gantry_domain::registry::Registry;
use gantry_domain::sealed::Sealed;
use gantry_domain::source::GitUrl;
use gantry_domain::task::Task;
use gantry_ops::secret::{SecretString, random_hex};
use gantry_remote::code_host::{
    CodeHostError, CodeHostFailure, FoundHook, RepositoryAccess, WantedHook,
};
use gantry_seams::place::Place;
use gantry_seams::provisioning::{self, Claimed, MadeWith, State, Webhook};
use gantry_seams::store::StoreError;
use gantry_seams::{AddError, hooks, tasks};
use url::Url;

use super::Provisioner;
use super::needs::{self, Need};
use crate::asking::{LONGEST_WAIT, pause_after, without};

/// For how long a place is claimed: longer than all requests about it take.
pub(super) const CLAIM: Duration = Duration::from_secs(180);

/// How often a webhook is looked at that nobody asked about, and how often a refusal is tried again.
const A_DAY: Duration = Duration::from_secs(24 * 3600);

/// For how long it is tried to remove a webhook that no task needs any more.
const REMOVED_FOR: Duration = A_DAY;

/// How many tasks are read at once.
const PAGE: usize = 100;

/// More tasks than these give no token.
const MOST_TASKS: usize = 1000;

/// More tokens than these are not tried.
const MOST_TOKENS: usize = 4;

/// A webhook that may be asked for.
struct Prepared {
    claimed: Claimed,
    webhook: Webhook,
    /// `None` for the App.
    token: Option<SecretString>,
    secret: SecretString,
}

/// Why a code host is not asked.
enum Failed {
    /// gantry's own state is in the way.
    Own(String),
    Store(StoreError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Provisioner {
    /// Does what the tasks of a claimed place need, and ends the claim.
    pub(super) async fn keep(&self, claimed: Claimed) -> Result<(), StoreError> {
        let store = self.store.as_ref();
        // After the claim: what changes from now on asks again.
        let need = Need::of(&self.tasks(&claimed.provisioned.place).await?);
        let Need::Webhook { registry, url, mut tokens } = need else {
            return self.remove(&claimed).await;
        };
        tokens.retain(|(url, token)| token.is_some() || self.providers.may_use_app(&registry, url));
        let kind = self.providers.kind(&url);
        let by_hand = match needs::provider(kind, &url, &self.public_url, self.is_wanted) {
            Ok(provider) if !tokens.is_empty() => {
                return self.make(claimed, registry, provider, &tokens).await;
            }
            Ok(_) => {
                let app = match kind {
                    Some(HostKind::GitHub) => {
                        " or let its registry use a GitHub App (`github_app.grants`),"
                    }
                    _ => "",
                };
                format!(
                    "gantry needs a token to make it: give the task one with `--git-access-token` or `--api-token`,{app} or make \
                     it by hand: `gantry hook create` says how"
                )
            }
            Err(why) => why,
        };
        provisioning::record(store, &claimed, State::ByHand { why: by_hand }, None).await
    }

    async fn tasks(&self, place: &Place) -> Result<Vec<Task>, StoreError> {
        let (store, mut found) = (self.store.as_ref(), Vec::<Task>::new());
        while found.len() < MOST_TASKS {
            let after = found.last().map(|task| task.id.clone());
            let page =
                tasks::watching(store, place.registry, &place.repository, after.as_ref(), PAGE)
                    .await?;
            let is_last = page.len() < PAGE;
            found.extend(page);
            if is_last {
                break;
            }
        }
        Ok(found)
    }

    /// Has the webhook made or repaired with the first token that may.
    async fn make(
        &self,
        mut claimed: Claimed,
        registry: RegistryName,
        provider: Provider,
        tokens: &[(GitUrl, Option<Sealed>)],
    ) -> Result<(), StoreError> {
        let mut refused = None;
        for (url, token) in tokens.iter().take(MOST_TOKENS) {
            let prepared = self.prepare(&claimed, &registry, provider, url, token.as_ref()).await;
            let prepared = match prepared {
                Ok(Some(prepared)) => prepared,
                // Somebody else has the place now.
                Ok(None) => return Ok(()),
                Err(Failed::Store(error)) => return Err(error),
                Err(Failed::Own(message)) => {
                    let error = CodeHostError { message, kind: CodeHostFailure::Permanent };
                    return self.has_failed(&claimed, &error).await;
                }
            };
            let ensured = self.ensure(&registry, &prepared).await;
            claimed = prepared.claimed;
            match ensured {
                Ok(found) => return self.is_in_place(&claimed, &found).await,
                Err(error) if error.refused_token() => {
                    refused.get_or_insert(error);
                }
                Err(error) => return self.has_failed(&claimed, &error).await,
            }
        }
        match refused {
            Some(error) => self.has_failed(&claimed, &error).await,
            None => Ok(()),
        }
    }

    /// Records the webhook before it is made: whoever continues after a crash looks for its address. `None` if somebody
    /// else has the place now.
    async fn prepare(
        &self,
        claimed: &Claimed,
        registry: &RegistryName,
        provider: Provider,
        url: &GitUrl,
        sealed: Option<&Sealed>,
    ) -> Result<Option<Prepared>, Failed> {
        let store = self.store.as_ref();
        let place = &claimed.provisioned.place;
        let token = sealed.map(|sealed| self.open_token(place, sealed)).transpose()?;
        let known = match &claimed.provisioned.webhook {
            Some(webhook) => hooks::find(store, &webhook.hook).await?,
            None => None,
        };
        let known = known.filter(|hook| hook.provider() == provider);
        let (hook, is_new) = match known {
            Some(hook) => (hook, false),
            None => (self.new_hook(place, registry, provider).await?, true),
        };
        let secret = hook.secrets.first().ok_or_else(|| own("its hook has no secret"))?;
        let secret = self.keyring.open(&hooks::seal_for(&hook.id), &secret.sealed).map_err(own)?;
        let webhook = Webhook {
            hook: hook.id.clone(),
            address: self.address(&hook)?,
            url: url.clone(),
            made_with: match sealed {
                Some(token) => MadeWith::Token(token.clone()),
                None => MadeWith::App(registry.clone()),
            },
        };
        let prepared =
            provisioning::prepare(store, claimed, &webhook, is_new.then_some(&hook)).await;
        let prepared = prepared.map_err(|error| match error {
            AddError::Store(error) => Failed::Store(error),
            error @ (AddError::Exists { .. } | AddError::NoRegistry { .. }) => own(error),
        })?;
        Ok(prepared.map(|claimed| Prepared { claimed, webhook, token, secret }))
    }

    /// Asks the code host for a webhook, and to remove the one that it replaces.
    async fn ensure(
        &self,
        registry: &RegistryName,
        prepared: &Prepared,
    ) -> Result<Vec<FoundHook>, CodeHostError> {
        let Prepared { claimed, webhook, token, secret } = prepared;
        let at = RepositoryAccess {
            url: &webhook.url,
            registry: Some(registry),
            token: token.as_ref(),
            host_keys: &[],
        };
        let wanted = WantedHook { url: &webhook.address, secret };
        let ensuring = async {
            let found = self.providers.ensure_hook(at, &wanted).await?;
            if let Some(former) = &claimed.provisioned.former {
                self.providers.remove_hook(at, former).await?;
            }
            Ok(found)
        };
        ensuring.await.map_err(|error| without_secrets(error, token.iter().chain([secret])))
    }

    async fn is_in_place(&self, claimed: &Claimed, found: &[FoundHook]) -> Result<(), StoreError> {
        let checked = self.store.now().await?;
        let ids: Vec<String> = found.iter().map(|hook| hook.id.clone()).collect();
        if !matches!(claimed.provisioned.state, State::InPlace { .. }) {
            let repository = &claimed.provisioned.place.repository;
            tracing::info!(%repository, "the webhook of {repository} is in place");
        }
        let state = State::InPlace { ids, checked };
        provisioning::record(self.store.as_ref(), claimed, state, Some(checked.after(A_DAY))).await
    }

    /// It stays visible as a problem, and is tried again: soon if that may help, otherwise each day and when a task changes.
    async fn has_failed(&self, claimed: &Claimed, error: &CodeHostError) -> Result<(), StoreError> {
        let now = self.store.now().await?;
        let (since, failures) = match &claimed.provisioned.state {
            State::Problem { since, failures, .. } => (*since, *failures),
            State::Pending
            | State::InPlace { .. }
            | State::ByHand { .. }
            | State::Removing { .. } => (now, 0),
        };
        let next = now.after(pause(error, failures));
        let (repository, message) = (&claimed.provisioned.place.repository, error.message.clone());
        tracing::warn!(%repository, "the webhook of {repository} is not in place: {message}");
        let failures = failures.saturating_add(1);
        let state = State::Problem { message, since, failures, next };
        provisioning::record(self.store.as_ref(), claimed, state, Some(next)).await
    }

    /// Removes the webhook that no task needs any more.
    async fn remove(&self, claimed: &Claimed) -> Result<(), StoreError> {
        let store = self.store.as_ref();
        let Some(webhook) = &claimed.provisioned.webhook else {
            return provisioning::forget(store, claimed).await;
        };
        let repository = &claimed.provisioned.place.repository;
        let error = match self.remove_with(claimed, webhook).await? {
            Ok(()) => {
                tracing::info!(%repository, "the webhook of {repository} is removed");
                return provisioning::forget(store, claimed).await;
            }
            Err(error) => error,
        };
        let now = store.now().await?;
        let (since, failures) = match &claimed.provisioned.state {
            State::Removing { since, failures, .. } => (*since, *failures),
            State::Pending
            | State::InPlace { .. }
            | State::Problem { .. }
            | State::ByHand { .. } => (now, 0),
        };
        if now.since(since) >= REMOVED_FOR {
            let (address, message) = (&webhook.address, error.message);
            tracing::warn!(%repository, "remove the webhook to {address} from {repository} yourself: {message}");
            return provisioning::forget(store, claimed).await;
        }
        // A refused token or App may be permitted more meanwhile, so it is tried again as well.
        let asked = match error.kind {
            CodeHostFailure::Transient { retry_after } => retry_after.unwrap_or_default(),
            CodeHostFailure::RefusedToken
            | CodeHostFailure::RefusedApp
            | CodeHostFailure::NoApi
            | CodeHostFailure::Permanent => Duration::ZERO,
        };
        let next = now.after(pause_after(failures).max(asked.min(LONGEST_WAIT)));
        let state = State::Removing {
            since,
            failures: failures.saturating_add(1),
            problem: Some(error.message),
        };
        provisioning::record(store, claimed, state, Some(next)).await
    }

    async fn remove_with(
        &self,
        claimed: &Claimed,
        webhook: &Webhook,
    ) -> Result<Result<(), CodeHostError>, StoreError> {
        let registry = webhook.made_with.registry();
        let open = |sealed| self.open_token(&claimed.provisioned.place, sealed);
        let token = match webhook.made_with.token().map(open).transpose() {
            Ok(token) => token,
            Err(Failed::Store(error)) => return Err(error),
            Err(Failed::Own(message)) => {
                return Ok(Err(CodeHostError { message, kind: CodeHostFailure::Permanent }));
            }
        };
        let at =
            RepositoryAccess { url: &webhook.url, registry, token: token.as_ref(), host_keys: &[] };
        for address in claimed.provisioned.former.iter().chain([&webhook.address]) {
            if let Err(error) = self.providers.remove_hook(at, address).await {
                return Ok(Err(without_secrets(error, &token)));
            }
        }
        Ok(Ok(()))
    }

    fn open_token(&self, place: &Place, sealed: &Sealed) -> Result<SecretString, Failed> {
        self.keyring.open(&Registry::seals_for(place.registry), sealed).map_err(own)
    }

    async fn new_hook(
        &self,
        place: &Place,
        registry: &RegistryName,
        provider: Provider,
    ) -> Result<Hook, Failed> {
        let id: HookId = random_hex::<16>().map_err(own)?.parse().map_err(own)?;
        let secret = SecretString::from(random_hex::<32>().map_err(own)?.as_str());
        let sealed = self.keyring.seal(&hooks::seal_for(&id), &secret).map_err(own)?;
        let created = self.store.now().await?;
        Ok(Hook {
            id,
            registry: registry.clone(),
            prefix: place.registry,
            sender: Sender::new(provider, None).map_err(own)?,
            repositories: vec![place.repository.clone()],
            secrets: vec![HookSecret { sealed, created }],
            is_provisioned: true,
            created,
        })
    }

    fn address(&self, hook: &Hook) -> Result<Url, Failed> {
        let root = self.public_url.as_str().trim_end_matches('/');
        Url::parse(&format!("{root}/hooks/{}/{}", hook.provider(), hook.id)).map_err(own)
    }
}

fn own(error: impl ToString) -> Failed {
    Failed::Own(error.to_string())
}

fn pause(error: &CodeHostError, failures: u32) -> Duration {
    match error.kind {
        CodeHostFailure::Transient { retry_after: Some(pause) } => pause.min(LONGEST_WAIT),
        CodeHostFailure::Transient { retry_after: None } => pause_after(failures),
        CodeHostFailure::RefusedToken
        | CodeHostFailure::RefusedApp
        | CodeHostFailure::NoApi
        | CodeHostFailure::Permanent => A_DAY,
    }
}

/// A host may repeat what it was sent.
fn without_secrets<'a>(
    error: CodeHostError,
    secrets: impl IntoIterator<Item = &'a SecretString>,
) -> CodeHostError {
    let secrets = secrets.into_iter();
    let message = secrets.fold(error.message, |text, secret| without(&text, Some(secret)));
    CodeHostError { message, kind: error.kind }
}
