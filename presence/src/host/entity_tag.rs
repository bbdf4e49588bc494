//! Entity tags of embedded files, and the comparison with those that a client has (RFC 9110 sections 8.8.3 and 13.1.2).
//!
//! Pure: it reads headers and sets none.

use axum::http::header::{HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use sha2::{Digest, Sha256};

use crate::model::hex;

/// Bytes of the digest in a tag.
const TAG_BYTES: usize = 16;

/// Returns the strong tag of a content.
#[must_use]
pub fn entity_tag(content: &[u8]) -> HeaderValue {
    let digest = hex(&Sha256::digest(content)[..TAG_BYTES]);
    HeaderValue::from_str(&format!("\"{digest}\"")).expect("quotes and hexadecimal digits form a header")
}

/// Returns true if the client has the content with this tag. The comparison is weak: proxies that compress make tags
/// weak.
#[must_use]
pub fn has_tag(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    list_elements(headers, &IF_NONE_MATCH).any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// Returns the elements of a header that is a list (RFC 9110 section 5.6.1), over all its lines.
pub fn list_elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_is_found_in_every_list() {
        let tag = HeaderValue::from_static("\"5e\"");
        for (lines, found) in [
            (&[][..], false),
            (&["\"5e\""], true),
            (&["\"5E\""], false),
            (&["5e"], false),
            (&["W/\"5e\""], true),
            (&["\"1\", \"5e\""], true),
            (&["\"1\"", "W/\"2\",\"5e\""], true),
            (&["*"], true),
            (&["\"5e5e\""], false),
        ] {
            let headers = lines.iter().map(|line| (IF_NONE_MATCH, HeaderValue::from_static(line))).collect();
            assert_eq!(has_tag(&headers, &tag), found, "{lines:?}");
        }
    }
}
