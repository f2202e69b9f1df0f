//! Selvedge on Kubernetes: a real API server, and everything that asks or is asked by it.
//!
//! An API server takes 10 s to start, so there are few tests, each of several steps. What is real here and what is
//! not, the README beside this says.

mod admission;
mod cluster;
mod control_plane;
mod controllers;
mod faults;
mod gateways;
mod install;
mod kubelet;
mod mesh;
mod named;
mod node;
mod operators;
mod places;
mod policies;
mod role;
mod root;
mod rotation;
mod server;
mod source;
mod status;
mod tokens;
mod unusable;
mod world;

/// The binaries of the programs.
const SELVEDGE: &str = env!("CARGO_BIN_EXE_selvedge");
const SELVEDGE_CONTROL_PLANE: &str = env!("CARGO_BIN_EXE_selvedge-control-plane");
const SELVEDGE_INIT: &str = env!("CARGO_BIN_EXE_selvedge-init");
const SELVEDGE_PROXY: &str = env!("CARGO_BIN_EXE_selvedge-proxy");
