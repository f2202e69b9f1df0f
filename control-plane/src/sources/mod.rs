//! Where documents come from. Every source yields the same thing: all resources, and what is wrong.

pub mod directory;
mod files;
mod last_good;

use crate::{problem::Problem, resources::Resources};

/// All that a source has, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// Every document that is in use.
    pub resources: Resources,
    /// What is wrong with single documents, files, or the source itself.
    pub problems: Vec<Problem>,
}

#[cfg(test)]
mod tests;
