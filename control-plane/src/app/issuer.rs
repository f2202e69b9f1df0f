//! A new issuer for a CA in a directory, in time, however long this process runs.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use selvedge_certs::ca::Authority;

use crate::status::OwnCertificates;

/// Between two looks: an issuer is replaced 90 days before it ends.
const LOOK_INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// Loads the CA in `directory` again when the issuer in use is old, which makes a new one there. Never ends.
pub(super) async fn keep(authority: &Authority, shown: &OwnCertificates, directory: &Path) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if authority.issuer_ends_soon(SystemTime::now()) {
            renew(authority, shown, directory);
        }
    }
}

fn renew(authority: &Authority, shown: &OwnCertificates, directory: &Path) {
    let before = authority.issuer();
    let renewed = Authority::load(directory)
        .map_err(|error| error.to_string())
        .and_then(|newest| authority.sign_by(&newest).map_err(|error| error.to_string()));
    match renewed {
        // Where the root's key is kept elsewhere an issuer serves to its last day.
        Ok(()) if authority.issuer() == before => {}
        Ok(()) => {
            shown.use_authority(authority);
            tracing::info!("certificates are signed by a new issuer below the same root from now on");
        }
        Err(error) => tracing::error!(error, "the CA in --data-dir gives no new issuer"),
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
