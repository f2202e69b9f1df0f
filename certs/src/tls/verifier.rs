//! What rustls asks during a full handshake.

use std::{
    error::Error,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::verify_tls13_signature,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use selvedge_model::{SpiffeId, TrustDomain};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    bundle::Bundle,
    control_plane_identity,
    facts::{Facts, Fingerprint, fingerprint},
    tls::provider,
    verify::{self, Anchors, Peer, PeerError, Role},
};

/// Trusts workloads of one trust domain, or only one of them.
#[derive(Debug)]
pub(super) struct Workloads {
    anchors: Anchors,
    expected: Option<SpiffeId>,
    may_be_anonymous: bool,
}

impl Workloads {
    /// Trusts every workload that the anchors vouch for.
    pub(super) fn any(anchors: Anchors) -> Self {
        Self { anchors, expected: None, may_be_anonymous: false }
    }

    /// Trusts only `identity`.
    pub(super) fn only(anchors: Anchors, identity: SpiffeId) -> Self {
        Self { expected: Some(identity), ..Self::any(anchors) }
    }

    /// Also accepts clients that show no certificate at all.
    pub(super) fn or_anonymous(self) -> Self {
        Self { may_be_anonymous: true, ..self }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: Role,
    ) -> Result<(), rustls::Error> {
        let chain = chain(leaf, intermediates);
        let peer = self.anchors.peer(&chain, system_time(now), role).map_err(refusal)?;
        self.expected.as_ref().map_or(Ok(()), |expected| expect(&peer, expected)).map_err(refusal)
    }
}

/// Trusts the control plane when nothing is known but its root's SHA-256, which came with the join token
/// or the settings. While roots change there are several.
#[derive(Debug)]
pub(super) struct FirstContact {
    pub(super) roots: Vec<Fingerprint>,
    pub(super) trust_domain: TrustDomain,
}

impl FirstContact {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), PeerError> {
        let chain = chain(leaf, intermediates);
        let pinned =
            intermediates.iter().filter(|certificate| self.roots.contains(&fingerprint(certificate)));
        let roots: Vec<_> = pinned.map(|root| root.clone().into_owned()).collect();
        if roots.is_empty() {
            let expected = self.roots.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
            return Err(PeerError::OtherRoot { claim: Facts::parse(leaf)?.claim(), expected });
        }
        let bundle = Bundle::new(self.trust_domain.clone(), roots);
        let peer = verify::peer(&chain, &bundle, system_time(now), Role::Server)?;
        expect(&peer, &control_plane_identity(&self.trust_domain))
    }
}

/// What rustls's verifier traits ask for in the same words: that the peer holds the key of the certificate
/// that it shows. What TLS 1.2 wants is each verifier's own.
macro_rules! tls13_signatures {
    () => {
        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &provider().signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

/// Refuses a `certificate` outside the mesh that is trusted itself, whoever signed it, if its time is not now, or it is not for a peer
/// with this `role`. That the peer has its key is proven by the handshake, as of any other.
pub(super) fn usable_itself(
    certificate: &CertificateDer<'_>,
    now: UnixTime,
    role: Role,
) -> Result<(), rustls::Error> {
    let unreadable = |_| CertificateError::BadEncoding;
    let (_, read) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < read.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > read.validity().not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    let extended = read.extended_key_usage().map_err(unreadable)?;
    let is_for_role = extended.is_none_or(|usage| match role {
        Role::Client => usage.value.client_auth,
        Role::Server => usage.value.server_auth,
    });
    // RFC 5280, section 4.2.1.3: both uses must allow it. In a handshake, the key signs.
    let signs = read.key_usage().map_err(unreadable)?.is_none_or(|usage| usage.value.digital_signature());
    match is_for_role && signs {
        true => Ok(()),
        false => Err(CertificateError::InvalidPurpose.into()),
    }
}

/// The same outside the mesh, where TLS 1.2 is allowed.
macro_rules! outside_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &provider().signature_verification_algorithms;
            verify_tls12_signature(message, certificate, signature, algorithms)
        }

        $crate::tls::verifier::tls13_signatures!();
    };
}

pub(super) use {outside_signatures, tls13_signatures};

/// The same within the mesh, where TLS 1.2 is never negotiated.
macro_rules! mesh_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(rustls::Error::General("TLS 1.2 is never negotiated here".to_owned()))
        }

        tls13_signatures!();
    };
}

impl ServerCertVerifier for Workloads {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(leaf, intermediates, now, Role::Server).map(|()| ServerCertVerified::assertion())
    }

    mesh_signatures!();
}

impl ServerCertVerifier for FirstContact {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(leaf, intermediates, now).map_err(refusal).map(|()| ServerCertVerified::assertion())
    }

    mesh_signatures!();
}

impl ClientCertVerifier for Workloads {
    fn client_auth_mandatory(&self) -> bool {
        !self.may_be_anonymous
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A workload has one certificate; hints about which to choose are bytes for nothing.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(leaf, intermediates, now, Role::Client).map(|()| ClientCertVerified::assertion())
    }

    mesh_signatures!();
}

/// The reason why *we* refused the peer in a failed handshake, if that is what failed.
pub fn peer_error(error: &io::Error) -> Option<&PeerError> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) => {
            (reason.as_ref() as &(dyn Error + 'static)).downcast_ref()
        }
        _ => None,
    }
}

/// Why a handshake failed, in words for a log: ours if we refused the peer (rustls would print our reason
/// in its debug form), and a hint where to look if the peer refused us.
pub fn explain(error: &io::Error) -> String {
    if let Some(reason) = peer_error(error) {
        return reason.to_string();
    }
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => {
            format!("the peer ended the handshake with the alert {alert:?}; its log says why")
        }
        _ => error.to_string(),
    }
}

/// Keeps our own words: they go to the log of whoever refuses, the peer sees an alert only.
fn refusal(error: PeerError) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

fn expect(peer: &Peer, expected: &SpiffeId) -> Result<(), PeerError> {
    if peer.identity == *expected {
        Ok(())
    } else {
        Err(PeerError::OtherIdentity { expected: expected.clone(), found: peer.identity.clone() })
    }
}

fn chain<'a>(
    leaf: &'a CertificateDer<'a>,
    intermediates: &'a [CertificateDer<'a>],
) -> Vec<CertificateDer<'a>> {
    std::iter::once(leaf)
        .chain(intermediates)
        .map(|certificate| CertificateDer::from(certificate.as_ref()))
        .collect()
}

fn system_time(now: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs())
}
