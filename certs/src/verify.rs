//! Who is at the other end: the chain by webpki, then exactly one SPIFFE ID of our trust domain.
//!
//! Host names play no part: a workload is known by its identity, whatever address it was found at. The
//! caller compares the identity with the one that it expects.

use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use selvedge_model::{Holder, Serial, SpiffeId, TrustDomain};
use webpki::{EndEntityCert, KeyUsage};

pub use crate::facts::Role;
use crate::{
    bundle::Bundle,
    crypto,
    facts::{Facts, NoIdentity, NotACertificate, Utc},
    holder::Workload,
};

/// A peer that has proven who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its identity.
    pub identity: SpiffeId,
    /// The first moment at which its certificate is valid.
    pub not_before: SystemTime,
    /// The last moment at which its certificate is valid; its connections take no new requests after it.
    pub not_after: SystemTime,
    /// The serial number of its certificate.
    pub serial: Serial,
    /// The workload that its certificate was issued to. `None`: its CA does not say.
    pub workload: Option<Workload>,
}

impl Peer {
    /// What a list of revoked certificates is asked for.
    pub fn holder(&self) -> Holder<'_> {
        let workload = self.workload.as_ref().map(|workload| &workload.name);
        Holder { identity: &self.identity, workload, serial: Some(&self.serial) }
    }
}

/// Why a peer was not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Plain TLS clients look like this.
    #[error("the peer sent no certificate; only workloads with a certificate of the mesh are accepted")]
    NoCertificate,
    /// The first certificate cannot be read.
    #[error("the peer's certificate is {0}")]
    Malformed(#[from] NotACertificate),
    /// The chain does not lead to one of our roots; the peer belongs to another mesh, or a root was replaced.
    #[error(
        "the certificate that names {claim} was not issued by a CA of {trust_domain} ({reason}); \
         both sides need certificates of the same CA, and its root certificates"
    )]
    Untrusted {
        /// Who the certificate says it is for; nothing has proven that.
        claim: String,
        /// The trust domain whose roots were tried.
        trust_domain: TrustDomain,
        /// What webpki found.
        reason: webpki::Error,
    },
    /// At first contact: the server is of another control plane than the token, or its CA was replaced.
    #[error(
        "the chain of {claim} has no root with SHA-256 {expected}, which the join token or --trust-roots \
         names; make a new token, or take the roots, from the control plane at this address"
    )]
    OtherRoot {
        /// Who the certificate says it is for; nothing has proven that.
        claim: String,
        /// The SHA-256 of the root that was expected; of each, if there are several.
        expected: String,
    },
    /// The certificate breaks a rule of X.509, or is for another purpose: a CA's own, a mail signer's.
    #[error(
        "the certificate that names {claim} cannot be used here: {reason}; use a workload's own certificate"
    )]
    Unfit {
        /// Who the certificate says it is for.
        claim: String,
        /// What webpki found.
        reason: webpki::Error,
    },
    /// The certificate does not say that it is for this, as those of other issuers and purposes.
    #[error(
        "the certificate that names {claim} is not for a TLS {role} (its extended key usage does not list \
         {usage}); a certificate that this mesh's CA has issued lists serverAuth and clientAuth"
    )]
    Purpose {
        /// Who the certificate says it is for.
        claim: String,
        /// What the peer is here.
        role: &'static str,
        /// What is not listed.
        usage: &'static str,
    },
    /// The peer did not renew in time, or our clock is ahead.
    #[error(
        "the certificate of {claim} expired at {}, and this host's clock says {}; check why it was not renewed, and the \
         clock of this host and the peer's",
        Utc(*not_after), Utc(*now)
    )]
    Expired {
        /// Who the certificate says it is for.
        claim: String,
        /// When it, or one of the certificates that it was signed with, expired.
        not_after: SystemTime,
        /// What our clock says.
        now: SystemTime,
    },
    /// Our clock is late, or the peer's CA's is ahead.
    #[error(
        "the certificate of {claim} is valid only from {}, and this host's clock says {}: one of the two clocks is wrong, \
         this host's, or that of the CA which has signed it",
        Utc(*not_before), Utc(*now)
    )]
    NotYetValid {
        /// Who the certificate says it is for.
        claim: String,
        /// From when on it is valid.
        not_before: SystemTime,
        /// What our clock says.
        now: SystemTime,
    },
    /// One of our CAs signed it, but not for a workload.
    #[error("the certificate that names {claim} is not a workload's: {reason}")]
    Identity {
        /// Who the certificate says it is for.
        claim: String,
        /// What is wrong with its names.
        reason: NoIdentity,
    },
    /// A CA that we trust for one trust domain signed for another.
    #[error("{identity} is not in our trust domain {trust_domain}; only its workloads are accepted")]
    OtherTrustDomain {
        /// Who the peer is.
        identity: SpiffeId,
        /// Our trust domain.
        trust_domain: TrustDomain,
    },
    /// The peer is a workload of our mesh, but not the one that belongs here.
    #[error("the peer proved the identity {found}, expected {expected}")]
    OtherIdentity {
        /// Who should have answered.
        expected: SpiffeId,
        /// Who did.
        found: SpiffeId,
    },
}

impl PeerError {
    /// The same without what our clock says, so that a failure that repeats is the same each time.
    #[must_use]
    pub fn timeless(&self) -> Self {
        let mut same = self.clone();
        if let Self::Expired { now, .. } | Self::NotYetValid { now, .. } = &mut same {
            *now = SystemTime::UNIX_EPOCH;
        }
        same
    }
}

/// Why a bundle cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// With no root nobody can be trusted.
    #[error("the bundle of trust domain {0} has no root certificate")]
    Empty(TrustDomain),
    /// A root is damaged.
    #[error("root certificate {position} of trust domain {trust_domain} cannot be used: {reason}")]
    Root {
        /// Whose root.
        trust_domain: TrustDomain,
        /// Which one, counted from 1.
        position: usize,
        /// What webpki found.
        reason: webpki::Error,
    },
}

/// A bundle's roots, ready to verify with.
#[derive(Debug, Clone)]
pub struct Anchors {
    trust_domain: TrustDomain,
    roots: Vec<TrustAnchor<'static>>,
}

impl Anchors {
    /// Reads the roots of `bundle` that vouch for everybody.
    ///
    /// # Errors
    /// If there is none, or one is damaged.
    pub fn new(bundle: &Bundle) -> Result<Self, BundleError> {
        Self::of(bundle, &bundle.roots)
    }

    /// Reads them all, also those that vouch for workloads only: for connections between workloads.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn among_workloads(bundle: &Bundle) -> Result<Self, BundleError> {
        Self::of(bundle, bundle.roots.iter().chain(&bundle.workload_roots))
    }

    fn of<'a>(
        bundle: &Bundle,
        roots: impl IntoIterator<Item = &'a CertificateDer<'static>>,
    ) -> Result<Self, BundleError> {
        if bundle.roots.is_empty() {
            return Err(BundleError::Empty(bundle.trust_domain.clone()));
        }
        let anchor = |(index, root): (usize, &CertificateDer<'_>)| {
            webpki::anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned()).map_err(|reason| {
                BundleError::Root { trust_domain: bundle.trust_domain.clone(), position: index + 1, reason }
            })
        };
        let roots = roots.into_iter().enumerate().map(anchor).collect::<Result<_, _>>()?;
        Ok(Self { trust_domain: bundle.trust_domain.clone(), roots })
    }

    /// Verifies the chain that a peer presented, its own certificate first.
    ///
    /// # Errors
    /// If it does not lead to one of the roots, is not valid `now`, or names not exactly one workload of
    /// the trust domain.
    pub fn peer(&self, chain: &[CertificateDer<'_>], now: SystemTime, role: Role) -> Result<Peer, PeerError> {
        let (leaf, intermediates) = chain.split_first().ok_or(PeerError::NoCertificate)?;
        let facts = Facts::parse(leaf)?;
        self.verify_chain(leaf, intermediates, now, role).map_err(|reason| self.explain(&facts, reason))?;
        // webpki takes a certificate that says nothing of its purpose as one for every purpose.
        fits(&facts, role)?;
        named(&facts, &self.trust_domain)
    }

    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: SystemTime,
        role: Role,
    ) -> Result<(), webpki::Error> {
        let usage = match role {
            Role::Client => KeyUsage::client_auth(),
            Role::Server => KeyUsage::server_auth(),
        };
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        EndEntityCert::try_from(leaf)?
            .verify_for_usage(crypto::algorithms(), &self.roots, intermediates, now, usage, None, None)
            .map(drop)
    }

    fn explain(&self, facts: &Facts, reason: webpki::Error) -> PeerError {
        let claim = facts.claim();
        match reason {
            webpki::Error::CertExpired { not_after, time } => {
                PeerError::Expired { claim, not_after: system_time(not_after), now: system_time(time) }
            }
            webpki::Error::CertNotValidYet { not_before, time } => {
                PeerError::NotYetValid { claim, not_before: system_time(not_before), now: system_time(time) }
            }
            reason @ (webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey) => {
                PeerError::Untrusted { claim, trust_domain: self.trust_domain.clone(), reason }
            }
            reason => PeerError::Unfit { claim, reason },
        }
    }
}

/// Verifies the chain that a peer presented, its own certificate first.
///
/// Reads the bundle's roots each time; where that matters, keep [`Anchors`].
///
/// # Errors
/// See [`Anchors::peer`]; a damaged bundle vouches for nobody.
pub fn peer(
    chain: &[CertificateDer<'_>],
    bundle: &Bundle,
    now: SystemTime,
    role: Role,
) -> Result<Peer, PeerError> {
    let leaf = chain.first().ok_or(PeerError::NoCertificate)?;
    let anchors = Anchors::new(bundle).map_err(|error| PeerError::Untrusted {
        claim: Facts::parse(leaf).map_or_else(|_| "nobody".to_owned(), |facts| facts.claim()),
        trust_domain: bundle.trust_domain.clone(),
        reason: match error {
            BundleError::Empty(_) => webpki::Error::UnknownIssuer,
            BundleError::Root { reason, .. } => reason,
        },
    })?;
    anchors.peer(chain, now, role)
}

/// Who the peer of an established connection is, from the chain that was verified in its handshake, or
/// in the handshake that it resumes.
///
/// On resumption rustls does not verify again, and time has passed: so every date is checked. The
/// signatures need not be, because a session never outlives the roots that it was verified with.
///
/// # Errors
/// If there is no chain, part of it is not valid `now`, or it names not exactly one workload of the trust domain.
pub fn established(
    chain: &[CertificateDer<'_>],
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<Peer, PeerError> {
    named(&dated(chain, now)?, trust_domain)
}

/// Whether every certificate of `chain` is valid `now`.
///
/// # Errors
/// If one is not, or there is none.
pub fn in_date(chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), PeerError> {
    dated(chain, now).map(drop)
}

/// What the first certificate of `chain` says, if all are valid `now`.
fn dated(chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Facts, PeerError> {
    let (leaf, intermediates) = chain.split_first().ok_or(PeerError::NoCertificate)?;
    let facts = Facts::parse(leaf)?;
    in_time(&facts, &facts, now)?;
    for certificate in intermediates {
        in_time(&Facts::parse(certificate)?, &facts, now)?;
    }
    Ok(facts)
}

fn in_time(certificate: &Facts, leaf: &Facts, now: SystemTime) -> Result<(), PeerError> {
    if now > certificate.not_after {
        return Err(PeerError::Expired { claim: leaf.claim(), not_after: certificate.not_after, now });
    }
    if now < certificate.not_before {
        return Err(PeerError::NotYetValid { claim: leaf.claim(), not_before: certificate.not_before, now });
    }
    Ok(())
}

fn named(facts: &Facts, trust_domain: &TrustDomain) -> Result<Peer, PeerError> {
    let identity = facts.identity().map_err(|reason| PeerError::Identity { claim: facts.claim(), reason })?;
    if identity.trust_domain() != trust_domain.as_str() {
        return Err(PeerError::OtherTrustDomain { identity, trust_domain: trust_domain.clone() });
    }
    Ok(Peer {
        identity,
        not_before: facts.not_before,
        not_after: facts.not_after,
        serial: facts.serial.clone(),
        workload: facts.workload.clone(),
    })
}

fn fits(facts: &Facts, role: Role) -> Result<(), PeerError> {
    let (word, usage) = match role {
        Role::Client => ("client", "clientAuth"),
        Role::Server => ("server", "serverAuth"),
    };
    if facts.is_for(role) {
        Ok(())
    } else {
        Err(PeerError::Purpose { claim: facts.claim(), role: word, usage })
    }
}

fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(time.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};

    use super::*;
    use crate::forge::{Forger, identity, uri};

    const HOUR: Duration = Duration::from_secs(3600);

    /// What the roots of an honest CA make of a leaf of the same CA, after `change`.
    fn judged(change: impl FnOnce(&mut CertificateParams)) -> Result<Peer, PeerError> {
        let ca = Forger::new();
        let leaf = ca.leaf_with(&identity("reviews"), change);
        peer(&leaf.chain, &ca.bundle(), SystemTime::now(), Role::Client)
    }

    #[test]
    fn a_workload_of_our_trust_domain_is_believed_in_both_roles() {
        let ca = Forger::new();
        let leaf = ca.leaf(&identity("reviews"));

        for role in [Role::Client, Role::Server] {
            let peer = peer(&leaf.chain, &ca.bundle(), SystemTime::now(), role).unwrap();
            assert_eq!(peer.identity, identity("reviews"));
        }
    }

    #[test]
    fn another_ca_is_not_believed_whatever_it_names() {
        let leaf = Forger::new().leaf(&identity("reviews"));

        let error = peer(&leaf.chain, &Forger::new().bundle(), SystemTime::now(), Role::Client).unwrap_err();

        assert!(
            matches!(&error, PeerError::Untrusted { claim, .. } if claim == identity("reviews").as_str())
        );
        assert!(error.to_string().contains("not issued by a CA of cluster.local"), "{error}");
    }

    #[test]
    fn either_root_is_believed_while_one_replaces_the_other() {
        let (old, new) = (Forger::new(), Forger::new());
        let both = Bundle { roots: vec![old.root.clone(), new.root.clone()], ..old.bundle() };

        for ca in [&old, &new] {
            let leaf = ca.leaf(&identity("reviews"));
            assert!(peer(&leaf.chain, &both, SystemTime::now(), Role::Server).is_ok());
        }
    }

    #[test]
    fn dates_are_checked() {
        let now = SystemTime::now();

        let expired = judged(|params| params.not_after = (now - HOUR / 120).into()).unwrap_err();
        let early = judged(|params| params.not_before = (now + HOUR / 2).into()).unwrap_err();

        assert!(matches!(expired, PeerError::Expired { .. }), "{expired}");
        assert!(expired.to_string().contains(identity("reviews").as_str()), "{expired}");
        assert!(matches!(early, PeerError::NotYetValid { .. }), "{early}");
        for error in [expired, early] {
            assert!(error.to_string().contains(&format!("this host's clock says {}", Utc(now))), "{error}");
        }
    }

    #[test]
    fn exactly_one_spiffe_id_is_believed() {
        let names = |names: Vec<rcgen::SanType>| judged(|params| params.subject_alt_names = names);
        let good = || uri(identity("reviews").as_str());

        for result in [
            names(vec![good(), uri(identity("admin").as_str())]),
            names(vec![good(), uri("https://reviews.example")]),
            names(vec![uri("spiffe://cluster.local/reviews")]),
            names(vec![rcgen::SanType::DnsName("reviews".try_into().unwrap())]),
        ] {
            assert!(matches!(result, Err(PeerError::Identity { .. })), "{result:?}");
        }
    }

    #[test]
    fn a_ca_of_one_trust_domain_does_not_vouch_for_another() {
        let result =
            judged(|params| params.subject_alt_names = vec![uri("spiffe://elsewhere/ns/shop/sa/reviews")]);

        assert!(matches!(result, Err(PeerError::OtherTrustDomain { .. })), "{result:?}");
    }

    #[test]
    fn a_certificate_for_servers_only_is_no_clients() {
        let result = judged(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);

        assert!(matches!(result, Err(PeerError::Unfit { .. })), "{result:?}");
    }

    #[test]
    fn a_certificate_that_says_nothing_of_its_purpose_is_nobodys() {
        let ca = Forger::new();
        let leaf = ca.leaf_with(&identity("reviews"), |params| params.extended_key_usages.clear());

        for role in [Role::Client, Role::Server] {
            let result = peer(&leaf.chain, &ca.bundle(), SystemTime::now(), role);
            assert!(matches!(result, Err(PeerError::Purpose { .. })), "{result:?}");
        }
    }

    #[test]
    fn no_certificate_and_no_root_are_refused() {
        let ca = Forger::new();
        let empty = Bundle { roots: Vec::new(), ..ca.bundle() };
        let leaf = ca.leaf(&identity("reviews"));
        let now = SystemTime::now();

        assert_eq!(peer(&[], &ca.bundle(), now, Role::Client), Err(PeerError::NoCertificate));
        assert!(peer(&leaf.chain, &empty, now, Role::Client).is_err());
        assert!(matches!(Anchors::new(&empty), Err(BundleError::Empty(_))));
    }

    #[test]
    fn an_established_peer_is_asked_for_every_date_of_its_chain() {
        let ca = Forger::new();
        let trust_domain = TrustDomain::default();
        let now = SystemTime::now();
        let short = ca.leaf_with(&identity("reviews"), |params| params.not_after = (now + HOUR / 2).into());
        let long = ca.leaf(&identity("reviews"));
        let chain = [long.chain[0].clone(), short.chain[0].clone()];

        assert!(established(&chain, &trust_domain, now).is_ok());
        let late = established(&chain, &trust_domain, now + HOUR * 3 / 4);
        assert!(matches!(late, Err(PeerError::Expired { .. })), "{late:?}");
    }
}
