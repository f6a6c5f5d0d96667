//! Tells of runs: makes messages of what happened to them, and sends them.
//!
//! In: runs whose state changed, the notifications of their registries, and messages that are due. Out: requests to the
//! addresses of notifications. Each change of a run enters the run into an index in the same commit, so nothing is lost
//! by a crash. Messages have no order among each other: each tells when its event happened, and an end is final.

use std::collections::HashMap;
use std::sync::Arc;

use gantry_domain::id::RunPrefix;
use gantry_domain::notification::{
    Message, MessageId, News, Notification, RunEvent, Sending, is_change,
};
use gantry_domain::run::Run;
use gantry_domain::timestamp::Timestamp;
use gantry_ops::secret::Keyring;
use gantry_remote::webhook::Webhooks;
use gantry_seams::messages::{self, Untold};
use gantry_seams::runs::RunFilter;
use gantry_seams::store::{SharedStore, StoreError};
use gantry_seams::{notifications, runs};
use url::Url;

mod posts;
mod sending;

pub use posts::Posts;

/// How many events are read at once.
const PAGE: usize = 256;

/// How many runs of a task are read to find the one before. With more branches than these, one that failed before may be
/// told of as if it had just failed.
const LOOKED_BACK: usize = 100;

/// Makes messages and sends them.
#[derive(Clone)]
pub(crate) struct Notifier {
    pub(crate) store: SharedStore,
    /// Opens addresses and signing secrets, and checks who created a run.
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) webhooks: Webhooks,
    pub(crate) posts: Arc<Posts>,
    /// The address of the pages of runs.
    pub(crate) public_url: Url,
}

impl Notifier {
    /// Like [`Notifier::tick`], but also waits for the requests.
    pub(crate) async fn tick_and_settle(&self) -> Result<usize, StoreError> {
        let moved = self.tick().await?;
        self.posts.settled().await;
        Ok(moved)
    }

    /// Makes messages of what happened to runs, and starts to send what is due. Returns how many events and notifications
    /// that were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tick(&self) -> Result<usize, StoreError> {
        Ok(self.tell().await? + self.send_due().await?)
    }

    async fn tell(&self) -> Result<usize, StoreError> {
        let (mut told, mut after) = (0, None);
        // Read once for all runs of a registry. What is changed meanwhile counts from the next tick on.
        let mut known: HashMap<RunPrefix, Vec<Notification>> = HashMap::new();
        loop {
            let page = messages::untold(self.store.as_ref(), after.as_ref(), PAGE).await?;
            let mut passed_over = Vec::new();
            for untold in &page {
                let notifications = match known.get(&untold.run.prefix()) {
                    Some(notifications) => notifications,
                    None => {
                        let prefix = untold.run.prefix();
                        let found = notifications::list(self.store.as_ref(), prefix).await?;
                        known.entry(prefix).or_insert(found)
                    }
                };
                match self.messages_of(untold, notifications).await {
                    Ok(messages) if messages.is_empty() => passed_over.push(*untold),
                    Ok(messages) => {
                        messages::tell(self.store.as_ref(), untold, &messages).await?;
                        told += 1;
                    }
                    // Only this run waits for the quarantined record.
                    Err(StoreError::Undecodable { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            // In one commit: most events are told to nobody.
            messages::pass_over(self.store.as_ref(), &passed_over).await?;
            told += passed_over.len();
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(*last),
                Some(_) | None => return Ok(told),
            }
        }
    }

    async fn messages_of(
        &self,
        untold: &Untold,
        notifications: &[Notification],
    ) -> Result<Vec<Message>, StoreError> {
        let store = self.store.as_ref();
        let mut new = Vec::new();
        if !notifications.is_empty()
            && let Some(run) = runs::find(store, untold.run).await?
            // A worker may write run records, but must not make up runs.
            && run.is_signed(self.keyring.as_ref())
            && RunEvent::of(&run) == Some(untold.event)
            && let Some(news) = News::of(&run, self.public_url.as_str())
        {
            let now = store.now().await?;
            for notification in notifications {
                if self.is_told(notification, &run, untold.event).await? {
                    new.push(message(notification, &news, now));
                }
            }
        }
        Ok(new)
    }

    async fn is_told(
        &self,
        notification: &Notification,
        run: &Run,
        event: RunEvent,
    ) -> Result<bool, StoreError> {
        let filter = &notification.filter;
        if notification.disabled.is_some() || !filter.selects(event, run) {
            return Ok(false);
        }
        let Some(task) = run.task.as_ref().filter(|_| filter.only_changes) else {
            return Ok(!filter.only_changes);
        };
        let of_task =
            RunFilter { task: Some((run.id.prefix(), task.name.clone())), ..RunFilter::default() };
        let others = runs::list(self.store.as_ref(), &of_task, None, LOOKED_BACK).await?;
        Ok(is_change(run, &others))
    }

    /// Starts to send for each notification with messages that are due, those of each one after the other.
    async fn send_due(&self) -> Result<usize, StoreError> {
        let store = self.store.as_ref();
        let now = store.now().await?;
        let (mut begun, mut after) = (0, None);
        while let Some(id) = messages::next_notification_due(store, now, after.as_ref()).await? {
            if !self.posts.is_paused(&id, now) && self.send_beside(&id) {
                begun += 1;
            }
            after = Some(id);
        }
        Ok(begun)
    }
}

fn message(notification: &Notification, news: &News, now: Timestamp) -> Message {
    Message {
        id: MessageId::of(news.run, news.event, &notification.id),
        notification: notification.id.clone(),
        registry: notification.prefix,
        name: notification.name.clone(),
        news: news.clone(),
        created: now,
        attempts: 0,
        sending: Sending::Due { at: now, failures: 0 },
        answer: None,
    }
}
