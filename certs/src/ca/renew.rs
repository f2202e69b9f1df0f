//! A new issuer, while the authority is in use.
//!
//! Below the same root, peers need not be told: leaves of both issuers lead to the root that every peer has. A new root
//! takes over in three steps. First every peer trusts it, beside the old one. Then it signs, and the old one is still
//! trusted. When no leaf of the old root is left, the old root is removed.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use super::{Authority, ISSUER_RESERVE};
use crate::{
    bundle::Bundle,
    facts::{Fingerprint, fingerprint},
    verify::{Anchors, BundleError},
};

/// Its leaves would be strangers' to some, or leaves that are in use would be.
#[derive(Debug, thiserror::Error)]
#[error(
    "its root {found} and the one in use, {own}, do not trust each other: first put both roots into ca.crt and leave \
     tls.crt as it is; then change tls.crt and tls.key, and leave both roots in ca.crt"
)]
pub struct OtherRoot {
    /// The SHA-256 of the one.
    pub found: Fingerprint,
    /// And of the other.
    pub own: Fingerprint,
}

impl Authority {
    /// Signs by the issuer of `newer` from now on, and trusts whom it trusts.
    ///
    /// # Errors
    /// If it has another root, and not both are trusted by both.
    pub fn sign_by(&self, newer: &Self) -> Result<(), OtherRoot> {
        let (next, now) = (newer.issuing.load_full(), self.issuing.load_full());
        if next.root != now.root && !(now.others.contains(&next.root) && next.others.contains(&now.root)) {
            return Err(OtherRoot { found: fingerprint(&next.root), own: fingerprint(&now.root) });
        }
        self.issuing.store(Arc::clone(&next));
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Has workloads accept each other's leaves also where they lead to one of these `roots` of another CA, and to no
    /// others.
    ///
    /// # Errors
    /// If one cannot be used; then those before stay.
    pub fn trust_among_workloads(&self, roots: Vec<CertificateDer<'static>>) -> Result<(), BundleError> {
        let bundle = Bundle { workload_roots: roots, ..self.bundle() };
        Anchors::among_workloads(&bundle)?;
        if bundle != self.bundle() {
            self.workload_roots.store(Arc::new(bundle.workload_roots));
            self.changes.send_modify(|changes| *changes += 1);
        }
        Ok(())
    }

    /// Tells of every change of what signs or is trusted.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// When what signs leaves ends, and with it all that it has signed.
    pub fn issuer_ends(&self) -> SystemTime {
        self.issuing.load().issuer.not_after
    }

    /// Whether it is time for a new issuer: from then on there is time enough to notice if none comes.
    pub fn issuer_ends_soon(&self, now: SystemTime) -> bool {
        self.issuer_ends().duration_since(now).unwrap_or(Duration::ZERO) < ISSUER_RESERVE
    }
}

#[cfg(test)]
mod tests {
    use selvedge_model::{SpiffeId, TrustDomain};

    use super::*;
    use crate::{
        ca::CaPem,
        csr::KeyAndCsr,
        verify::{self, Role},
    };

    const DAY: Duration = Duration::from_secs(86_400);

    fn authority(pem: &CaPem, now: SystemTime) -> Authority {
        Authority::from_pem(pem, &TrustDomain::default(), now).unwrap()
    }

    #[test]
    fn an_issuer_takes_over_and_every_leaf_stays_good() {
        let now = SystemTime::now();
        let identity = SpiffeId::new(&TrustDomain::default(), "shop", "reviews").unwrap();
        let pem = CaPem::new_root(&TrustDomain::default(), now).unwrap();
        let used = authority(&pem, now);
        let request = KeyAndCsr::generate(&identity).unwrap();
        let sign = |at| used.sign(&request.der, &identity, DAY, at).unwrap();
        let before = sign(now);

        let later = now + 300 * DAY;
        assert!(!used.issuer_ends_soon(now) && used.issuer_ends_soon(later));
        used.sign_by(&authority(&pem, later)).unwrap();

        assert!(!used.issuer_ends_soon(later));
        let after = sign(later);
        assert_ne!(before[1], after[1], "another issuer");
        assert_eq!(after[1], used.issuer());
        for (chain, at) in [(before, now), (after, later)] {
            assert_eq!(verify::peer(&chain, &used.bundle(), at, Role::Client).unwrap().identity, identity);
        }
    }

    #[test]
    fn a_root_takes_over_step_by_step() {
        let now = SystemTime::now();
        let identity = SpiffeId::new(&TrustDomain::default(), "shop", "reviews").unwrap();
        let request = KeyAndCsr::generate(&identity).unwrap();
        let [old, new] = [0, 1].map(|_| CaPem::new_root(&TrustDomain::default(), now).unwrap());
        let beside = |ca: &CaPem, other: &CaPem| {
            let roots = [ca.certificate.as_slice(), other.certificate.as_slice()].concat();
            authority(&CaPem { root: Some(roots), ..ca.clone() }, now)
        };
        let used = authority(&old, now);
        let changes = used.changes();
        let before = used.sign(&request.der, &identity, DAY, now).unwrap();

        used.sign_by(&beside(&new, &old)).expect_err("nobody believes it yet");
        used.sign_by(&beside(&old, &new)).unwrap();
        let both = used.bundle();
        assert_eq!(both.roots.len(), 2);
        used.sign_by(&authority(&new, now)).expect_err("leaves of the old root are in use");
        used.sign_by(&beside(&new, &old)).unwrap();
        let after = used.sign(&request.der, &identity, DAY, now).unwrap();

        assert_eq!(*changes.borrow(), 2);
        for (chain, bundle) in [(&before, &both), (&after, &both), (&before, &used.bundle())] {
            assert!(verify::peer(chain, bundle, now, Role::Client).is_ok());
        }
        used.sign_by(&authority(&new, now)).unwrap();
        assert!(verify::peer(&before, &used.bundle(), now, Role::Client).is_err(), "its time is over");
        assert!(verify::peer(&after, &used.bundle(), now, Role::Client).is_ok());
    }

    #[test]
    fn another_root_is_not_taken() {
        let now = SystemTime::now();
        let used = authority(&CaPem::new_root(&TrustDomain::default(), now).unwrap(), now);
        let issuer = used.issuer();

        let other = authority(&CaPem::new_root(&TrustDomain::default(), now).unwrap(), now);
        used.sign_by(&other).unwrap_err();

        assert_eq!(used.issuer(), issuer);
    }
}
