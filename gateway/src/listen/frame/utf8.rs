//! UTF-8 in pieces: fails at the first byte that no later byte can complete.

use std::str::from_utf8;

use super::Violation;

/// Maximum number of bytes in one character.
const CHAR_BYTES_MAX: usize = 4;

/// The state of a text so far: valid, except for a partial character at its end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Utf8 {
    partial: [u8; CHAR_BYTES_MAX],
    len: u8,
}

impl Utf8 {
    /// Returns true if the text may end here.
    pub(super) fn is_complete(self) -> bool {
        self.len == 0
    }

    /// Checks the next piece.
    pub(super) fn check(&mut self, mut piece: &[u8]) -> Result<(), Violation> {
        while !self.is_complete() {
            let Some((&byte, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            self.partial[usize::from(self.len)] = byte;
            self.len += 1;
            match from_utf8(&self.partial[..usize::from(self.len)]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => return Err(Violation::BadUtf8),
                Err(_) => {}
            }
        }
        let Err(error) = from_utf8(piece) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(Violation::BadUtf8);
        }
        let partial = &piece[error.valid_up_to()..];
        self.partial[..partial.len()].copy_from_slice(partial);
        self.len = partial.len() as u8;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Checks a text in pieces: valid, or the position of the invalid byte.
    fn in_pieces<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<bool, usize> {
        let (mut utf8, mut seen) = (Utf8::default(), 0);
        for piece in pieces {
            seen += piece.len();
            utf8.check(piece).map_err(|_| seen)?;
        }
        Ok(utf8.is_complete())
    }

    fn mostly_text() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => "\\PC{0,4}".prop_map(String::into_bytes),
            1 => proptest::collection::vec(any::<u8>(), 0..4),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn validation_is_independent_of_the_cuts(text in mostly_text(), size in 1usize..7) {
            let expected = from_utf8(&text);
            match in_pieces(text.chunks(size)) {
                Ok(whole) => prop_assert_eq!(whole, expected.is_ok()),
                Err(_) => prop_assert!(expected.is_err_and(|error| error.error_len().is_some())),
            }
        }

        #[test]
        fn text_fails_at_its_first_invalid_byte(text in mostly_text()) {
            let bad = from_utf8(&text).err().filter(|error| error.error_len().is_some());
            // The failing byte is the first one after which no prefix is valid.
            let first_bad = bad.map(|_| {
                (1..=text.len()).find(|&n| from_utf8(&text[..n]).is_err_and(|e| e.error_len().is_some()))
            });
            prop_assert_eq!(in_pieces(text.chunks(1)).err(), first_bad.flatten());
        }
    }
}
