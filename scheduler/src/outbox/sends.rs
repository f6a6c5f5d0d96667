//! The requests that this process makes, and the pauses that code hosts asked it for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_domain::id::RunPrefix;
use gantry_domain::timestamp::Timestamp;
use gantry_seams::outbox::Outgoing;

use crate::beside::{Begun, Beside, Bounds, Turn};

/// Providers limit how many requests of an account they handle at once.
const BOUNDS: Bounds = Bounds { a_host: 4, at_once: 32, most: 4096 };

/// Whose limit at which host: tokens belong to registries.
type Account = (RunPrefix, String);

/// The commits whose reports this process is sending, or waits to.
#[derive(Debug)]
pub struct Sends {
    commits: Arc<Beside<String>>,
    pauses: Mutex<HashMap<Account, Timestamp>>,
}

impl Default for Sends {
    fn default() -> Self {
        Self { commits: Arc::new(Beside::new(BOUNDS)), pauses: Mutex::default() }
    }
}

impl Sends {
    pub(super) fn has(&self, commit: &String) -> bool {
        self.commits.has(commit)
    }

    /// Begins to send the reports of a commit; `None` if that has begun already, or for too many.
    pub(super) fn begin(&self, commit: &String) -> Option<Begun<String>> {
        self.commits.begin(commit)
    }

    /// Waits until the host of a report may be asked.
    pub(super) async fn turn(&self, outgoing: &Outgoing) -> Option<Turn> {
        self.commits.turn(host(outgoing)).await
    }

    /// Waits until nothing is sent.
    pub(super) async fn settled(&self) {
        self.commits.settled().await;
    }

    /// The end of the pause that the host of a report asked for, if it is not over.
    pub(super) fn paused_until(&self, outgoing: &Outgoing, now: Timestamp) -> Option<Timestamp> {
        self.pauses().get(&account(outgoing)).copied().filter(|until| *until > now)
    }

    /// Sends nothing more for the account of a report until `until`.
    pub(super) fn pause(&self, outgoing: &Outgoing, until: Timestamp, now: Timestamp) {
        let mut pauses = self.pauses();
        pauses.retain(|_, until| *until > now);
        pauses.insert(account(outgoing), until);
    }

    fn pauses(&self) -> MutexGuard<'_, HashMap<Account, Timestamp>> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn account(outgoing: &Outgoing) -> Account {
    (outgoing.run.prefix(), host(outgoing).to_owned())
}

/// With the port: two servers may share a host name.
fn host(outgoing: &Outgoing) -> &str {
    outgoing.url.as_url().authority()
}
