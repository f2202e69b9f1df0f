//! The programs that a test's API server is made of.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::needs::Need;

/// Where the programs are, by the convention of setup-envtest.
const VARIABLE: &str = "KUBEBUILDER_ASSETS";

/// What must be there.
const PROGRAMS: [&str; 3] = ["kube-apiserver", "etcd", "kubectl"];

/// A directory with kube-apiserver, etcd and kubectl.
#[derive(Debug, Clone)]
pub struct Assets(PathBuf);

impl Assets {
    /// The assets, if they are here.
    pub fn found() -> Option<Self> {
        Need::ApiServer.find().map(Self)
    }

    /// The path of one of them.
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// The assets. If there are none, the test that asks is left out, and fails in CI: see [`Need::program`].
///
/// # Panics
/// In CI, if there are none.
pub fn assets() -> Option<Assets> {
    Need::ApiServer.program().map(Assets)
}

/// The directory that the variable names, if all is in it.
pub(crate) fn assets_directory() -> Option<PathBuf> {
    let directory = env::var_os(VARIABLE).filter(|value| !value.is_empty())?;
    let is_here = |name: &&str| Path::new(&directory).join(name).is_file();
    PROGRAMS.iter().all(is_here).then(|| directory.into())
}
