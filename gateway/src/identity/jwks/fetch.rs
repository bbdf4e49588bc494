//! One request for a set of keys, on a thread that may block.
//!
//! Invariant: it ends within [`FETCH_LIMIT`] and reads at most the maximum size of a set. It follows no redirect, uses
//! no proxy, and sends nothing but the request.

use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use crate::identity::keys::KeySet;

use super::{JwksUrl, SET_BYTES_MAX, parse_set};

/// Time limit of a request, from the name lookup to the last byte.
pub(super) const FETCH_LIMIT: Duration = Duration::from_secs(5);

/// Fetches a set.
///
/// # Errors
/// The reason, for the log.
pub(super) fn fetch(url: &JwksUrl, limit: Duration) -> Result<KeySet, String> {
    let config = ureq::Agent::config_builder().timeout_global(Some(limit)).max_redirects(0).proxy(None);
    let config = if url.as_str().starts_with("https:") { config.tls_config(tls()) } else { config };
    let agent = ureq::Agent::new_with_config(config.build());
    let mut response = agent.get(url.as_str()).call().map_err(|error| error.to_string())?;
    if response.status() != 200 {
        return Err(format!("the answer has the status {}", response.status()));
    }
    let body = response.body_mut().with_config().limit(SET_BYTES_MAX as u64).read_to_vec();
    let body = body.map_err(|error| error.to_string())?;
    let text = std::str::from_utf8(&body).map_err(|_| "the answer is not UTF-8")?;
    Ok(parse_set(text, false)?)
}

/// Returns the settings of TLS: the certificates of the system, and the one crypto provider of this program.
fn tls() -> TlsConfig {
    let system = rustls_native_certs::load_native_certs();
    for error in system.errors {
        tracing::warn!(%error, "root certificate of the system not read");
    }
    let roots: Vec<Certificate<'static>> =
        system.certs.iter().map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned()).collect();
    TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .root_certs(RootCerts::new_with_certs(&roots))
        .build()
}
