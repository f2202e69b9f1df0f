//! Network namespaces of the tests' own, and the networks that join them.
//!
//! They belong to no name in the file system and are gone with the process that made them: nothing of this touches
//! the machine's own network, and nothing of it can be left behind. What cannot be had here panics: only tests ask for it.

pub mod namespace;
pub mod network;
pub mod rights;
