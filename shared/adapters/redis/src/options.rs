//! The options of a Redis store.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use gantry_seams::clock::Clock;
use secrecy::SecretString;

use crate::address::{self, Address, AddressError};

/// The server and how to use it.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// The server, or the sentinels.
    pub servers: Servers,
    /// The ACL user; `default` if `None`.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<SecretString>,
    /// The password of the sentinels.
    pub sentinel_password: Option<SecretString>,
    /// A PEM file of CA certificates; the system's if `None`.
    pub ca_file: Option<PathBuf>,
    /// The prefix of all names in Redis. Installations with different prefixes may share one server.
    pub prefix: String,
    /// The bytes of memory at which gantry stops accepting new work. Redis' own `maxmemory` applies too.
    pub budget: Option<u64>,
    /// Only warn if the server's settings may lose acknowledged commits.
    pub allow_weak_durability: bool,
    /// Check the server's durability settings. Needs the right to `CONFIG GET`, which also shows passwords, so workers
    /// leave it off.
    pub check_durability: bool,
    /// The clock behind [`gantry_seams::store::Store::now`].
    pub clock: Clock,
    /// The time limit of a request, after which it fails with [`gantry_seams::store::StoreError::Unavailable`].
    pub patience: Duration,
}

impl RedisOptions {
    /// Default options for the servers and user in a URL.
    ///
    /// `redis://[user@]host[:port][/db]`, `rediss://…` for TLS, `redis+sentinel://host[:port],…/master[/db]` and
    /// `rediss+sentinel://…`.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let parsed = address::parse(url)?;
        Ok(Self {
            servers: parsed.servers,
            user: parsed.user,
            password: None,
            sentinel_password: None,
            ca_file: None,
            prefix: "gantry".to_owned(),
            budget: None,
            allow_weak_durability: false,
            check_durability: true,
            clock: Clock::Wall,
            patience: Duration::from_secs(5),
        })
    }
}

/// One server, or the sentinels of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// A single server.
    Single {
        /// Its address.
        address: Address,
        /// Whether it speaks TLS.
        tls: bool,
        /// The database number.
        db: u32,
    },
    /// A master with replicas; sentinels know the current master.
    Sentinel {
        /// The sentinels' addresses, tried in turn.
        addresses: Vec<Address>,
        /// The sentinels' name for the master.
        master: String,
        /// The database number on the master.
        db: u32,
        /// Whether sentinels and servers speak TLS.
        tls: bool,
    },
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single { address, .. } => address.fmt(f),
            Self::Sentinel { addresses, .. } => {
                let addresses: Vec<_> = addresses.iter().map(Address::to_string).collect();
                f.write_str(&addresses.join(", "))
            }
        }
    }
}

impl Servers {
    pub(crate) fn tls(&self) -> bool {
        match self {
            Self::Single { tls, .. } | Self::Sentinel { tls, .. } => *tls,
        }
    }

    pub(crate) fn db(&self) -> u32 {
        match self {
            Self::Single { db, .. } | Self::Sentinel { db, .. } => *db,
        }
    }
}
