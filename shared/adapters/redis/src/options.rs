//! Which Redis, and how it is used.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use gantry_seams::clock::Clock;
use secrecy::SecretString;

use crate::address::{self, Address, AddressError};

/// Which Redis, and how it is used.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Where it is.
    pub servers: Servers,
    /// Its ACL user; `default` if nobody is named.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<SecretString>,
    /// The sentinels' own password.
    pub sentinel_password: Option<SecretString>,
    /// A PEM file with the certificates that servers' own must lead to; otherwise those that the machine trusts.
    pub ca_file: Option<PathBuf>,
    /// What all names in Redis begin with: two installations may share one server.
    pub prefix: String,
    /// How many bytes Redis may take before gantry lets nothing new in. Redis' own `maxmemory` counts too.
    pub budget: Option<u64>,
    /// Goes on, with a warning, though Redis is set up to lose what it acknowledged.
    pub allow_weak_durability: bool,
    /// Asks Redis whether it may lose what it acknowledged. Needs the right to `CONFIG GET`, which shows passwords: not
    /// for workers.
    pub check_durability: bool,
    /// What [`gantry_seams::store::Store::now`] follows.
    pub clock: Clock,
    /// How long anyone waits for an answer before it is [`gantry_seams::store::StoreError::Unavailable`].
    pub patience: Duration,
}

impl RedisOptions {
    /// Defaults for the servers, and the user if there is one, that a URL names.
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

/// Where Redis is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// One server.
    Single {
        /// Where it listens.
        address: Address,
        /// Whether it speaks TLS.
        tls: bool,
        /// Its database.
        db: u32,
    },
    /// A master with replicas, watched by sentinels that know which of them is the master now.
    Sentinel {
        /// Where the sentinels listen; tried in turn.
        addresses: Vec<Address>,
        /// What they call the master.
        master: String,
        /// The master's database.
        db: u32,
        /// Whether all of them, sentinels and servers, speak TLS.
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
