//! The normal form of what a request names: what a rule matches, what a policy decides on and what the app receives
//! mean the same.

pub mod authority;
pub mod path;
