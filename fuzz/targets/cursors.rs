//! Fuzzes with the check of the same name.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/cursors.rs"]
mod cursors;

fuzz_target!(|input: &[u8]| cursors::check(input));
