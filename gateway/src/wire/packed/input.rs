//! Packed messages to [`Request`].
//!
//! The type names the request, `request.rs` reads its fields. The `id` survives errors in other fields. Invariant:
//! everything that is refused has one coded answer, and no input reserves more than it has bytes.

use std::borrow::Cow;

use presence::model::codes::ErrorCode;

use crate::wire::syntax::bad_request;
use crate::wire::{CorrelationId, PackedFormat, REQUEST_BYTES_MAX, Refusal, Request, json, request};

use super::fields::{PackedFields, PayloadFormat};
use super::messagepack::MessagePack;
use super::packed_type::{COMPRESSED, PackedType};
use super::protobuf::Protobuf;
use super::snappy;

/// Decodes a packed message.
///
/// # Errors
/// The refusal to reply with, and the request's id if one could be read.
pub fn decode(format: PackedFormat, message: &[u8]) -> Result<Request, (CorrelationId, Refusal)> {
    let Some((number, payload)) = message.split_first_chunk() else {
        return Err((None, bad_request("the frame has no type")));
    };
    if payload.len() > REQUEST_BYTES_MAX {
        return Err((None, ErrorCode::TooLarge.into()));
    }
    let number = u16::from_be_bytes(*number);
    let payload = match number & COMPRESSED {
        0 => Cow::Borrowed(payload),
        _ => Cow::Owned(snappy::decompress(payload).map_err(|refusal| (None, refusal))?),
    };
    let kind = PackedType::of_number(number & !COMPRESSED).filter(|kind| kind.is_request());
    // No request has the empty name.
    let name = kind.map_or("", PackedType::name);
    match format {
        PackedFormat::Json => decode_json(name, &payload),
        PackedFormat::MessagePack => decode_fields::<MessagePack>(name, &payload),
        PackedFormat::Protobuf => decode_fields::<Protobuf>(name, &payload),
    }
}

fn decode_json(name: &str, payload: &[u8]) -> Result<Request, (CorrelationId, Refusal)> {
    let text = std::str::from_utf8(payload).map_err(|_| (None, bad_request("the frame is not one JSON object")))?;
    json::decode_as(Some(name), if text.is_empty() { "{}" } else { text })
}

fn decode_fields<F: PayloadFormat>(name: &str, payload: &[u8]) -> Result<Request, (CorrelationId, Refusal)> {
    let fields = PackedFields::<F>::split(payload).map_err(|fault| (None, fault.into()))?;
    let id = fields.id().map_err(|refusal| (None, refusal))?;
    let command = fields.check().map_err(Refusal::from).and_then(|()| request::command(name, &fields));
    match command {
        Ok(command) => Ok(Request { id, command }),
        Err(refusal) => Err((id, refusal)),
    }
}
