//! An authority whose key is kept elsewhere and handed to us as text: a Kubernetes Secret.
//!
//! Several replicas share one root in this way. Each makes an issuer of its own and keeps that in memory:
//! leaves of all of them lead to the same root, and nothing but the root is worth stealing or sharing.

use std::{fmt, path::PathBuf, time::SystemTime};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use selvedge_model::TrustDomain;

use super::{Authority, AuthorityError, NotItsKey, Signer};
use crate::{
    facts::{Facts, Fingerprint, fingerprint, is_signed_by},
    files::{self, FileError},
};

/// A CA's certificate and key as PEM text, under the names that `kubernetes.io/tls` and cert-manager use.
#[derive(Clone)]
pub struct CaPem {
    /// `tls.crt`: the CA's certificate, and behind it those that lead from it to its root, if any.
    pub certificate: Vec<u8>,
    /// `tls.key`: its private key.
    pub key: Vec<u8>,
    /// `ca.crt`: the root, needed only where the certificate is not one itself; and roots that are trusted beside it.
    pub root: Option<Vec<u8>>,
    /// `cross.crt`: the CA's name and key in a certificate that the root before it has signed, while it takes over from
    /// that.
    pub cross: Option<Vec<u8>>,
}

impl fmt::Debug for CaPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CaPem")
    }
}

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const ROOT: &str = "ca.crt";
const CROSS: &str = "cross.crt";

impl CaPem {
    /// A new root for `trust_domain`.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn new_root(trust_domain: &TrustDomain, now: SystemTime) -> Result<Self, AuthorityError> {
        let root = Signer::root(trust_domain, now)?;
        let certificate = root.certificate_pem().into_bytes();
        let key = root.key_pem().into_bytes();
        Ok(Self { root: Some(certificate.clone()), certificate, key, cross: None })
    }

    /// The name and key of the root `new` in a certificate that this root signs, as PEM text.
    ///
    /// # Errors
    /// If one of them is not a root with its key.
    pub fn vouch_for(
        &self,
        new: &Self,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Vec<u8>, AuthorityError> {
        let cross = new.root_signer(now)?.vouched_for_by(&self.root_signer(now)?, trust_domain, now)?;
        Ok(to_pem(&[cross]).into_bytes())
    }

    /// The SHA-256 of the root's certificate, and the trust domain that it names.
    ///
    /// # Errors
    /// If this is not a root, or it names none.
    pub fn own_root(&self) -> Result<(Fingerprint, TrustDomain), AuthorityError> {
        let chain = certificates(CERTIFICATE, &self.certificate)?;
        let Some(own) = chain.first().filter(|own| is_signed_by(own, own)) else {
            return Err(mismatch(CERTIFICATE, "is not a root: whoever made it has to replace its root"));
        };
        let facts = Facts::parse(own)
            .map_err(|source| AuthorityError::Malformed { path: CERTIFICATE.into(), source })?;
        let named = facts.authority_trust_domain();
        let trust_domain =
            named.ok_or_else(|| mismatch(CERTIFICATE, "has no URI name spiffe://<trust-domain>"))?;
        Ok((fingerprint(own), trust_domain))
    }

    fn root_signer(&self, now: SystemTime) -> Result<Signer, AuthorityError> {
        let chain = certificates(CERTIFICATE, &self.certificate)?;
        let own = chain.first().ok_or_else(|| mismatch(CERTIFICATE, "is empty"))?;
        signer(own, &self.key, usable(CERTIFICATE, own, now)?.not_after)
    }

    /// Whether the CA is a root, and not below another.
    pub fn is_root(&self) -> bool {
        let chain = certificates(CERTIFICATE, &self.certificate).unwrap_or_default();
        chain.first().is_some_and(|own| is_signed_by(own, own))
    }
}

impl Authority {
    /// The authority of `trust_domain` that `pem` holds.
    ///
    /// A root makes a new issuer, which signs leaves. A CA that is itself signed by another is the issuer.
    ///
    /// # Errors
    /// If a certificate or the key is missing, damaged or expired, if they do not belong together, or if
    /// the CA says that it is another trust domain's. The path in the error is the name of the part.
    pub fn from_pem(
        pem: &CaPem,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let chain = certificates(CERTIFICATE, &pem.certificate)?;
        let Some((own, above)) = chain.split_first() else { return Err(mismatch(CERTIFICATE, "is empty")) };
        let facts = usable(CERTIFICATE, own, now)?;
        if facts.authority_trust_domain().is_some_and(|found| found != *trust_domain) {
            return Err(AuthorityError::OtherTrustDomain {
                path: CERTIFICATE.into(),
                found: facts.authority_trust_domain().unwrap_or_default(),
                wanted: trust_domain.clone(),
            });
        }
        let signer = signer(own, &pem.key, facts.not_after)?;
        let given = certificates(ROOT, pem.root.as_deref().unwrap_or_default())?;
        if is_signed_by(own, own) {
            let issuer = signer.new_issuer(trust_domain, now)?;
            let others = beside(own, given, now);
            let cross = cross_of(own, pem.cross.as_deref().unwrap_or_default())?;
            let authority = Self::new(trust_domain.clone(), own.clone(), others, issuer, Vec::new());
            return Ok(authority.with_cross(cross));
        }
        if given.is_empty() {
            return Err(mismatch(ROOT, "is empty; it must hold the root of tls.crt"));
        }
        let leads_to = |root: &CertificateDer<'static>| {
            let above: Vec<_> = above.iter().filter(|certificate| *certificate != root).cloned().collect();
            let mut below = own;
            for certificate in above.iter().chain([root]) {
                if !is_signed_by(below, certificate) {
                    return None;
                }
                below = certificate;
            }
            Some((root.clone(), above))
        };
        let (root, above) = given
            .iter()
            .find_map(leads_to)
            .ok_or_else(|| mismatch(CERTIFICATE, "does not lead to the root in ca.crt, step by step"))?;
        usable(ROOT, &root, now)?;
        let others = beside(&root, given, now);
        Ok(Self::new(trust_domain.clone(), root, others, signer, above))
    }
}

/// What vouches for `own`, if `given` does: before it signs, it is not `own`'s.
fn cross_of(
    own: &CertificateDer<'_>,
    given: &[u8],
) -> Result<Option<CertificateDer<'static>>, AuthorityError> {
    let subject =
        |certificate: &CertificateDer<'_>| Facts::parse(certificate).map(|facts| facts.subject).ok();
    let given = certificates(CROSS, given)?.into_iter().next();
    Ok(given.filter(|cross| subject(cross) == subject(own)))
}

/// Those of `given` that are to be trusted beside `root`: all that can be used.
fn beside(
    root: &CertificateDer<'static>,
    given: Vec<CertificateDer<'static>>,
    now: SystemTime,
) -> Vec<CertificateDer<'static>> {
    let mut others = Vec::new();
    for other in given {
        if other != *root && !others.contains(&other) && usable(ROOT, &other, now).is_ok() {
            others.push(other);
        }
    }
    others
}

fn certificates(part: &str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let all = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    all.map_err(|error| not_pem(part, "certificate", &error))
}

/// What the certificate says, if it may sign others now.
fn usable(part: &str, certificate: &CertificateDer<'_>, now: SystemTime) -> Result<Facts, AuthorityError> {
    let facts = Facts::parse(certificate)
        .map_err(|source| AuthorityError::Malformed { path: part.into(), source })?;
    if now >= facts.not_after {
        return Err(AuthorityError::Expired { path: part.into(), not_after: facts.not_after });
    }
    if !facts.is_authority {
        return Err(mismatch(part, "is not a CA's certificate; with cert-manager, set isCA: true"));
    }
    Ok(facts)
}

fn signer(
    certificate: &CertificateDer<'static>,
    key: &[u8],
    not_after: SystemTime,
) -> Result<Signer, AuthorityError> {
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| not_pem(KEY, "private key", &error))?;
    Signer::of(certificate.clone(), &key, not_after).map_err(|error| match error {
        NotItsKey::Unusable(error) => mismatch(KEY, &format!("is not a usable key: {error}")),
        NotItsKey::Other => mismatch(KEY, "is not the key of tls.crt"),
        NotItsKey::Issuer(error) => error.into(),
    })
}

fn mismatch(part: &str, problem: &str) -> AuthorityError {
    AuthorityError::Mismatch { path: part.into(), problem: problem.to_owned() }
}

fn not_pem(part: &str, expected: &'static str, error: &dyn fmt::Display) -> AuthorityError {
    FileError::NotPem { path: PathBuf::from(part), expected, reason: error.to_string() }.into()
}

/// Certificates as PEM text.
pub fn to_pem(certificates: &[CertificateDer<'_>]) -> String {
    files::certificates_to_pem(certificates)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use selvedge_model::SpiffeId;

    use super::*;
    use crate::{
        csr::KeyAndCsr,
        verify::{self, Role},
    };

    const DAY: Duration = Duration::from_secs(86_400);

    fn trust_domain() -> TrustDomain {
        TrustDomain::default()
    }

    fn identity() -> SpiffeId {
        SpiffeId::new(&trust_domain(), "shop", "reviews").unwrap()
    }

    fn leaf(authority: &Authority) -> Vec<CertificateDer<'static>> {
        let request = KeyAndCsr::generate(&identity()).unwrap();
        authority.sign(&request.der, &identity(), DAY, SystemTime::now()).unwrap()
    }

    #[test]
    fn replicas_with_one_root_believe_each_others_leaves() {
        let now = SystemTime::now();
        let pem = CaPem::new_root(&trust_domain(), now).unwrap();
        let one = Authority::from_pem(&pem, &trust_domain(), now).unwrap();
        let other = Authority::from_pem(&pem, &trust_domain(), now).unwrap();

        assert_eq!(one.root_sha256(), other.root_sha256());
        let peer = verify::peer(&leaf(&one), &other.bundle(), now, Role::Client).unwrap();
        assert_eq!(peer.identity, identity());
    }

    /// What cert-manager makes: an intermediate CA in tls.crt, its root in ca.crt.
    #[test]
    fn a_ca_below_another_signs_leaves_itself() {
        let now = SystemTime::now();
        let root = Signer::root(&trust_domain(), now).unwrap();
        let below = root.new_issuer(&trust_domain(), now).unwrap();
        let pem = CaPem {
            certificate: below.certificate_pem().into_bytes(),
            key: below.key_pem().into_bytes(),
            root: Some(root.certificate_pem().into_bytes()),
            cross: None,
        };

        let authority = Authority::from_pem(&pem, &trust_domain(), now).unwrap();

        assert_eq!(authority.bundle().roots, std::slice::from_ref(&root.certificate));
        assert!(verify::peer(&leaf(&authority), &authority.bundle(), now, Role::Server).is_ok());

        let lost = CaPem { root: None, ..pem.clone() };
        let error = Authority::from_pem(&lost, &trust_domain(), now).unwrap_err().to_string();
        assert!(error.starts_with("ca.crt: is empty"), "{error}");
        let other = Signer::root(&trust_domain(), now).unwrap().certificate_pem().into_bytes();
        let error =
            Authority::from_pem(&CaPem { root: Some(other), ..pem }, &trust_domain(), now).unwrap_err();
        assert!(error.to_string().contains("does not lead to the root"), "{error}");
    }

    #[test]
    fn what_does_not_belong_together_is_refused_by_its_name() {
        let now = SystemTime::now();
        let pem = CaPem::new_root(&trust_domain(), now).unwrap();
        let error = |pem: &CaPem, trust_domain: &TrustDomain, now| {
            Authority::from_pem(pem, trust_domain, now).unwrap_err().to_string()
        };

        let other = CaPem::new_root(&trust_domain(), now).unwrap();
        let mixed = CaPem { key: other.key, ..pem.clone() };
        assert!(error(&mixed, &trust_domain(), now).starts_with("tls.key: is not the key of tls.crt"));
        let none = CaPem { key: b"none".to_vec(), ..pem.clone() };
        assert!(error(&none, &trust_domain(), now).starts_with("tls.key"));
        let empty = CaPem { certificate: Vec::new(), ..pem.clone() };
        assert!(error(&empty, &trust_domain(), now).starts_with("tls.crt"));
        let elsewhere: TrustDomain = "example.org".parse().unwrap();
        assert!(error(&pem, &elsewhere, now).contains("cluster.local, not of example.org"));
        assert!(error(&pem, &trust_domain(), now + DAY * 365 * 20).contains("expired"));
    }
}
