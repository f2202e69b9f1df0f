//! End to end: the real binaries, real sockets, real files. One module for each topic; a mesh for each test.

mod authorization;
mod authz;
mod bad_config;
mod bootstrap;
mod canary_scripts;
mod certs;
mod check_status;
mod conformance;
mod control_plane_away;
mod delegates;
mod demo;
mod dependencies;
mod differential;
mod drain;
mod examples;
mod explain;
mod fields;
mod filters;
mod foreign;
mod gateway_api;
mod grpc;
mod grpc_failures;
mod hello;
mod hostile;
mod http;
mod inject;
mod install;
mod invalid_routes;
mod invalid_tokens;
mod issuing;
mod jwt;
mod keep_alive;
mod kill;
mod linkerd;
mod linkerd_policies;
mod links;
mod long_lived;
mod matches;
mod mesh_client;
mod metrics;
mod mirror;
mod names;
mod network_policies;
mod observed;
mod opaque;
mod outside_names;
mod overload;
mod plaintext;
mod ports;
mod posture;
mod protocols;
mod raw;
mod resilience;
mod rolling;
mod root_rotation;
mod samples;
mod status;
mod tls_outside;
mod tokens;
mod upstream;
mod websocket;

/// The binary that people type; every program of a mesh is one of its subcommands.
const SELVEDGE: &str = env!("CARGO_BIN_EXE_selvedge");

/// What clients speak, where a rule holds for both.
const BOTH_VERSIONS: [::http::Version; 2] = [::http::Version::HTTP_11, ::http::Version::HTTP_2];
