//! A new root for an authority in a directory, in three steps: it is trusted, it signs, and the old one is no longer
//! trusted.
//!
//! The new root is in the directory `NEXT` beside the old one's files. One file, [`STATE`], says how far it has come, and
//! changes in one piece. So whoever loads the authority, whenever it is, finds one step or the other. After the last step
//! the new root's files take the place of the old one's.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    time::SystemTime,
};

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{
    Authority, AuthorityError, Signer,
    directory::{FILES, Files, lock, read_one},
    signer_params,
};
use crate::{
    facts::Fingerprint,
    files::{self, FileError},
};

/// Where the new root's files are until they take the place of the old one's.
pub(super) const NEXT: &str = "next-root";
/// The file that says how far the new root has come.
pub const STATE: &str = "root-rotation.json";
/// The new root's key, vouched for by the old root, so that who knows only the old one can still join.
const CROSS: &str = "cross.pem";

/// How far a new root has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// It is trusted beside the old one, which signs.
    Trust,
    /// It signs, and the old one is still trusted.
    Issue,
    /// It alone is trusted.
    Drop,
}

/// A change of roots that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// How far it has come.
    pub step: Step,
    /// Whether it is being taken back.
    #[serde(default)]
    pub back: bool,
    /// The SHA-256 of the root that there was.
    pub old: String,
    /// The SHA-256 of the root that takes over.
    pub new: String,
}

/// The change of roots that is under way in `directory`, if there is one.
///
/// # Errors
/// If the file that says so cannot be read.
pub fn state(directory: &Path) -> Result<Option<Rotation>, AuthorityError> {
    let path = directory.join(STATE);
    match fs::exists(&path) {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(source) => return Err(AuthorityError::Directory { path, source }),
    }
    let bytes = files::read_trusted(&path)?;
    let state = serde_json::from_slice(&bytes);
    state.map(Some).map_err(|error| AuthorityError::Mismatch {
        path,
        problem: format!("does not say how far the new root has come: {error}"),
    })
}

/// Makes a new root in `directory`, to be trusted beside the one that is there.
///
/// # Errors
/// If one is under way already, or a file cannot be read or written.
pub fn begin(directory: &Path, now: SystemTime) -> Result<(), AuthorityError> {
    let _lock = lock(directory)?;
    if state(directory)?.is_some() {
        return Err(FileError::Exists { path: directory.join(STATE) }.into());
    }
    let (old, next) = (Files::of(directory), directory.join(NEXT));
    // Left behind by one that was given up while it began.
    remove(&next)?;
    DirBuilder::new()
        .mode(0o700)
        .create(&next)
        .map_err(|source| AuthorityError::Directory { path: next.clone(), source })?;
    let own = old.load(now)?;
    let trust_domain = own.trust_domain();
    let new = Files::of(&next).create(trust_domain, now)?;
    // The old root's key may be kept elsewhere.
    if old.root_key.exists() {
        let (old, new) = (old.root_signer()?, Files::of(&next).root_signer()?);
        let cross = new.vouched_for_by(&old, trust_domain, now)?;
        files::write_public(&next.join(CROSS), files::certificates_to_pem(&[cross]).as_bytes())?;
    }
    let root = |authority: &Authority| Fingerprint(authority.root_sha256()).to_string();
    write(directory, &Rotation { step: Step::Trust, back: false, old: root(&own), new: root(&new) })
}

/// Says how far the change of roots in `directory` has come.
///
/// # Errors
/// If that cannot be written.
pub fn set(directory: &Path, rotation: &Rotation) -> Result<(), AuthorityError> {
    let _lock = lock(directory)?;
    write(directory, rotation)
}

/// Ends the change of roots in `directory`: the new root takes the place of the old one.
///
/// # Errors
/// If a file cannot be moved; then it can be tried again.
pub fn finish(directory: &Path) -> Result<(), AuthorityError> {
    let _lock = lock(directory)?;
    let next = directory.join(NEXT);
    for name in FILES {
        let from = next.join(name);
        if from.exists() {
            let to = directory.join(name);
            fs::rename(&from, &to).map_err(|source| FileError::Write { path: to, source })?;
        }
    }
    forget(directory)
}

/// Gives the new root in `directory` up.
///
/// # Errors
/// If a file cannot be removed; then it can be tried again.
pub fn give_up(directory: &Path) -> Result<(), AuthorityError> {
    let _lock = lock(directory)?;
    forget(directory)
}

/// The state first: without it the new root counts for nothing.
fn forget(directory: &Path) -> Result<(), AuthorityError> {
    let path = directory.join(STATE);
    fs::remove_file(&path).map_err(|source| FileError::Write { path, source })?;
    remove(&directory.join(NEXT))
}

fn remove(directory: &Path) -> Result<(), AuthorityError> {
    match fs::remove_dir_all(directory) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(AuthorityError::Directory { path: directory.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn write(directory: &Path, rotation: &Rotation) -> Result<(), AuthorityError> {
    let bytes = serde_json::to_vec(rotation).expect("words always have a JSON form");
    Ok(files::write_public(&directory.join(STATE), &bytes)?)
}

impl Signer {
    /// The same key and name in a certificate that `old` has signed.
    pub(super) fn vouched_for_by(
        &self,
        old: &Self,
        trust_domain: &selvedge_model::TrustDomain,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let key = self.issuer.key();
        let life = old.not_after.min(self.not_after).duration_since(now).unwrap_or_default();
        let params = signer_params("root", key, trust_domain, now, life, 1)?;
        Ok(params.signed_by(key, &old.issuer)?.into())
    }
}

/// The authority in `directory` at this step of a change of its root.
pub(super) fn load(directory: &Path, step: Step, now: SystemTime) -> Result<Authority, AuthorityError> {
    let (old, next) = (Files::of(directory), directory.join(NEXT));
    if step == Step::Drop {
        return Files::moved(directory, &next).load(now);
    }
    let (old, new) = (old.load(now)?, Files::of(&next).load(now)?);
    let (signs, beside) = if step == Step::Trust { (old, new) } else { (new, old) };
    let cross = next.join(CROSS);
    let vouched = step == Step::Issue && cross.exists();
    let cross = if vouched { Some(read_one(&cross)?.0) } else { None };
    signs.trust_beside(&beside, cross);
    Ok(signs)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use selvedge_model::{SpiffeId, TrustDomain};

    use super::*;
    use crate::{
        control_plane_identity,
        facts::fingerprint,
        verify::{self, Role},
    };

    const DAY: Duration = Duration::from_secs(86_400);

    fn set(directory: &Path, step: Step) {
        let now = state(directory).unwrap().unwrap();
        super::set(directory, &Rotation { step, ..now }).unwrap();
    }

    fn issues(authority: &Authority) -> Vec<CertificateDer<'static>> {
        let identity = SpiffeId::new(&TrustDomain::default(), "shop", "reviews").unwrap();
        authority.issue(&identity, &[], DAY, SystemTime::now()).unwrap().chain
    }

    fn believes(authority: &Authority, chain: &[CertificateDer<'_>]) -> bool {
        verify::peer(chain, &authority.bundle(), SystemTime::now(), Role::Client).is_ok()
    }

    #[test]
    fn a_new_root_takes_over_in_three_steps_of_which_each_is_found_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let at_start = Authority::create(directory.path(), &TrustDomain::default()).unwrap();
        let load = || Authority::load(directory.path()).unwrap();
        let before = issues(&at_start);
        let used = load();

        begin(directory.path(), SystemTime::now()).unwrap();
        let rotation = state(directory.path()).unwrap().unwrap();
        let [old, new]: [_; 2] = load().bundle().roots.try_into().unwrap();
        assert_eq!(rotation.step, Step::Trust);
        assert_eq!([rotation.old, rotation.new], [&old, &new].map(|root| fingerprint(root).to_string()));
        used.sign_by(&load()).unwrap();
        begin(directory.path(), SystemTime::now()).expect_err("one at a time");

        set(directory.path(), Step::Issue);
        assert_eq!(load().bundle().roots, [new.clone(), old.clone()]);
        used.sign_by(&load()).unwrap();
        let after = issues(&used);
        assert!(believes(&used, &before) && believes(&used, &after));
        assert_eq!(used.bundle().root_of(&before), Some(&old));
        assert_eq!(used.bundle().root_of(&after), Some(&new));

        set(directory.path(), Step::Drop);
        used.sign_by(&load()).unwrap();
        assert_eq!(used.bundle().roots, std::slice::from_ref(&new));
        assert!(!believes(&used, &before) && believes(&used, &after));
        // As if it were cut off half-way.
        fs::rename(directory.path().join(NEXT).join("issuer.pem"), directory.path().join("issuer.pem"))
            .unwrap();
        assert_eq!(load().issuer(), used.issuer());
        finish(directory.path()).unwrap();
        assert_eq!(load().issuer(), used.issuer());
        assert_eq!(state(directory.path()).unwrap(), None);
        assert!(!directory.path().join(NEXT).exists());
    }

    #[test]
    fn what_was_begun_can_be_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let used = Authority::create(directory.path(), &TrustDomain::default()).unwrap();
        let (root, load) = (used.root_sha256(), || Authority::load(directory.path()).unwrap());
        begin(directory.path(), SystemTime::now()).unwrap();
        used.sign_by(&load()).unwrap();
        set(directory.path(), Step::Issue);
        used.sign_by(&load()).unwrap();
        let under_new = issues(&used);

        set(directory.path(), Step::Trust);
        used.sign_by(&load()).unwrap();
        assert!(believes(&used, &under_new), "it is still in use");
        give_up(directory.path()).unwrap();
        used.sign_by(&load()).unwrap();

        assert_eq!((used.root_sha256(), used.bundle().roots.len()), (root, 1));
        begin(directory.path(), SystemTime::now()).unwrap();
    }

    #[test]
    fn who_knows_only_the_old_root_still_knows_the_control_plane_while_both_are_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let old = Authority::create(directory.path(), &TrustDomain::default()).unwrap();
        begin(directory.path(), SystemTime::now()).unwrap();
        set(directory.path(), Step::Issue);
        let new = Authority::load(directory.path()).unwrap();
        let identity = control_plane_identity(&TrustDomain::default());

        let mut leaf = new.issue(&identity, &[], DAY, SystemTime::now()).unwrap();
        assert!(!believes(&old, &leaf.chain));
        leaf.chain.extend(new.cross());

        assert!(believes(&old, &leaf.chain) && believes(&new, &leaf.chain));
        assert_ne!(fingerprint(&old.bundle().roots[0]), fingerprint(&new.bundle().roots[0]));
    }
}
