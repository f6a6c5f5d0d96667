//! Messages that notifications send.
//!
//! There is at most one message for a notification, a run and an event, so a message that was created is created again
//! by nobody. Any number of schedulers may send: whoever begins an attempt moves the message's time behind the attempt's
//! end, so another one sends it only if that one dies.

use std::time::Duration;

use gantry_domain::id::RunId;
use gantry_domain::notification::{Answer, Message, MessageId, NotificationId, RunEvent, Sending};
use gantry_domain::timestamp::Timestamp;

use crate::codec::{self, Versioned};
use crate::collection::commit_unconditional;
use crate::retry::{self, Plan};
use crate::runs;
use crate::store::{Batch, CommitError, Entry, Expect, From, Index, Key, Kind, Store, StoreError};

/// How many messages of a notification are kept at most. The oldest make room for new ones.
pub const MOST_KEPT: usize = 1000;

/// How many of the oldest messages make room for one new one.
const ROOM: usize = 2;

/// An event of a run that notifications are still to tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untold {
    /// The run.
    pub run: RunId,
    /// The event.
    pub event: RunEvent,
    created: Timestamp,
}

/// Events that notifications are still to tell of, those of the oldest runs first, after `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn untold(
    store: &dyn Store,
    after: Option<&Untold>,
    limit: usize,
) -> Result<Vec<Untold>, StoreError> {
    let from = after.map_or(From::Start, |after| {
        let member = runs::untold_member(after.run, after.event);
        From::After(Entry { score: after.created.as_millis(), member })
    });
    let entries = store.range(&runs::untold(), from, limit).await?;
    let parse = |entry: Entry| {
        let (run, event) = entry.member.split_once('/')?;
        let created = Timestamp::from_millis(entry.score);
        Some(Untold { run: run.parse().ok()?, event: event.parse().ok()?, created })
    };
    Ok(entries.into_iter().filter_map(parse).collect())
}

/// Records that no notification tells of these events.
///
/// # Errors
/// [`StoreError`].
pub async fn pass_over(store: &dyn Store, untold: &[Untold]) -> Result<(), StoreError> {
    if untold.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::default();
    for Untold { run, event, .. } in untold {
        batch.unindex(runs::untold(), runs::untold_member(*run, *event));
    }
    commit_unconditional(store, batch).await
}

/// Records the messages that tell of an event. A second call changes nothing.
///
/// # Errors
/// [`StoreError`].
pub async fn tell(
    store: &dyn Store,
    untold: &Untold,
    messages: &[Message],
) -> Result<(), StoreError> {
    let what = Key::new(Kind::Run, untold.run);
    retry::commit(store, &what, || async {
        let mut batch = Batch::default();
        for message in messages {
            if find(store, &message.id).await?.is_none() {
                make_room(store, &mut batch, &message.notification).await?;
                let key = key(&message.id);
                batch.create(key.clone(), codec::encode(&key, message)?);
                reindex(&mut batch, None, Some(message));
            }
        }
        let member = runs::untold_member(untold.run, untold.event);
        batch.unindex(runs::untold(), member);
        Ok(Plan::Commit(batch, ()))
    })
    .await
}

/// Removes the oldest messages of a notification that has as many as are kept.
async fn make_room(
    store: &dyn Store,
    batch: &mut Batch,
    notification: &NotificationId,
) -> Result<(), StoreError> {
    let entries =
        store.range(&of_notification(notification), From::Start, MOST_KEPT + ROOM).await?;
    let oldest = entries.iter().skip(MOST_KEPT - 1);
    for id in oldest.filter_map(|entry| entry.member.parse::<MessageId>().ok()) {
        match find_versioned(store, &id).await {
            Ok(Some(found)) => remove_in(batch, &found),
            // It does not decode: only its entry is removed.
            Ok(None) | Err(StoreError::Undecodable { .. }) => {
                batch.unindex(of_notification(notification), &id);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads a message.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, id: &MessageId) -> Result<Option<Message>, StoreError> {
    Ok(find_versioned(store, id).await?.map(|found| found.value))
}

async fn find_versioned(
    store: &dyn Store,
    id: &MessageId,
) -> Result<Option<Versioned<Message>>, StoreError> {
    codec::load(store, &key(id)).await
}

/// The messages of a notification from the newest, after the message `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    store: &dyn Store,
    notification: &NotificationId,
    after: Option<&Message>,
    limit: usize,
) -> Result<Vec<Message>, StoreError> {
    let from = after.map_or(From::Start, |message| From::After(listing_entry(message)));
    let key = |entry: &Entry| Some(Key::new(Kind::Message, &entry.member));
    codec::load_members(store, &of_notification(notification), from, limit, key).await
}

/// The first notification with a message that is due at `now`, after the notification `after`, in the order of ids.
///
/// # Errors
/// [`StoreError`].
pub async fn next_notification_due(
    store: &dyn Store,
    now: Timestamp,
    after: Option<&NotificationId>,
) -> Result<Option<NotificationId>, StoreError> {
    let mut from = after.map_or(From::Start, |after| From::After(behind(after)));
    loop {
        let Some(entry) = store.range(&by_due(), from, 1).await?.pop() else { return Ok(None) };
        match parse_due(&entry) {
            Some((notification, at, _)) if at <= now => return Ok(Some(notification)),
            Some((notification, ..)) => from = From::After(behind(&notification)),
            // A malformed member must not hide those after it.
            None => from = From::After(entry),
        }
    }
}

/// The first message of a notification that is due at `now`.
///
/// # Errors
/// [`StoreError`].
pub async fn next_due(
    store: &dyn Store,
    notification: &NotificationId,
    now: Timestamp,
) -> Result<Option<Message>, StoreError> {
    let from = From::After(Entry { score: 0, member: format!("{notification}/") });
    let is_due = |entry: &Entry| {
        parse_due(entry).is_some_and(|(of, at, _)| of == *notification && at <= now)
    };
    let key = |entry: &Entry| parse_due(entry).map(|(_, _, id)| key(&id));
    let found = codec::load_members_while(store, &by_due(), from, 1, is_due, key).await?;
    Ok(found.into_iter().next())
}

/// Begins an attempt to send a message. The message is due again after `period` if nothing is recorded until then.
/// `None` if it is not due, or if somebody else has begun.
///
/// # Errors
/// [`StoreError`].
pub async fn begin(
    store: &dyn Store,
    message: &Message,
    period: Duration,
) -> Result<Option<Message>, StoreError> {
    change(store, &message.id, |found, now| match found.sending {
        Sending::Due { at, failures } if at <= now => {
            found.attempts = found.attempts.saturating_add(1);
            found.sending = Sending::Due { at: now.after(period), failures };
            true
        }
        Sending::Due { .. } | Sending::Sent { .. } | Sending::GivenUp { .. } => false,
    })
    .await
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The receiver has the message.
    Sent,
    /// It is sent again, at the earliest after this pause if there is one, unless enough attempts have failed.
    Failed(Option<Duration>),
    /// It is not sent again.
    GivenUp,
}

/// Ends an attempt that [`begin`] returned. Returns the message as it is now; `None`, without a change, if another
/// attempt has begun since.
///
/// # Errors
/// [`StoreError`].
pub async fn end(
    store: &dyn Store,
    begun: &Message,
    end: End,
    answer: &Answer,
) -> Result<Option<Message>, StoreError> {
    change(store, &begun.id, |found, now| {
        let Sending::Due { failures, .. } = found.sending else { return false };
        if found.attempts != begun.attempts {
            return false;
        }
        found.answer = Some(answer.clone());
        found.sending = match end {
            End::Sent => Sending::Sent { at: now },
            End::Failed(asked) => Sending::after_failure(failures, now, asked),
            End::GivenUp => Sending::GivenUp { at: now },
        };
        true
    })
    .await
}

/// Has a message sent again at once, under the same id. `None` if there is none.
///
/// # Errors
/// [`StoreError`].
pub async fn replay(store: &dyn Store, id: &MessageId) -> Result<Option<Message>, StoreError> {
    change(store, id, |found, now| {
        found.sending = Sending::Due { at: now, failures: 0 };
        true
    })
    .await
}

/// Removes a message whose notification does not exist any more.
///
/// # Errors
/// [`StoreError`].
pub async fn remove(store: &dyn Store, message: &Message) -> Result<(), StoreError> {
    let Some(found) = find_versioned(store, &message.id).await? else { return Ok(()) };
    let mut batch = Batch::default();
    remove_in(&mut batch, &found);
    match store.commit(batch).await {
        Ok(()) | Err(CommitError::Conflict { .. }) => Ok(()),
        Err(CommitError::Store(error)) => Err(error),
    }
}

/// Forgets messages that were sent or given up before `before`, at most `limit`. Returns how many.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(
    store: &dyn Store,
    before: Timestamp,
    limit: usize,
) -> Result<usize, StoreError> {
    let is_old = |entry: &Entry| entry.score < before.as_millis();
    let key = |entry: &Entry| Some(Key::new(Kind::Message, &entry.member));
    let old: Vec<Message> =
        codec::load_members_while(store, &by_age(), From::Start, limit, is_old, key).await?;
    for message in &old {
        remove(store, message).await?;
    }
    Ok(old.len())
}

/// Changes a message under its version, if `change` says that it did.
async fn change(
    store: &dyn Store,
    id: &MessageId,
    change: impl Fn(&mut Message, Timestamp) -> bool + Send + Sync,
) -> Result<Option<Message>, StoreError> {
    let key = key(id);
    retry::commit(store, &key, || async {
        let Some(mut found) = find_versioned(store, id).await? else {
            return Ok(Plan::Answer(None));
        };
        let before = found.value.clone();
        if !change(&mut found.value, store.now().await?) {
            return Ok(Plan::Answer(None));
        }
        let mut batch = Batch::default();
        found.replace_in(&mut batch, key.clone())?;
        reindex(&mut batch, Some(&before), Some(&found.value));
        Ok(Plan::Commit(batch, Some(found.value)))
    })
    .await
}

fn remove_in(batch: &mut Batch, found: &Versioned<Message>) {
    let key = key(&found.value.id);
    batch.expect.push((key.clone(), Expect::Version(found.version)));
    batch.delete.push(key);
    reindex(batch, Some(&found.value), None);
}

fn key(id: &MessageId) -> Key {
    Key::new(Kind::Message, id)
}

/// Adds to the batch what changes in the indexes between two states of one message.
fn reindex(batch: &mut Batch, before: Option<&Message>, after: Option<&Message>) {
    let old = before.map(entries).unwrap_or_default();
    let new = after.map(entries).unwrap_or_default();
    for (index, entry) in old {
        if !new.iter().any(|(other, place)| *other == index && place.member == entry.member) {
            batch.unindex(index, entry.member);
        }
    }
    batch.index.extend(new);
}

fn entries(message: &Message) -> Vec<(Index, Entry)> {
    let ended = |at: &Timestamp| {
        (by_age(), Entry { score: at.as_millis(), member: message.id.to_string() })
    };
    let state = match &message.sending {
        Sending::Due { at, .. } => (by_due(), due_entry(message, *at)),
        Sending::Sent { at } | Sending::GivenUp { at } => ended(at),
    };
    vec![(of_notification(&message.notification), listing_entry(message)), state]
}

/// Newest first.
fn listing_entry(message: &Message) -> Entry {
    Entry { score: -message.created.as_millis(), member: message.id.to_string() }
}

fn due_entry(message: &Message, at: Timestamp) -> Entry {
    let at = at.as_millis();
    Entry { score: 0, member: format!("{}/{at:020}/{}", message.notification, message.id) }
}

fn parse_due(entry: &Entry) -> Option<(NotificationId, Timestamp, MessageId)> {
    let mut parts = entry.member.splitn(3, '/');
    let notification = parts.next()?.parse().ok()?;
    let at = Timestamp::from_millis(parts.next()?.parse().ok()?);
    Some((notification, at, parts.next()?.parse().ok()?))
}

/// Sorts after all due messages of a notification: no time begins with `~`.
fn behind(notification: &NotificationId) -> Entry {
    Entry { score: 0, member: format!("{notification}/~") }
}

/// Members are `notification/time/message`. One index, so that a scan can skip from notification to notification: one
/// whose receiver is away hides no other.
fn by_due() -> Index {
    Index::new("messages/due")
}

/// The messages of a notification.
fn of_notification(notification: &NotificationId) -> Index {
    Index::new(format!("messages/notification/{notification}"))
}

/// Messages that were sent or given up, scored by when.
fn by_age() -> Index {
    Index::new("messages/age")
}
