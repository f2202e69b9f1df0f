//! What a certificate says: names, dates, key. It says nothing about whether that is true; see [`crate::verify`].

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls_pki_types::CertificateDer;
use selvedge_model::{Serial, SpiffeId, TrustDomain};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    oid_registry::{OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_SIG_ED25519},
    prelude::FromDer,
    public_key::PublicKey,
    time::ASN1Time,
    x509::SubjectPublicKeyInfo,
};

use crate::holder::{self, Workload};

fn common_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject().iter_common_name();
    names.filter_map(|name| Some(name.as_str().ok()?.to_owned())).collect()
}

/// The part that the peer plays in the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It connected to us.
    Client,
    /// We connected to it.
    Server,
}

/// The bytes are not a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an X.509 certificate: {reason}")]
pub struct NotACertificate {
    reason: String,
}

/// Why a certificate has no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoIdentity {
    /// A certificate made for web servers looks like this.
    #[error("it has no URI name; a workload's certificate has exactly one, its SPIFFE ID")]
    Missing,
    /// With two it could pass for either.
    #[error("it has {0} URI names; a workload's certificate has exactly one, its SPIFFE ID")]
    Several(usize),
    /// The one URI is of another form.
    #[error(transparent)]
    Malformed(#[from] selvedge_model::identity::IdentityError),
    /// A name that we cannot read could hide a second identity.
    #[error("it has a name that cannot be decoded")]
    Undecodable,
    /// It says that it is for one workload, and not which.
    #[error("the name of its workload cannot be read, or is given more than once")]
    Workload,
}

/// What one certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The subject's distinguished name; empty in a workload's certificate.
    pub subject: String,
    /// The subject's common names.
    pub common_names: Vec<String>,
    /// The distinguished name of who signed it.
    pub issuer: String,
    /// URI names.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// IP addresses.
    pub ips: Vec<IpAddr>,
    /// Names of other kinds, as text.
    pub other_names: Vec<String>,
    /// The first moment at which it is valid.
    pub not_before: SystemTime,
    /// The last moment at which it is valid.
    pub not_after: SystemTime,
    /// Kind and size of its public key.
    pub key: String,
    /// Whether it may sign other certificates.
    pub is_authority: bool,
    /// Its serial number.
    pub serial: Serial,
    /// The workload that it was issued to, as far as its CA says so.
    pub workload: Option<Workload>,
    purposes: Purposes,
    undecodable_name: bool,
    undecodable_workload: bool,
}

/// What a certificate is for, by its extended key usage (RFC 5280, section 4.2.1.12). Without that: nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Purposes {
    server: bool,
    client: bool,
}

impl Facts {
    /// Reads a DER certificate.
    ///
    /// # Errors
    /// If it is none, or if something follows it.
    pub fn parse(der: &[u8]) -> Result<Self, NotACertificate> {
        let wrong = |reason: &dyn fmt::Display| NotACertificate { reason: reason.to_string() };
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|error| wrong(&error))?;
        if !rest.is_empty() {
            return Err(wrong(&"bytes follow it"));
        }
        let mut facts = Self {
            subject: certificate.subject().to_string(),
            common_names: common_names(&certificate),
            issuer: certificate.issuer().to_string(),
            uris: Vec::new(),
            dns: Vec::new(),
            ips: Vec::new(),
            other_names: Vec::new(),
            not_before: system_time(certificate.validity().not_before),
            not_after: system_time(certificate.validity().not_after),
            key: key_kind(certificate.public_key()),
            is_authority: certificate.is_ca(),
            serial: Serial::from_bytes(certificate.raw_serial()),
            workload: None,
            purposes: Purposes::default(),
            undecodable_name: false,
            undecodable_workload: false,
        };
        match holder::of(&certificate) {
            Ok(workload) => facts.workload = workload,
            Err(holder::Unreadable) => facts.undecodable_workload = true,
        }
        if let Some(usage) = certificate.extended_key_usage().map_err(|error| wrong(&error))? {
            facts.purposes = Purposes { server: usage.value.server_auth, client: usage.value.client_auth };
        }
        let names = certificate.subject_alternative_name().map_err(|error| wrong(&error))?;
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            facts.add(name);
        }
        Ok(facts)
    }

    /// The one SPIFFE ID that the certificate is for.
    ///
    /// # Errors
    /// If it has no URI name, several, or one that is not a SPIFFE ID.
    pub fn identity(&self) -> Result<SpiffeId, NoIdentity> {
        if self.undecodable_name {
            return Err(NoIdentity::Undecodable);
        }
        if self.undecodable_workload {
            return Err(NoIdentity::Workload);
        }
        match self.uris.as_slice() {
            [] => Err(NoIdentity::Missing),
            [uri] => Ok(uri.parse()?),
            several => Err(NoIdentity::Several(several.len())),
        }
    }

    /// Whether its extended key usage allows what a peer in this role does with it. One that says nothing of its
    /// purpose was not made for a mesh.
    pub fn is_for(&self, role: Role) -> bool {
        match role {
            Role::Server => self.purposes.server,
            Role::Client => self.purposes.client,
        }
    }

    /// The trust domain that a signing certificate names: its URI is `spiffe://<trust-domain>`, no more.
    pub fn authority_trust_domain(&self) -> Option<TrustDomain> {
        match self.uris.as_slice() {
            [uri] if self.is_authority => uri.strip_prefix("spiffe://")?.parse().ok(),
            _ => None,
        }
    }

    /// Who the certificate says it is for, in words for an error message.
    pub fn claim(&self) -> String {
        match (self.uris.as_slice(), self.dns.first()) {
            ([], Some(name)) => name.clone(),
            ([], None) if self.subject.is_empty() => "nobody".to_owned(),
            ([], None) => self.subject.clone(),
            (uris, _) => uris.join(" and "),
        }
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) => self.dns.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match ip_address(bytes) {
                Some(ip) => self.ips.push(ip),
                None => self.undecodable_name = true,
            },
            GeneralName::Invalid(..) => self.undecodable_name = true,
            other => self.other_names.push(other.to_string()),
        }
    }
}

/// A certificate's SHA-256, written as hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The SHA-256 of a certificate's DER.
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    Fingerprint(digest.as_ref().try_into().expect("SHA-256 is 32 bytes"))
}

/// A moment for people: RFC 3339 in UTC, to the second.
#[derive(Debug, Clone, Copy)]
pub struct Utc(pub SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let text = i64::try_from(seconds)
            .ok()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .and_then(|moment| moment.format(&Rfc3339).ok());
        f.write_str(text.as_deref().unwrap_or("the far future"))
    }
}

/// Whether the key of `signer` has signed `certificate`, and is named there.
pub(crate) fn is_signed_by(certificate: &CertificateDer<'_>, signer: &CertificateDer<'_>) -> bool {
    match (X509Certificate::from_der(certificate), X509Certificate::from_der(signer)) {
        (Ok((_, certificate)), Ok((_, signer))) => {
            certificate.issuer() == signer.subject()
                && certificate.verify_signature(Some(signer.public_key())).is_ok()
        }
        _ => false,
    }
}

fn system_time(time: ASN1Time) -> SystemTime {
    // Before 1970 is as expired as 1970.
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into())
}

fn key_kind(key: &SubjectPublicKeyInfo<'_>) -> String {
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    match key.parsed() {
        Ok(PublicKey::EC(_)) => match curve {
            Some(curve) if curve == OID_EC_P256 => "ECDSA P-256".to_owned(),
            Some(curve) if curve == OID_NIST_EC_P384 => "ECDSA P-384".to_owned(),
            Some(curve) if curve == OID_NIST_EC_P521 => "ECDSA P-521".to_owned(),
            _ => "ECDSA on another curve".to_owned(),
        },
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        _ if key.algorithm.algorithm == OID_SIG_ED25519 => "Ed25519".to_owned(),
        _ => format!("algorithm {}", key.algorithm.algorithm),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn facts(names: Vec<SanType>) -> Facts {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        Facts::parse(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der()).unwrap()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    #[test]
    fn one_spiffe_uri_is_an_identity_beside_other_kinds_of_names() {
        let dns = SanType::DnsName("localhost".try_into().unwrap());
        let facts = facts(vec![
            uri("spiffe://cluster.local/ns/a/sa/b"),
            dns,
            SanType::IpAddress([127, 0, 0, 1].into()),
        ]);

        assert_eq!(facts.identity().unwrap().as_str(), "spiffe://cluster.local/ns/a/sa/b");
        assert_eq!(facts.dns, ["localhost"]);
        assert_eq!(facts.ips, [IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(facts.key, "ECDSA P-256");
    }

    #[test]
    fn any_other_number_or_form_of_uri_is_no_identity() {
        let good = || uri("spiffe://cluster.local/ns/a/sa/b");

        assert_eq!(facts(vec![]).identity(), Err(NoIdentity::Missing));
        assert_eq!(facts(vec![good(), good()]).identity(), Err(NoIdentity::Several(2)));
        assert_eq!(facts(vec![good(), uri("https://x")]).identity(), Err(NoIdentity::Several(2)));
        assert!(matches!(facts(vec![uri("spiffe://x/y")]).identity(), Err(NoIdentity::Malformed(_))));
    }

    #[test]
    fn a_moment_is_written_in_utc() {
        assert_eq!(Utc(UNIX_EPOCH + Duration::from_secs(86_400)).to_string(), "1970-01-02T00:00:00Z");
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Facts::parse(&bytes).is_err());
        }
    }
}
