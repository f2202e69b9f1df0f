//! The authority: root → issuer → leaf.
//!
//! The root's key is used once a year, to make an issuer; the issuer's key signs leaves. So the root's
//! key can be kept elsewhere between those days, and proxies pin a root that outlives many issuers.

use std::{
    io,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use selvedge_model::{SpiffeId, TrustDomain};
use tokio::sync::watch;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::{
    bundle::Bundle,
    csr::{self, CsrError},
    facts::{NotACertificate, Utc, fingerprint},
    files::{self, FileError},
    holder::{self, Workload},
    leaf::{Leaf, LeafError},
};

mod directory;
mod given;
mod renew;
pub mod rotation;
#[cfg(test)]
mod tests;

pub use self::{
    given::{CaPem, to_pem},
    renew::OtherRoot,
};

const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
const ISSUER_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// A new issuer is made when this much of the old one's life is left.
const ISSUER_RESERVE: Duration = Duration::from_secs(90 * 86_400);
/// Certificates are valid from a little before they are made, for peers whose clock is late.
const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// The shortest life of a leaf: X.509 dates have whole seconds.
const MIN_LEAF_LIFE: Duration = Duration::from_secs(1);

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file is missing, exposed, or cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory cannot be made or locked.
    #[error("cannot use the directory {}: {source}", path.display())]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A certificate file holds something else.
    #[error("{}: {source}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: NotACertificate,
    },
    /// The files do not belong together, or are not what their names say.
    #[error("{}: {problem}", path.display())]
    Mismatch {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The CA that is there serves another trust domain.
    #[error(
        "{} is the CA of trust domain {found}, not of {wanted}; use --trust-domain {found}, or another directory",
        path.display()
    )]
    OtherTrustDomain {
        /// Which root.
        path: PathBuf,
        /// Whose it is.
        found: TrustDomain,
        /// What was asked for.
        wanted: TrustDomain,
    },
    /// The root has expired; all that it vouches for has, too.
    #[error("{} expired at {}; make a new CA in another directory and give its ca.pem to everybody", path.display(), Utc(*not_after))]
    Expired {
        /// Which root.
        path: PathBuf,
        /// When it expired.
        not_after: SystemTime,
    },
    /// The system gave no random numbers, or a certificate could not be encoded.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// Why a certificate was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The request itself is at fault.
    #[error(transparent)]
    Request(#[from] CsrError),
    /// This authority vouches for one trust domain only.
    #[error("{identity} is not in trust domain {trust_domain}, the only one that this CA signs for")]
    OtherTrustDomain {
        /// What was asked for.
        identity: SpiffeId,
        /// Whose CA this is.
        trust_domain: TrustDomain,
    },
    /// A leaf may not outlive its issuer, so an expired issuer signs nothing.
    #[error("the issuer's certificate expired at {}; restart, and a new one is made with the root's key", Utc(*not_after))]
    IssuerExpired {
        /// When it expired.
        not_after: SystemTime,
    },
    /// X.509 dates have whole seconds.
    #[error("a lifetime of {ttl:?} is too short; ask for at least 1 s")]
    Lifetime {
        /// What was asked for.
        ttl: Duration,
    },
    /// A name that no certificate can hold.
    #[error("the name {0:?} cannot be put into a certificate; use a DNS name or an IP address")]
    Name(String),
    /// The system gave no random numbers, or the certificate could not be encoded.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The new certificate is not a leaf: this is a bug.
    #[error("the new certificate cannot be used: {0}")]
    Leaf(#[from] LeafError),
}

/// A certificate authority of one trust domain.
#[derive(Debug)]
pub struct Authority {
    trust_domain: TrustDomain,
    /// Who signs leaves now; another, below a root that is trusted, may take its place.
    issuing: ArcSwap<Issuing>,
    /// Counts how often that has changed.
    changes: watch::Sender<u64>,
    /// Roots of other CAs, whose leaves this one's workloads accept from each other.
    workload_roots: ArcSwap<Vec<CertificateDer<'static>>>,
}

/// Who signs leaves, and who is trusted.
#[derive(Debug)]
struct Issuing {
    /// What the issuer's certificate leads to.
    root: CertificateDer<'static>,
    /// Roots that are trusted beside it, while one takes over from another.
    others: Vec<CertificateDer<'static>>,
    issuer: Arc<Signer>,
    /// What leads from the issuer to the root, where that did not sign it itself.
    above: Vec<CertificateDer<'static>>,
    /// What leads from the root to the one that it takes over from, while both are trusted.
    cross: Option<CertificateDer<'static>>,
}

/// A key that signs, with the certificate that says so.
#[derive(Debug)]
struct Signer {
    certificate: CertificateDer<'static>,
    not_after: SystemTime,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Whose identities this authority signs.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// What peers must trust to accept this authority's leaves, its own root first; further roots while one takes
    /// over from another; and what [`Self::trust_among_workloads`] was given.
    pub fn bundle(&self) -> Bundle {
        let issuing = self.issuing.load();
        let roots = [&issuing.root].into_iter().chain(&issuing.others).cloned().collect();
        let workload_roots = Vec::clone(&self.workload_roots.load());
        Bundle { workload_roots, ..Bundle::new(self.trust_domain.clone(), roots) }
    }

    fn new(
        trust_domain: TrustDomain,
        root: CertificateDer<'static>,
        others: Vec<CertificateDer<'static>>,
        issuer: Signer,
        above: Vec<CertificateDer<'static>>,
    ) -> Self {
        let issuing = Issuing { root, others, issuer: Arc::new(issuer), above, cross: None };
        Self {
            trust_domain,
            issuing: ArcSwap::from_pointee(issuing),
            changes: watch::Sender::new(0),
            workload_roots: ArcSwap::default(),
        }
    }

    /// The certificate that signs leaves now.
    pub fn issuer(&self) -> CertificateDer<'static> {
        self.issuing.load().issuer.certificate.clone()
    }

    /// What a server shows behind its own chain, so that clients that know only the old root still know it.
    pub fn cross(&self) -> Option<CertificateDer<'static>> {
        self.issuing.load().cross.clone()
    }

    fn with_cross(self, cross: Option<CertificateDer<'static>>) -> Self {
        let mut issuing = self.issuing.into_inner();
        if let Some(issuing) = Arc::get_mut(&mut issuing) {
            issuing.cross = cross;
        }
        Self { issuing: ArcSwap::new(issuing), ..self }
    }

    /// Trusts the roots of `other` too.
    fn trust_beside(&self, other: &Self, cross: Option<CertificateDer<'static>>) {
        let (now, other) = (self.issuing.load(), other.issuing.load());
        self.issuing.store(Arc::new(Issuing {
            root: now.root.clone(),
            others: vec![other.root.clone()],
            issuer: now.issuer.clone(),
            above: now.above.clone(),
            cross,
        }));
    }

    /// The SHA-256 of the root, by which a workload first knows us.
    pub fn root_sha256(&self) -> [u8; 32] {
        fingerprint(&self.issuing.load().root).0
    }

    /// Signs a request (PKCS #10, DER) of a workload that has proven to be `identity`.
    ///
    /// The chain is the leaf, then the issuer. It lasts for `ttl`, but never longer than the issuer.
    ///
    /// # Errors
    /// If the request asks for anything but `identity`, is not signed by its own P-256 key, or is garbage.
    pub fn sign(
        &self,
        csr_der: &[u8],
        identity: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Vec<CertificateDer<'static>>, SignError> {
        let key = csr::accept(csr_der, identity)?;
        self.certify(&key, identity, None, &[], ttl, now)
    }

    /// The same, for one workload of that identity alone: the certificate says which.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub fn sign_for(
        &self,
        csr_der: &[u8],
        identity: &SpiffeId,
        workload: &Workload,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Vec<CertificateDer<'static>>, SignError> {
        let key = csr::accept(csr_der, identity)?;
        self.certify(&key, identity, Some(workload), &[], ttl, now)
    }

    /// Makes a key and a certificate for `identity`, good also for the host names `names`.
    ///
    /// # Errors
    /// If the identity is of another trust domain, or if the issuer has expired.
    pub fn issue(
        &self,
        identity: &SpiffeId,
        names: &[ServerName<'_>],
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Leaf, SignError> {
        let key = new_key()?;
        let chain = self.certify(&key, identity, None, names, ttl, now)?;
        Ok(Leaf::new(chain, PrivateKeyDer::from(key))?)
    }

    fn certify(
        &self,
        key: &impl PublicKeyData,
        identity: &SpiffeId,
        workload: Option<&Workload>,
        names: &[ServerName<'_>],
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Vec<CertificateDer<'static>>, SignError> {
        if identity.trust_domain() != self.trust_domain.as_str() {
            return Err(SignError::OtherTrustDomain {
                identity: identity.clone(),
                trust_domain: self.trust_domain.clone(),
            });
        }
        if ttl < MIN_LEAF_LIFE {
            return Err(SignError::Lifetime { ttl });
        }
        let issuing = self.issuing.load();
        let Issuing { issuer, above, .. } = &**issuing;
        if now >= issuer.not_after {
            return Err(SignError::IssuerExpired { not_after: issuer.not_after });
        }
        let not_after = now.checked_add(ttl).map_or(issuer.not_after, |end| end.min(issuer.not_after));
        // A short-lived certificate is backdated less, or it would be born past its time of renewal.
        let mut params = certificate_params(now - CLOCK_SKEW.min(ttl / 10), not_after)?;
        params.subject_alt_names.push(SanType::URI(identity.as_str().try_into()?));
        for name in names {
            params.subject_alt_names.push(host_name(name)?);
        }
        params.custom_extensions.extend(workload.map(holder::extension));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(key, &issuer.issuer)?;
        let issuers = [&issuer.certificate].into_iter().chain(above).cloned();
        Ok([leaf.into()].into_iter().chain(issuers).collect())
    }
}

/// Why a key does not sign for a certificate.
enum NotItsKey {
    /// It cannot be used as a signing key.
    Unusable(rcgen::Error),
    /// It is the key of another certificate.
    Other,
    /// The certificate may not sign others.
    Issuer(rcgen::Error),
}

impl Signer {
    /// Who signs by `key`, if that is the key of `certificate`, which ends at `not_after`.
    fn of(
        certificate: CertificateDer<'static>,
        key: &PrivateKeyDer<'_>,
        not_after: SystemTime,
    ) -> Result<Self, NotItsKey> {
        let key = KeyPair::try_from(key).map_err(NotItsKey::Unusable)?;
        let certified =
            X509Certificate::from_der(&certificate).ok().map(|(_, parsed)| parsed.public_key().raw.to_vec());
        if certified != Some(key.subject_public_key_info()) {
            return Err(NotItsKey::Other);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(NotItsKey::Issuer)?;
        Ok(Self { certificate, not_after, issuer })
    }

    /// A new root for `trust_domain`.
    fn root(trust_domain: &TrustDomain, now: SystemTime) -> Result<Self, AuthorityError> {
        let key = new_key()?;
        let params = signer_params("root", &key, trust_domain, now, ROOT_LIFE, 1)?;
        let not_after = params.not_after.into();
        let certificate = params.self_signed(&key)?.into();
        Ok(Self { certificate, not_after, issuer: Issuer::new(params, key) })
    }

    /// A new issuer that this root vouches for.
    fn new_issuer(&self, trust_domain: &TrustDomain, now: SystemTime) -> Result<Self, AuthorityError> {
        let key = new_key()?;
        let life = self.not_after.duration_since(now).unwrap_or_default().min(ISSUER_LIFE);
        let params = signer_params("issuer", &key, trust_domain, now, life, 0)?;
        let not_after = params.not_after.into();
        let certificate = params.signed_by(&key, &self.issuer)?.into();
        Ok(Self { certificate, not_after, issuer: Issuer::new(params, key) })
    }

    fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    fn certificate_pem(&self) -> String {
        files::certificates_to_pem(std::slice::from_ref(&self.certificate))
    }
}

fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

/// What root and issuer have in common.
fn signer_params(
    role: &str,
    key: &KeyPair,
    trust_domain: &TrustDomain,
    now: SystemTime,
    life: Duration,
    path_length: u8,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = certificate_params(now - CLOCK_SKEW, now + life)?;
    // A short piece of the key's hash in the name tells an old root from a new one in every tool's output.
    let key_hash = fingerprint(&key.subject_public_key_info()).to_string();
    params.distinguished_name.push(DnType::CommonName, format!("selvedge {role} {}", &key_hash[..8]));
    params.subject_alt_names.push(SanType::URI(format!("spiffe://{trust_domain}").as_str().try_into()?));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// What all certificates have in common: dates, a random serial number, an authority key identifier.
fn certificate_params(
    not_before: SystemTime,
    not_after: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    params.serial_number = Some(serial_number()?);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 126 random bits: positive, unique, and not to be guessed (RFC 5280, section 4.1.2.2).
fn serial_number() -> Result<SerialNumber, rcgen::Error> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn host_name(name: &ServerName<'_>) -> Result<SanType, SignError> {
    match name {
        ServerName::DnsName(name) => Ok(SanType::DnsName(name.as_ref().try_into()?)),
        ServerName::IpAddress(ip) => Ok(SanType::IpAddress(IpAddr::from(*ip))),
        other => Err(SignError::Name(other.to_str().into_owned())),
    }
}
