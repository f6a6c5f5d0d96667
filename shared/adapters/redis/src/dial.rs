//! Opens connections to the server, or to the master that the sentinels name.

use std::time::Duration;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisResult, TlsCertificates, cmd,
    from_redis_value,
};
use deadpool_redis::{Connection, Manager, Pool, PoolError, Runtime};
use futures_util::future::try_join_all;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::address::Address;
use crate::connect_error::{ConnectError, Peer};
use crate::info::Info;
use crate::link::{Link, Told};
use crate::options::{RedisOptions, Servers};

/// Connections for reads. Requests are pipelined, so a few suffice for any number of callers. More than one, so that a
/// large answer does not delay all other reads.
const READERS: usize = 2;
/// Connections for commits, separate from those for reads, which need not wait for large batches or for replicas.
const WRITERS: usize = 4;

#[derive(Debug)]
pub(crate) struct Dialer {
    servers: Servers,
    user: String,
    login: RedisConnectionInfo,
    sentinel_login: RedisConnectionInfo,
    ca: Option<Vec<u8>>,
    patience: Duration,
}

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
            // Otherwise rustls panics as soon as another part of the process enables a second provider.
            let _already = rustls::crypto::ring::default_provider().install_default();
        }
        let user = options.user.as_deref();
        if let (Some(user), None) = (user, &options.password) {
            let (address, user) = (options.servers.to_string(), user.to_owned());
            return Err(ConnectError::NoPassword { address, user });
        }
        Ok(Self {
            servers: options.servers.clone(),
            user: user.unwrap_or("default").to_owned(),
            login: login(user, options.password.as_ref()).set_db(options.servers.db().into()),
            sentinel_login: login(None, options.sentinel_password.as_ref()),
            ca,
            patience: options.patience,
        })
    }

    /// Connects to the current master. Fails at once if there is none that is ready.
    pub(crate) async fn dial(&self) -> Result<(Link, Told), ConnectError> {
        match &self.servers {
            Servers::Single { address, .. } => self.link(address).await,
            Servers::Sentinel { addresses, master, .. } => {
                let no_master = || ConnectError::NoMaster {
                    master: master.clone(),
                    sentinels: self.servers.to_string(),
                };
                let address = self.ask_sentinels(addresses, master).await?.ok_or_else(no_master)?;
                let (link, told) = self.link(&address).await?;
                // Sentinels may still name the former master.
                let info = Info::of(&mut link.reader()).await;
                let info = info.map_err(|error| link.peer.error("INFO", error))?;
                if info.field("role") == "master" { Ok((link, told)) } else { Err(no_master()) }
            }
        }
    }

    /// The first answer counts. Sentinels that disagree are in the middle of a failover, and are asked again.
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
        let config = self.config().set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                lost.cancel();
            } else if push.kind == PushKind::Message
                && let Some(Ok(channel)) = push.data.into_iter().next().map(from_redis_value)
            {
                tell.send(channel)?;
            }
            Ok::<_, mpsc::error::SendError<String>>(())
        });
        let opened = async {
            let pool = self.pool(address, &self.login, config)?;
            let mut taken = try_join_all((0..1 + READERS + WRITERS).map(|_| take(&pool))).await?;
            let writers = taken.split_off(1 + READERS);
            let readers = taken.split_off(1);
            let listener = taken.remove(0);
            // A server that is still loading its data accepts connections but does not answer `PING`.
            cmd("PING").query_async::<()>(&mut listener.clone()).await?;
            Ok((readers, writers, listener))
        };
        let (readers, writers, listener) =
            opened.await.map_err(|error| peer.error("PING", error))?;
        Ok((Link::new(peer, readers, writers, listener, broken), told))
    }

    fn peer(&self, address: &Address, user: &str) -> Peer {
        Peer { address: address.to_string(), user: user.to_owned(), tls: self.servers.tls() }
    }

    fn config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.patience))
            .set_response_timeout(Some(self.patience))
    }

    /// Connections are taken from this pool and never returned: a pipelined connection serves all callers at once, and
    /// lending it to one at a time would cost a ping for each request.
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
        // The client API offers no other way to set the trusted certificates of a connection.
        let client = Client::build_with_tls(plain, certificates)?;
        Ok(client.get_connection_info().clone())
    }
}

fn login(user: Option<&str>, password: Option<&SecretString>) -> RedisConnectionInfo {
    // RESP3 reports the end of a connection immediately, and allows commands on a subscribed connection.
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
