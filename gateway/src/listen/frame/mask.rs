//! The mask of client frames: a repeated XOR with four bytes, in place, a word at a time.

/// The four bytes, rotated so that the first one belongs to the next payload byte.
pub(super) type Mask = [u8; 4];

/// Unmasks a piece of a payload and returns the rotated mask for the next piece.
pub(super) fn unmask(bytes: &mut [u8], mask: Mask) -> Mask {
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let turn = bytes.len() % mask.len();
    let (words, rest) = bytes.as_chunks_mut();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    let mut next = mask;
    next.rotate_left(turn);
    next
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_piece_unmasks_like_the_rfc_formula(
            payload in proptest::collection::vec(any::<u8>(), 0..100),
            mask in any::<[u8; 4]>(),
            cut in 0usize..100,
        ) {
            let expected: Vec<u8> = payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
            let mut pieces = payload;
            let (first, second) = pieces.split_at_mut(cut.min(expected.len()));
            let next = unmask(first, mask);
            unmask(second, next);
            prop_assert_eq!(pieces, expected);
        }
    }
}
