//! Fuzzes the frame reader: it never panics, returns the same events for any pieces, and agrees with tungstenite.
#![no_main]

use gateway::listen::frame;
use libfuzzer_sys::fuzz_target;

#[path = "../../gateway/src/listen/frame/tests/compare.rs"]
mod compare;

fuzz_target!(|input: &[u8]| {
    if let Err(difference) = compare::compare_readers(input) {
        panic!("{difference}");
    }
    let whole = compare::read_with_parley(compare::LIMITS, [input]);
    assert_eq!(compare::read_with_parley(compare::LIMITS, input.chunks(1)), whole);
    assert_eq!(compare::read_with_parley(compare::LIMITS, input.chunks(7)), whole);
});
