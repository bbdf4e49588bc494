//! [`OriginRefusals`]: handshakes refused for their origin, as a metric and in the log.
//!
//! The log has at most one line a minute, with the newest origin and the number of refusals since the last line.
//! Invariant: what a client sent is in the log only as a short word of printable ASCII.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hyper::HeaderMap;
use hyper::header::ORIGIN;
use presence::host::client_address::ClientAddress;
use presence::host::line_pace::LinePace;

use crate::metrics::Metrics;

/// Maximum length of an origin in the log.
const ORIGIN_CHARS_MAX: usize = 128;

/// The record of refused origins.
#[derive(Debug)]
pub(super) struct OriginRefusals {
    pace: Mutex<LinePace>,
    names_addresses: bool,
    metrics: Arc<Metrics>,
}

impl OriginRefusals {
    /// Creates the record; `names_addresses` is `log.addresses`.
    pub(super) fn new(metrics: Arc<Metrics>, names_addresses: bool) -> Self {
        Self { pace: Mutex::default(), names_addresses, metrics }
    }

    /// Records a refused handshake.
    pub(super) fn record(&self, headers: &HeaderMap, address: Option<ClientAddress>) {
        self.metrics.origins_refused.inc();
        // Held for a few instructions; a panic elsewhere does not spoil it.
        let due = self.pace.lock().unwrap_or_else(PoisonError::into_inner).record(Instant::now());
        let Some(refused) = due else { return };
        let (event, origin) = ("origin_refused", sent_origin(headers));
        let address = address.filter(|_| self.names_addresses).map(tracing::field::display);
        tracing::info!(event, origin, address, refused, "origin refused");
    }
}

/// Returns what the client sent as its origin, shortened, with `?` for everything but printable ASCII.
fn sent_origin(headers: &HeaderMap) -> String {
    let sent: Vec<&[u8]> = headers.get_all(ORIGIN).iter().map(|origin| origin.as_bytes()).collect();
    let shown = |byte: u8| if byte == b' ' || byte.is_ascii_graphic() { char::from(byte) } else { '?' };
    sent.join(&b", "[..]).into_iter().take(ORIGIN_CHARS_MAX).map(shown).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn sent_origin_is_short_and_printable() {
        let of = |values: &[&[u8]]| {
            let header = |value: &&[u8]| (ORIGIN, HeaderValue::from_bytes(value).unwrap());
            sent_origin(&values.iter().map(header).collect())
        };
        assert_eq!(of(&[b"https://evil.example"]), "https://evil.example");
        assert_eq!(of(&[b"https://a", b"https://b"]), "https://a, https://b");
        assert_eq!(of(&[b"https://b\xc3\xbccher\tx"]), "https://b??cher?x");
        assert_eq!(of(&[&[b'a'; 5000]]).len(), ORIGIN_CHARS_MAX);
    }
}
