//! Parses addresses of Redis, such as `redis://host:port/db`.

use std::fmt;

use crate::options::Servers;

/// The servers and the user in a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParsedUrl {
    pub(crate) servers: Servers,
    pub(crate) user: Option<String>,
}

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// A name or an IP address.
    pub host: String,
    /// A TCP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A URL of Redis is invalid. No message repeats the whole URL, because it may contain a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The scheme is not one of the four.
    #[error(
        "`{scheme}` is no scheme of redis: write `redis://redis.example:6379/0`, `rediss://…` for TLS, or \
         `redis+sentinel://one:26379,two:26379/master/0` (`rediss+sentinel://…` for TLS)"
    )]
    Scheme {
        /// The part before `://`, which may be empty.
        scheme: String,
    },
    /// The URL contains a password. Settings are shown and logged, passwords must not be.
    #[error(
        "there is a password in the URL: write it into a file and name that in `store.password_file`"
    )]
    Password,
    /// There is no host.
    #[error("the host is missing: write it like `redis://redis.example:6379/0`")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("`{port}` is no port: write it like `redis://redis.example:6379/0`")]
    Port {
        /// The part after the colon.
        port: String,
    },
    /// The database is not a number.
    #[error(
        "`{db}` is no database: write its number after the slash, like `redis://redis.example:6379/0`"
    )]
    Db {
        /// The part after the slash.
        db: String,
    },
    /// Sentinels watch several masters, so the name of one is required.
    #[error(
        "the master's name is missing: write it like `redis+sentinel://one:26379,two:26379/master/0`"
    )]
    Master,
    /// There are several hosts without Sentinel.
    #[error(
        "only sentinels may be several: write one host, or `redis+sentinel://one:26379,two:26379/master/0`"
    )]
    Several,
}

pub(crate) fn parse(url: &str) -> Result<ParsedUrl, AddressError> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (tls, sentinel) = match scheme {
        "redis" => (false, false),
        "rediss" => (true, false),
        "redis+sentinel" => (false, true),
        "rediss+sentinel" => (true, true),
        _ => return Err(AddressError::Scheme { scheme: scheme.to_owned() }),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, _)) if user.contains(':') => return Err(AddressError::Password),
        Some((user, rest)) => (Some(user.to_owned()).filter(|user| !user.is_empty()), rest),
        None => (None, rest),
    };
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let servers = if sentinel {
        let (master, db) = path.split_once('/').unwrap_or((path, ""));
        if master.is_empty() {
            return Err(AddressError::Master);
        }
        Servers::Sentinel {
            addresses: hosts
                .split(',')
                .map(|host| address(host, SENTINEL_PORT))
                .collect::<Result<_, _>>()?,
            master: master.to_owned(),
            db: database(db)?,
            tls,
        }
    } else {
        if hosts.contains(',') {
            return Err(AddressError::Several);
        }
        Servers::Single { address: address(hosts, REDIS_PORT)?, tls, db: database(path)? }
    };
    Ok(ParsedUrl { servers, user })
}

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// `host`, `host:port`, `[::1]` or `[::1]:port`.
fn address(text: &str, default_port: u16) -> Result<Address, AddressError> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (host, port) = match bracketed {
        Some((host, after)) => (host, after.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err(AddressError::Host);
    }
    let port = match port {
        None => default_port,
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| AddressError::Port { port: port.to_owned() })?,
    };
    Ok(Address { host: host.to_owned(), port })
}

fn database(text: &str) -> Result<u32, AddressError> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| AddressError::Db { db: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }

    #[test]
    fn a_url_has_servers_and_user() {
        let parsed = parse("redis://redis.example").unwrap();
        let address = at("redis.example", 6379);
        assert_eq!(parsed.servers, Servers::Single { address, tls: false, db: 0 });
        assert_eq!(parsed.user, None);

        let parsed = parse("rediss://gantry@[::1]:7000/3").unwrap();
        let address = at("::1", 7000);
        assert_eq!(address.to_string(), "[::1]:7000");
        assert_eq!(parsed.servers, Servers::Single { address, tls: true, db: 3 });
        assert_eq!(parsed.user.as_deref(), Some("gantry"));

        let parsed = parse("redis+sentinel://one,two:26380/main/2").unwrap();
        let sentinels = Servers::Sentinel {
            addresses: vec![at("one", 26379), at("two", 26380)],
            master: "main".to_owned(),
            db: 2,
            tls: false,
        };
        assert_eq!(parsed.servers, sentinels);
    }

    #[test]
    fn a_wrong_url_is_refused_with_an_example() {
        for (url, error) in [
            ("redis.example:6379", AddressError::Scheme { scheme: String::new() }),
            ("http://redis.example", AddressError::Scheme { scheme: "http".to_owned() }),
            ("redis://gantry:secret@redis.example", AddressError::Password),
            ("redis://:secret@redis.example", AddressError::Password),
            ("redis:///0", AddressError::Host),
            ("redis://redis.example:no", AddressError::Port { port: "no".to_owned() }),
            ("redis://redis.example:0", AddressError::Port { port: "0".to_owned() }),
            ("redis://redis.example/main", AddressError::Db { db: "main".to_owned() }),
            ("redis://one,two", AddressError::Several),
            ("redis+sentinel://one,two", AddressError::Master),
        ] {
            assert_eq!(parse(url), Err(error.clone()), "{url}");
            assert!(!error.to_string().contains("secret"));
        }
    }
}
