//! Compression of payloads with Snappy, in its raw format.
//!
//! Invariant: no input makes the gateway reserve more than a request may have. Output is compressed only if it is large
//! enough, and gets smaller.

use presence::model::codes::ErrorCode;
use snap::raw::{Decoder, Encoder, decompress_len};

use crate::wire::syntax::bad_request;
use crate::wire::{REQUEST_BYTES_MAX, Refusal};

/// Payloads up to this length are sent as they are, in bytes.
pub(super) const PLAIN_BYTES_MAX: usize = 512;

/// Returns the compressed payload, unless that is not worth it.
pub(super) fn compress(payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() <= PLAIN_BYTES_MAX {
        return None;
    }
    let compressed = Encoder::new().compress_vec(payload).ok()?;
    (compressed.len() < payload.len()).then_some(compressed)
}

/// Returns the payload of a compressed one. Its length is checked before memory is reserved for it.
pub(super) fn decompress(compressed: &[u8]) -> Result<Vec<u8>, Refusal> {
    let corrupt = |_| bad_request("the compressed payload is corrupt");
    if decompress_len(compressed).map_err(corrupt)? > REQUEST_BYTES_MAX {
        return Err(ErrorCode::TooLarge.into());
    }
    Decoder::new().decompress_vec(compressed).map_err(corrupt)
}
