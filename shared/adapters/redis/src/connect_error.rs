//! Why connecting to a store failed, and the remedy.

use std::error::Error;
use std::path::PathBuf;
use std::{fmt, io};

use deadpool_redis::redis::{ErrorKind, RedisError};

use crate::error::io_error;

/// Connecting to a store failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum ConnectError {
    /// The server does not answer, or is still starting.
    #[error(
        "redis at {address} does not answer: check the address, the firewall, and whether it speaks TLS (`rediss://`) or \
         not (`redis://`)"
    )]
    Unreachable {
        address: String,
        /// The cause.
        source: Cause,
    },
    /// No sentinel names a server that reports itself as the master, as during a failover.
    #[error(
        "the sentinels {sentinels} name no working master `{master}`: check its name with `SENTINEL masters`"
    )]
    NoMaster {
        /// The master's name.
        master: String,
        /// The addresses of the sentinels.
        sentinels: String,
    },
    /// Authentication failed: the user or password is wrong, or a password is required.
    #[error(
        "redis at {address} does not let user `{user}` in: check the user and the password file"
    )]
    WrongPassword {
        address: String,
        user: String,
        /// The server's error.
        source: Cause,
    },
    /// A user without a password: Redis would use `default` with that user's rights.
    #[error(
        "user `{user}` of redis at {address} is named without a password: write it into a file and name that in \
         `store.password_file`"
    )]
    NoPassword { address: String, user: String },
    /// The user lacks a right that gantry needs.
    #[error(
        "redis at {address} does not let user `{user}` call `{command}`: give the user the right to, with `ACL SETUSER`"
    )]
    NotPermitted { address: String, user: String, command: String },
    /// The server is older than 7.0, which introduced what gantry's scripts need.
    #[error("redis at {address} is version {version}: gantry needs 7.0 or later")]
    TooOld {
        address: String,
        /// The server's version.
        version: String,
    },
    /// The server is a cluster, which cannot commit changes to several slots atomically.
    #[error(
        "redis at {address} is a cluster: one commit changes records in many of its slots, which no cluster does at once; \
         use one server, or one with replicas behind sentinels"
    )]
    Cluster { address: String },
    /// The server is a replica.
    #[error(
        "redis at {address} is a replica, and takes no commits: name its master, or its sentinels (`redis+sentinel://…`)"
    )]
    ReadOnly { address: String },
    /// The server's settings may lose acknowledged commits.
    #[error(
        "redis at {address} may lose what it acknowledged, as `{setting}` is `{is}`: put `{line}` into redis.conf, or set \
         store.allow_weak_durability = true if you can afford to lose {loss}"
    )]
    WeakDurability {
        address: String,
        /// The name of the setting.
        setting: &'static str,
        /// The current value.
        is: String,
        /// The line that `redis.conf` should have.
        line: &'static str,
        /// What may be lost, and when.
        loss: &'static str,
    },
    /// The TLS handshake failed.
    #[error(
        "no TLS with redis at {address}: check the name in its certificate, the CA file, and that this port speaks TLS"
    )]
    Tls {
        address: String,
        /// The cause.
        source: Cause,
    },
    /// The file of CA certificates cannot be used.
    #[error("the CA file {} cannot be read", path.display())]
    CaFile {
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The server does not speak Redis' protocol.
    #[error("the server at {address} is not Redis: check the address and the port")]
    NotRedis { address: String },
    /// The server is not a sentinel.
    #[error(
        "redis at {address} is no sentinel: name the port of the sentinels, mostly 26379, or the server itself with \
         `redis://…`"
    )]
    NotSentinel {
        address: String,
        /// The server's error.
        source: Cause,
    },
    /// The server returned another error.
    #[error("redis at {address} cannot be used")]
    Refused {
        address: String,
        /// The server's error.
        source: Cause,
    },
}

impl ConnectError {
    /// Whether a later retry may succeed without any change by an operator.
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

/// An error of Redis or of the network, on one line. The client's error prints its own causes, so it has no source
/// here.
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

/// The server and user that an error is about.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: String,
    pub(crate) user: String,
    pub(crate) tls: bool,
}

impl Peer {
    /// The meaning of an error of `command`.
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

    /// The meaning of a missing or malformed answer.
    fn broken(&self, error: RedisError) -> ConnectError {
        let address = self.address.clone();
        // What rustls rejects appears to the reader as invalid data.
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
