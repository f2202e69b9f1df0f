#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| selvedge_tests::fuzz::preamble(bytes));
