//! Removes telnet commands from the input of a line connection (RFC 854), and refuses every option.
//!
//! UTF-8 never contains the byte that begins a command, so text passes unchanged. Invariant: the state is the same
//! however the bytes arrive, and nothing of a command is stored. Knows no lines.

use bytes::BytesMut;

/// Begins a command; twice it is a byte of data.
const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
/// Begins a subnegotiation.
const SB: u8 = 250;
/// Ends a subnegotiation.
const SE: u8 = 240;
/// Maximum length of a subnegotiation in bytes. Behind that, input counts as text again.
const SUBNEGOTIATION_BYTES_MAX: u16 = 256;

/// The position inside a command.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum CommandState {
    /// Outside.
    #[default]
    Data,
    /// After IAC.
    Begun,
    /// After a verb that an option follows.
    Verb(u8),
    /// Inside a subnegotiation that may have this many bytes more.
    Subnegotiation(u16),
    /// After IAC in a subnegotiation.
    SubnegotiationIac(u16),
}

/// The telnet state of one connection.
#[derive(Debug, Default)]
pub(super) struct TelnetFilter(CommandState);

impl TelnetFilter {
    /// Removes the commands from the bytes at `from` and after. Appends the answers to `answers`: WONT to each DO, and
    /// DONT to each WILL. WONT and DONT get no answer, so two peers cannot answer each other without end.
    pub(super) fn strip(&mut self, bytes: &mut BytesMut, from: usize, answers: &mut Vec<u8>) {
        if self.0 == CommandState::Data && !bytes[from..].contains(&IAC) {
            return;
        }
        let mut kept = from;
        for at in from..bytes.len() {
            let byte = bytes[at];
            if self.is_data(byte, answers) {
                bytes[kept] = byte;
                kept += 1;
            }
        }
        bytes.truncate(kept);
    }

    fn is_data(&mut self, byte: u8, answers: &mut Vec<u8>) -> bool {
        use CommandState::{Begun, Data, Subnegotiation, SubnegotiationIac, Verb};
        let (next, is_data) = match (self.0, byte) {
            (Data, IAC) => (Begun, false),
            (Data, _) => (Data, true),
            (Begun, IAC) => (Data, true),
            (Begun, SB) => (Subnegotiation(SUBNEGOTIATION_BYTES_MAX), false),
            (Begun, WILL | WONT | DO | DONT) => (Verb(byte), false),
            (Begun, _) => (Data, false),
            (Verb(verb), option) => {
                match verb {
                    DO => answers.extend([IAC, WONT, option]),
                    WILL => answers.extend([IAC, DONT, option]),
                    _ => {}
                }
                (Data, false)
            }
            (SubnegotiationIac(_), SE) | (Subnegotiation(1) | SubnegotiationIac(1), _) => (Data, false),
            (Subnegotiation(left), IAC) => (SubnegotiationIac(left - 1), false),
            (Subnegotiation(left) | SubnegotiationIac(left), _) => (Subnegotiation(left - 1), false),
        };
        self.0 = next;
        is_data
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// Feeds the input in pieces; returns the data and the answers.
    fn strip(pieces: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
        let (mut filter, mut bytes, mut answers) = (TelnetFilter::default(), BytesMut::new(), Vec::new());
        for piece in pieces {
            let from = bytes.len();
            bytes.extend_from_slice(piece);
            filter.strip(&mut bytes, from, &mut answers);
        }
        (bytes.to_vec(), answers)
    }

    #[test]
    fn telnet_commands_are_removed_from_the_text() {
        for (input, data, answers) in [
            (&b"/ping\n"[..], &b"/ping\n"[..], &b""[..]),
            // Ctrl-C in a telnet client: interrupt process, DO TIMING-MARK.
            (b"\xFF\xF4\xFF\xFD\x06/ping\n", b"/ping\n", b"\xFF\xFC\x06"),
            (b"a\xFF\xFB\x01b", b"ab", b"\xFF\xFE\x01"),
            (b"a\xFF\xFE\x01\xFF\xFC\x01b", b"ab", b""),
            (b"a\xFF\xFFb", b"a\xFFb", b""),
            (b"a\xFF\xFA\x18\x00\xFF\xFF\nxterm\xFF\xF0b", b"ab", b""),
            (b"a\xFF\xFD\xFFb", b"ab", b"\xFF\xFC\xFF"),
            (b"a\xFF\xFA never ends\n/ping\n", b"a", b""),
        ] {
            assert_eq!(strip(&[input]), (data.to_vec(), answers.to_vec()), "{}", input.escape_ascii());
        }
    }

    #[test]
    fn subnegotiation_without_end_swallows_few_bytes() {
        for begin in [&b"a\xFF\xFA"[..], b"a\xFF\xFA\xFF"] {
            let input = [begin, &[b'x'; 300], b"\n/ping\n"].concat();
            let (data, answers) = strip(&[&input]);
            assert!(data.starts_with(b"ax") && data.ends_with(b"x\n/ping\n") && answers.is_empty());
            assert_eq!(data.len(), input.len() - 2 - usize::from(SUBNEGOTIATION_BYTES_MAX));
        }
    }

    proptest! {
        #[test]
        fn filter_gives_the_same_result_however_bytes_arrive(
            input in proptest::collection::vec(prop_oneof![Just(IAC), SE..=IAC, b'a'..=b'c'], 0..60),
            splits in proptest::collection::vec(0_usize..60, 0..8),
        ) {
            let mut at: Vec<usize> = splits.into_iter().map(|split| split.min(input.len())).collect();
            at.extend([0, input.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|ends| &input[ends[0]..ends[1]]).collect();
            prop_assert_eq!(strip(&pieces), strip(&[&input]));
        }
    }
}
