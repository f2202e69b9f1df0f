//! The end-to-end harness and the benchmark's programs.
