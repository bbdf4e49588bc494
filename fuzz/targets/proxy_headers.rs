//! Fuzzes the PROXY header: it never panics, and its decision is final and the same for any pieces.
#![no_main]

use gateway::listen::proxy_header::{HeaderStart, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let whole = parse(input);
    let first = (0..=input.len()).find(|&end| parse(&input[..end]) != HeaderStart::Incomplete);
    for end in first.into_iter().flat_map(|first| first..=input.len()) {
        assert_eq!(parse(&input[..end]), whole);
    }
    if let HeaderStart::Complete { length, .. } = whole {
        assert_eq!(Some(length), first);
    }
});
