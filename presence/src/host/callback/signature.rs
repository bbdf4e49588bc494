//! The signature of a call: `t=<Unix seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">`, one `v1` for each secret.

use std::ops::RangeInclusive;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign as authenticate};

use crate::model::hex;

/// The header of the signature.
pub const HEADER: &str = "parley-signature";

/// Lengths of a secret, in bytes.
const SECRET_BYTES: RangeInclusive<usize> = 16..=256;

/// The rule for secrets, for people.
pub const SECRET_RULE: &str = "16 to 256 printable ASCII characters without spaces";

/// Returns true if a text can be a secret.
#[must_use]
pub fn is_secret(text: &str) -> bool {
    SECRET_BYTES.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Signs a body at a time in Unix seconds with each secret.
#[must_use]
pub fn sign(secrets: &[String], seconds: u64, body: &[u8]) -> String {
    let text = [format!("{seconds}.").as_bytes(), body].concat();
    let mut signature = format!("t={seconds}");
    for secret in secrets {
        signature.push_str(",v1=");
        signature.push_str(&hex(authenticate(&Key::new(HMAC_SHA256, secret.as_bytes()), &text).as_ref()));
    }
    signature
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_equals_that_of_other_programs() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let expected = "e4f8e2ecae2295b2ddb2f0b5584c8275e226c0ebe9b3b819e70156bb67122e3e";
        let secrets = ["0123456789abcdef", "fedcba9876543210"].map(str::to_owned);
        assert_eq!(sign(&secrets[..1], 1_700_000_000, b"{}"), format!("t=1700000000,v1={expected}"));
        let both = sign(&secrets, 1_700_000_000, b"{}");
        assert!(both.starts_with(&format!("t=1700000000,v1={expected},v1=")) && both.len() == 12 + 2 * 68);
    }
}
