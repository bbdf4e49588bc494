//! Fuzzes with the check of the same name.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/packed_requests.rs"]
mod packed_requests;
#[path = "../checks/requests.rs"]
mod requests;

fuzz_target!(|input: &[u8]| packed_requests::check(input));
