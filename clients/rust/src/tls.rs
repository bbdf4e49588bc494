//! Connections with and without TLS: rustls for `wss:`, with the root certificates of the system and of the options.

use tokio::net::TcpStream;
pub(crate) use tokio_tungstenite::Connector;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::http::Request;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::error::ParleyError;

/// Opens a WebSocket connection.
pub(crate) async fn open(
    request: Request<()>,
    config: WebSocketConfig,
    connector: Connector,
) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, Error> {
    #[cfg(feature = "tls")]
    let opening = tokio_tungstenite::connect_async_tls_with_config(request, Some(config), true, Some(connector));
    #[cfg(not(feature = "tls"))]
    let opening = {
        let Connector::Plain = connector else { return Err(Error::ConnectionClosed) };
        tokio_tungstenite::connect_async_with_config(request, Some(config), true)
    };
    opening.await.map(|(socket, _)| socket)
}

/// Returns the connector for these addresses. Certificates of the system are read only for a `wss:` address. `roots`:
/// certificates as PEM that are trusted in addition.
///
/// # Errors
/// `bad_request`: the PEM text is malformed or contains no certificate, or there is no root certificate at all.
#[cfg(feature = "tls")]
pub(crate) fn connector(urls: &[String], roots: Option<&[u8]>) -> Result<Connector, ParleyError> {
    use std::sync::Arc;

    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::{ClientConfig, RootCertStore};

    let invalid = |problem: &str| ParleyError::new("bad_request", format!("root certificates: {problem}"));
    let mut store = RootCertStore::empty();
    if let Some(pem) = roots {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let added = certificate.map(|certificate| store.add(certificate));
            added.map_err(|error| invalid(&error.to_string()))?.map_err(|error| invalid(&error.to_string()))?;
        }
        if store.is_empty() {
            return Err(invalid("the PEM text contains none"));
        }
    }
    if !urls.iter().any(|url| url.starts_with("wss://")) {
        return Ok(Connector::Plain);
    }
    let system = rustls_native_certs::load_native_certs();
    for error in system.errors {
        tracing::warn!(%error, "root certificates of the system not read");
    }
    store.add_parsable_certificates(system.certs);
    if store.is_empty() {
        return Err(invalid("the system has none"));
    }
    // Named, because a program may contain several providers.
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let versions = builder.with_safe_default_protocol_versions().map_err(|error| invalid(&error.to_string()))?;
    Ok(Connector::Rustls(Arc::new(versions.with_root_certificates(store).with_no_client_auth())))
}

/// Returns the connector for these addresses.
///
/// # Errors
/// `bad_request`: an address is `wss:`.
#[cfg(not(feature = "tls"))]
pub(crate) fn connector(urls: &[String], _roots: Option<&[u8]>) -> Result<Connector, ParleyError> {
    match urls.iter().any(|url| url.starts_with("wss://")) {
        true => Err(ParleyError::new("bad_request", "wss: addresses need the feature `tls` of parley-client")),
        false => Ok(Connector::Plain),
    }
}
