//! The addresses of a broker, and the user to log in as.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::Url;

/// An example of a URL, for messages.
const EXAMPLE: &str = "amqp://gantry@rabbitmq.example:5672/builds, or amqps://… for TLS";
/// The limit of an AMQP short string, in bytes.
const LONGEST_NAME: usize = 255;

/// How to reach a broker, or a cluster of them.
#[derive(Debug, Clone)]
pub struct AmqpOptions {
    /// The addresses, tried in turn at the start and after a lost connection. At least one.
    pub addresses: Vec<Address>,
    /// The virtual host.
    pub vhost: String,
    /// The user to log in as.
    pub user: String,
    /// The user's password. Not printed by `Debug`.
    pub password: SecretString,
    /// For `amqps://`: a PEM file of the certificates to trust, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The name of the connections in the broker's listings; best `gantry-<role>-<host>`.
    pub name: String,
    /// The heartbeat interval. A connection that is silent for twice as long is closed.
    pub heartbeat: Duration,
}

/// The address of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Whether it speaks TLS.
    pub tls: bool,
    /// A name, or an IP address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The URLs of a broker were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// There is no URL.
    #[error("no broker is named: give a URL like {EXAMPLE}")]
    None,
    /// A URL does not parse.
    #[error("`{url}` is no broker's URL, {why}: it looks like {EXAMPLE}")]
    Malformed {
        /// The URL, without a password.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A URL contains a password, which would appear in settings, logs and process lists.
    #[error(
        "a broker's URL with a password is refused: leave it out of the URL, and name a file that holds it"
    )]
    Password,
    /// The URLs differ in user, virtual host or scheme.
    #[error(
        "the brokers' URLs must agree in user, virtual host and scheme, and `{one}` and `{another}` do not"
    )]
    Disagree {
        /// The first URL.
        one: String,
        /// A URL that differs from it.
        another: String,
    },
}

impl AmqpOptions {
    /// Parses `amqp://[user@]host[:port][/vhost]` and `amqps://…`. The defaults are user `guest`, port 5672 or 5671 and
    /// vhost `/`. A `/` in a vhost's name is written `%2f`. The connection's name is `gantry` and the heartbeat 10 s.
    ///
    /// # Errors
    /// [`InvalidUrl`].
    pub fn parse<T: AsRef<str>>(urls: &[T], password: SecretString) -> Result<Self, InvalidUrl> {
        let mut targets = Vec::new();
        for url in urls {
            targets.push((url.as_ref(), url.as_ref().parse::<Target>()?));
        }
        let mut targets = targets.into_iter();
        let (one, first) = targets.next().ok_or(InvalidUrl::None)?;
        let mut addresses = vec![first.address];
        for (another, target) in targets {
            let agrees = target.user == first.user
                && target.vhost == first.vhost
                && target.address.tls == addresses[0].tls;
            if !agrees {
                let (one, another) = (one.to_owned(), another.to_owned());
                return Err(InvalidUrl::Disagree { one, another });
            }
            addresses.push(target.address);
        }
        Ok(Self {
            addresses,
            vhost: first.vhost,
            user: first.user,
            password,
            ca_file: None,
            name: "gantry".to_owned(),
            heartbeat: Duration::from_secs(10),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        let host = &self.host;
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{}", self.port)
        } else {
            write!(f, "{scheme}://{host}:{}", self.port)
        }
    }
}

/// A parsed URL.
struct Target {
    address: Address,
    user: String,
    vhost: String,
}

impl FromStr for Target {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let malformed = |why: &str| InvalidUrl::Malformed { url: shown(text), why: why.to_owned() };
        let url = Url::parse(text).map_err(|error| malformed(&error.to_string()))?;
        if url.password().is_some() {
            return Err(InvalidUrl::Password);
        }
        let tls = match url.scheme() {
            "amqp" => false,
            "amqps" => true,
            other => return Err(malformed(&format!("the scheme is `{other}`"))),
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(malformed("nothing may follow the virtual host"));
        }
        let host = match url.host() {
            Some(url::Host::Ipv6(ip)) => ip.to_string(),
            Some(host) if !host.to_string().is_empty() => host.to_string(),
            _ => return Err(malformed("the host is missing")),
        };
        let port = url.port().unwrap_or(if tls { 5671 } else { 5672 });
        let user = name(url.username()).ok_or_else(|| malformed("the user is no text"))?;
        let path = url.path().strip_prefix('/').unwrap_or_default();
        if path.contains('/') {
            return Err(malformed("a `/` in the virtual host is written `%2f`"));
        }
        let vhost = name(path).ok_or_else(|| malformed("the virtual host is no short text"))?;
        Ok(Self {
            address: Address { tls, host, port },
            user: if user.is_empty() { "guest".to_owned() } else { user },
            vhost: if vhost.is_empty() { "/".to_owned() } else { vhost },
        })
    }
}

fn name(encoded: &str) -> Option<String> {
    let name = percent_decode_str(encoded).decode_utf8().ok()?;
    (name.len() <= LONGEST_NAME).then(|| name.into_owned())
}

/// Removes what may be a password from a URL that does not parse.
fn shown(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, after)) => format!("…@{after}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(urls: &[&str]) -> Result<AmqpOptions, InvalidUrl> {
        AmqpOptions::parse(urls, SecretString::from("hunter2"))
    }

    #[test]
    fn a_url_has_addresses_user_and_vhost() {
        let options =
            parse(&["amqps://ci%40x@one:5700/a%2fb", "amqps://ci%40x@[::1]/a%2fb"]).unwrap();
        assert_eq!((options.user.as_str(), options.vhost.as_str()), ("ci@x", "a/b"));
        let shown: Vec<_> = options.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["amqps://one:5700", "amqps://[::1]:5671"]);
        assert!(!format!("{options:?}").contains("hunter2"));
    }

    #[test]
    fn omitted_parts_have_the_brokers_defaults() {
        for url in ["amqp://one", "amqp://one/", "amqp://one:5672/%2f"] {
            let options = parse(&[url]).unwrap();
            assert_eq!((options.user.as_str(), options.vhost.as_str()), ("guest", "/"), "{url}");
            assert_eq!(options.addresses[0].port, 5672);
        }
    }

    #[test]
    fn wrong_urls_are_refused_without_printing_a_password() {
        for wrong in ["", "one:5672", "http://one", "amqp://", "amqp://one/a/b", "amqp://one/?x=1"]
        {
            assert!(matches!(parse(&[wrong]), Err(InvalidUrl::Malformed { .. })), "{wrong}");
        }
        assert_eq!(parse(&["amqp://ci:hunter2@one"]).unwrap_err(), InvalidUrl::Password);
        let unreadable = parse(&["amqp://ci:hunter2@one:port"]).unwrap_err().to_string();
        assert!(!unreadable.contains("hunter2"), "{unreadable}");
        assert!(matches!(parse(&[]), Err(InvalidUrl::None)));
        for another in ["amqp://two/y", "amqps://two/x", "amqp://ci@two/x"] {
            let both = parse(&["amqp://one/x", another]);
            assert!(matches!(both, Err(InvalidUrl::Disagree { .. })), "{another}");
        }
    }
}
