//! The requests that this process makes, and the pauses that receivers asked it for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_domain::notification::NotificationId;
use gantry_domain::timestamp::Timestamp;

use crate::beside::{Begun, Beside, Bounds, Turn};

/// A receiver that does not answer holds a place for 15 seconds, so there are many of them.
const BOUNDS: Bounds = Bounds { a_host: 4, at_once: 256, most: 4096 };

/// The notifications whose messages this process is sending, or waits to.
#[derive(Debug)]
pub struct Posts {
    notifications: Arc<Beside<NotificationId>>,
    pauses: Mutex<HashMap<NotificationId, Timestamp>>,
}

impl Default for Posts {
    fn default() -> Self {
        Self { notifications: Arc::new(Beside::new(BOUNDS)), pauses: Mutex::default() }
    }
}

impl Posts {
    /// Begins to send the messages of a notification; `None` if that has begun already, or for too many.
    pub(super) fn begin(&self, id: &NotificationId) -> Option<Begun<NotificationId>> {
        self.notifications.begin(id)
    }

    /// Waits until a host may be sent to.
    pub(super) async fn turn(&self, origin: &str) -> Option<Turn> {
        self.notifications.turn(origin).await
    }

    /// Waits until nothing is sent.
    pub(super) async fn settled(&self) {
        self.notifications.settled().await;
    }

    /// Whether the receiver of a notification asked for a pause that is not over.
    pub(super) fn is_paused(&self, id: &NotificationId, now: Timestamp) -> bool {
        self.pauses().get(id).is_some_and(|until| *until > now)
    }

    /// Sends nothing more for a notification until `until`.
    pub(super) fn pause(&self, id: &NotificationId, until: Timestamp, now: Timestamp) {
        let mut pauses = self.pauses();
        pauses.retain(|_, until| *until > now);
        pauses.insert(id.clone(), until);
    }

    fn pauses(&self) -> MutexGuard<'_, HashMap<NotificationId, Timestamp>> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
