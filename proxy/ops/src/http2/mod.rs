//! HTTP/2 below HTTP: frames as they pass, and what ends a connection that floods.

mod calm;
pub mod frames;

pub use calm::Calm;
