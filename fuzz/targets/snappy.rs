//! Fuzzes with the check of the same name.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/snappy.rs"]
mod snappy;

fuzz_target!(|input: &[u8]| snappy::check(input));
