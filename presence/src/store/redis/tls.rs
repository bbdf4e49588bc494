//! TLS to Redis: [`TlsFiles`] names the files, `RedisTls` has their contents and handshakes with them.
//!
//! The client library handshakes for lanes and pool; `RedisTls::connect` does for the subscriber and for the check of
//! a broken connection. All of them trust the same authorities. Invariant: a certificate of Redis is always verified.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::{ClientTlsConfig, TlsCertificates};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Time in which Redis refuses a client certificate. TLS 1.3 does so after the handshake of the client.
const REFUSAL_TIME: Duration = Duration::from_millis(500);

/// Paths of the PEM files of TLS to Redis.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// `redis.tls_ca`: the trusted authorities; `None` trusts those of the system.
    pub ca: Option<String>,
    /// `redis.tls_cert` and `redis.tls_key`: the client certificate.
    pub client: Option<ClientFiles>,
}

/// Settings in effect as TOML.
impl fmt::Display for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ca) = &self.ca {
            writeln!(f, "redis.tls_ca = {ca:?}")?;
        }
        if let Some(ClientFiles { cert, key }) = &self.client {
            writeln!(f, "redis.tls_cert = {cert:?}\nredis.tls_key = {key:?}")?;
        }
        Ok(())
    }
}

/// Paths of a client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// The certificate and its chain.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

impl ClientFiles {
    /// Reads both files and checks that they belong together.
    ///
    /// # Errors
    /// A file cannot be used, or the key is that of another certificate.
    pub fn check(&self) -> Result<(), String> {
        self.read().map(drop)
    }

    fn read(&self) -> Result<ClientPair, String> {
        let (cert, key) = (read(&self.cert)?, read(&self.key)?);
        let chain = certificates(&cert)?;
        let private = PrivateKeyDer::from_pem_slice(&key).map_err(|_| "expected a private key in PEM")?;
        CertifiedKey::from_der(chain.clone(), private.clone_key(), &aws_lc_rs::default_provider())
            .map_err(|error| format!("not the key of redis.tls_cert: {error}"))?;
        Ok(ClientPair { chain, private, pem: ClientTlsConfig { client_cert: cert, client_key: key } })
    }
}

/// A client certificate, parsed and as PEM.
struct ClientPair {
    chain: Vec<CertificateDer<'static>>,
    private: PrivateKeyDer<'static>,
    pem: ClientTlsConfig,
}

/// Reads certificates and checks that there is one.
///
/// # Errors
/// The file cannot be read, or has no certificate.
pub fn check_certificates(path: &str) -> Result<(), String> {
    certificates(&read(path)?).map(drop)
}

/// Checks that the root certificates of the system can be read. The client library reads them for each connection, also
/// when `redis.tls_ca` replaces them.
///
/// # Errors
/// A file cannot be read.
pub fn check_system_roots() -> Result<(), String> {
    match rustls_native_certs::load_native_certs().errors.first() {
        Some(error) => Err(format!("cannot read the root certificates of the system: {error}")),
        None => Ok(()),
    }
}

/// Material of TLS to Redis.
#[derive(Debug)]
pub(super) struct RedisTls {
    config: Arc<ClientConfig>,
    certificates: TlsCertificates,
}

impl RedisTls {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be used, there is no authority, or the program has no crypto provider.
    pub(super) fn load(files: &TlsFiles) -> Result<Self, String> {
        let Some(provider) = CryptoProvider::get_default() else {
            // The client library would panic.
            return Err("the program has installed no crypto provider".to_owned());
        };
        let root_cert = files.ca.as_deref().map(read).transpose()?;
        let mut roots = RootCertStore::empty();
        match &root_cert {
            Some(pem) => {
                for authority in certificates(pem)? {
                    roots.add(authority).map_err(|error| format!("redis.tls_ca: {error}"))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            return Err("the system has no root certificates: set redis.tls_ca".to_owned());
        }
        let client = files.client.as_ref().map(ClientFiles::read).transpose()?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let builder = builder.with_root_certificates(roots);
        let (config, client_tls) = match client {
            Some(ClientPair { chain, private, pem }) => {
                let config = builder.with_client_auth_cert(chain, private).map_err(|error| error.to_string())?;
                (config, Some(pem))
            }
            None => (builder.with_no_client_auth(), None),
        };
        Ok(Self { config: Arc::new(config), certificates: TlsCertificates { client_tls, root_cert } })
    }

    /// Returns the material for the client library.
    pub(super) fn certificates(&self) -> TlsCertificates {
        self.certificates.clone()
    }

    /// Handshakes with the Redis at `host`.
    pub(super) async fn connect(&self, host: &str, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.config)).connect(name, socket).await
    }

    /// Handshakes and sends nothing more. Returns the reason of a failure in words; `None` if Redis accepts.
    pub(super) async fn handshake_failure(&self, host: &str, socket: TcpStream) -> Option<String> {
        let mut stream = match self.connect(host, socket).await {
            Ok(stream) => stream,
            Err(error) => return Some(words(&error)),
        };
        let refused = tokio::time::timeout(REFUSAL_TIME, stream.read_u8()).await;
        refused.ok()?.err().filter(|error| inner(error).is_some()).map(|error| words(&error))
    }
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| error.to_string())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| "expected certificates in PEM".to_owned())
}

fn inner(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Returns the reason of a failed handshake in words.
fn words(error: &io::Error) -> String {
    use AlertDescription as Alert;
    use CertificateError as Certificate;
    match inner(error) {
        Some(rustls::Error::InvalidCertificate(reason)) => match reason {
            Certificate::Expired | Certificate::ExpiredContext { .. } => "certificate expired".to_owned(),
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => "certificate not valid yet".to_owned(),
            Certificate::UnknownIssuer => "unknown issuer".to_owned(),
            Certificate::BadSignature => "unknown issuer: it has the name of an authority, and another key".to_owned(),
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => "name mismatch".to_owned(),
            other => format!("invalid certificate: {other}"),
        },
        Some(rustls::Error::AlertReceived(Alert::CertificateRequired)) => {
            "redis requires a client certificate: set redis.tls_cert and redis.tls_key".to_owned()
        }
        Some(rustls::Error::AlertReceived(alert)) => format!("redis refused with the alert {alert:?}"),
        Some(rustls::Error::InvalidMessage(_)) => "redis answered without TLS".to_owned(),
        Some(other) => other.to_string(),
        None => format!("redis ended the connection: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_handshake_has_reason_in_words() {
        let of = |error: rustls::Error| words(&io::Error::new(io::ErrorKind::InvalidData, error));
        for (error, expected) in [
            (CertificateError::Expired.into(), "certificate expired"),
            (CertificateError::NotValidYet.into(), "certificate not valid yet"),
            (CertificateError::UnknownIssuer.into(), "unknown issuer"),
            (CertificateError::BadSignature.into(), "unknown issuer: it has the name of an authority, and another key"),
            (CertificateError::NotValidForName.into(), "name mismatch"),
            (rustls::Error::AlertReceived(AlertDescription::UnknownCA), "redis refused with the alert UnknownCA"),
            (rustls::InvalidMessage::InvalidContentType.into(), "redis answered without TLS"),
        ] {
            assert_eq!(of(error), expected);
        }
        let ended = words(&io::ErrorKind::UnexpectedEof.into());
        assert!(ended.starts_with("redis ended the connection: "), "{ended}");
    }
}
