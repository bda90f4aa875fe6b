//! Hands bytes of the fuzzer to the check of the same name.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duolog_fuzz::resync_message(data));
