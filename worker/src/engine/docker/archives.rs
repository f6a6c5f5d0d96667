//! Removes the archives of contexts, which the engine caches in addition to their files, although no other build can
//! use them. They are removed in batches.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::cache;
use super::transport::Socket;

/// To list the archives and to remove one, the engine scans its whole cache, which takes seconds if there are thousands
/// of records. Builds that end within this time share the listing.
const PAUSE: Duration = Duration::from_secs(10);

/// 5 s is not enough on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most archives in one batch and in the queue. Any more stay and count as cache, which is bounded.
const MOST: usize = 64;

/// The archives to be removed from one engine.
#[derive(Debug, Clone)]
pub(super) struct Archives(mpsc::Sender<String>);

/// An archive that is removed once the build that sent it is over, however it ends.
pub(super) struct Archive<'a> {
    of: &'a Archives,
    url: String,
}

impl Archives {
    /// For the engine at this socket; the future removes the archives.
    pub(super) fn of(socket: Socket) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, ended) = mpsc::channel(MOST);
        (Self(sender), remove_in_batches(socket, ended))
    }

    /// The archive that a build sends under this URL.
    pub(super) fn archive(&self, url: String) -> Archive<'_> {
        Archive { of: self, url }
    }
}

impl Drop for Archive<'_> {
    fn drop(&mut self) {
        let url = std::mem::take(&mut self.url);
        if self.of.0.try_send(url).is_err() {
            tracing::debug!("the archive of a context stays in the engine: many others go first");
        }
    }
}

/// Runs until no more builds can start.
async fn remove_in_batches(socket: Socket, mut ended: mpsc::Receiver<String>) {
    let mut urls = Vec::with_capacity(MOST);
    while let Some(first) = ended.recv().await {
        sleep(PAUSE).await;
        urls.push(first);
        while urls.len() < MOST
            && let Ok(next) = ended.try_recv()
        {
            urls.push(next);
        }
        match timeout(PATIENCE, cache::forget_contexts(&socket, &urls)).await {
            Ok(Ok(_freed)) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "the archives of contexts stay in the engine");
            }
            Err(_) => tracing::debug!("the engine is slow to remove the archives of contexts"),
        }
        urls.clear();
    }
}
