//! Fuzzes with the check of the same name.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/envelopes.rs"]
mod envelopes;

fuzz_target!(|input: &[u8]| envelopes::check(input));
