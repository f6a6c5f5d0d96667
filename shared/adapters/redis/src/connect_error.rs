//! Why a store could not be connected, and what to do about it.

use std::error::Error;
use std::path::PathBuf;
use std::{fmt, io};

use deadpool_redis::redis::{ErrorKind, RedisError};

use crate::error::io_error;

/// Why a store could not be connected.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum ConnectError {
    /// Nothing answers there, or it is still starting.
    #[error(
        "redis at {address} does not answer: check the address, the firewall, and whether it speaks TLS (`rediss://`) or \
         not (`redis://`)"
    )]
    Unreachable {
        address: String,
        /// The cause.
        source: Cause,
    },
    /// No sentinel names a master that says of itself that it is one. So it is while they change it.
    #[error(
        "no master `{master}` is to be had from the sentinels {sentinels}: check its name with `SENTINEL masters`"
    )]
    NoMaster {
        /// The master's name.
        master: String,
        /// Where the sentinels are.
        sentinels: String,
    },
    /// It does not know the user, or not with this password, or asks for one that was not given.
    #[error(
        "redis at {address} does not let user `{user}` in: check the user and the password file"
    )]
    WrongPassword {
        address: String,
        user: String,
        /// What it said.
        source: Cause,
    },
    /// Redis would take it for `default`, with the rights of that.
    #[error(
        "user `{user}` of redis at {address} is named without a password: write it into a file and name that in \
         `store.password_file`"
    )]
    NoPassword { address: String, user: String },
    /// The user may not do something that gantry needs.
    #[error(
        "redis at {address} does not let user `{user}` call `{command}`: give the user the right to, with `ACL SETUSER`"
    )]
    NotPermitted { address: String, user: String, command: String },
    /// The script functions that gantry needs came with Redis 7.0.
    #[error("redis at {address} is version {version}: gantry needs 7.0 or later")]
    TooOld {
        address: String,
        /// Its version.
        version: String,
    },
    /// A cluster cannot commit what gantry commits.
    #[error(
        "redis at {address} is a cluster: one commit changes records in many of its slots, which no cluster does at once; \
         use one server, or one with replicas behind sentinels"
    )]
    Cluster { address: String },
    /// Replicas take no commits.
    #[error(
        "redis at {address} is a replica, and takes no commits: name its master, or its sentinels (`redis+sentinel://…`)"
    )]
    ReadOnly { address: String },
    /// It may forget what it acknowledged.
    #[error(
        "redis at {address} may lose what it acknowledged, as `{setting}` is `{is}`: put `{line}` into redis.conf, or set \
         store.allow_weak_durability = true if you can afford to lose {loss}"
    )]
    WeakDurability {
        address: String,
        /// Redis' name for the setting.
        setting: &'static str,
        /// What it is.
        is: String,
        /// What should stand in `redis.conf`.
        line: &'static str,
        /// What is lost, and when.
        loss: &'static str,
    },
    /// TLS was asked for and did not come about.
    #[error(
        "no TLS with redis at {address}: check the name in its certificate, the CA file, and that this port speaks TLS"
    )]
    Tls {
        address: String,
        /// The cause.
        source: Cause,
    },
    /// The file with the CA's certificates cannot be used.
    #[error("the CA file {} cannot be read", path.display())]
    CaFile {
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Something answers that speaks another language.
    #[error("what answers at {address} is no redis: check the address and the port")]
    NotRedis { address: String },
    /// It knows of no masters.
    #[error(
        "redis at {address} is no sentinel: name the port of the sentinels, mostly 26379, or the server itself with \
         `redis://…`"
    )]
    NotSentinel {
        address: String,
        /// What it said.
        source: Cause,
    },
    /// It said something else.
    #[error("redis at {address} cannot be used")]
    Refused {
        address: String,
        /// What it said.
        source: Cause,
    },
}

impl ConnectError {
    /// Whether trying again, later, may help without anybody changing anything.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NoMaster { .. } => true,
            Self::WrongPassword { .. }
            | Self::NoPassword { .. }
            | Self::NotPermitted { .. }
            | Self::NotRedis { .. }
            | Self::NotSentinel { .. }
            | Self::TooOld { .. }
            | Self::Cluster { .. }
            | Self::ReadOnly { .. }
            | Self::WeakDurability { .. }
            | Self::Tls { .. }
            | Self::CaFile { .. }
            | Self::Refused { .. } => false,
        }
    }
}

/// What Redis or the network said, in one line. The client's error prints its own causes, so it has none here.
#[derive(Debug)]
pub struct Cause(RedisError);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = self.0.to_string();
        let words: Vec<_> = said.split_whitespace().collect();
        f.write_str(&words.join(" "))
    }
}

impl Error for Cause {}

/// Whom an error is about.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: String,
    pub(crate) user: String,
    pub(crate) tls: bool,
}

impl Peer {
    /// What it means that `command` failed.
    pub(crate) fn error(&self, command: &str, error: RedisError) -> ConnectError {
        let (address, user) = (self.address.clone(), self.user.clone());
        match error.code() {
            Some("WRONGPASS" | "NOAUTH") => {
                ConnectError::WrongPassword { address, user, source: Cause(error) }
            }
            Some("NOPERM") => {
                ConnectError::NotPermitted { address, user, command: command.to_owned() }
            }
            Some("LOADING" | "MASTERDOWN") => {
                ConnectError::Unreachable { address, source: Cause(error) }
            }
            Some(_) if command == "SENTINEL" => {
                ConnectError::NotSentinel { address, source: Cause(error) }
            }
            Some(_) => ConnectError::Refused { address, source: Cause(error) },
            None => self.broken(error),
        }
    }

    /// What it means that there was no answer, or none of Redis.
    fn broken(&self, error: RedisError) -> ConnectError {
        let address = self.address.clone();
        // What rustls refuses is invalid data to whoever reads.
        let invalid =
            io_error(&error).is_some_and(|error| error.kind() == io::ErrorKind::InvalidData);
        if self.tls && (invalid || error.kind() == ErrorKind::Client) {
            return ConnectError::Tls { address, source: Cause(error) };
        }
        if error.kind() == ErrorKind::RESP3NotSupported {
            return ConnectError::TooOld { address, version: "5 or older".to_owned() };
        }
        if error.kind() == ErrorKind::Parse {
            return ConnectError::NotRedis { address };
        }
        if error.is_io_error() {
            return ConnectError::Unreachable { address, source: Cause(error) };
        }
        ConnectError::Refused { address, source: Cause(error) }
    }
}
