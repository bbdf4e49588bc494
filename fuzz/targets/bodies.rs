//! Fuzzes with the check of the same name.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/bodies.rs"]
mod bodies;
#[path = "../checks/requests.rs"]
mod requests;

fuzz_target!(|input: &[u8]| bodies::check(input));
