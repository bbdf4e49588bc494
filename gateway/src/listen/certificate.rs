//! [`ServerCertificate`]: the files `listen.tls_cert` and `listen.tls_key`, already read and checked.
//!
//! A reload builds it again, so both files are read again on SIGHUP. Invariant: the key is that of the certificate.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// The certificate of the client ports, cheap to clone. The debug output shows paths only.
#[derive(Clone)]
pub struct ServerCertificate {
    cert: Arc<str>,
    key: Arc<str>,
    certified: Arc<CertifiedKey>,
}

/// Reads the certificate and its chain.
fn read_chain(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| "expected certificates in PEM".to_owned())
}

impl ServerCertificate {
    /// Checks that a file has certificates.
    ///
    /// # Errors
    /// The file cannot be read, or has none.
    pub fn check_chain(cert: &str) -> Result<String, String> {
        read_chain(cert).map(|_| cert.to_owned())
    }

    /// Reads both files.
    ///
    /// # Errors
    /// A file cannot be used, or the key is that of another certificate.
    pub fn load(cert: &str, key: &str) -> Result<Self, String> {
        let chain = read_chain(cert)?;
        let pem = std::fs::read(key).map_err(|error| error.to_string())?;
        let private =
            PrivateKeyDer::from_pem_slice(&pem).map_err(|_| "expected a private key in PEM, without a password")?;
        let certified = CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider())
            .map_err(|error| format!("not the key of listen.tls_cert: {error}"))?;
        Ok(Self { cert: cert.into(), key: key.into(), certified: Arc::new(certified) })
    }

    /// Returns certificate and key for handshakes.
    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

impl PartialEq for ServerCertificate {
    fn eq(&self, other: &Self) -> bool {
        (&self.cert, &self.key, &self.certified.cert) == (&other.cert, &other.key, &other.certified.cert)
    }
}

impl Eq for ServerCertificate {}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerCertificate").field(&self.cert).field(&self.key).finish()
    }
}

/// Settings in effect as TOML.
impl fmt::Display for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "listen.tls_cert = {:?}\nlisten.tls_key = {:?}", self.cert, self.key)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
impl ServerCertificate {
    /// Makes a certificate for 127.0.0.1 that is its own authority, in the files `cert.pem` and `key.pem`.
    pub(crate) fn self_signed() -> (tempfile::TempDir, Self) {
        let folder = tempfile::tempdir().unwrap();
        let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=parley \
                         -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \
                         -keyout key.pem -out cert.pem";
        let openssl = std::process::Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(openssl.status.success(), "{openssl:?}");
        let file = |name| folder.path().join(name).display().to_string();
        let certificate = Self::load(&file("cert.pem"), &file("key.pem")).unwrap();
        (folder, certificate)
    }
}
