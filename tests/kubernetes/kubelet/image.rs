//! Images: a name, and what a container of it runs.

use std::path::{Path, PathBuf};

/// What stands for a container image: one program of this machine at a path of the container's.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    name: String,
    /// The program here, and where the image has it.
    pub(super) program: (PathBuf, String),
    pub(super) entrypoint: Vec<String>,
    pub(super) user: u32,
    pub(super) env: Vec<(String, String)>,
}

impl Image {
    /// An image whose entry point is one program, as root.
    pub(crate) fn of(name: &str, program: impl AsRef<Path>, at: &str) -> Self {
        Self {
            name: name.to_owned(),
            program: (program.as_ref().to_owned(), at.to_owned()),
            entrypoint: vec![at.to_owned()],
            user: 0,
            env: Vec::new(),
        }
    }

    /// Runs as this user unless the pod says otherwise.
    pub(crate) fn user(mut self, id: u32) -> Self {
        self.user = id;
        self
    }

    /// Runs this unless the pod says otherwise.
    pub(crate) fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Has this in its environment unless the pod says otherwise.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Whether `reference`, such as `registry.example/selvedge-proxy:1.0`, means this one.
    pub(super) fn is(&self, reference: &str) -> bool {
        let (reference, _digest) = reference.split_once('@').unwrap_or((reference, ""));
        let last = reference.rsplit('/').next().unwrap_or_default();
        last.split(':').next() == Some(&self.name)
    }
}
