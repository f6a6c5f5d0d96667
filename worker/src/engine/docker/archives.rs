//! The archives of contexts, which the engine keeps beside the files that were in them though no other build can ask for
//! them: they are removed, many at a time.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::cache;
use super::transport::Socket;

/// A removal has the engine look at all of its cache twice, which takes it seconds where that has thousands of records.
/// Builds that end within this time share one.
const PAUSE: Duration = Duration::from_secs(10);

/// A busy machine needs longer than 5 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many archives are removed at once, and how many wait for that. More stay, and count as cache, which is bounded.
const MOST: usize = 64;

/// The archives that one engine is to forget.
#[derive(Debug, Clone)]
pub(super) struct Archives(mpsc::Sender<String>);

/// An archive that is forgotten once the build that brought it is over, however it ends.
pub(super) struct Archive<'a> {
    of: &'a Archives,
    url: String,
}

impl Archives {
    /// Of the engine behind this socket; with what removes them.
    pub(super) fn of(socket: Socket) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, ended) = mpsc::channel(MOST);
        (Self(sender), remove_in_batches(socket, ended))
    }

    /// The archive that a build brings under this address.
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

/// Goes on until nobody can build on the engine any more.
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
