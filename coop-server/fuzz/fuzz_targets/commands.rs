//! Texts of clients name only what a client can hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coop_server::fuzzing::commands(data));
