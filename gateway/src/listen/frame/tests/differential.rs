//! Generated inputs, read by Parley and tungstenite, whole and in pieces.

use proptest::prelude::*;

use super::compare::{LIMITS, compare_readers, read_with_parley};
use super::{frame_with_length, masked_frame};

/// Generates a valid or invalid frame; more frames may follow it.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let size = prop_oneof![8 => 0usize..20, 2 => 60usize..70, 2 => 120usize..130, 1 => 195usize..205];
    let word = prop_oneof![4 => "[ -~é世]{0,40}".prop_map(String::into_bytes), 2 => size.prop_map(|n| vec![b'x'; n])];
    let bytes = proptest::collection::vec(any::<u8>(), 0..8);
    let payload = prop_oneof![6 => word.clone(), 1 => (word, bytes).prop_map(|(word, bytes)| [word, bytes].concat())];
    let sane = prop_oneof![
        8 => Just(0x81u8), 4 => Just(0x01), 2 => Just(0x82), 2 => Just(0x02), 5 => Just(0x00), 6 => Just(0x80),
        3 => Just(0x89), 2 => Just(0x8A),
    ];
    let first = prop_oneof![30 => sane, 1 => any::<u8>()];
    let data = (first, payload).prop_map(|(first, payload)| masked_frame(first, &payload));
    let codes = prop_oneof![1000u16..1020, 2990u16..3010, any::<u16>()];
    let close = (codes, "[a-zé]{0,10}")
        .prop_map(|(code, reason)| masked_frame(0x88, &[&code.to_be_bytes()[..], reason.as_bytes()].concat()));
    let odd =
        (any::<u8>(), proptest::collection::vec(any::<u8>(), 1..10), proptest::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(first, length, payload)| frame_with_length(first, &length, &payload));
    let unmasked = Just(vec![0x81, 2, b'h', b'i']);
    prop_oneof![40 => data, 2 => close, 1 => odd, 1 => unmasked]
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(frame(), 1..8).prop_map(|frames| frames.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn both_readers_agree_on_generated_frames(input in stream()) {
        prop_assert!(compare_readers(&input).is_ok(), "{}", compare_readers(&input).unwrap_err());
    }

    /// A client may stop at any byte.
    #[test]
    fn both_readers_agree_on_truncated_frames(input in stream(), cut in 0usize..400) {
        let beginning = &input[..cut.min(input.len())];
        prop_assert!(compare_readers(beginning).is_ok(), "{}", compare_readers(beginning).unwrap_err());
    }

    #[test]
    fn both_readers_agree_on_random_bytes(input in proptest::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(compare_readers(&input).is_ok(), "{}", compare_readers(&input).unwrap_err());
    }

    #[test]
    fn reader_returns_same_events_for_any_pieces(
        input in stream(),
        sizes in proptest::collection::vec(1usize..40, 1..20),
    ) {
        let mut rest = &input[..];
        let pieces = sizes.iter().cycle().map_while(|&size| {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            (!piece.is_empty()).then_some(piece)
        });
        let in_pieces = read_with_parley(LIMITS, pieces);
        prop_assert_eq!(&in_pieces, &read_with_parley(LIMITS, [&input[..]]));
        prop_assert_eq!(in_pieces, read_with_parley(LIMITS, input.chunks(1)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn reader_returns_same_events_for_any_cut(input in stream()) {
        let whole = read_with_parley(LIMITS, [&input[..]]);
        for cut in 0..=input.len() {
            let (front, back) = input.split_at(cut);
            prop_assert_eq!(&read_with_parley(LIMITS, [front, back]), &whole, "cut at {}", cut);
        }
    }
}
