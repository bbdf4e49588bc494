//! A TCP frame is the same at every split, and written as it was read.

use bytes::BytesMut;
use gateway::wire::DISCARDED_BYTES_MAX;
use gateway::wire::frame::{FramePrefix, PREFIX_BYTES, put_frame};

pub(crate) fn check(input: &[u8]) {
    let mut rest = input;
    let first = FramePrefix::format(input);
    for end in 0..input.len().min(5) {
        match FramePrefix::format(&input[..end]) {
            Ok(None) => {}
            decided => assert_eq!(decided, first, "{end}"),
        }
    }
    let Ok(Some(format)) = first else { return };
    while !rest.is_empty() {
        let whole = FramePrefix::parse(rest, format);
        for end in 0..rest.len().min(PREFIX_BYTES + 2) {
            match FramePrefix::parse(&rest[..end], format) {
                Ok(None) => assert!(end < PREFIX_BYTES, "{end}"),
                decided => assert_eq!(decided, whole, "{end}"),
            }
        }
        let Ok(Some(prefix)) = whole else { return };
        assert!(prefix.message_bytes >= 2 && prefix.message_bytes <= DISCARDED_BYTES_MAX + 2);
        let Some(message) = rest.get(PREFIX_BYTES..PREFIX_BYTES + prefix.message_bytes) else { return };
        let mut written = BytesMut::new();
        put_frame(prefix.format, message, &mut written);
        assert_eq!(written[..], rest[..PREFIX_BYTES + message.len()]);
        rest = &rest[PREFIX_BYTES + message.len()..];
    }
}
