//! For tests: certificates of every kind, also those that [`crate::ca`] never makes.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use rustls_pki_types::CertificateDer;
use selvedge_model::{SpiffeId, TrustDomain};

use crate::{bundle::Bundle, leaf::Leaf, tls::Credentials};

/// A CA that signs whatever it is told to.
pub(crate) struct Forger {
    pub(crate) root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Forger {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().into();
        Self { root, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn bundle(&self) -> Bundle {
        Bundle::new(TrustDomain::default(), vec![self.root.clone()])
    }

    /// A good leaf for `identity`, after `change`. What the leaf says of itself is not changed with it.
    pub(crate) fn leaf_with(&self, identity: &SpiffeId, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let now = SystemTime::now();
        let (not_before, not_after) = (now - Duration::from_secs(60), now + Duration::from_secs(3600));
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        params.subject_alt_names = vec![uri(identity.as_str())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.signed_by(&key, &self.issuer).unwrap().into()];
        Leaf { chain, key: key.into(), identity: identity.clone(), not_before, not_after }
    }

    pub(crate) fn leaf(&self, identity: &SpiffeId) -> Leaf {
        self.leaf_with(identity, |_| ())
    }

    pub(crate) fn credentials(&self, identity: &SpiffeId) -> Credentials {
        Credentials { leaf: self.leaf(identity), bundle: self.bundle() }
    }
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn identity(service_account: &str) -> SpiffeId {
    SpiffeId::new(&TrustDomain::default(), "shop", service_account).unwrap()
}
