//! Fuzzes with the check of the same name.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/claims.rs"]
mod claims;

fuzz_target!(|input: &[u8]| claims::check(input));
