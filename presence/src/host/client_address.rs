//! The address of a client, also behind proxies: the unit in which limits are shared out.
//!
//! [`TrustedProxies`] decides which hop of `X-Forwarded-For` to believe, and [`ClientAddress`] is the part of an
//! address that one client controls. Pure: sockets and headers are read elsewhere.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

use crate::model::SanctionSubject;

/// Default of `listen.trusted_proxies`: a proxy on the same machine.
pub const TRUSTED_PROXIES_DEFAULT: &str = "127.0.0.0/8,::1/128";
/// Maximum number of forwarded hops that are examined.
const HOPS_MAX: usize = 32;
/// The bytes of an IPv6 address that a network assigns to one client.
const CLIENT_PREFIX_BYTES: usize = 8;

/// An address as a unit of sharing: an IPv4 address, or the /64 of an IPv6 address. Every connection has one, so it is
/// stored in 9 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientAddress(AddressBytes);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum AddressBytes {
    V4([u8; 4]),
    V6([u8; CLIENT_PREFIX_BYTES]),
}

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => AddressBytes::V4(address.octets()),
            IpAddr::V6(address) => {
                let mut prefix = [0; CLIENT_PREFIX_BYTES];
                prefix.copy_from_slice(&address.octets()[..CLIENT_PREFIX_BYTES]);
                AddressBytes::V6(prefix)
            }
        })
    }
}

impl ClientAddress {
    /// Returns the address, of IPv6 the first one of the /64.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        match self.0 {
            AddressBytes::V4(bytes) => Ipv4Addr::from(bytes).into(),
            AddressBytes::V6(prefix) => {
                let mut bytes = [0; 16];
                bytes[..CLIENT_PREFIX_BYTES].copy_from_slice(&prefix);
                Ipv6Addr::from(bytes).into()
            }
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip() {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "{address}/{}", CLIENT_PREFIX_BYTES * 8),
        }
    }
}

/// An address or a network whose `X-Forwarded-For` is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyNetwork(IpNet);

impl FromStr for ProxyNetwork {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self).map_err(|_| "expected IP addresses or networks, such as 10.0.0.0/8 or ::1")
    }
}

impl fmt::Display for ProxyNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// `listen.trusted_proxies`: the proxies in front of this process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedProxies(Vec<ProxyNetwork>);

impl From<Vec<ProxyNetwork>> for TrustedProxies {
    fn from(networks: Vec<ProxyNetwork>) -> Self {
        Self(networks)
    }
}

/// The client of a request, see [`TrustedProxies::client`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardedClient {
    /// Its address.
    pub address: ClientAddress,
    /// True if a trusted proxy sent a hop that is not an address. `address` is then the hop before it, or the peer.
    pub is_malformed: bool,
}

impl TrustedProxies {
    /// Checks that a ban of this subject spares most clients, and the proxies that are not on this machine.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn check_ban(&self, subject: &SanctionSubject) -> Result<(), String> {
        let SanctionSubject::Network(network) = subject else { return Ok(()) };
        if network.is_wide() {
            return Err(match network.prefix() {
                0 => format!("{network} is every address"),
                _ => format!("{network} is wider than a /8 of IPv4 or a /16 of IPv6"),
            });
        }
        let net = network.net();
        let overlaps = |proxy: &&ProxyNetwork| proxy.0.contains(&net) || net.contains(&proxy.0);
        match self.0.iter().filter(|proxy| !proxy.0.addr().is_loopback()).find(overlaps) {
            Some(proxy) => Err(format!("{network} has addresses of the trusted proxy {proxy}")),
            None => Ok(()),
        }
    }

    /// Returns [`TRUSTED_PROXIES_DEFAULT`].
    ///
    /// # Panics
    /// Never: the default is valid.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let networks = TRUSTED_PROXIES_DEFAULT.split(',').map(|word| word.parse().expect("a valid network"));
        Self(networks.collect())
    }

    /// Returns the client's address: the peer, or behind trusted proxies the right-most hop that is not one of them.
    ///
    /// `forwarded` yields the values of `X-Forwarded-For` in the order of the request. Each proxy appends its own peer,
    /// so the hops are read from the right, and everything left of an untrusted or malformed hop is ignored.
    pub fn client<'a>(&self, peer: IpAddr, forwarded: impl DoubleEndedIterator<Item = &'a str>) -> ForwardedClient {
        let hops = forwarded.rev().flat_map(|value| value.rsplit(',')).map(str::trim).take(HOPS_MAX);
        let (mut client, mut is_malformed) = (peer.to_canonical(), false);
        for hop in hops {
            if !self.contain(client) {
                break;
            }
            match parse_hop(hop) {
                Some(address) => client = address,
                None => {
                    is_malformed = true;
                    break;
                }
            }
        }
        ForwardedClient { address: client.into(), is_malformed }
    }

    /// Returns true if this address is a trusted proxy.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.0.contains(&address))
    }

    /// Returns the networks as texts, for display.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

/// Parses a hop: an address, with or without a port.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse().ok().or_else(|| hop.parse().ok().map(|socket: SocketAddr| socket.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::model::SubjectFields;

    fn proxies(words: &[&str]) -> TrustedProxies {
        words.iter().map(|word| word.parse().unwrap()).collect::<Vec<ProxyNetwork>>().into()
    }

    #[test]
    fn client_is_the_last_untrusted_hop() {
        let trusted = proxies(&["127.0.0.0/8", "::1", "10.1.0.0/16"]);
        for (peer, forwarded, client) in [
            ("192.0.2.7", &[][..], "192.0.2.7"),
            // An untrusted peer is the client, whatever it claims.
            ("192.0.2.7", &["198.51.100.1"], "192.0.2.7"),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            // The left part came from the client and is not believed.
            ("127.0.0.1", &["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", &["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
            // Two proxies in a row.
            ("127.0.0.1", &["198.51.100.1, 10.1.2.3"], "198.51.100.1"),
            ("127.0.0.1", &["10.1.9.9, 10.1.2.3"], "10.1.9.9"),
            ("127.0.0.1", &["198.51.100.1, unknown"], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.1, unknown, 10.1.2.3"], "10.1.2.3"),
            ("127.0.0.1", &["", "198.51.100.1:4711"], "198.51.100.1"),
            ("::1", &["[2001:db8::5]:4711"], "2001:db8::/64"),
            ("::1", &["[2001:db8::5]"], "2001:db8::/64"),
            // A listener on `::` sees IPv4 peers as mapped addresses.
            ("::ffff:127.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
        ] {
            let seen = trusted.client(peer.parse().unwrap(), forwarded.iter().copied());
            assert_eq!(seen.address.to_string(), client, "{peer} {forwarded:?}");
            let is_malformed = forwarded.iter().any(|hops| hops.contains("unknown"));
            assert_eq!(seen.is_malformed, is_malformed, "{peer} {forwarded:?}");
        }
        assert!(trusted.contain("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!trusted.contain("10.2.0.1".parse().unwrap()));
    }

    #[test]
    fn addresses_of_one_client_are_equal() {
        let unit = |text: &str| ClientAddress::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(unit("2001:db8:1:2::1"), unit("2001:db8:1:2:ffff::9"));
        assert_ne!(unit("2001:db8:1:2::1"), unit("2001:db8:1:3::1"));
        assert_eq!(unit("::ffff:192.0.2.1"), unit("192.0.2.1"));
        assert_ne!(unit("192.0.2.1"), unit("192.0.2.2"));
        assert_ne!(unit("::1"), unit("0.0.0.0"));
        assert_eq!(size_of::<ClientAddress>(), 9);
    }

    #[test]
    fn ban_must_spare_proxies_and_families() {
        let trusted = proxies(&["127.0.0.0/8", "10.1.0.0/16"]);
        for (address, refused) in [
            ("192.0.2.7", None),
            ("127.0.0.1", None),
            ("0.0.0.0/0", Some("every address")),
            ("::/0", Some("every address")),
            ("10.1.2.3", Some("trusted proxy 10.1.0.0/16")),
            ("10.0.0.0/8", Some("trusted proxy 10.1.0.0/16")),
            ("10.2.0.0/16", None),
        ] {
            let fields = SubjectFields { address: Some(address.to_owned()), ..SubjectFields::default() };
            let checked = trusted.check_ban(&fields.try_into().unwrap());
            assert_eq!(checked.is_err(), refused.is_some(), "{address}");
            assert!(checked.err().unwrap_or_default().contains(refused.unwrap_or_default()), "{address}");
        }
    }

    #[test]
    fn proxy_networks_are_validated() {
        for word in ["10.0.0.0/33", "nginx", "10.0.0", "::1/129", ""] {
            assert!(word.parse::<ProxyNetwork>().is_err(), "{word}");
        }
        let shown = TrustedProxies::of_this_machine().words();
        assert_eq!(shown.join(","), TRUSTED_PROXIES_DEFAULT);
    }
}
