//! Operations on notifications and their messages.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use gantry_api::{NotificationCreate, NotificationTestResult, NotificationUpdate, Replays};
use gantry_domain::id::RegistryName;
use gantry_domain::notification::{
    Address, Body, Disabled, Filter, Format, MOST, MOST_SECRETS, Message, MessageId, Notification,
    NotificationId, NotificationName, RunEvent, Sending, SigningSecret,
};
use gantry_domain::pattern::{Pattern, Patterns};
use gantry_ops::receiver::Receiver;
use gantry_ops::secret::{Sealed, SecretString, random_hex};
use gantry_ops::standard_webhooks;
use gantry_seams::AddError;
use gantry_seams::messages::{self, MOST_KEPT};
use gantry_seams::notifications::{self, CreateError};
use sha2::{Digest as _, Sha256};

use super::paging::{Listed, Paging};
use crate::access::{Allowed, Needs, Read, Run, Write};
use crate::refusal::{Mistakes, Refusal};
use crate::state::State;

/// Lists the notifications of a registry by name. There are few enough for one page.
pub(crate) async fn list(
    state: &State,
    allowed: &Allowed<Read>,
    registry: &RegistryName,
) -> Result<Vec<Notification>, Refusal> {
    let store = state.store.as_ref();
    let registry = allowed.registry(store, registry).await?;
    Ok(notifications::list(store, registry.prefix).await?)
}

pub(crate) async fn find<S: Needs>(
    state: &State,
    allowed: &Allowed<S>,
    registry: &RegistryName,
    name: &NotificationName,
) -> Result<Notification, Refusal> {
    let store = state.store.as_ref();
    let registry = allowed.registry(store, registry).await?;
    notifications::find(store, registry.prefix, name).await?.ok_or_else(|| absent(name))
}

fn absent(name: &NotificationName) -> Refusal {
    Refusal::NotFound { what: "notification", name: name.to_string() }
}

/// Creates a notification, and returns its signing secret, which cannot be retrieved again.
pub(crate) async fn create(
    state: &State,
    allowed: &Allowed<Write>,
    registry: &RegistryName,
    new: &NotificationCreate,
) -> Result<(Notification, Option<SecretString>), Refusal> {
    let store = state.store.as_ref();
    let registry = allowed.registry(store, registry).await?;
    let mut mistakes = Mistakes::default();
    let name = mistakes.parse::<NotificationName>("name", &new.name);
    let format = mistakes.parse::<Format>("format", &new.format);
    let address = address(state, &mut mistakes, &new.url);
    let on = new.on.as_deref().and_then(|on| events(&mut mistakes, on));
    let tasks = patterns(&mut mistakes, "tasks", &new.tasks);
    let branches = patterns(&mut mistakes, "branches", &new.branches);
    let (Some(name), Some(format), Some(address)) = (name, format, address) else {
        return Err(Refusal::Invalid(mistakes));
    };
    let mut filter = Filter { only_changes: new.only_changes, ..Filter::default() };
    filter.on = on.unwrap_or(filter.on);
    filter.tasks = tasks.unwrap_or_default();
    filter.branches = branches.unwrap_or_default();
    mistakes.none()?;
    let mut notification = Notification {
        id: random_id()?,
        registry: registry.name,
        prefix: registry.prefix,
        name,
        format,
        address: Sealed::from_text(String::new()),
        origin: String::new(),
        secrets: Vec::new(),
        filter,
        disabled: None,
        created: store.now().await?,
    };
    let (sealed, origin) = seal_address(state, &notification, &address)?;
    (notification.address, notification.origin) = (sealed, origin);
    let mut secret = None;
    if format.is_signed() {
        let (signing, made) = new_secret(state, &notification).await?;
        notification.secrets.push(signing);
        secret = Some(made);
    }
    match notifications::create(store, &notification).await {
        Ok(()) => Ok((notification, secret)),
        Err(CreateError::TooMany) => Err(Refusal::Conflict {
            code: "too_many_notifications",
            message: format!("a registry has at most {MOST} notifications: delete some"),
        }),
        Err(CreateError::Add(AddError::Exists { .. })) => Err(Refusal::Conflict {
            code: "exists",
            message: format!("there is a notification {} already", notification.name),
        }),
        Err(CreateError::Add(AddError::NoRegistry { registry })) => {
            Err(Refusal::no_registry(&registry))
        }
        Err(CreateError::Add(AddError::Store(error))) => Err(error.into()),
    }
}

/// Parses an address, and lets the guard check what it can without resolving a name: people learn of a mistake at once.
fn address(state: &State, mistakes: &mut Mistakes, text: &str) -> Option<Address> {
    let address = mistakes.check("url", text.parse::<Address>())?;
    mistakes.check("url", state.webhooks.check(&address)).map(|()| address)
}

fn events(mistakes: &mut Mistakes, texts: &[String]) -> Option<BTreeSet<RunEvent>> {
    if texts.is_empty() {
        mistakes.add("on", "name at least one event: without any, nothing would ever be sent");
        return None;
    }
    let events: Vec<_> = texts.iter().map(|text| mistakes.parse("on", text)).collect();
    events.into_iter().collect()
}

fn patterns(mistakes: &mut Mistakes, target: &str, texts: &[String]) -> Option<Patterns> {
    let parsed: Vec<Option<Pattern>> =
        texts.iter().map(|text| mistakes.parse(target, text)).collect();
    let parsed: Vec<Pattern> = parsed.into_iter().collect::<Option<_>>()?;
    mistakes.check(target, Patterns::try_from(parsed))
}

fn random_id() -> Result<NotificationId, Refusal> {
    random_hex::<16>()?.parse().map_err(|error: gantry_domain::InvalidText| {
        tracing::error!("a request failed: {error}");
        Refusal::Internal
    })
}

fn seal_address(
    state: &State,
    notification: &Notification,
    address: &Address,
) -> Result<(Sealed, String), Refusal> {
    let text = SecretString::from(address.as_url().as_str());
    Ok((state.keyring.seal(&notification.seals_for(), &text)?, address.origin()))
}

async fn new_secret(
    state: &State,
    notification: &Notification,
) -> Result<(SigningSecret, SecretString), Refusal> {
    let secret = standard_webhooks::new_secret()?;
    let sealed = state.keyring.seal(&notification.seals_for(), &secret)?;
    Ok((SigningSecret { sealed, created: state.store.now().await? }, secret))
}

/// Changes a notification. What waits to be sent goes to the new address.
pub(crate) async fn update(
    state: &State,
    allowed: &Allowed<Write>,
    registry: &RegistryName,
    name: &NotificationName,
    asked: &NotificationUpdate,
) -> Result<Notification, Refusal> {
    let found = find(state, allowed, registry, name).await?;
    let mut mistakes = Mistakes::default();
    let address = asked.url.as_deref().and_then(|url| self::address(state, &mut mistakes, url));
    let on = asked.on.as_deref().and_then(|on| events(&mut mistakes, on));
    let tasks = asked.tasks.as_deref().and_then(|it| patterns(&mut mistakes, "tasks", it));
    let branches = asked.branches.as_deref();
    let branches = branches.and_then(|it| patterns(&mut mistakes, "branches", it));
    mistakes.none()?;
    let address = address.map(|address| seal_address(state, &found, &address)).transpose()?;
    change(state, &found, |notification| {
        if let Some((sealed, origin)) = &address {
            (notification.address, notification.origin) = (sealed.clone(), origin.clone());
        }
        let filter = &mut notification.filter;
        filter.on = on.clone().unwrap_or_else(|| filter.on.clone());
        filter.tasks = tasks.clone().unwrap_or_else(|| filter.tasks.clone());
        filter.branches = branches.clone().unwrap_or_else(|| filter.branches.clone());
        filter.only_changes = asked.only_changes.unwrap_or(filter.only_changes);
        match asked.enabled {
            Some(true) => notification.disabled = None,
            Some(false) => notification.disabled = Some(Disabled::Person),
            None => {}
        }
    })
    .await
}

async fn change(
    state: &State,
    which: &Notification,
    change: impl Fn(&mut Notification) + Send + Sync,
) -> Result<Notification, Refusal> {
    let changed = notifications::update(state.store.as_ref(), which, change).await?;
    changed.ok_or_else(|| absent(&which.name))
}

/// Deletes a notification. What it has not sent is not sent any more.
pub(crate) async fn delete(
    state: &State,
    allowed: &Allowed<Write>,
    registry: &RegistryName,
    name: &NotificationName,
) -> Result<(), Refusal> {
    let found = find(state, allowed, registry, name).await?;
    Ok(notifications::delete(state.store.as_ref(), &found).await?)
}

/// Adds a signing secret, and returns it. Messages are signed with the former one too, until that is removed.
pub(crate) async fn add_secret(
    state: &State,
    allowed: &Allowed<Write>,
    registry: &RegistryName,
    name: &NotificationName,
) -> Result<(Notification, SigningSecret, SecretString), Refusal> {
    let found = find(state, allowed, registry, name).await?;
    if !found.format.is_signed() {
        return Err(Refusal::Conflict {
            code: "not_signed",
            message: format!("messages in the format {} are not signed", found.format),
        });
    }
    if found.secrets.len() >= MOST_SECRETS {
        return Err(Refusal::Conflict {
            code: "too_many_secrets",
            message: format!("a notification has at most {MOST_SECRETS} secrets: remove one first"),
        });
    }
    let (new, secret) = new_secret(state, &found).await?;
    let changed = change(state, &found, |notification| {
        notification.secrets.insert(0, new.clone());
        notification.secrets.truncate(MOST_SECRETS);
    })
    .await?;
    Ok((changed, new, secret))
}

/// Removes a signing secret. The last one cannot be removed.
pub(crate) async fn remove_secret(
    state: &State,
    allowed: &Allowed<Write>,
    registry: &RegistryName,
    name: &NotificationName,
    secret: &str,
) -> Result<Notification, Refusal> {
    let found = find(state, allowed, registry, name).await?;
    if !found.secrets.iter().any(|known| secret_id(known) == secret) {
        return Err(Refusal::NotFound { what: "secret", name: secret.to_owned() });
    }
    if found.secrets.len() == 1 {
        return Err(Refusal::Conflict {
            code: "last_secret",
            message: "it is the notification's only secret: add another one first".to_owned(),
        });
    }
    change(state, &found, |notification| {
        if notification.secrets.len() > 1 {
            notification.secrets.retain(|known| secret_id(known) != secret);
        }
    })
    .await
}

/// An id for a secret that reveals nothing about it.
pub(crate) fn secret_id(secret: &SigningSecret) -> String {
    let hash = hex::encode(Sha256::digest(secret.sealed.as_text()));
    hash.chars().take(12).collect()
}

/// Sends a message that tells of no run, also if the notification is disabled, and returns what came of it.
pub(crate) async fn test(
    state: &State,
    allowed: &Allowed<Write>,
    registry: &RegistryName,
    name: &NotificationName,
) -> Result<NotificationTestResult, Refusal> {
    let found = find(state, allowed, registry, name).await?;
    let receiver = Receiver::open(&state.keyring, &found).map_err(|error| {
        tracing::error!("notification {name} cannot be tried: {error}");
        Refusal::Internal
    })?;
    let (id, now) = (MessageId::of_test(&random_id()?), state.store.now().await?);
    let body = Body::test(&found, &id, &state.public_url(), now);
    let began = Instant::now();
    let posted = state.webhooks.post(&receiver, &id, body, now).await;
    Ok(NotificationTestResult {
        ok: posted.is_accepted(),
        status: posted.status,
        duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        message: posted.text,
    })
}

/// Lists the messages of a notification from the newest.
pub(crate) async fn list_messages(
    state: &State,
    allowed: &Allowed<Read>,
    registry: &RegistryName,
    name: &NotificationName,
    paging: &Paging,
) -> Result<Listed<Message>, Refusal> {
    let store = state.store.as_ref();
    let found = find(state, allowed, registry, name).await?;
    let after = match paging.after_id::<MessageId>()? {
        None => None,
        Some(id) => Some(message_of(state, &found, &id).await?),
    };
    let limit = paging.limit();
    let listed = messages::list(store, &found.id, after.as_ref(), limit + 1).await?;
    Ok(Listed::of(listed, limit, |message| message.id.to_string()))
}

/// Shows a message, with its notification.
pub(crate) async fn find_message<S: Needs>(
    state: &State,
    allowed: &Allowed<S>,
    registry: &RegistryName,
    name: &NotificationName,
    id: &MessageId,
) -> Result<(Notification, Message), Refusal> {
    let found = find(state, allowed, registry, name).await?;
    let message = message_of(state, &found, id).await?;
    Ok((found, message))
}

async fn message_of(
    state: &State,
    notification: &Notification,
    id: &MessageId,
) -> Result<Message, Refusal> {
    messages::find(state.store.as_ref(), id)
        .await?
        .filter(|message| message.notification == notification.id)
        .ok_or_else(|| Refusal::NotFound { what: "message", name: id.to_string() })
}

/// Has a message sent again, under the same id.
pub(crate) async fn replay(
    state: &State,
    allowed: &Allowed<Run>,
    registry: &RegistryName,
    name: &NotificationName,
    id: &MessageId,
) -> Result<Message, Refusal> {
    let (found, message) = find_message(state, allowed, registry, name, id).await?;
    check_enabled(&found)?;
    let replayed = messages::replay(state.store.as_ref(), &message.id).await?;
    replayed.ok_or_else(|| Refusal::NotFound { what: "message", name: id.to_string() })
}

/// Has the messages of the last time sent again, the oldest first. Returns their ids.
pub(crate) async fn replay_many(
    state: &State,
    allowed: &Allowed<Run>,
    registry: &RegistryName,
    name: &NotificationName,
    which: &Replays,
) -> Result<Vec<MessageId>, Refusal> {
    let store = state.store.as_ref();
    let found = find(state, allowed, registry, name).await?;
    check_enabled(&found)?;
    let since = store.now().await?.before(Duration::from_secs(which.since_seconds.into()));
    let kept = messages::list(store, &found.id, None, MOST_KEPT).await?;
    let is_asked = |message: &&Message| match message.sending {
        Sending::Due { .. } => false,
        Sending::Sent { .. } => message.created >= since && !which.failed,
        Sending::GivenUp { .. } => message.created >= since,
    };
    let mut replayed = Vec::new();
    for message in kept.iter().rev().filter(is_asked) {
        if messages::replay(store, &message.id).await?.is_some() {
            replayed.push(message.id.clone());
        }
    }
    Ok(replayed)
}

fn check_enabled(notification: &Notification) -> Result<(), Refusal> {
    match &notification.disabled {
        None => Ok(()),
        Some(why) => Err(Refusal::Conflict {
            code: "disabled",
            message: format!("notification {} is disabled: {why}", notification.name),
        }),
    }
}
