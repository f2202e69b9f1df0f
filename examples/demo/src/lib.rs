//! The demo's tiny apps, its load generator, and the processes they run in.
//!
//! It imports nothing of ours: a mesh is driven here as a user drives it, by command lines, YAML files and
//! sockets. The demo and the end-to-end tests stand on the same [`cluster`].

pub mod apps;
pub mod call;
pub mod cluster;
pub mod documents;
pub mod ground;
pub mod load;
pub mod processes;
pub mod wait;
pub mod workload;
