//! Real networks: workloads in network namespaces, their connections redirected by real rules, over bridges,
//! overlays, macvlan and IPv6.
//!
//! All namespaces are the tests' own, belong to no name in the file system, and are gone with the process that
//! made them: nothing of this touches the machine's own network, and nothing of it can be left behind.

mod around;
mod blackholes;
mod breaking;
mod capture;
mod connections;
mod declared;
mod dialogue;
mod entries;
mod injected;
mod interception;
mod live;
mod matrix;
mod mesh;
mod names;
mod other_mesh;
mod outside;
mod owners;
mod policies;
mod recipes;
mod redirection;
mod routes;
mod rules;
mod scenarios;
mod servers;
mod strangers;
mod vanished;

use selvedge_tests::netns::{namespace, network, rights};

/// The binary of all programs but one.
const SELVEDGE: &str = env!("CARGO_BIN_EXE_selvedge");

/// The binary that sets the rules.
const SELVEDGE_INIT: &str = env!("CARGO_BIN_EXE_selvedge-init");
