//! The programs that a test's API server is made of.

use std::{env, path::PathBuf};

/// Where the programs are, by the convention of setup-envtest.
const VARIABLE: &str = "KUBEBUILDER_ASSETS";

/// What must be there.
const PROGRAMS: [&str; 3] = ["kube-apiserver", "etcd", "kubectl"];

/// A directory with kube-apiserver, etcd and kubectl.
#[derive(Debug, Clone)]
pub struct Assets(PathBuf);

impl Assets {
    /// The path of one of them.
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// The assets, or none where there are none: then people are told, and CI fails.
///
/// # Panics
/// In CI, if there are none.
pub fn assets() -> Option<Assets> {
    match found() {
        Ok(assets) => Some(assets),
        Err(missing) => {
            assert!(env::var_os("CI").is_none(), "tests of Kubernetes must run in CI; {missing}");
            eprintln!("not run: a test of Kubernetes; {missing}");
            None
        }
    }
}

fn found() -> Result<Assets, String> {
    let remedy = "export KUBEBUILDER_ASSETS=$(tests/kubernetes/assets)";
    let Some(directory) = env::var_os(VARIABLE).filter(|value| !value.is_empty()) else {
        return Err(format!("{VARIABLE} is not set: {remedy}"));
    };
    let assets = Assets(PathBuf::from(directory));
    match PROGRAMS.iter().find(|name| !assets.program(name).is_file()) {
        Some(name) => Err(format!("{VARIABLE}={} has no {name}: {remedy}", assets.0.display())),
        None => Ok(assets),
    }
}
