//! A packed message in any format is decoded to valid names and bodies, or refused. The first byte of the input picks
//! the format.

use gateway::wire::packed::{decode, encode_reply};
use gateway::wire::{Answer, PackedCarrier, PackedDialect, PackedFormat, Reply, Request};

use super::requests::{check_command, check_refusal};

pub(crate) fn check(input: &[u8]) {
    let Some((version, message)) = input.split_first() else { return };
    let Some(format) = PackedFormat::of_version(version % 4) else { return };
    let (id, answer) = match decode(format, message) {
        Ok(Request { id, command }) => {
            check_command(&command);
            (id, Answer::Pong)
        }
        Err((id, refusal)) => {
            check_refusal(&refusal);
            (id, Answer::Refused(refusal))
        }
    };
    assert!(id.as_ref().is_none_or(|id| id.get().len() <= 128), "{id:?}");
    let dialect = PackedDialect { format, carrier: PackedCarrier::Frames, compresses: false };
    assert!(encode_reply(dialect, &Reply { id, answer }).len() < 1024);
}
