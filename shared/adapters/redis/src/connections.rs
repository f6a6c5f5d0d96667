//! The connections of a store, reopened when they break.
//!
//! One task keeps them open, and listens for commits of watched keys. Requests use the current connections. Without any
//! they fail at once, so that the caller can answer 503; only if the connections broke just now do they wait for the
//! first attempt to reconnect.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::{RedisResult, cmd};
use futures_util::future::join_all;
use gantry_seams::store::{Key, StoreError, Watch, Watchers};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::dial::Dialer;
use crate::keys::Names;
use crate::link::{Link, Told};

/// The pause between attempts to connect.
const PAUSE: Duration = Duration::from_millis(250);
/// If connections break sooner than this, reconnecting waits for a pause first.
const SETTLED: Duration = Duration::from_secs(2);

/// The connections of one store.
#[derive(Debug)]
pub(crate) struct Connections {
    state: watch::Receiver<State>,
    listening: Arc<Listening>,
    patience: Duration,
    _keeper: AbortOnDropHandle<()>,
}

#[derive(Debug, Clone)]
enum State {
    Up(Arc<Link>),
    /// The connections broke a moment ago.
    Connecting,
    /// Reconnecting failed for this reason, and is retried.
    Away(String),
}

/// The subscriptions.
#[derive(Debug)]
struct Listening {
    watchers: Watchers,
    /// Notified when a new key is watched.
    more: Notify,
    names: Names,
}

impl Connections {
    /// Keeps the dialer's first connections, and replaces them when they break.
    pub(crate) fn hold(
        dialer: Dialer,
        (link, told): (Arc<Link>, Told),
        names: Names,
        patience: Duration,
    ) -> Self {
        let listening =
            Arc::new(Listening { watchers: Watchers::default(), more: Notify::new(), names });
        let (report, state) = watch::channel(State::Up(Arc::clone(&link)));
        let keeper = Keeper { dialer, listening: Arc::clone(&listening), report, patience };
        let keeper = AbortOnDropHandle::new(tokio::spawn(keeper.keep(link, told)));
        Self { state, listening, patience, _keeper: keeper }
    }

    /// The current connections.
    pub(crate) async fn link(&self) -> Result<Arc<Link>, StoreError> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| !matches!(state, State::Connecting));
        match timeout(self.patience, settled).await {
            Ok(Ok(state)) => match &*state {
                State::Up(link) => Ok(Arc::clone(link)),
                State::Away(reason) => Err(unavailable(reason)),
                State::Connecting => Err(unavailable(CONNECTING)),
            },
            Ok(Err(_)) | Err(_) => Err(unavailable(CONNECTING)),
        }
    }

    pub(crate) fn watch(&self, key: &Key) -> Watch {
        let watch = self.listening.watchers.watch(key);
        self.listening.more.notify_one();
        watch
    }
}

const CONNECTING: &str = "the connections to redis broke and are being restored";

fn unavailable(message: &str) -> StoreError {
    StoreError::Unavailable { message: message.to_owned() }
}

/// The task that keeps the connections open.
struct Keeper {
    dialer: Dialer,
    listening: Arc<Listening>,
    report: watch::Sender<State>,
    patience: Duration,
}

impl Keeper {
    async fn keep(self, mut link: Arc<Link>, mut told: Told) {
        loop {
            let since = Instant::now();
            self.listen(&link, told).await;
            self.report.send_replace(State::Connecting);
            if since.elapsed() < SETTLED {
                sleep(PAUSE).await;
            }
            (link, told) = self.connect().await;
            self.report.send_replace(State::Up(Arc::clone(&link)));
        }
    }

    /// Retries until connected.
    async fn connect(&self) -> (Arc<Link>, Told) {
        let mut away = false;
        loop {
            match self.dialer.dial().await {
                Ok((link, told)) => {
                    info!(
                        redis.address = link.peer.address,
                        "redis at {} answers again", link.peer.address
                    );
                    return (Arc::new(link), told);
                }
                Err(error) => {
                    let reason = with_causes(&error);
                    if !away {
                        warn!("{reason}; it is tried again each {PAUSE:?}");
                    }
                    away = true;
                    self.report.send_replace(State::Away(reason));
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Listens for commits until the connections break.
    async fn listen(&self, link: &Link, mut told: Told) {
        let mut subscribed = HashMap::new();
        let mut look = interval(self.patience);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                biased;
                () = link.broken() => return,
                Some(channel) = told.recv() => {
                    self.listening.watchers.touched(subscribed.get(&channel));
                    continue;
                }
                () = self.listening.more.notified() => self.subscribe(link, &mut subscribed).await,
                // A connection that was cut silently is only found by sending something.
                _ = look.tick() => self.look(link, &mut subscribed).await,
            };
            if let Err(error) = done {
                // Watchers poll every few seconds, so a missed notification only delays them.
                let error = link.failed(&error);
                warn!("watchers are not notified of commits and will poll: {error}");
            }
        }
    }

    async fn look(&self, link: &Link, subscribed: &mut HashMap<String, Key>) -> RedisResult<()> {
        cmd("PING").query_async::<()>(&mut link.listener()).await?;
        self.subscribe(link, subscribed).await
    }

    /// Subscribes to exactly the keys that are watched now.
    async fn subscribe(
        &self,
        link: &Link,
        subscribed: &mut HashMap<String, Key>,
    ) -> RedisResult<()> {
        let Listening { watchers, names, .. } = &*self.listening;
        let watched: HashMap<_, _> =
            watchers.watched().into_iter().map(|key| (names.channel(&key), key)).collect();
        let before = std::mem::replace(subscribed, watched);
        let begun: Vec<_> =
            subscribed.iter().filter(|(name, _)| !before.contains_key(*name)).collect();
        let ended: Vec<_> = before.keys().filter(|name| !subscribed.contains_key(*name)).collect();
        // One subscription each: if the user may not use one channel, the others still work.
        let subscribed = join_all(
            begun.iter().map(async |(name, _)| link.listener().subscribe(name.as_str()).await),
        );
        let subscribed: RedisResult<Vec<()>> = subscribed.await.into_iter().collect();
        // Commits before the subscription were not notified, so notify all new watches once.
        watchers.touched(begun.into_iter().map(|(_, key)| key));
        if !ended.is_empty() {
            link.listener().unsubscribe(ended.as_slice()).await?;
        }
        subscribed.map(drop)
    }
}

/// An error and its causes on one line.
fn with_causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
