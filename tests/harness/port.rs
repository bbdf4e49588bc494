//! Ports for programs that need a fixed port: Redis, nginx, and gateways that restart.
//!
//! A port is below the kernel's ephemeral range, so no outgoing connection uses it. A UDP socket with the same number
//! reserves it, so no other test process chooses it meanwhile.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Range of ports below the ephemeral range of Linux (32768 to 60999) and above the usual services.
const PORT_FIRST: u16 = 12_000;
const PORT_COUNT: u16 = 20_000;

/// A TCP port of the loopback interface, reserved until this value is dropped.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    _reservation: UdpSocket,
}

impl ReservedPort {
    /// Reserves a port without a listener.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn reserve() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Test processes run concurrently, so each begins its search at another port.
        let start = std::process::id().wrapping_mul(331);
        for _ in 0..PORT_COUNT {
            let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let offset = start.wrapping_add(step) % u32::from(PORT_COUNT);
            let number = PORT_FIRST + u16::try_from(offset).expect("less than PORT_COUNT");
            let Ok(reservation) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self { number, _reservation: reservation };
            }
        }
        panic!("none of {PORT_COUNT} ports is free");
    }

    /// Returns the port number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Returns the address of the port.
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
