//! The chat page over HTTP: its files, with entity tags, compression and a strict security policy.
//!
//! [`find`] looks a path up, [`answer`] answers a request for the file. The page needs no store, so it is served also
//! while the gateway is not ready or drains. Knows nothing about the contents of the files.

mod assets;
mod embedders;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HeaderValue, VARY,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use presence::host::entity_tag::{has_tag, list_elements};
use presence::host::security_headers::add_security_headers;

use super::handshake::{HandshakeRefusal, check_host};

use self::assets::Asset;
pub(super) use self::assets::find;
pub use self::embedders::{PageAccess, PageEmbedder, PageEmbedders};

/// Answers a request for a file of the page.
///
/// # Errors
/// The refusal.
pub(super) fn answer<B: Body>(
    asset: &'static Asset,
    request: &Request<B>,
    embedders: &PageEmbedders,
) -> Result<Response<Full<Bytes>>, HandshakeRefusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(HandshakeRefusal::PageMethod);
    }
    check_host(request)?;
    if !request.body().is_end_stream() {
        return Err(HandshakeRefusal::HasBody);
    }
    let content = asset.content(accepts_gzip(request.headers()));
    let mut answer = Response::new(Full::default());
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(CONTENT_SECURITY_POLICY, embedders.policy());
    add_security_headers(headers);
    headers.insert(ETAG, content.tag.clone());
    if has_tag(request.headers(), &content.tag) {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(answer);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.media_type()));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(content.bytes.len()));
    if content.is_gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    *answer.body_mut() = Full::new(content.bytes.clone());
    Ok(answer)
}

/// Returns true if the client accepts gzip: by name, or else by `*` (RFC 9110 section 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut accepts_any = false;
    for element in list_elements(headers, &ACCEPT_ENCODING) {
        let (coding, weight) = element.split_once(';').unwrap_or((element, "q=1"));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok());
        let is_accepted = weight.is_some_and(|weight| weight > 0.0);
        match coding.trim() {
            "*" => accepts_any = is_accepted,
            coding if coding.eq_ignore_ascii_case("gzip") => return is_accepted,
            _ => {}
        }
    }
    accepts_any
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|line| (ACCEPT_ENCODING, HeaderValue::from_static(line))).collect()
    }

    #[test]
    fn gzip_is_used_only_if_accepted() {
        for (lines, accepts) in [
            (&[][..], false),
            (&[""], false),
            (&["gzip"], true),
            (&["br, GZIP;q=0.5"], true),
            (&["br", "gzip ; q=0.001"], true),
            (&["deflate, br"], false),
            (&["*"], true),
            (&["gzip;q=0, *"], false),
            (&["*;q=0, gzip"], true),
            (&["*;q=0"], false),
            (&["gzip;q=0.000"], false),
            (&["gzip;q=high"], false),
            (&["xgzip"], false),
        ] {
            assert_eq!(accepts_gzip(&headers(lines)), accepts, "{lines:?}");
        }
    }
}
