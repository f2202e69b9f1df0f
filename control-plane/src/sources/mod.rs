//! Where documents come from. Every source yields the same thing: all resources, and what is wrong.

pub mod directory;
mod expressions;
mod files;
mod follow;
pub mod kubernetes;
mod last_good;
mod notices;

use std::sync::Arc;

use crate::{
    problem::Problem,
    resources::{Object, Resource, Resources, StandIn},
};

/// All that a source has, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// Every document that is in use.
    pub resources: Resources,
    /// What is wrong with single documents, files, or the source itself.
    pub problems: Vec<Problem>,
    /// The objects that people wrote and may be told about.
    pub objects: Arc<Vec<Object>>,
}

/// What is in use of a document that cannot be used: its last good version, or else what it is taken for.
fn consequence(good: Option<&Resource>, stand_in: Option<&StandIn>) -> String {
    match (good, stand_in) {
        (Some(_), _) => "; its last good version stays in use".to_owned(),
        (None, Some(stand_in)) => format!("; {}", stand_in.words),
        (None, None) => "; nothing of it is in use".to_owned(),
    }
}

#[cfg(test)]
mod tests;
