//! The rule for addresses: Parley must not be led to services of its own machine or network link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The NAT64 prefix: the last 32 bits are an IPv4 address.
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// Returns true for loopback, link-local, unspecified, multicast and broadcast addresses, also within IPv6.
pub(super) fn is_near(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_near_v4(ip),
        IpAddr::V6(ip) => embedded_v4(ip).map_or_else(|| is_near_v6(ip), is_near_v4),
    }
}

fn is_near_v4(ip: Ipv4Addr) -> bool {
    let is_this_network = ip.octets()[0] == 0;
    ip.is_loopback() || ip.is_link_local() || is_this_network || ip.is_multicast() || ip.is_broadcast()
}

fn is_near_v6(ip: Ipv6Addr) -> bool {
    ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified() || ip.is_multicast()
}

/// Returns the IPv4 address that an IPv6 address stands for: mapped, compatible or behind NAT64.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [head @ .., high, low] = ip.segments();
    let [high, low] = [high.to_be_bytes(), low.to_be_bytes()];
    let last = || Ipv4Addr::new(high[0], high[1], low[0], low[1]);
    let is_compatible = head == [0; 6] && !ip.is_loopback() && !ip.is_unspecified();
    ip.to_ipv4_mapped().or_else(|| (head == NAT64 || is_compatible).then(last))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn addresses_of_machine_and_link_are_near() {
        for near in [
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::169.254.169.254",
        ] {
            assert!(is_near(near.parse().unwrap()), "{near}");
        }
        for far in ["10.0.0.1", "192.168.1.1", "172.16.0.1", "8.8.8.8", "2001:db8::1", "fd00::1", "::ffff:8.8.8.8"] {
            assert!(!is_near(far.parse().unwrap()), "{far}");
        }
    }
}
