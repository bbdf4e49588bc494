//! The crypto provider of the process: aws-lc-rs, the only one in the dependency tree.
//!
//! Each program calls [`install_crypto`] first. Libraries that open TLS connections look for the installed provider.

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// Installs the crypto provider, once for each process.
///
/// # Panics
/// Never: a provider that another part installed is kept.
pub fn install_crypto() {
    if CryptoProvider::get_default().is_none() && aws_lc_rs::default_provider().install_default().is_err() {
        assert!(CryptoProvider::get_default().is_some(), "another thread has installed one");
    }
}
