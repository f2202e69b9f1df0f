//! Keys and certificates on disk.
//!
//! A secret is written with mode 0600 under a temporary name and then renamed, so that nobody else can ever read it or
//! find half of it. A secret that others can read is not loaded, because it may have leaked. A secret that others can
//! write, or that is in a directory of theirs, is not loaded either, because it may be theirs.

use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tempfile::{Builder, NamedTempFile};

/// The most that a key or certificate file may hold, in bytes; a larger one is something else.
const MAX_FILE: u64 = 1 << 20;
/// The same of a file of many authorities' certificates; that of a whole operating system holds less than 1 MiB.
const MAX_BUNDLE: u64 = 4 << 20;

/// Why a key or certificate file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file is missing, or the process may not read it.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The directory is missing, full, or not ours to write.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Something of this name is there already and may be precious.
    #[error("{} exists already and is never overwritten; choose another directory, or remove it", path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// A secret that other users of this machine can read may have leaked.
    #[error(
        "{} can be read by others (mode {mode:04o}); make a new key, or run: chmod 600 {}",
        path.display(),
        path.display()
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Whoever may write it may have put something of his own there.
    #[error(
        "{} can be changed by others (mode {mode:04o}); make sure that what is in it is yours, and run: chmod go-w {}",
        path.display(),
        path.display()
    )]
    Writable {
        /// Which file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Its owner may change it at any time.
    #[error(
        "{} belongs to the user with id {owner}, and this process runs as {ours}: it uses only its own files and root's; run as that \
         user, or make sure that what is in it is yours, and run: chown {ours} {}",
        path.display(),
        path.display()
    )]
    Foreign {
        /// Which file or directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        ours: u32,
    },
    /// The file does not hold what it should.
    #[error("{} has no PEM {expected}: {reason}", path.display())]
    NotPem {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Writes a secret that only this user can read, replacing what was there.
///
/// # Errors
/// If the file cannot be written; then what was there is still there.
pub fn write_secret(path: &Path, secret: &[u8]) -> Result<(), FileError> {
    Draft::write(path, secret, SECRET)?.replace()
}

/// Writes a file that everybody may read, replacing what was there.
///
/// # Errors
/// If the file cannot be written; then what was there is still there.
pub fn write_public(path: &Path, content: &[u8]) -> Result<(), FileError> {
    Draft::write(path, content, PUBLIC)?.replace()
}

/// Reads a secret, if nobody else can.
///
/// # Errors
/// If it cannot be read, if it is neither ours nor root's, or if group or others may read or write it.
pub fn read_secret(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = open(path)?;
    // The opened file is asked, not the path: what is checked is what is read.
    let metadata = file.metadata().map_err(|source| read_error(path, source))?;
    let mode = mode(&metadata);
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.to_owned(), mode });
    }
    only_ours(path, &metadata)?;
    read_all(path, file)
}

/// Reads a file that others may read and nobody else may have written, such as a projected token.
///
/// # Errors
/// If it cannot be read, if it is neither ours nor root's, or if group or others may write it.
pub fn read_trusted(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = open(path)?;
    only_ours(path, &file.metadata().map_err(|source| read_error(path, source))?)?;
    read_all(path, file)
}

/// Reads a file of the app's: its own to choose, whoever wrote it there. A mounted Secret is root's and everybody in
/// the pod may read it; an agent that fetches certificates has a user of its own.
///
/// # Errors
/// If it cannot be read, if it is no file, or if group or others may write it.
pub fn read_mounted(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = open_named(path).map_err(|source| read_error(path, source))?;
    only_its_owners(path, &file.metadata().map_err(|source| read_error(path, source))?)?;
    read_all(path, file)
}

/// Reads certificates that a document names, of at most 4 MiB.
///
/// # Errors
/// If it cannot be read, is no file, or is larger.
pub fn read_bundle(path: &Path) -> io::Result<Vec<u8>> {
    read_within(open_named(path)?, MAX_BUNDLE, "these are not certificates")
}

/// Checks that nobody else may have put something into the directory `path`.
///
/// # Errors
/// If it cannot be looked at, if it is neither ours nor root's, or if group or others may write to it.
pub fn check_directory(path: &Path) -> Result<(), FileError> {
    only_ours(path, &path.metadata().map_err(|source| read_error(path, source))?)
}

/// Checks that nobody else may have put something into the directory `path`, or anything below it. Files that hold
/// nothing, such as locks, say nothing.
///
/// # Errors
/// If one cannot be looked at, is neither ours nor root's, or if group or others may write to it.
pub fn check_tree(path: &Path) -> Result<(), FileError> {
    check_directory(path)?;
    for entry in fs::read_dir(path).map_err(|source| read_error(path, source))? {
        let entry = entry.map_err(|source| read_error(path, source))?;
        let below = entry.path();
        let kind = entry.file_type();
        // Where no link leads elsewhere, nothing of the way there is to be found again, for thousands of files.
        let found = match &kind {
            Ok(kind) if !kind.is_symlink() => entry.metadata(),
            _ => below.metadata(),
        };
        let metadata = match found {
            Ok(metadata) => metadata,
            // A draft that has its name by now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(read_error(&below, source)),
        };
        if metadata.is_file() && metadata.len() == 0 {
            continue;
        }
        only_ours(&below, &metadata)?;
        if kind.is_ok_and(|kind| kind.is_dir()) {
            check_tree(&below)?;
        }
    }
    Ok(())
}

fn mode(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}

/// Checks that what is at `path` is ours or root's, and that nobody else may write it.
fn only_ours(path: &Path, metadata: &Metadata) -> Result<(), FileError> {
    let (owner, ours) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != ours && owner != 0 {
        return Err(FileError::Foreign { path: path.to_owned(), owner, ours });
    }
    only_its_owners(path, metadata)
}

fn only_its_owners(path: &Path, metadata: &Metadata) -> Result<(), FileError> {
    let mode = mode(metadata);
    if mode & 0o022 == 0 { Ok(()) } else { Err(FileError::Writable { path: path.to_owned(), mode }) }
}

/// Reads all certificates of a PEM file, in their order.
///
/// # Errors
/// If the file cannot be read or holds no certificate.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    certificates(path, &read_all(path, open(path)?)?)
}

/// The same of a file that says whom to trust, and that nobody else may have written.
///
/// # Errors
/// As [`read_certificates`] and [`read_trusted`].
pub fn read_trusted_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    certificates(path, &read_trusted(path)?)
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let not_pem =
        |reason: String| FileError::NotPem { path: path.to_owned(), expected: "certificate", reason };
    let certificates = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| not_pem(error.to_string()))?;
    if certificates.is_empty() {
        return Err(not_pem("expected a section that starts with -----BEGIN CERTIFICATE-----".to_owned()));
    }
    Ok(certificates)
}

/// Reads a private key, if nobody else can.
///
/// # Errors
/// If the file cannot be read, is exposed to others, or holds no private key.
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_slice(&read_secret(path)?).map_err(|error| FileError::NotPem {
        path: path.to_owned(),
        expected: "private key",
        reason: error.to_string(),
    })
}

/// Certificates as PEM text, in their order.
pub fn certificates_to_pem(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|certificate| section("CERTIFICATE", certificate)).collect()
}

/// A private key as PEM text. The caller must treat it as the secret that it is.
pub fn key_to_pem(key: &PrivateKeyDer<'_>) -> String {
    let tag = match key {
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    section(tag, key.secret_der())
}

const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// A file that is written and synced but does not have its name yet.
pub(crate) struct Draft {
    path: PathBuf,
    file: NamedTempFile,
}

impl Draft {
    pub(crate) fn secret(path: &Path, content: &[u8]) -> Result<Self, FileError> {
        Self::write(path, content, SECRET)
    }

    pub(crate) fn public(path: &Path, content: &[u8]) -> Result<Self, FileError> {
        Self::write(path, content, PUBLIC)
    }

    fn write(path: &Path, content: &[u8], mode: u32) -> Result<Self, FileError> {
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let written = || -> io::Result<NamedTempFile> {
            let mut file = Builder::new()
                .prefix(".selvedge-")
                .permissions(Permissions::from_mode(mode))
                .tempfile_in(directory)?;
            file.write_all(content)?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        let file = written().map_err(|source| write_error(path, source))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Gives the file its name, whatever had that name before.
    pub(crate) fn replace(self) -> Result<(), FileError> {
        self.file.persist(&self.path).map_err(|error| write_error(&self.path, error.error))?;
        Ok(())
    }

    /// Gives the file its name, unless something has it already.
    pub(crate) fn keep_new(self) -> Result<(), FileError> {
        match self.file.persist_noclobber(&self.path) {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                Err(FileError::Exists { path: self.path })
            }
            Err(error) => Err(write_error(&self.path, error.error)),
        }
    }
}

fn section(tag: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(tag, der), config)
}

fn open(path: &Path) -> Result<File, FileError> {
    File::open(path).map_err(|source| read_error(path, source))
}

/// Opens what a document or a directory names, which may be anything: from a pipe nothing may ever come, and a device may never
/// end.
///
/// # Errors
/// If it cannot be opened, or is no file.
pub fn open_named(path: &Path) -> io::Result<File> {
    let no_waiting = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(no_waiting).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a file; replace it by a file")),
    }
}

fn read_all(path: &Path, file: File) -> Result<Vec<u8>, FileError> {
    read_within(file, MAX_FILE, "this is not a key or a certificate")
        .map_err(|source| read_error(path, source))
}

/// What is in `file`; if it is larger than `most` bytes, it is not what it should be, as `otherwise` says.
fn read_within(file: File, most: u64, otherwise: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let why = format!("larger than {} MiB; {otherwise}", most >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

fn read_error(path: &Path, source: io::Error) -> FileError {
    FileError::Read { path: path.to_owned(), source }
}

fn write_error(path: &Path, source: io::Error) -> FileError {
    FileError::Write { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_secret_is_born_readable_by_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");

        write_secret(&path, b"secret").unwrap();

        assert_eq!(mode(&path), 0o600);
        assert_eq!(read_secret(&path).unwrap(), b"secret");
    }

    #[test]
    fn a_secret_that_others_can_read_is_not_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write_secret(&path, b"secret").unwrap();

        for exposed in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, Permissions::from_mode(exposed)).unwrap();
            let error = read_secret(&path).unwrap_err().to_string();
            assert!(error.contains("chmod 600") && error.contains(&path.display().to_string()), "{error}");
        }
    }

    #[test]
    fn what_others_may_write_is_not_used_and_what_others_may_read_is_where_that_is_no_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "token").unwrap();

        for (mode, used) in [(0o644, true), (0o444, true), (0o664, false), (0o646, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let read = read_trusted(&path);
            assert_eq!(read.is_ok(), used, "{mode:o}: {read:?}");
        }
        let error = read_trusted(&path).unwrap_err().to_string();
        assert!(error.contains("chmod go-w") && error.contains("token"), "{error}");

        check_directory(directory.path()).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(check_directory(directory.path()), Err(FileError::Writable { mode: 0o777, .. })));
    }

    /// Only root can give a file to somebody else, so without root there is nothing to see.
    #[test]
    fn what_belongs_to_somebody_else_is_not_used_whatever_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write_secret(&path, b"secret").unwrap();
        if std::os::unix::fs::chown(&path, Some(2102), None).is_err() {
            return;
        }

        for result in [read_secret(&path), read_trusted(&path)] {
            let error = result.unwrap_err();
            assert!(matches!(error, FileError::Foreign { owner: 2102, .. }), "{error}");
            assert!(error.to_string().contains("chown"), "{error}");
        }
        std::os::unix::fs::chown(&directory, Some(2102), None).unwrap();
        assert!(matches!(check_directory(directory.path()), Err(FileError::Foreign { .. })));
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::write(&path, "precious").unwrap();

        let error = Draft::secret(&path, b"secret").unwrap().keep_new().unwrap_err();

        assert!(matches!(error, FileError::Exists { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn what_holds_no_certificate_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        for content in ["", "hello", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"] {
            fs::write(&path, content).unwrap();
            let error = read_certificates(&path).unwrap_err().to_string();
            assert!(error.contains("ca.pem has no PEM certificate"), "{error}");
        }
    }
}
