//! A CA in a directory is followed while this process runs: it gets a new issuer in time, and another root takes over
//! step by step (`selvedge certs rotate-root`).

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use selvedge_certs::{
    ca::{Authority, rotation},
    facts::Fingerprint,
};

use crate::status::OwnCertificates;

/// Between two looks at whether the root changes.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two attempts to get a new issuer: it is replaced 90 days before it ends.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// After a failure.
const RETRY: Duration = Duration::from_secs(30);

/// Loads the CA in `directory` again when the issuer in use is old, which makes a new one there, and when its root
/// changes. Never ends.
pub(super) async fn keep(authority: &Authority, shown: &OwnCertificates, directory: &Path) {
    let (mut renewed, mut seen) = (Instant::now(), None::<Option<rotation::Rotation>>);
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let found = match rotation::state(directory) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "the CA in --data-dir stays as it is");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        // After a start too: it may have changed since the CA was loaded.
        let found = Some(found);
        let changed = seen != found;
        let old = authority.issuer_ends_soon(SystemTime::now()) && renewed.elapsed() >= RENEWAL_INTERVAL;
        if old {
            renewed = Instant::now();
        }
        if (changed || old) && renew(authority, shown, directory) {
            seen = found;
        }
    }
}

/// Whether the CA that is there is in use now.
fn renew(authority: &Authority, shown: &OwnCertificates, directory: &Path) -> bool {
    let (before, trusted) = (authority.issuer(), authority.bundle().roots);
    let renewed = Authority::load(directory).map_err(|error| error.to_string()).and_then(|newest| {
        // Who is told of a change renews its certificate: nobody is told of none.
        let changes = newest.issuer() != before || newest.bundle().roots != trusted;
        if changes { authority.sign_by(&newest).map_err(|error| error.to_string()) } else { Ok(()) }
    });
    match renewed {
        // Where the root's key is kept elsewhere an issuer serves to its last day.
        Ok(()) if authority.issuer() == before && authority.bundle().roots == trusted => true,
        Ok(()) => {
            shown.use_authority(authority);
            let (issuer, roots) = (Fingerprint(authority.root_sha256()), authority.bundle().roots.len());
            tracing::info!(root = %issuer, trusted_roots = roots, "the CA in --data-dir has changed and is in use");
            true
        }
        Err(error) => {
            tracing::error!(error, "the CA in --data-dir cannot be used; the one in use stays in use");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use super::*;
    use crate::{status::Purpose, testing};

    #[test]
    fn an_issuer_is_replaced_while_the_authority_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let authority = testing::authority(directory.path());
        let shown = OwnCertificates::new(&authority, Arc::default());
        let before = authority.issuer();

        renew(&authority, &shown, directory.path());
        assert_eq!(authority.issuer(), before, "nothing newer is there");

        // As when its end is near.
        fs::remove_file(directory.path().join("issuer.pem")).unwrap();
        renew(&authority, &shown, directory.path());
        assert_ne!(authority.issuer(), before);
        assert!(shown.now().contains_key(&Purpose::Issuer));

        let after = authority.issuer();
        fs::remove_file(directory.path().join("ca.pem")).unwrap();
        renew(&authority, &shown, directory.path());
        assert_eq!(authority.issuer(), after, "what is in use stays in use");
    }
}
