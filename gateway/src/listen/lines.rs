//! Splits the bytes of a TCP connection into lines.
//!
//! Stores at most one line and one read, and nothing between lines: it waits for bytes before it allocates. Knows no
//! dialect.

use std::future::poll_fn;
use std::io;
use std::mem;

use bytes::{Buf, Bytes, BytesMut};

use crate::wire::REQUEST_BYTES_MAX;

use super::frame::ClientStream;
use super::proxy_header::is_header;
use super::telnet::TelnetFilter;

/// The buffer space for one read.
const READ_BYTES: usize = 2 * 1024;
/// The first bytes of a binary frame. UTF-8 text never begins with them, so one port can distinguish both.
const BINARY_MAGIC: [u8; 2] = [0xCA, 0xFE];
/// The first bytes of a handshake of TLS (RFC 8446 section 5.1). Text has no such control characters.
const TLS_START: [u8; 2] = [0x16, 0x03];

/// The next item of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InputLine {
    /// A line without its end (LF, or CR LF).
    Whole(Bytes),
    /// A line over [`REQUEST_BYTES_MAX`]. Reported once; the rest of it is skipped.
    TooLong,
    /// The connection began with a binary frame.
    Binary,
    /// The connection began with a handshake of TLS.
    Tls,
    /// The connection began with a PROXY header that is not expected.
    Header,
}

/// The input of one connection.
#[derive(Debug, Default)]
pub(super) struct LineSplitter {
    bytes: BytesMut,
    /// Leading bytes without a line end.
    scanned: usize,
    /// True if the rest of an overlong line is being skipped.
    skipping: bool,
    /// True if the input is known to be text.
    begun: bool,
    telnet: TelnetFilter,
}

impl LineSplitter {
    /// Creates the splitter of a connection of which these bytes are already read.
    pub(super) fn after(read_ahead: &[u8]) -> Self {
        Self { bytes: read_ahead.into(), ..Self::default() }
    }

    /// Takes what was read of a connection that is not text.
    pub(super) fn take_bytes(&mut self) -> BytesMut {
        mem::take(&mut self.bytes)
    }

    /// Returns the bytes of partial input that are stored.
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Reads the bytes that have arrived. Returns their number, 0 at the end of the input, and the answers to telnet
    /// commands among them. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The socket is broken.
    pub(super) async fn fill(&mut self, stream: &mut impl ClientStream) -> io::Result<(usize, Vec<u8>)> {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
        let read = poll_fn(|cx| stream.poll_fill(cx, READ_BYTES, &mut self.bytes)).await?;
        let mut answers = Vec::new();
        // A command of telnet may be anywhere in text, but a binary frame has any bytes.
        if self.begun || self.bytes.first() != BINARY_MAGIC.first() {
            let from = self.bytes.len() - read;
            self.telnet.strip(&mut self.bytes, from, &mut answers);
        }
        Ok((read, answers))
    }

    /// Returns the next line once its end has arrived.
    pub(super) fn next(&mut self) -> Option<InputLine> {
        if !self.begun {
            if self.bytes.starts_with(&BINARY_MAGIC) {
                return Some(InputLine::Binary);
            }
            if self.bytes.starts_with(&TLS_START) {
                return Some(InputLine::Tls);
            }
            match is_header(&self.bytes) {
                Some(true) => return Some(InputLine::Header),
                // At most some empty lines wait.
                None if !self.bytes.is_empty() => return None,
                _ => self.begun = ![BINARY_MAGIC, TLS_START].iter().any(|start| start.starts_with(&self.bytes)),
            }
        }
        loop {
            let Some(found) = self.bytes[self.scanned..].iter().position(|&byte| byte == b'\n') else {
                return self.unfinished();
            };
            let mut line = self.bytes.split_to(self.scanned + found);
            self.bytes.advance(1);
            self.scanned = 0;
            if mem::take(&mut self.skipping) {
                continue;
            }
            if line.last() == Some(&b'\r') {
                line.truncate(line.len() - 1);
            }
            return Some(if line.len() > REQUEST_BYTES_MAX {
                InputLine::TooLong
            } else {
                InputLine::Whole(line.freeze())
            });
        }
    }

    /// Returns the last line, which the end of the input ends in place of a line feed; `None` if there is none.
    pub(super) fn finish(&mut self) -> Option<InputLine> {
        if self.bytes.is_empty() || self.skipping {
            return None;
        }
        self.begun = true;
        self.bytes.extend_from_slice(b"\n");
        self.next()
    }

    fn unfinished(&mut self) -> Option<InputLine> {
        self.scanned = self.bytes.len();
        // One byte more than the limit may still be the CR of a line that fits.
        let too_long = self.scanned > REQUEST_BYTES_MAX + 1;
        if !too_long && !self.skipping {
            return None;
        }
        self.bytes.clear();
        self.scanned = 0;
        (!mem::replace(&mut self.skipping, true)).then_some(InputLine::TooLong)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// Feeds the input in pieces and returns the lines: `None` for an overlong one.
    fn cut(pieces: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        let mut lines = LineSplitter::default();
        let mut found = Vec::new();
        for piece in pieces {
            lines.bytes.extend_from_slice(piece);
            while let Some(line) = lines.next() {
                match line {
                    InputLine::Whole(line) => found.push(Some(line.to_vec())),
                    InputLine::TooLong => found.push(None),
                    InputLine::Binary | InputLine::Tls | InputLine::Header => panic!("took text for {line:?}"),
                }
            }
            assert!(lines.bytes.len() <= REQUEST_BYTES_MAX + 1, "holds more than one line");
        }
        found
    }

    fn whole(text: &str) -> Option<Vec<u8>> {
        Some(text.as_bytes().to_vec())
    }

    #[test]
    fn lines_end_with_lf_or_crlf() {
        assert_eq!(cut(&[b"a\r\nb\n\n\rc\r\r\n", b"half"]), [whole("a"), whole("b"), whole(""), whole("\rc\r")]);
    }

    #[test]
    fn line_limit_excludes_the_line_end() {
        let longest = vec![b'x'; REQUEST_BYTES_MAX];
        assert_eq!(cut(&[&longest, b"\r", b"\n"]), [Some(longest.clone())]);
        assert_eq!(cut(&[&longest, b"\n"]), [Some(longest.clone())]);
        assert_eq!(cut(&[&longest, b"xx\nok\n"]), [None, whole("ok")]);
        assert_eq!(cut(&[&longest, b"x\nok\n"]), [None, whole("ok")]);
        assert_eq!(cut(&[&longest, b"x", b"\n", b"ok\n"]), [None, whole("ok")]);
    }

    #[test]
    fn unended_line_is_reported_once_and_discarded() {
        let chunk = vec![b'x'; 50_000];
        let mut pieces = vec![chunk.as_slice(); 40];
        pieces.push(b"the end\nok\n");
        assert_eq!(cut(&pieces), [None, whole("ok")]);
    }

    #[test]
    fn binary_is_seen_at_the_very_beginning_only() {
        let mut lines = LineSplitter::default();
        lines.bytes.extend_from_slice(&[0xCA]);
        assert_eq!(lines.next(), None);
        lines.bytes.extend_from_slice(&[0xFE, 0xBA, 0xBE]);
        assert_eq!(lines.next(), Some(InputLine::Binary));
        assert_eq!(cut(&[b"\n", b"\xCA\xFE\n"]), [whole(""), Some(vec![0xCA, 0xFE])]);
    }

    #[test]
    fn header_is_seen_at_the_very_beginning_only() {
        for header in [&b"PROXY TCP4 198.51.100.1 203.0.113.1 1 2\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n!"] {
            for split in 1..header.len() {
                let mut lines = LineSplitter::default();
                lines.bytes.extend_from_slice(&header[..split]);
                let early = lines.next();
                lines.bytes.extend_from_slice(&header[split..]);
                assert_eq!(early.or_else(|| lines.next()), Some(InputLine::Header), "{split}");
            }
        }
        assert_eq!(cut(&[b"\r\n", b"PROXY TCP4 \n"]), [whole(""), whole("PROXY TCP4 ")]);
        assert_eq!(cut(&[b"\r\n", b"/nick ann\n"]), [whole(""), whole("/nick ann")]);
    }

    proptest! {
        #[test]
        fn cuts_are_the_same_however_the_bytes_arrive(
            text in "[a\r\n]{0,200}",
            splits in proptest::collection::vec(0usize..200, 0..20),
        ) {
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = splits.into_iter().map(|i| i.min(bytes.len())).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(cut(&pieces), cut(&[bytes]));
        }
    }
}
