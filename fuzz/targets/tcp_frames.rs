//! Fuzzes with the check of the same name.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/tcp_frames.rs"]
mod tcp_frames;

fuzz_target!(|input: &[u8]| tcp_frames::check(input));
