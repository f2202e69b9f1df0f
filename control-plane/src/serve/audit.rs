//! The audit file: one line for each certificate that the CA has signed.
//!
//! A line is on disk before the certificate is given away, so what is not in the file was not issued. Where it cannot be
//! written, nothing is issued.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use selvedge_certs::{
    CertificateDer,
    facts::{Facts, Utc},
};
use serde::Serialize;

/// The file in the data directory.
pub const FILE: &str = "certificates.jsonl";
/// What it is called when it is full; the one that was called so before is removed.
pub const OLD_FILE: &str = "certificates.1.jsonl";
/// A file that is larger than this is full, in bytes. A line has about 300.
const LARGEST: u64 = 16 << 20;

/// By what it was known that a certificate's holder is who the certificate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofKind<'a> {
    /// The join token of this id.
    JoinToken(&'a str),
    /// A pod's ServiceAccount token.
    KubernetesToken,
    /// The certificate before.
    Certificate,
    /// None was needed: the certificate is the control plane's own.
    Own,
}

impl ProofKind<'_> {
    fn word(self) -> &'static str {
        match self {
            Self::JoinToken(_) => "join-token",
            Self::KubernetesToken => "kubernetes-token",
            Self::Certificate => "certificate",
            Self::Own => "control-plane",
        }
    }
}

/// Why a certificate could not be written down.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: a certificate cannot be written down, so none is issued: {source}; make space, or repair the file",
    path.display()
)]
pub struct AuditError {
    path: PathBuf,
    source: io::Error,
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    identity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<String>,
    serial: String,
    not_after: String,
    proof: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

/// The file, to add lines to.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    old_path: PathBuf,
    largest: u64,
    /// Held by who writes.
    turn: Mutex<()>,
}

impl Audit {
    /// The file in `directory`. It is made with the first line.
    pub fn new(directory: &Path) -> Self {
        Self::with_size(directory, LARGEST)
    }

    fn with_size(directory: &Path, largest: u64) -> Self {
        let (path, old_path) = (directory.join(FILE), directory.join(OLD_FILE));
        Self { path, old_path, largest, turn: Mutex::default() }
    }

    /// Writes down that `certificate` was signed at `now`. It is on disk when this returns.
    ///
    /// # Errors
    /// If it cannot be written; then the file is as it was.
    pub fn record(
        &self,
        certificate: &CertificateDer<'_>,
        proof: ProofKind<'_>,
        now: SystemTime,
    ) -> Result<(), AuditError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let written = line(certificate, proof, now).and_then(|line| self.append(&line));
        written.map_err(|source| AuditError { path: self.path.clone(), source })
    }

    /// The file is opened for each line: somebody may have moved it away.
    fn append(&self, line: &[u8]) -> io::Result<()> {
        let mut file = self.open()?;
        let mut length = file.metadata()?.len();
        if length >= self.largest {
            fs::rename(&self.path, &self.old_path)?;
            file = self.open()?;
            length = 0;
        }
        if length == 0 {
            // So that the file's name is on disk too.
            self.path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())?;
        }
        let written =
            end_line(&mut file, length).and_then(|()| file.write_all(line)).and_then(|()| file.sync_data());
        if written.is_err() {
            // A part of a line is worse than none. If this fails too, the next line begins on a line of its own.
            let _ = file.set_len(length);
        }
        written
    }

    fn open(&self) -> io::Result<File> {
        File::options().read(true).append(true).create(true).mode(0o600).open(&self.path)
    }
}

/// Ends a line that a crash has cut off.
fn end_line(file: &mut File, length: u64) -> io::Result<()> {
    let mut last = [b'\n'];
    if let Some(before) = length.checked_sub(1) {
        file.read_exact_at(&mut last, before)?;
    }
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

fn line(certificate: &CertificateDer<'_>, proof: ProofKind<'_>, now: SystemTime) -> io::Result<Vec<u8>> {
    let facts = Facts::parse(certificate).map_err(io::Error::other)?;
    let identity = facts.identity().map_err(io::Error::other)?;
    let line = Line {
        time: Utc(now).to_string(),
        identity: identity.to_string(),
        workload: facts.workload.as_ref().map(|workload| workload.name.to_string()),
        serial: facts.serial.to_string(),
        not_after: Utc(facts.not_after).to_string(),
        proof: proof.word(),
        token: if let ProofKind::JoinToken(id) = proof { Some(id) } else { None },
    };
    let mut bytes = serde_json::to_vec(&line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, time::Duration};

    use selvedge_certs::ca::Authority;
    use serde_json::Value;

    use super::*;
    use crate::testing;

    struct Fixture {
        directory: tempfile::TempDir,
        authority: Authority,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let authority = testing::authority(directory.path());
            Self { directory, authority }
        }

        fn certificate(&self) -> CertificateDer<'static> {
            let identity = testing::identity("shop", "reviews");
            let hour = Duration::from_secs(3600);
            let leaf = self.authority.issue(&identity, &[], hour, SystemTime::now()).unwrap();
            leaf.chain[0].clone()
        }

        fn record(&self, audit: &Audit, proof: ProofKind<'_>) -> Result<(), AuditError> {
            audit.record(&self.certificate(), proof, SystemTime::now())
        }

        fn lines(&self, name: &str) -> Vec<String> {
            let text = fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        }
    }

    #[test]
    fn a_line_says_who_until_when_and_by_which_proof() {
        let f = Fixture::new();
        let certificate = f.certificate();
        let audit = Audit::new(f.directory.path());

        audit.record(&certificate, ProofKind::JoinToken("4fa0"), SystemTime::now()).unwrap();
        f.record(&audit, ProofKind::Certificate).unwrap();

        let lines = f.lines(FILE);
        let first: Value = serde_json::from_str(&lines[0]).unwrap();
        let facts = Facts::parse(&certificate).unwrap();
        assert_eq!(first["identity"], "spiffe://cluster.local/ns/shop/sa/reviews");
        assert_eq!(first["serial"], facts.serial.to_string());
        assert_eq!(first["not_after"], Utc(facts.not_after).to_string());
        assert_eq!((&first["proof"], &first["token"]), (&"join-token".into(), &"4fa0".into()));
        let second: Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!((&second["proof"], &second["token"]), (&"certificate".into(), &Value::Null));
        let mode = fs::metadata(f.directory.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_full_file_is_kept_once() {
        let f = Fixture::new();
        let audit = Audit::with_size(f.directory.path(), 1);

        for proof in [ProofKind::Own, ProofKind::KubernetesToken, ProofKind::Certificate] {
            f.record(&audit, proof).unwrap();
        }

        let (now, old) = (f.lines(FILE), f.lines(OLD_FILE));
        assert_eq!((now.len(), old.len()), (1, 1));
        assert!(now[0].contains("\"certificate\"") && old[0].contains("kubernetes-token"), "{now:?} {old:?}");
    }

    #[test]
    fn a_line_that_a_crash_has_cut_off_spoils_no_other() {
        let f = Fixture::new();
        let audit = Audit::new(f.directory.path());
        fs::write(f.directory.path().join(FILE), "{\"time\":\"2026-").unwrap();

        f.record(&audit, ProofKind::Own).unwrap();

        let lines = f.lines(FILE);
        assert_eq!(lines.len(), 2);
        serde_json::from_str::<Value>(&lines[1]).unwrap();
    }

    #[test]
    fn what_cannot_be_written_is_said_with_the_file() {
        let f = Fixture::new();
        let audit = Audit::new(f.directory.path());
        let in_the_way = f.directory.path().join(FILE);
        fs::create_dir(&in_the_way).unwrap();

        let error = f.record(&audit, ProofKind::Own).unwrap_err().to_string();
        assert!(error.contains(FILE) && error.contains("none is issued"), "{error}");

        fs::remove_dir(&in_the_way).unwrap();
        f.record(&audit, ProofKind::Own).unwrap();
    }
}
