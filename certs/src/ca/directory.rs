//! An authority whose keys are in a directory of ours: made there once, and loaded by whoever comes next.

use std::{
    fs::{self, DirBuilder, File},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustls_pki_types::CertificateDer;
use selvedge_model::TrustDomain;

use super::{Authority, AuthorityError, ISSUER_RESERVE, NotItsKey, Signer, rotation};
use crate::{
    facts::{Facts, is_signed_by},
    files::{self, Draft, FileError},
};

pub(super) const ROOT: &str = "ca.pem";
pub(super) const ROOT_KEY: &str = "ca-key.pem";
pub(super) const ISSUER: &str = "issuer.pem";
pub(super) const ISSUER_KEY: &str = "issuer-key.pem";

impl Authority {
    /// Makes a new authority in `directory`: `ca.pem`, `ca-key.pem`, `issuer.pem`, `issuer-key.pem`.
    ///
    /// # Errors
    /// If one of these files exists already, or cannot be written.
    pub fn create(directory: &Path, trust_domain: &TrustDomain) -> Result<Self, AuthorityError> {
        let _lock = lock_new(directory)?;
        Files::of(directory).create(trust_domain, SystemTime::now())
    }

    /// Loads the authority that is in `directory`. Makes a new issuer if that is missing or near its end.
    ///
    /// # Errors
    /// If a file is missing, exposed to others, damaged, or does not belong to the rest.
    pub fn load(directory: &Path) -> Result<Self, AuthorityError> {
        let _lock = lock(directory)?;
        load_in_force(directory)
    }

    /// Loads the authority that is in `directory`, or makes one if there is none.
    ///
    /// Two processes that start together end up with the same authority.
    ///
    /// # Errors
    /// As [`Self::create`] and [`Self::load`]; also if the authority serves another trust domain.
    pub fn load_or_create(directory: &Path, trust_domain: &TrustDomain) -> Result<Self, AuthorityError> {
        let _lock = lock_new(directory)?;
        let files = Files::of(directory);
        if !files.root.exists() {
            return files.create(trust_domain, SystemTime::now());
        }
        let authority = load_in_force(directory)?;
        if authority.trust_domain == *trust_domain {
            Ok(authority)
        } else {
            Err(AuthorityError::OtherTrustDomain {
                path: files.root,
                found: authority.trust_domain,
                wanted: trust_domain.clone(),
            })
        }
    }
}

/// At whatever step of a change of its root it is.
fn load_in_force(directory: &Path) -> Result<Authority, AuthorityError> {
    let now = SystemTime::now();
    match rotation::state(directory)? {
        Some(rotation) => rotation::load(directory, rotation.step, now),
        None => Files::of(directory).load(now),
    }
}

/// An authority's four files.
pub(super) const FILES: [&str; 4] = [ROOT, ROOT_KEY, ISSUER, ISSUER_KEY];

/// Where they are.
pub(super) struct Files {
    pub(super) root: PathBuf,
    pub(super) root_key: PathBuf,
    issuer: PathBuf,
    issuer_key: PathBuf,
}

impl Files {
    pub(super) fn of(directory: &Path) -> Self {
        Self::at(|name| directory.join(name))
    }

    /// Those that move from `next` to `directory`: each is in the one place or the other.
    pub(super) fn moved(directory: &Path, next: &Path) -> Self {
        Self::at(|name| {
            let before = next.join(name);
            if before.exists() { before } else { directory.join(name) }
        })
    }

    fn at(file: impl Fn(&str) -> PathBuf) -> Self {
        Self {
            root: file(ROOT),
            root_key: file(ROOT_KEY),
            issuer: file(ISSUER),
            issuer_key: file(ISSUER_KEY),
        }
    }

    pub(super) fn create(
        &self,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Authority, AuthorityError> {
        for path in [&self.root_key, &self.root, &self.issuer_key, &self.issuer] {
            if path.exists() {
                return Err(FileError::Exists { path: path.clone() }.into());
            }
        }
        let root = Signer::root(trust_domain, now)?;
        let issuer = root.new_issuer(trust_domain, now)?;
        // All are written and synced before the first gets its name, and the root's certificate gets it
        // last: what a crash leaves behind is never mistaken for an authority.
        let drafts = [
            Draft::secret(&self.root_key, root.key_pem().as_bytes())?,
            Draft::secret(&self.issuer_key, issuer.key_pem().as_bytes())?,
            Draft::public(&self.issuer, issuer.certificate_pem().as_bytes())?,
            Draft::public(&self.root, root.certificate_pem().as_bytes())?,
        ];
        for draft in drafts {
            draft.keep_new()?;
        }
        Ok(Authority::new(trust_domain.clone(), root.certificate, Vec::new(), issuer, Vec::new()))
    }

    pub(super) fn load(&self, now: SystemTime) -> Result<Authority, AuthorityError> {
        let (root, facts) = read_one(&self.root)?;
        if now >= facts.not_after {
            return Err(AuthorityError::Expired { path: self.root.clone(), not_after: facts.not_after });
        }
        let Some(trust_domain) = facts.authority_trust_domain() else {
            let problem = "this is not the CA of a trust domain: it has no URI name spiffe://<trust-domain>; \
                           make one with: selvedge certs ca --out DIR";
            return Err(AuthorityError::Mismatch { path: self.root.clone(), problem: problem.to_owned() });
        };
        // The root's key is used once a year. Its permissions are checked now, so that a key that others can read is found
        // now and not then.
        if self.root_key.exists() {
            files::read_secret(&self.root_key)?;
        }
        let current = self.current_issuer(&root)?;
        let issuer = match current {
            Some(issuer) if issuer.not_after > now + ISSUER_RESERVE => issuer,
            // The root's key may be kept elsewhere: then an issuer serves to its last day.
            Some(issuer) if issuer.not_after > now && !self.root_key.exists() => issuer,
            _ => self.replace_issuer(&trust_domain, now)?,
        };
        Ok(Authority::new(trust_domain, root, Vec::new(), issuer, Vec::new()))
    }

    fn current_issuer(&self, root: &CertificateDer<'_>) -> Result<Option<Signer>, AuthorityError> {
        if !self.issuer.exists() || !self.issuer_key.exists() {
            return Ok(None);
        }
        let issuer = Signer::read(&self.issuer, &self.issuer_key)?;
        if is_signed_by(&issuer.certificate, root) {
            Ok(Some(issuer))
        } else {
            let problem =
                format!("{} did not sign it; remove it and {ISSUER_KEY} for a new one", self.root.display());
            Err(AuthorityError::Mismatch { path: self.issuer.clone(), problem })
        }
    }

    /// Who signs by the root's key.
    pub(super) fn root_signer(&self) -> Result<Signer, AuthorityError> {
        Signer::read(&self.root, &self.root_key)
    }

    fn replace_issuer(&self, trust_domain: &TrustDomain, now: SystemTime) -> Result<Signer, AuthorityError> {
        let root = self.root_signer()?;
        let issuer = root.new_issuer(trust_domain, now)?;
        // Without its certificate a key does not count, so the old pair is taken apart first.
        if self.issuer.exists() {
            fs::remove_file(&self.issuer)
                .map_err(|source| FileError::Write { path: self.issuer.clone(), source })?;
        }
        files::write_secret(&self.issuer_key, issuer.key_pem().as_bytes())?;
        files::write_public(&self.issuer, issuer.certificate_pem().as_bytes())?;
        Ok(issuer)
    }
}

impl Signer {
    fn read(certificate_path: &Path, key_path: &Path) -> Result<Self, AuthorityError> {
        let (certificate, facts) = read_one(certificate_path)?;
        let key = files::read_key(key_path)?;
        let mismatch = |problem: String| AuthorityError::Mismatch { path: key_path.to_owned(), problem };
        Self::of(certificate, &key, facts.not_after).map_err(|error| match error {
            NotItsKey::Unusable(error) => mismatch(format!("not a usable key: {error}")),
            NotItsKey::Other => {
                mismatch(format!("not the key of {}; restore the right one", certificate_path.display()))
            }
            NotItsKey::Issuer(error) => error.into(),
        })
    }
}

/// Holds the directory for us alone while it is read and written.
pub(super) fn lock(directory: &Path) -> Result<File, AuthorityError> {
    if directory.exists() {
        files::check_directory(directory)?;
    }
    let locked = || {
        let handle = File::open(directory)?;
        handle.lock()?;
        Ok(handle)
    };
    locked().map_err(|source| AuthorityError::Directory { path: directory.to_owned(), source })
}

/// As [`lock`], but makes the directory if it is missing.
fn lock_new(directory: &Path) -> Result<File, AuthorityError> {
    // The CA's certificate is for everybody, and whatever the umask is, the directory is ours alone to write to.
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .map_err(|source| AuthorityError::Directory { path: directory.to_owned(), source })?;
    lock(directory)
}

pub(super) fn read_one(path: &Path) -> Result<(CertificateDer<'static>, Facts), AuthorityError> {
    let mut certificates = files::read_certificates(path)?;
    if certificates.len() != 1 {
        let problem = format!("holds {} certificates; expected one", certificates.len());
        return Err(AuthorityError::Mismatch { path: path.to_owned(), problem });
    }
    let certificate = certificates.remove(0);
    let facts = Facts::parse(&certificate)
        .map_err(|source| AuthorityError::Malformed { path: path.to_owned(), source })?;
    Ok((certificate, facts))
}
