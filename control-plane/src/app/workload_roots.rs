//! The roots of another CA of this mesh's workloads, such as SPIRE's, as a file has them now.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use selvedge_certs::{
    ca::Authority,
    files::{self, FileError},
    verify::BundleError,
};

/// Between two looks at the file.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Why the roots in the file are not trusted.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadRootsError {
    /// It is not there, or holds something else.
    #[error("--workload-roots: {0}")]
    File(#[from] FileError),
    /// A certificate in it is of no use.
    #[error("--workload-roots {}: {reason}", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: BundleError,
    },
}

/// Has `authority` tell proxies to trust what is in the file `path`.
///
/// # Errors
/// If it cannot be used; then those before stay.
pub(super) fn take_up(authority: &Authority, path: &Path) -> Result<(), WorkloadRootsError> {
    let roots = files::read_trusted_certificates(path)?;
    let unusable = |reason| WorkloadRootsError::Unusable { path: path.to_owned(), reason };
    let before = authority.bundle().workload_roots;
    authority.trust_among_workloads(roots).map_err(unusable)?;
    let now = authority.bundle().workload_roots;
    if now != before {
        tracing::info!(before = before.len(), now = now.len(), "the roots in --workload-roots have changed");
    }
    Ok(())
}

/// Does so again whenever the file changes. Never ends.
pub(super) async fn follow(authority: Arc<Authority>, path: PathBuf) {
    let mut complained = None;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let error = take_up(&authority, &path).err().map(|error| error.to_string());
        match &error {
            Some(error) if complained.as_ref() != Some(error) => {
                tracing::error!(error, "the roots in --workload-roots stay as they were");
            }
            None if complained.is_some() => tracing::info!("--workload-roots can be read again"),
            _ => {}
        }
        complained = error;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_file_that_is_damaged_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let authority = testing::authority(&directory.path().join("ours"));
        let theirs = testing::authority(&directory.path().join("theirs")).bundle().roots;
        let path = directory.path().join("roots.pem");
        std::fs::copy(directory.path().join("theirs/ca.pem"), &path).unwrap();

        take_up(&authority, &path).unwrap();
        assert_eq!(authority.bundle().workload_roots, theirs);
        assert_ne!(authority.bundle().roots, theirs);

        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(take_up(&authority, &path).unwrap_err().to_string().contains("--workload-roots"));
        std::fs::remove_file(&path).unwrap();
        assert!(take_up(&authority, &path).is_err());
        assert_eq!(authority.bundle().workload_roots, theirs);
    }
}
