//! Frames mean the same however the network cuts them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coop_server::fuzzing::frames(data));
