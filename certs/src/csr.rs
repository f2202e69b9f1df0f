//! A certificate request: made by a workload, judged by the authority.
//!
//! The authority takes nothing from a request but the public key. Names come from what the workload has
//! proven; a request that asks for other names, or for a CA certificate, is refused rather than
//! trimmed, because whoever sent it expects something that it will not get.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls_pki_types::PrivateKeyDer;
use selvedge_model::SpiffeId;
use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256},
    prelude::FromDer,
};

/// The longest request that is read, in bytes. One of ours has about 350.
const MAX_REQUEST: usize = 8192;

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// No request at all, or a damaged one.
    #[error("not a certificate request (PKCS #10, DER): {0}")]
    Malformed(String),
    /// Only ECDSA P-256 is signed: one kind of key is one kind to get right.
    #[error("the request's key is {found}; make an ECDSA P-256 key (prime256v1) and sign with SHA-256")]
    KeyKind {
        /// What it is instead.
        found: String,
    },
    /// The sender does not hold the private key, or the request was altered on its way.
    #[error(
        "the request is not signed with its own key; it was changed on the way, or made with another key"
    )]
    Signature,
    /// The request asks for a name that was not proven.
    #[error("the request asks for {asked}, but {proven} was proven; ask for exactly that, or for no name")]
    OtherName {
        /// The names it asks for.
        asked: String,
        /// The identity that was proven.
        proven: SpiffeId,
    },
    /// The request asks for something that a workload never gets.
    #[error("the request asks for {0}, which a workload cannot get; leave it out")]
    Extension(String),
}

/// A fresh private key with a request for an identity.
#[derive(Debug)]
pub struct KeyAndCsr {
    /// The private key; it never leaves the process that made it.
    pub key: PrivateKeyDer<'static>,
    /// The request in DER (PKCS #10).
    pub der: Vec<u8>,
}

impl KeyAndCsr {
    /// Makes a new ECDSA P-256 key and a request for `identity`, signed with it.
    ///
    /// # Errors
    /// If the system has no random numbers to give.
    pub fn generate(identity: &SpiffeId) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.as_str().try_into()?)];
        let der = params.serialize_request(&key)?.der().to_vec();
        Ok(Self { key: key.into(), der })
    }
}

/// The public key of a request that may be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct P256PublicKey(Vec<u8>);

impl rcgen::PublicKeyData for P256PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// Judges the request `der` of a workload that has proven to be `proven`, and yields its public key.
pub(crate) fn accept(der: &[u8], proven: &SpiffeId) -> Result<P256PublicKey, CsrError> {
    if der.len() > MAX_REQUEST {
        return Err(CsrError::Malformed(format!("{} bytes; at most {MAX_REQUEST} are read", der.len())));
    }
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|error| CsrError::Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed(format!("{} bytes follow it", rest.len())));
    }
    let key = public_key(&request)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.0)
        .verify(request.certification_request_info.raw, &request.signature_value.data)
        .map_err(|_| CsrError::Signature)?;
    check_extensions(&request, proven)?;
    Ok(key)
}

/// The key, if it is an uncompressed P-256 point. That it lies on the curve shows when the signature is verified.
fn public_key(request: &X509CertificationRequest<'_>) -> Result<P256PublicKey, CsrError> {
    let key = &request.certification_request_info.subject_pki;
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return Err(CsrError::KeyKind { found: format!("of algorithm {}", key.algorithm.algorithm) });
    }
    if curve.as_ref() != Some(&OID_EC_P256) {
        let found = curve.map_or_else(|| "on no named curve".to_owned(), |curve| format!("on curve {curve}"));
        return Err(CsrError::KeyKind { found });
    }
    if request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
        let found = format!("used with signature algorithm {}", request.signature_algorithm.algorithm);
        return Err(CsrError::KeyKind { found });
    }
    match key.subject_public_key.data.as_ref() {
        point @ [0x04, ..] if point.len() == 65 => Ok(P256PublicKey(point.to_vec())),
        _ => Err(CsrError::KeyKind { found: "not an uncompressed point".to_owned() }),
    }
}

fn check_extensions(request: &X509CertificationRequest<'_>, proven: &SpiffeId) -> Result<(), CsrError> {
    let mut named = false;
    for attribute in request.certification_request_info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else { continue };
        for extension in &requested.extensions {
            match extension.parsed_extension() {
                // Of these the authority decides alone; to ask is harmless.
                ParsedExtension::KeyUsage(_) | ParsedExtension::SubjectKeyIdentifier(_) => {}
                ParsedExtension::ExtendedKeyUsage(_) => {}
                ParsedExtension::BasicConstraints(constraints) if !constraints.ca => {}
                ParsedExtension::BasicConstraints(_) => {
                    return Err(CsrError::Extension("a CA certificate".to_owned()));
                }
                ParsedExtension::SubjectAlternativeName(names) if !named => {
                    named = true;
                    check_names(&names.general_names, proven)?;
                }
                _ => return Err(CsrError::Extension(format!("the extension {}", extension.oid))),
            }
        }
    }
    Ok(())
}

fn check_names(names: &[GeneralName<'_>], proven: &SpiffeId) -> Result<(), CsrError> {
    match names {
        [GeneralName::URI(uri)] if *uri == proven.as_str() => Ok(()),
        [] => Err(CsrError::OtherName { asked: "an empty list of names".to_owned(), proven: proven.clone() }),
        names => {
            let asked = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Err(CsrError::OtherName { asked, proven: proven.clone() })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{
        BasicConstraints, CustomExtension, IsCa, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData,
    };

    use super::*;

    fn proven() -> SpiffeId {
        "spiffe://cluster.local/ns/shop/sa/reviews".parse().unwrap()
    }

    /// A request as `change` makes it, signed with a key of its own.
    fn request(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        request_with(&KeyPair::generate().unwrap(), change)
    }

    fn request_with(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri(proven().as_str())];
        change(&mut params);
        params.serialize_request(key).unwrap().der().to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    #[test]
    fn the_key_of_a_request_for_the_proven_identity_is_accepted() {
        let key = KeyPair::generate().unwrap();

        let accepted = accept(&request_with(&key, |_| ()), &proven()).unwrap();

        assert_eq!(accepted.0, key.public_key_raw());
        assert_eq!(accepted.subject_public_key_info(), key.subject_public_key_info());
    }

    #[test]
    fn what_the_workload_generates_is_accepted() {
        let made = KeyAndCsr::generate(&proven()).unwrap();

        assert!(accept(&made.der, &proven()).is_ok());
    }

    #[test]
    fn a_request_without_names_is_accepted() {
        assert!(accept(&request(|params| params.subject_alt_names.clear()), &proven()).is_ok());
    }

    #[test]
    fn a_request_for_any_other_name_is_refused() {
        let id = || uri(proven().as_str());
        for names in [
            vec![uri("spiffe://cluster.local/ns/shop/sa/admin")],
            vec![uri("spiffe://other.example/ns/shop/sa/reviews")],
            vec![id(), uri("spiffe://cluster.local/ns/shop/sa/admin")],
            vec![id(), id()],
            vec![id(), dns("reviews.shop.svc")],
            vec![id(), SanType::IpAddress([10, 0, 0, 1].into())],
            vec![dns("reviews.shop.svc")],
        ] {
            let error = accept(&request(|params| params.subject_alt_names = names), &proven()).unwrap_err();
            assert!(matches!(error, CsrError::OtherName { .. }), "{error}");
            assert!(error.to_string().contains(proven().as_str()), "{error}");
        }
    }

    #[test]
    fn a_second_list_of_names_is_refused() {
        // SubjectAlternativeName { dNSName "x" }, as a custom extension beside the regular one.
        let mut second = CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0x30, 3, 0x82, 1, b'x']);
        second.set_criticality(false);

        let error = accept(&request(|params| params.custom_extensions.push(second)), &proven()).unwrap_err();

        assert!(matches!(error, CsrError::Extension(_)), "{error}");
    }

    #[test]
    fn a_request_for_a_ca_certificate_is_refused() {
        for constraints in [BasicConstraints::Unconstrained, BasicConstraints::Constrained(0)] {
            let error =
                accept(&request(|params| params.is_ca = IsCa::Ca(constraints)), &proven()).unwrap_err();
            assert_eq!(error, CsrError::Extension("a CA certificate".to_owned()));
        }
    }

    #[test]
    fn an_unknown_extension_is_refused() {
        let extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);

        let error =
            accept(&request(|params| params.custom_extensions.push(extension)), &proven()).unwrap_err();

        assert!(error.to_string().contains("1.2.3.4"), "{error}");
    }

    #[test]
    fn only_p256_keys_are_signed() {
        for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let error = accept(&request_with(&key, |_| ()), &proven()).unwrap_err();
            assert!(error.to_string().contains("ECDSA P-256"), "{error}");
        }
    }

    #[test]
    fn a_request_that_another_key_signed_is_refused() {
        let mine = KeyPair::generate().unwrap();
        let mut forged = request_with(&KeyPair::generate().unwrap(), |_| ());
        let theirs = X509CertificationRequest::from_der(&forged).unwrap().1;
        let point = theirs.certification_request_info.subject_pki.subject_public_key.data.to_vec();
        let at = forged.windows(point.len()).position(|window| window == point).unwrap();
        forged[at..at + point.len()].copy_from_slice(mine.public_key_raw());

        assert_eq!(accept(&forged, &proven()), Err(CsrError::Signature));
    }

    #[test]
    fn bytes_after_the_request_are_refused() {
        let mut der = request(|_| ());
        der.push(0);

        assert!(matches!(accept(&der, &proven()), Err(CsrError::Malformed(_))));
    }

    #[test]
    fn a_huge_request_is_not_read() {
        assert!(matches!(accept(&vec![0x30; 1 << 20], &proven()), Err(CsrError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(accept(&bytes, &proven()).is_err());
        }

        /// All that matters is signed: a change of the envelope around it may pass, but changes nothing.
        #[test]
        fn a_mutated_request_yields_no_other_key(at in any::<proptest::sample::Index>(), xor in 1_u8..) {
            let key = KeyPair::generate().unwrap();
            let mut der = request_with(&key, |_| ());
            let at = at.index(der.len());
            der[at] ^= xor;
            if let Ok(accepted) = accept(&der, &proven()) {
                prop_assert_eq!(accepted.0, key.public_key_raw());
            }
        }

        #[test]
        fn a_truncated_request_is_refused_without_a_panic(at in any::<proptest::sample::Index>()) {
            let der = request(|_| ());
            prop_assert!(accept(&der[..at.index(der.len())], &proven()).is_err());
        }
    }
}
