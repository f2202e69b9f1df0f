//! The audit file: one line for each certificate that the CA has signed.
//!
//! A line is on disk before the certificate is given away, so what is not in the file was not issued. Where it cannot be
//! written, nothing is issued.
//!
//! A file is not kept for ever. So that nobody has what was issued to others forgotten by asking again and again, an identity has
//! so many lines in an hour; the rest of its lines are in a second file, which is forgotten by itself.

mod share;

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

use self::share::{Shares, Where};

/// The file in the data directory.
pub const FILE: &str = "certificates.jsonl";
/// What it is called when it is full; the one that was called so before is removed.
pub const OLD_FILE: &str = "certificates.1.jsonl";
/// The file for lines of identities that have had their share of the first one.
pub const MORE_FILE: &str = "certificates.more.jsonl";
/// What that one is called when it is full.
pub const OLD_MORE_FILE: &str = "certificates.more.1.jsonl";
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
    identity: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<String>,
    serial: String,
    not_after: String,
    proof: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

/// That lines of an identity are not in this file but in the second one.
#[derive(Serialize)]
struct LeftOut<'a> {
    time: String,
    identity: &'a str,
    /// How many were in the hour that is over. Absent: it has just begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<u64>,
    lines_in: &'a str,
}

/// The files, to add lines to.
#[derive(Debug)]
pub struct Audit {
    file: Journal,
    more: Journal,
    /// Held by who writes.
    shares: Mutex<Shares>,
}

/// A file, and the one that was full before.
#[derive(Debug)]
struct Journal {
    path: PathBuf,
    old_path: PathBuf,
    largest: u64,
}

impl Audit {
    /// The files in `directory`. Each is made with its first line.
    pub fn new(directory: &Path) -> Self {
        Self::with_size(directory, LARGEST)
    }

    fn with_size(directory: &Path, largest: u64) -> Self {
        let journal = |path: &str, old_path: &str| Journal {
            path: directory.join(path),
            old_path: directory.join(old_path),
            largest,
        };
        Self {
            file: journal(FILE, OLD_FILE),
            more: journal(MORE_FILE, OLD_MORE_FILE),
            shares: Mutex::default(),
        }
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
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let mut noted = Ok(());
        for (identity, left_out) in shares.over(now) {
            noted = noted.and(self.note(&identity, Some(left_out), now));
        }
        noted?;
        let read = line(certificate, proof, now).map_err(|source| self.file.error(source));
        let (identity, line) = read?;
        let place = if proof == ProofKind::Own { Where::First } else { shares.place(&identity, now) };
        match place {
            Where::First => self.file.append(&line),
            Where::Second { is_first } => {
                if is_first {
                    self.note(&identity, None, now)?;
                }
                self.more.append(&line)
            }
        }
    }

    /// Says in the first file that lines of `identity` are in the second one.
    fn note(&self, identity: &str, left_out: Option<u64>, now: SystemTime) -> Result<(), AuditError> {
        let note = LeftOut { time: Utc(now).to_string(), identity, left_out, lines_in: MORE_FILE };
        let line = ended(&note).map_err(|source| self.file.error(source))?;
        self.file.append(&line)
    }
}

impl Journal {
    fn append(&self, line: &[u8]) -> Result<(), AuditError> {
        self.write(line).map_err(|source| self.error(source))
    }

    fn error(&self, source: io::Error) -> AuditError {
        AuditError { path: self.path.clone(), source }
    }

    /// The file is opened for each line: somebody may have moved it away.
    fn write(&self, line: &[u8]) -> io::Result<()> {
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

/// The line of a certificate, and whose it is.
fn line(
    certificate: &CertificateDer<'_>,
    proof: ProofKind<'_>,
    now: SystemTime,
) -> io::Result<(String, Vec<u8>)> {
    let facts = Facts::parse(certificate).map_err(io::Error::other)?;
    let identity = facts.identity().map_err(io::Error::other)?;
    let identity = identity.to_string();
    let line = Line {
        time: Utc(now).to_string(),
        identity: &identity,
        workload: facts.workload.as_ref().map(|workload| workload.name.to_string()),
        serial: facts.serial.to_string(),
        not_after: Utc(facts.not_after).to_string(),
        proof: proof.word(),
        token: if let ProofKind::JoinToken(id) = proof { Some(id) } else { None },
    };
    let line = ended(&line)?;
    Ok((identity, line))
}

fn ended(line: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
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
    fn who_asks_again_and_again_has_only_his_own_lines_forgotten() {
        let f = Fixture::new();
        let audit = Audit::with_size(f.directory.path(), 1 << 20);
        let hour = Duration::from_secs(3600);
        let now = SystemTime::now();
        let [quiet, loud] = ["quiet", "loud"].map(|account| {
            let identity = testing::identity("shop", account);
            f.authority.issue(&identity, &[], hour, now).unwrap().chain[0].clone()
        });
        let more = 5;
        audit.record(&quiet, ProofKind::Certificate, now).unwrap();
        for _ in 0..share::LINES + more {
            audit.record(&loud, ProofKind::Certificate, now).unwrap();
        }
        audit.record(&quiet, ProofKind::Certificate, now).unwrap();

        assert_eq!(f.lines(MORE_FILE).len() as u64, more, "none is lost");
        let lines = f.lines(FILE);
        assert_eq!(lines.len() as u64, share::LINES + 3);
        let of_quiet = lines.iter().filter(|line| line.contains("/sa/quiet")).count();
        assert_eq!(of_quiet, 2);
        let note: Value = serde_json::from_str(&lines[lines.len() - 2]).unwrap();
        assert_eq!((&note["lines_in"], &note["left_out"]), (&MORE_FILE.into(), &Value::Null));
        assert_eq!(note["identity"], "spiffe://cluster.local/ns/shop/sa/loud");

        audit.record(&loud, ProofKind::Certificate, now + hour).unwrap();
        let lines = f.lines(FILE);
        let [note, line] = [2, 1].map(|from_end| &lines[lines.len() - from_end]);
        let note: Value = serde_json::from_str(note).unwrap();
        assert_eq!((&note["left_out"], &note["lines_in"]), (&more.into(), &MORE_FILE.into()));
        assert!(
            line.contains("/sa/loud") && line.contains("serial"),
            "the next hour has its own share: {line}"
        );
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
