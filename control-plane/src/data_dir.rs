//! What the control plane keeps between two runs: one directory, for this user only.
//!
//! One control plane at a time: two with one directory would count `--once` tokens twice.
//! `selvedge token create` may use it at any time.

use std::{
    fs::{DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use selvedge_certs::files::{self, FileError};

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It is not there and cannot be made.
    #[error("--data-dir {}: cannot make the directory: {source}; choose one that this user may write to", path.display())]
    Create {
        /// Which directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Others may have put something into it.
    #[error("--data-dir: {0}")]
    Unsafe(#[from] FileError),
    /// The lock file cannot be opened or locked.
    #[error("--data-dir {}: cannot lock {LOCK}: {source}", path.display())]
    Lock {
        /// Which directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Somebody else has it.
    #[error(
        "--data-dir {}: another control plane uses this directory; stop it, or choose another directory",
        path.display()
    )]
    InUse {
        /// Which directory.
        path: PathBuf,
    },
}

const LOCK: &str = "control-plane.lock";

/// The directory that `--data-dir` names.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
}

/// Proof that no other control plane uses the directory, for as long as it lives.
#[derive(Debug)]
pub struct DataDirLock {
    _lock: File,
}

impl DataDir {
    /// Opens the directory, or makes it, for this user only (0700).
    ///
    /// # Errors
    /// If it cannot be made; or if others may have put something into it, such as a key of theirs.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| DataDirError::Create { path: path.to_owned(), source })?;
        files::check_tree(path)?;
        Ok(Self { path: path.to_owned() })
    }

    /// Claims the directory for one control plane.
    ///
    /// # Errors
    /// If another one has it.
    pub fn occupy(&self) -> Result<DataDirLock, DataDirError> {
        let failed = |source| DataDirError::Lock { path: self.path.clone(), source };
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.path.join(LOCK))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(DataDirLock { _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: self.path.clone() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_for_this_user_only() {
        let parent = tempfile::tempdir().unwrap();

        let data = DataDir::open(&parent.path().join("a/b")).unwrap();

        let mode = std::fs::metadata(data.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn one_that_others_may_write_to_is_refused_with_the_remedy() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(0o777)).unwrap();

        let error = DataDir::open(parent.path()).unwrap_err().to_string();

        assert!(error.starts_with("--data-dir: ") && error.contains("chmod go-w"), "{error}");
    }

    /// Such as a root of theirs with which our issuer is signed, from the time when they could write here.
    #[test]
    fn what_others_may_have_left_in_it_is_refused_however_deep_it_lies() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(parent.path().join("last-good/Service/shop")).unwrap();
        std::fs::write(parent.path().join("control-plane.lock"), "").unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&parent.path().join("control-plane.lock"), 0o666);
        for name in ["ca.pem", "issuer.pem", "last-good/Service/shop/reviews"] {
            let path = parent.path().join(name);
            std::fs::write(&path, "theirs").unwrap();
            mode(&path, 0o644);
            DataDir::open(parent.path()).unwrap();

            mode(&path, 0o666);

            let error = DataDir::open(parent.path()).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("chmod go-w"), "{error}");
            mode(&path, 0o644);
            // Nobody but root can give a file away.
            if std::os::unix::fs::chown(&path, Some(2102), None).is_ok() {
                let error = DataDir::open(parent.path()).unwrap_err().to_string();
                assert!(error.contains(name) && error.contains("chown"), "{error}");
            }
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_second_control_plane_is_told_so_until_the_first_has_left() {
        let parent = tempfile::tempdir().unwrap();
        let data = DataDir::open(parent.path()).unwrap();
        let first = data.occupy().unwrap();

        let error = data.occupy().unwrap_err();
        assert!(error.to_string().contains("another control plane"), "{error}");

        drop(first);
        data.occupy().unwrap();
    }
}
