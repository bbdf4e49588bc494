//! Fuzz target of the frame reader: it never panics, reads the same in any pieces, and agrees with tungstenite.
#![no_main]

use gateway::listen::frame;
use libfuzzer_sys::fuzz_target;

#[path = "../../gateway/src/listen/frame/tests/compare.rs"]
mod compare;

fuzz_target!(|input: &[u8]| {
    if let Err(difference) = compare::agree(input) {
        panic!("{difference}");
    }
    let whole = compare::ours(compare::LIMITS, [input]);
    assert_eq!(compare::ours(compare::LIMITS, input.chunks(1)), whole);
    assert_eq!(compare::ours(compare::LIMITS, input.chunks(7)), whole);
});
