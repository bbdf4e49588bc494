//! A private certificate authority, made with openssl in a directory of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Settings of `openssl ca`, which alone accepts any time of validity.
const SETTINGS: &str = "[ca]\ndefault_ca = authority\n[authority]\ndatabase = index.txt\nnew_certs_dir = .\n\
                        rand_serial = yes\ndefault_md = sha256\npolicy = names\ncopy_extensions = copy\n\
                        unique_subject = no\ncertificate = ca.pem\nprivate_key = ca.key\n\
                        [names]\ncommonName = supplied\n";

/// Time of validity of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Two days from now.
    Current,
    /// One day of the year 2020.
    Expired,
}

/// An authority. Its certificate is the file `ca.pem`.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
}

impl Authority {
    /// Makes an authority.
    ///
    /// # Panics
    /// If openssl fails.
    #[must_use]
    pub fn create() -> Self {
        let authority = Self { folder: tempfile::tempdir().expect("a temporary directory") };
        std::fs::write(authority.file("ca.cnf"), SETTINGS).expect("a writable directory");
        std::fs::write(authority.file("index.txt"), "").expect("a writable directory");
        // Authorities of one name differ by their keys only, which fails in another way.
        let name = authority.path().file_name().expect("it is no root").display();
        authority.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name} -keyout ca.key \
             -out ca.pem"
        ));
        authority
    }

    /// Issues the certificate `{name}.pem` with the key `{name}.key` for an address (`IP:127.0.0.1`). Replaces an
    /// earlier one.
    ///
    /// # Panics
    /// If openssl fails.
    pub fn issue(&self, name: &str, address: &str, validity: Validity) {
        self.openssl(&format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key \
             -out {name}.csr -addext subjectAltName={address} -addext basicConstraints=critical,CA:FALSE"
        ));
        let time = match validity {
            Validity::Current => "-days 2",
            Validity::Expired => "-startdate 20200101000000Z -enddate 20200102000000Z",
        };
        self.openssl(&format!("ca -batch -notext -config ca.cnf -in {name}.csr -out {name}.pem {time}"));
    }

    /// Returns the path of a file.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Returns the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the directory, which is deleted with the returned value.
    #[must_use]
    pub fn into_folder(self) -> TempDir {
        self.folder
    }

    fn openssl(&self, arguments: &str) {
        let made = Command::new("openssl").args(arguments.split_whitespace()).current_dir(&self.folder).output();
        let made = made.expect("openssl runs");
        assert!(made.status.success(), "{arguments}: {made:?}");
    }
}
