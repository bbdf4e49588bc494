//! The security headers of HTTP answers, which are the same on every port of both programs.
//!
//! [`add_security_headers`] is called for every answer with content: pages, JSON, metrics and refusals. An upgrade to a
//! WebSocket has none, nor has a request that the HTTP parser refuses. There are no cookies, and no answer is readable
//! for pages of another origin: `Access-Control` headers are never set.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// Headers of every answer, whatever it contains.
const FIXED: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), DENIED_FEATURES),
];

/// Headers of an answer that does not set them itself: it loads nothing, is shown in no frame, and is not stored.
const DEFAULTS: [(HeaderName, &str); 2] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'",
    ),
    (header::CACHE_CONTROL, "no-store"),
];

/// Everything that a browser lets a page use, except the clipboard and sounds.
const DENIED_FEATURES: &str = "accelerometer=(), camera=(), display-capture=(), encrypted-media=(), fullscreen=(), \
    geolocation=(), gyroscope=(), hid=(), idle-detection=(), local-fonts=(), magnetometer=(), microphone=(), midi=(), \
    payment=(), picture-in-picture=(), publickey-credentials-get=(), screen-wake-lock=(), serial=(), usb=(), \
    xr-spatial-tracking=()";

/// Policy of a page: scripts, styles, images and connections of its own origin, and images in its styles. `'self'` in
/// `connect-src` includes the WebSocket of the same host.
pub const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; frame-ancestors 'none'; form-action 'none'",
);

/// Adds the security headers to an answer. A policy and a `Cache-Control` that it already has stay.
pub fn add_security_headers(headers: &mut HeaderMap) {
    for (name, value) in FIXED {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in DEFAULTS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_policy_of_a_page_stays() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        add_security_headers(&mut headers);
        add_security_headers(&mut headers);
        assert_eq!(headers.len(), FIXED.len() + DEFAULTS.len(), "each header once");
        assert_eq!(headers[header::CONTENT_SECURITY_POLICY], PAGE_POLICY);
        assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
    }

    #[test]
    fn every_feature_is_denied_to_everybody() {
        assert!(DENIED_FEATURES.split(", ").all(|feature| feature.ends_with("=()")), "{DENIED_FEATURES}");
    }
}
