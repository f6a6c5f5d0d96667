//! How connections are made: to the one server, or to the master that the sentinels name.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError, RedisResult,
    TlsCertificates, Value, cmd,
};
use deadpool_redis::{Connection, Manager, Pool, PoolError, Runtime};
use futures_util::future::try_join_all;
use gantry_seams::store::StoreError;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::address::Address;
use crate::connect_error::{ConnectError, Peer};
use crate::error::{breaks, store_error};
use crate::info::Info;
use crate::options::{RedisOptions, Servers};

/// Connections that read. Requests on one are pipelined, so a few do for any number of callers; more than one, so that a
/// large answer does not hold up all the others.
const READERS: usize = 2;
/// Connections that commit: apart from those that read, which need not wait for a large batch on its way, nor for
/// replicas.
const WRITERS: usize = 4;

/// Makes connections.
#[derive(Debug)]
pub(crate) struct Dialer {
    servers: Servers,
    user: String,
    login: RedisConnectionInfo,
    sentinel_login: RedisConnectionInfo,
    ca: Option<Vec<u8>>,
    patience: Duration,
}

/// The connections that are held to one server, all of them or none.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: Peer,
    readers: Vec<MultiplexedConnection>,
    writers: Vec<MultiplexedConnection>,
    listener: MultiplexedConnection,
    next: AtomicUsize,
    broken: CancellationToken,
}

/// The channels that were told, on one link.
pub(crate) type Told = mpsc::UnboundedReceiver<String>;

impl Dialer {
    pub(crate) fn new(options: &RedisOptions) -> Result<Self, ConnectError> {
        let ca = match &options.ca_file {
            None => None,
            Some(path) => Some(
                std::fs::read(path)
                    .map_err(|source| ConnectError::CaFile { path: path.clone(), source })?,
            ),
        };
        if options.servers.tls() {
            // Without it rustls asks for a choice as soon as another part of the process brings a second provider.
            let _already = rustls::crypto::ring::default_provider().install_default();
        }
        let user = options.user.as_deref();
        Ok(Self {
            servers: options.servers.clone(),
            user: user.unwrap_or("default").to_owned(),
            login: login(user, options.password.as_ref()).set_db(options.servers.db().into()),
            sentinel_login: login(None, options.sentinel_password.as_ref()),
            ca,
            patience: options.patience,
        })
    }

    /// Connects to whoever is the one to write to now, and waits for nobody who is not ready to answer.
    pub(crate) async fn dial(&self) -> Result<(Link, Told), ConnectError> {
        match &self.servers {
            Servers::Single { address, .. } => self.link(address).await,
            Servers::Sentinel { addresses, master, .. } => {
                let no_master = || ConnectError::NoMaster {
                    master: master.clone(),
                    sentinels: addresses
                        .iter()
                        .map(Address::to_string)
                        .collect::<Vec<_>>()
                        .join(", "),
                };
                let address = self.ask_sentinels(addresses, master).await?.ok_or_else(no_master)?;
                let (link, told) = self.link(&address).await?;
                // Sentinels may still name one that was master before.
                let info = Info::of(&mut link.reader()).await;
                let info = info.map_err(|error| link.peer.error("INFO", error))?;
                if info.field("role") == "master" { Ok((link, told)) } else { Err(no_master()) }
            }
        }
    }

    /// The first answer counts: sentinels that disagree are in the middle of a change, and are asked again.
    async fn ask_sentinels(
        &self,
        sentinels: &[Address],
        master: &str,
    ) -> Result<Option<Address>, ConnectError> {
        let mut failed = None;
        for sentinel in sentinels {
            let peer = self.peer(sentinel, "default");
            let answer = async {
                let pool = self.pool(sentinel, &self.sentinel_login, self.config())?;
                let mut connection = take(&pool).await?;
                let mut question = cmd("SENTINEL");
                question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
                question.query_async::<Option<(String, u16)>>(&mut connection).await
            };
            match answer.await {
                Ok(Some((host, port))) => return Ok(Some(Address { host, port })),
                Ok(None) => {}
                Err(error) => failed = Some(peer.error("SENTINEL", error)),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    async fn link(&self, address: &Address) -> Result<(Link, Told), ConnectError> {
        let peer = self.peer(address, &self.user);
        let broken = CancellationToken::new();
        let (tell, told) = mpsc::unbounded_channel();
        let lost = broken.clone();
        let config = self.config().set_push_sender(move |push: PushInfo| match push.kind {
            PushKind::Disconnection => {
                lost.cancel();
                Ok(())
            }
            PushKind::Message => channel(push.data).map_or(Ok(()), |channel| tell.send(channel)),
            _ => Ok(()),
        });
        let opened = async {
            let pool = self.pool(address, &self.login, config)?;
            let mut taken = try_join_all((0..1 + READERS + WRITERS).map(|_| take(&pool))).await?;
            let writers = taken.split_off(1 + READERS);
            let readers = taken.split_off(1);
            let listener = taken.remove(0);
            // Who is still loading its data lets in, but does not answer this.
            cmd("PING").query_async::<()>(&mut listener.clone()).await?;
            Ok((readers, writers, listener))
        };
        let (readers, writers, listener) =
            opened.await.map_err(|error| peer.error("PING", error))?;
        let next = AtomicUsize::new(0);
        Ok((Link { peer, readers, writers, listener, next, broken }, told))
    }

    fn peer(&self, address: &Address, user: &str) -> Peer {
        Peer { address: address.to_string(), user: user.to_owned(), tls: self.servers.tls() }
    }

    fn config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.patience))
            .set_response_timeout(Some(self.patience))
    }

    /// A pool that connections are taken from and not given back to: one that is pipelined belongs to all callers at
    /// once, and lending it to one at a time would cost a ping for each request.
    fn pool(
        &self,
        address: &Address,
        login: &RedisConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> RedisResult<Pool> {
        let info = self.connection_info(address)?.set_redis_settings(login.clone());
        let manager = Manager::new_with_config(info, config)?;
        Pool::builder(manager)
            .max_size(1 + READERS + WRITERS)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| std::io::Error::other(error).into())
    }

    fn connection_info(&self, address: &Address) -> RedisResult<ConnectionInfo> {
        let Address { host, port } = address.clone();
        if !self.servers.tls() {
            return ConnectionAddr::Tcp(host, port).into_connection_info();
        }
        let plain = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
        let certificates = TlsCertificates { client_tls: None, root_cert: self.ca.clone() };
        // The one way to a connection's trusted certificates leads through a client.
        let client = Client::build_with_tls(plain, certificates)?;
        Ok(client.get_connection_info().clone())
    }
}

impl Link {
    /// A connection to read with.
    pub(crate) fn reader(&self) -> MultiplexedConnection {
        self.one_of(&self.readers)
    }

    /// A connection to commit with.
    pub(crate) fn writer(&self) -> MultiplexedConnection {
        self.one_of(&self.writers)
    }

    /// The connection that hears of commits.
    pub(crate) fn listener(&self) -> MultiplexedConnection {
        self.listener.clone()
    }

    fn one_of(&self, connections: &[MultiplexedConnection]) -> MultiplexedConnection {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        connections.get(next % connections.len().max(1)).unwrap_or(&self.listener).clone()
    }

    /// What an error on one of the connections means to those who use the store. If it says that the connection is of no
    /// more use, all are made anew: they lead to the same server.
    pub(crate) fn failed(&self, error: &RedisError) -> StoreError {
        if breaks(error) {
            self.give_up();
        }
        store_error(error)
    }

    /// Lets all connections be made anew.
    pub(crate) fn give_up(&self) {
        self.broken.cancel();
    }

    /// Returns once the connections are of no more use.
    pub(crate) async fn broken(&self) {
        self.broken.cancelled().await;
    }
}

fn login(user: Option<&str>, password: Option<&SecretString>) -> RedisConnectionInfo {
    // RESP3 tells of a connection that ends when it ends, and lets commands go between what a subscription hears.
    let mut login =
        RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
    if let Some(user) = user {
        login = login.set_username(user);
    }
    if let Some(password) = password {
        login = login.set_password(password.expose_secret());
    }
    login
}

async fn take(pool: &Pool) -> RedisResult<MultiplexedConnection> {
    match pool.get().await {
        Ok(connection) => Ok(Connection::take(connection)),
        Err(PoolError::Backend(error)) => Err(error),
        Err(error) => Err(std::io::Error::other(error).into()),
    }
}

/// The channel of a message: the first of its parts.
fn channel(message: Vec<Value>) -> Option<String> {
    match message.into_iter().next()? {
        Value::BulkString(channel) => String::from_utf8(channel).ok(),
        Value::SimpleString(channel) => Some(channel),
        _ => None,
    }
}
