//! A new issuer below the same root, while the authority is in use.
//!
//! Nobody need be told: leaves of both lead to the root that everybody has. Another root is another matter.

use std::time::{Duration, SystemTime};

use super::{Authority, ISSUER_RESERVE};
use crate::facts::{Fingerprint, fingerprint};

/// Leaves of another root would be strangers' to everybody who has this one alone.
#[derive(Debug, thiserror::Error)]
#[error("its root is {found}, and the one in use is {own}")]
pub struct OtherRoot {
    /// The SHA-256 of the one.
    pub found: Fingerprint,
    /// And of the other.
    pub own: Fingerprint,
}

impl Authority {
    /// Signs by the issuer of `newer` from now on.
    ///
    /// # Errors
    /// If it has another root.
    pub fn sign_by(&self, newer: &Self) -> Result<(), OtherRoot> {
        if newer.root != self.root {
            return Err(OtherRoot { found: fingerprint(&newer.root), own: fingerprint(&self.root) });
        }
        self.issuing.store(newer.issuing.load_full());
        Ok(())
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
    fn another_root_is_not_taken() {
        let now = SystemTime::now();
        let used = authority(&CaPem::new_root(&TrustDomain::default(), now).unwrap(), now);
        let issuer = used.issuer();

        let other = authority(&CaPem::new_root(&TrustDomain::default(), now).unwrap(), now);
        used.sign_by(&other).unwrap_err();

        assert_eq!(used.issuer(), issuer);
    }
}
