//! Selvedge on Kubernetes: a real API server, and everything that asks or is asked by it.
//!
//! An API server takes 10 s to start, so there are few tests, each of several steps. What is real here and what is
//! not, the README beside this says.

mod server;
