//! Decides which addresses gantry may connect to on behalf of a user.
//!
//! In: a host that a user gave, and its addresses. Out: the permitted addresses, or a refusal that names the setting to
//! change. Public addresses are always permitted, all others only if the operator listed them, because a worker has
//! access to an internal network that its users must not reach.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use url::{Host, Url};

/// The addresses that the operator permits beyond public ones: the setting `outbound.allow`.
#[derive(Debug, Clone)]
pub struct OutboundPolicy {
    allowed: Vec<Allowance>,
    names: Arc<dyn Names>,
}

/// A name resolver. It is asked once per connection, and exactly its answer is connected to.
#[async_trait]
pub trait Names: fmt::Debug + Send + Sync {
    /// The current addresses of `host`.
    ///
    /// # Errors
    /// The name is unknown, or the resolver does not answer.
    async fn addresses(&self, host: &str) -> std::io::Result<Vec<IpAddr>>;
}

/// The system's resolver.
#[derive(Debug)]
struct SystemNames;

#[async_trait]
impl Names for SystemNames {
    async fn addresses(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|socket| socket.ip()).collect())
    }
}

impl Default for OutboundPolicy {
    /// Permits only public addresses.
    fn default() -> Self {
        Self { allowed: Vec::new(), names: Arc::new(SystemNames) }
    }
}

/// An entry of `outbound.allow`: `host`, `host:port`, or a network like `10.1.0.0/16`, optionally with the prefix
/// `http://`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// Whether registries at this address are used without TLS.
    plain: bool,
    target: Target,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Host { host: String, port: Option<u16> },
    Network { address: IpAddr, bits: u8 },
}

/// An entry of `outbound.allow` is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no entry of `outbound.allow`: write `host`, `host:port` or a network like `10.1.0.0/16`"
)]
pub struct InvalidAllowance(pub String);

/// An address was refused before anything was sent to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundRefused {
    /// The address is in a network that users must not reach.
    #[error(
        "{host} is at {address}, which is not a public address: if it may be used, add \"{host}\" to `outbound.allow`"
    )]
    Address {
        /// The host as given.
        host: String,
        /// The address it resolved to.
        address: IpAddr,
    },
    /// The operator listed only other ports of the host.
    #[error("{host} may not be used on port {port}: add \"{host}:{port}\" to `outbound.allow`")]
    Port {
        /// The host as given.
        host: String,
        /// The requested port.
        port: u16,
    },
    /// Without encryption everybody on the way could read credentials and source code.
    #[error(
        "http://{host} is not encrypted: use https, or add \"http://{host}\" to `outbound.allow`"
    )]
    Plain {
        /// The host as given.
        host: String,
    },
    /// A redirect from `https` to `http`.
    #[error(
        "a redirect from https to http://{host} was refused: give the address that answers with https"
    )]
    Downgrade {
        /// The target of the redirect.
        host: String,
    },
    /// A redirect to another scheme than HTTP.
    #[error("`{0}` was refused: only http and https are followed")]
    Scheme(String),
}

/// A host cannot be connected to.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The policy refuses it.
    #[error(transparent)]
    Refused(#[from] OutboundRefused),
    /// Its name is unknown, or the resolver does not answer.
    #[error("{host} is no known host")]
    Unknown {
        /// The host as given.
        host: String,
        /// The resolver's error.
        source: std::io::Error,
    },
}

impl OutboundPolicy {
    /// Parses the entries of `outbound.allow`.
    ///
    /// # Errors
    /// [`InvalidAllowance`] for the first malformed entry.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidAllowance> {
        entries
            .into_iter()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(|allowed| Self { allowed, ..Self::default() })
    }

    /// The same policy with another resolver.
    #[must_use]
    pub fn with_names(self, names: Arc<dyn Names>) -> Self {
        Self { names, ..self }
    }

    /// Whether the operator listed this host, by name, address or network.
    #[must_use]
    pub fn names(&self, host: &str, port: u16) -> bool {
        self.allowed.iter().any(|entry| entry.target.names(host, port))
    }

    /// Whether a registry there is used without TLS: only if it is listed, and local or listed with `http://`.
    #[must_use]
    pub fn is_plain(&self, host: &str, port: u16) -> bool {
        let is_local =
            host == "localhost" || parse_address(host).is_some_and(|it| it.is_loopback());
        self.allowed.iter().any(|entry| entry.target.names(host, port) && (is_local || entry.plain))
    }

    /// Checks the URL itself. Its addresses are checked by [`OutboundPolicy::permit`].
    ///
    /// # Errors
    /// [`OutboundRefused`].
    pub fn check(&self, url: &Url) -> Result<(), OutboundRefused> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(OutboundRefused::Scheme(url.scheme().to_owned()));
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(OutboundRefused::Scheme(url.scheme().to_owned()));
        };
        let mut ports =
            self.allowed.iter().filter_map(|entry| entry.target.port_of(host)).peekable();
        if ports.peek().is_some() && !ports.any(|listed| listed.is_none_or(|listed| listed == port))
        {
            return Err(OutboundRefused::Port { host: host.to_owned(), port });
        }
        match url.host() {
            Some(Host::Ipv4(address)) => self.permit(host, [address.into()]).map(drop)?,
            Some(Host::Ipv6(address)) => self.permit(host, [address.into()]).map(drop)?,
            Some(Host::Domain(_)) | None => {}
        }
        if url.scheme() == "http" && !self.names(host, port) {
            return Err(OutboundRefused::Plain { host: host.to_owned() });
        }
        Ok(())
    }

    /// The permitted addresses of `host`, at least one.
    ///
    /// # Errors
    /// [`OutboundRefused::Address`] if none is permitted.
    pub fn permit(
        &self,
        host: &str,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<Vec<IpAddr>, OutboundRefused> {
        let named = self.allowed.iter().any(|entry| entry.target.port_of(host).is_some());
        let (permitted, refused): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| {
            named
                || is_public(*address)
                || self.allowed.iter().any(|entry| entry.target.holds(*address))
        });
        match (permitted.is_empty(), refused.first()) {
            (true, Some(&address)) => {
                Err(OutboundRefused::Address { host: host.to_owned(), address })
            }
            _ => Ok(permitted),
        }
    }

    /// The permitted socket addresses of `url`, for programs that would otherwise resolve it themselves.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn resolve(&self, url: &Url) -> Result<Vec<SocketAddr>, ResolveError> {
        self.check(url)?;
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        let permitted = match parse_address(host) {
            Some(address) => self.permit(host, [address])?,
            None => self.look_up(host).await?,
        };
        Ok(permitted.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    /// The permitted addresses of a name, at least one.
    pub(crate) async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let unknown = |source| ResolveError::Unknown { host: host.to_owned(), source };
        let found = self.names.addresses(host).await.map_err(unknown)?;
        if found.is_empty() {
            return Err(unknown(std::io::Error::other("it has no address")));
        }
        Ok(self.permit(host, found)?)
    }
}

impl Target {
    fn names(&self, host: &str, port: u16) -> bool {
        match self {
            Self::Host { .. } => {
                self.port_of(host).is_some_and(|listed| listed.is_none_or(|it| it == port))
            }
            Self::Network { .. } => parse_address(host).is_some_and(|address| self.holds(address)),
        }
    }

    /// `Some` if this entry is about `host`, with the port that it is limited to.
    fn port_of(&self, host: &str) -> Option<Option<u16>> {
        match self {
            Self::Host { host: listed, port } if listed.eq_ignore_ascii_case(host) => Some(*port),
            Self::Host { .. } | Self::Network { .. } => None,
        }
    }

    fn holds(&self, address: IpAddr) -> bool {
        match self {
            Self::Host { .. } => false,
            Self::Network { address: network, bits } => {
                in_network(canonical(address), *network, *bits)
            }
        }
    }
}

impl FromStr for Allowance {
    type Err = InvalidAllowance;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidAllowance(text.to_owned());
        let (plain, entry) = match text.strip_prefix("http://") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let target = match entry.split_once('/') {
            Some((address, bits)) => {
                let address: IpAddr = address.parse().map_err(|_| invalid())?;
                let most = if address.is_ipv4() { 32 } else { 128 };
                let bits = bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(invalid)?;
                Target::Network { address, bits }
            }
            None => {
                // An IPv6 address without brackets cannot have a port.
                let bare = entry.parse::<Ipv6Addr>().is_ok();
                let entry = if bare { format!("[{entry}]") } else { entry.to_owned() };
                let url = Url::parse(&format!("http://{entry}/")).map_err(|_| invalid())?;
                let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(invalid)?;
                // `Url` drops the default port of the scheme.
                let port = entry.rsplit_once(':').filter(|_| !entry.ends_with(']'));
                let port = port.map(|(_, port)| port.parse().map_err(|_| invalid())).transpose()?;
                if url.path() != "/" || !url.username().is_empty() || url.query().is_some() {
                    return Err(invalid());
                }
                Target::Host { host: host.to_owned(), port }
            }
        };
        Ok(Self { plain, target })
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.plain { "http://" } else { "" })?;
        match &self.target {
            Target::Host { host, port: None } => write!(f, "{host}"),
            Target::Host { host, port: Some(port) } => write!(f, "{host}:{port}"),
            Target::Network { address, bits } => write!(f, "{address}/{bits}"),
        }
    }
}

fn parse_address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok().map(canonical)
}

/// An IPv4-mapped IPv6 address counts as IPv4.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn in_network(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let shared = |a: u128, b: u128, width: u32| {
        let rest = width.saturating_sub(u32::from(bits));
        (a ^ b).checked_shr(rest).unwrap_or(0) == 0
    };
    match (address, canonical(network)) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            shared(u128::from(a.to_bits()), u128::from(b.to_bits()), Ipv4Addr::BITS)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => shared(a.to_bits(), b.to_bits(), Ipv6Addr::BITS),
        _ => false,
    }
}

/// IPv4 networks that are not public, by IANA's registry of special-purpose addresses.
const SPECIAL_V4: [(Ipv4Addr, u8); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // Link-local, including the clouds' metadata services.
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
    // Looks public, but serves Azure's metadata to the virtual machine.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
];

/// Networks within 2000::/3 that are not public, or that embed another address which cannot be checked.
const SPECIAL_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

fn is_public(address: IpAddr) -> bool {
    match canonical(address) {
        IpAddr::V4(v4) => {
            !SPECIAL_V4.iter().any(|&(network, bits)| in_network(v4.into(), network.into(), bits))
        }
        IpAddr::V6(v6) => {
            // NAT64: an IPv6-only network reaches IPv4 through these addresses, so the last 32 bits decide.
            if let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = v6.segments() {
                let [a, b] = high.to_be_bytes();
                let [c, d] = low.to_be_bytes();
                return is_public(IpAddr::from([a, b, c, d]));
            }
            let is_global = v6.segments()[0] & 0xe000 == 0x2000;
            is_global
                && !SPECIAL_V6
                    .iter()
                    .any(|&(network, bits)| in_network(v6.into(), network.into(), bits))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(entries: &[&str]) -> OutboundPolicy {
        OutboundPolicy::parse(entries.iter().copied()).unwrap()
    }

    #[test]
    fn only_public_addresses_are_public() {
        for public in [
            "1.1.1.1",
            "140.82.121.3",
            "172.32.0.1",
            "2606:4700::1111",
            "64:ff9b::1.1.1.1",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for special in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "fec0::1",
            "100::1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
    }

    #[test]
    fn addresses_in_any_notation_are_checked_first() {
        let none = policy(&[]);
        for refused in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::1]/",
            "http://[::ffff:7f00:1]/",
            "https://169.254.169.254/latest/meta-data",
            "ftp://example.com/",
            "file:///etc/passwd",
        ] {
            assert!(none.check(&refused.parse().unwrap()).is_err(), "{refused}");
        }
        assert!(none.check(&"https://example.com/".parse().unwrap()).is_ok());
    }

    #[test]
    fn the_operators_list_permits_only_its_entries() {
        let policy = policy(&[
            "git.corp",
            "10.1.0.0/16",
            "127.0.0.1:5000",
            "[::1]:8080",
            "http://reg.corp:5000",
        ]);
        let check = |url: &str| policy.check(&url.parse().unwrap()).is_ok();
        assert!(check("http://10.1.2.3/"));
        assert!(!check("http://10.2.0.1/"));
        assert!(check("http://127.0.0.1:5000/"));
        assert!(!check("http://127.0.0.1:5001/"));
        assert!(check("http://[::1]:8080/"));
        assert!(!check("http://[::1]:80/"));

        let private = [IpAddr::from([10, 9, 9, 9])];
        assert!(policy.permit("git.corp", private).is_ok());
        assert!(policy.permit("GIT.corp", private).is_ok());
        assert!(policy.permit("other.corp", private).is_err());
        // If a name has both kinds of addresses, the permitted ones are kept.
        let mixed = [IpAddr::from([10, 9, 9, 9]), IpAddr::from([1, 1, 1, 1])];
        assert_eq!(policy.permit("other.corp", mixed).unwrap(), [IpAddr::from([1, 1, 1, 1])]);

        assert!(policy.names("git.corp", 443) && !policy.names("reg.corp", 443));
        assert!(policy.names("10.1.0.9", 80));
        assert!(policy.is_plain("reg.corp", 5000) && policy.is_plain("127.0.0.1", 5000));
        assert!(!policy.is_plain("git.corp", 80) && !policy.is_plain("127.0.0.1", 80));
    }

    #[test]
    fn entries_round_trip_and_malformed_ones_are_refused() {
        for entry in [
            "git.corp",
            "git.corp:443",
            "git.corp:80",
            "10.1.0.0/16",
            "[::1]:80",
            "[::1]",
            "fd00::/8",
            "http://r:5000",
        ] {
            assert_eq!(entry.parse::<Allowance>().unwrap().to_string(), entry);
        }
        assert_eq!("::1".parse::<Allowance>().unwrap().to_string(), "[::1]");
        for refused in
            ["", "https://x", "a b", "x/y", "10.0.0.0/33", "x:99999", "u@x", "http://", ":80"]
        {
            assert!(refused.parse::<Allowance>().is_err(), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn mapped_addresses_are_checked_as_ipv4(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            prop_assert_eq!(is_public(v4.into()), is_public(v4.to_ipv6_mapped().into()));
        }
    }
}
