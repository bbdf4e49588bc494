//! A compressed payload means the same as the plain one, or is refused before memory is reserved for it.

use gateway::wire::packed::{COMPRESSED, decode};
use gateway::wire::{PackedFormat, REQUEST_BYTES_MAX};
use presence::model::codes::ErrorCode;
use snap::raw::{Decoder, decompress_len};

const SEND: u16 = 4;

pub(crate) fn check(input: &[u8]) {
    let message = |number: u16, payload: &[u8]| [&number.to_be_bytes()[..], payload].concat();
    for format in PackedFormat::ALL {
        let read = decode(format, &message(SEND | COMPRESSED, input));
        let expected = match decompress_len(input) {
            Ok(length) if length > REQUEST_BYTES_MAX || input.len() > REQUEST_BYTES_MAX => Err(ErrorCode::TooLarge),
            Ok(_) => Decoder::new().decompress_vec(input).map_err(|_| ErrorCode::BadRequest),
            Err(_) => Err(ErrorCode::BadRequest),
        };
        match expected {
            Ok(payload) => assert_eq!(format!("{read:?}"), format!("{:?}", decode(format, &message(SEND, &payload)))),
            Err(code) => assert_eq!(read.map_err(|(_, refusal)| refusal.code).err(), Some(code)),
        }
    }
}
