//! Sends the messages of one notification, and records what came of them.

use std::time::{Duration, Instant};

use gantry_domain::notification::{
    Answer, Disabled, Message, Notification, NotificationId, Sending,
};
use gantry_ops::receiver::Receiver;
use gantry_remote::webhook::Posted;
use gantry_seams::messages::{self, End};
use gantry_seams::notifications;
use gantry_seams::store::StoreError;

use super::Notifier;
use crate::asking::LONGEST_WAIT;

/// For how long an attempt is somebody's: longer than a request takes.
const ATTEMPT: Duration = Duration::from_secs(40);

/// Whether the next message of the notification may follow at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    AtOnce,
    /// The receiver is in trouble: the others wait for the next tick, or the end of its pause.
    Later,
}

impl Notifier {
    /// Spawns a tokio task that sends what is due of a notification, one message after the other. Returns `false` if there
    /// is one, or too many.
    pub(super) fn send_beside(&self, id: &NotificationId) -> bool {
        let Some(begun) = self.posts.begin(id) else { return false };
        let (notifier, id) = (self.clone(), id.clone());
        tokio::spawn(async move {
            let _until_it_ends = begun;
            if let Err(error) = notifier.send_all(&id).await {
                tracing::warn!("messages of a notification are sent later: {error}");
            }
        });
        true
    }

    async fn send_all(&self, id: &NotificationId) -> Result<(), StoreError> {
        let store = self.store.as_ref();
        loop {
            let now = store.now().await?;
            let Some(message) = messages::next_due(store, id, now).await? else { return Ok(()) };
            let found = notifications::find(store, message.registry, &message.name).await?;
            match found.filter(|found| found.id == message.notification) {
                None => messages::remove(store, &message).await?,
                Some(notification) => {
                    if self.send(&notification, &message).await? == Next::Later {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn send(
        &self,
        notification: &Notification,
        message: &Message,
    ) -> Result<Next, StoreError> {
        let store = self.store.as_ref();
        let Some(_turn) = self.posts.turn(&notification.origin).await else {
            return Ok(Next::Later);
        };
        let Some(begun) = messages::begin(store, message, ATTEMPT).await? else {
            return Ok(Next::AtOnce);
        };
        let began = Instant::now();
        let posted = match &notification.disabled {
            Some(why) => Err(format!("notification {} is disabled: {why}", notification.name)),
            None => self.post(notification, &begun).await?,
        };
        let (status, text) = match &posted {
            Ok(posted) => (posted.status, posted.text.clone()),
            Err(text) => (None, text.clone()),
        };
        let now = store.now().await?;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let answer = Answer { at: now, status, text, took_ms };
        let (end, next) = match posted {
            Ok(posted) if posted.is_accepted() => (End::Sent, Next::AtOnce),
            Ok(posted) if posted.is_gone() => {
                self.disable(notification, &answer).await?;
                (End::GivenUp, Next::AtOnce)
            }
            Ok(posted) => {
                let asked = posted.retry_after.map(|pause| pause.min(LONGEST_WAIT));
                if let Some(pause) = asked {
                    self.posts.pause(&notification.id, now.after(pause), now);
                }
                (End::Failed(asked), Next::Later)
            }
            // Another attempt would end in the same way.
            Err(_) => (End::GivenUp, Next::AtOnce),
        };
        let ended = messages::end(store, &begun, end, &answer).await?;
        log(notification, ended.as_ref());
        Ok(next)
    }

    /// Posts a message. The inner error is why no attempt can succeed.
    async fn post(
        &self,
        notification: &Notification,
        message: &Message,
    ) -> Result<Result<Posted, String>, StoreError> {
        let receiver = match Receiver::open(&self.keyring, notification) {
            Ok(receiver) => receiver,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let body = message.news.body(notification.format, &message.id);
        let now = self.store.now().await?;
        Ok(Ok(self.webhooks.post(&receiver, &message.id, body, now).await))
    }

    /// The receiver wants no more messages. If its address was changed meanwhile, another one is meant.
    async fn disable(
        &self,
        notification: &Notification,
        answer: &Answer,
    ) -> Result<(), StoreError> {
        let at = answer.at;
        notifications::update(self.store.as_ref(), notification, |found| {
            if found.address == notification.address && found.disabled.is_none() {
                found.disabled = Some(Disabled::Receiver { at });
            }
        })
        .await?;
        Ok(())
    }
}

fn log(notification: &Notification, ended: Option<&Message>) {
    let Some((message, answer)) = ended.and_then(|it| Some((it, it.answer.as_ref()?))) else {
        return;
    };
    let (name, run, text) = (&notification.name, message.news.run, &answer.text);
    match message.sending {
        Sending::Sent { .. } => {
            tracing::debug!(run.id = %run, "notification {name} told of run {run}")
        }
        Sending::Due { at, .. } => {
            tracing::info!(run.id = %run, "notification {name} tells of run {run} at {at}: {text}");
        }
        Sending::GivenUp { .. } => {
            tracing::warn!(run.id = %run, "notification {name} does not tell of run {run}: {text}");
        }
    }
}
