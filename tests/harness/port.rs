//! Ports for programs that must be told their port before they bind it: Redis, nginx, gateways that are restarted.
//!
//! A port is taken from below the range the kernel gives out by itself, so no outgoing connection grabs it, and it is
//! reserved by a UDP socket of the same number, so no other test process picks it while this one holds it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the kernel's own range on Linux (32768 to 60999) and above the usual services.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A TCP port of the loopback interface that is ours until this value is dropped.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    _reservation: UdpSocket,
}

impl ReservedPort {
    /// Reserves a port without a listener.
    ///
    /// # Panics
    /// If none is free.
    #[must_use]
    pub fn reserve() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Test processes run side by side: each begins its search somewhere else.
        let start = std::process::id().wrapping_mul(331);
        for _ in 0..COUNT {
            let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let offset = start.wrapping_add(step) % u32::from(COUNT);
            let number = FIRST + u16::try_from(offset).expect("less than COUNT");
            let Ok(reservation) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self { number, _reservation: reservation };
            }
        }
        panic!("no port of {COUNT} is free");
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Where to bind or connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_are_distinct_and_free() {
        let ports: Vec<ReservedPort> = (0..50).map(|_| ReservedPort::reserve()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(ReservedPort::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
        TcpListener::bind(ports[0].address()).expect("reserved, not bound");
    }
}
