//! TLS that the proxy of a client begins, where it is not what the endpoint itself asks for.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::{
    SpiffeId,
    gateway::{CertificateName, ServerCertificate},
};

/// What `DestinationRule` `trafficPolicy.tls` or a `BackendTLSPolicy` says. Without it each endpoint decides: mutual TLS if it is
/// meshed, plaintext if it is not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[expect(clippy::large_enum_variant, reason = "there is one for a backend, which is much larger")]
pub enum UpstreamTls {
    /// `DISABLE`: plaintext, also to meshed endpoints.
    Disable,
    /// `ISTIO_MUTUAL`: the mesh's mutual TLS; an endpoint that is not meshed is not called.
    IstioMutual,
    /// `SIMPLE`, `MUTUAL`, and a `BackendTLSPolicy`: TLS as servers outside of a mesh speak it.
    Originate(TlsOrigination),
}

impl UpstreamTls {
    /// The certificate that a gateway shows because of it.
    pub fn certificate(&self) -> Option<&CertificateName> {
        match self {
            Self::Originate(settings) => settings.certificate.as_ref(),
            Self::Disable | Self::IstioMutual => None,
        }
    }
}

/// How an endpoint is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport<'a> {
    /// Over the mesh's mutual TLS; this identity must answer.
    Mutual(&'a SpiffeId),
    /// In plaintext.
    Plaintext,
    /// Not at all: the mesh's mutual TLS is asked for, and the endpoint is not meshed.
    Impossible,
    /// Over TLS as servers outside of the mesh speak it.
    Originated(&'a TlsOrigination),
}

impl<'a> Transport<'a> {
    /// As `policy` says for an endpoint that asks for `identity`.
    pub fn of(policy: Option<&'a UpstreamTls>, identity: Option<&'a SpiffeId>) -> Self {
        match (policy, identity) {
            (Some(UpstreamTls::Originate(settings)), _) => Self::Originated(settings),
            (Some(UpstreamTls::Disable), _) | (None, None) => Self::Plaintext,
            (Some(UpstreamTls::IstioMutual), None) => Self::Impossible,
            (None | Some(UpstreamTls::IstioMutual), Some(identity)) => Self::Mutual(identity),
        }
    }
}

/// How TLS to a server outside the mesh is done. Paths are those of the file system of the proxy that calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct TlsOrigination {
    /// `sni`: what is sent as server name. `None`: the host that the request is for.
    pub sni: Option<String>,
    /// `subjectAltNames`: one of these must be in the server's certificate; empty = the server name.
    pub subject_alt_names: Vec<String>,
    /// Whose certificates are trusted.
    pub trusted: Trusted,
    /// `clientCertificate` and `privateKey` (`MUTUAL`).
    pub client: Option<ClientCertificate>,
    /// `insecureSkipVerify`: whoever answers is trusted.
    pub insecure_skip_verify: bool,
    /// `credentialName`, as a `DestinationRule` writes it. It is for gateways, of which each has another Secret of that name: where
    /// their rules are made, it is taken out, and what the Secret holds is put into `trusted` and `certificate`.
    pub credential: Option<Credential>,
    /// The namespace of the `DestinationRule` that names files, if one does. Gateways have files that are not for the rules of
    /// every namespace: where their rules are made, it is taken out.
    pub files_named_by: Option<Arc<str>>,
    /// What the gateway that calls shows, if it is asked for a certificate: the one of that Secret. It is sent to that gateway
    /// alone.
    pub certificate: Option<CertificateName>,
    /// What the gateway that calls shows, if it is asked for a certificate (`tls.backend` of its `Gateway`). Only that gateway
    /// fills it in.
    pub shown: Option<Shown>,
    /// The `BackendTLSPolicy` that asks for it, for people. `None`: a `DestinationRule` or an annotation does.
    pub policy: Option<Arc<str>>,
}

/// A Secret of a gateway's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Credential {
    /// The namespace of the rule that names it.
    pub named_by: Arc<str>,
    /// Its name.
    pub secret: String,
    /// Whether its certificate is shown (`MUTUAL`).
    pub mutual: bool,
}

/// Whose certificates are trusted in a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub enum Trusted {
    /// The authorities of the operating system where the proxy runs (`wellKnownCACertificates: System`).
    #[default]
    System,
    /// Those in a file (`caCertificates`).
    File(String),
    /// Those that came with the configuration (`caCertificateRefs`).
    Given(GivenAuthorities),
}

/// Certificates of authorities, in DER. Cheap to clone, to compare with a clone, and to hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenAuthorities(Arc<Vec<Vec<u8>>>);

impl GivenAuthorities {
    /// These certificates.
    pub fn new(certificates: Vec<Vec<u8>>) -> Self {
        Self(Arc::new(certificates))
    }

    /// The certificates.
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.0
    }
}

impl From<Arc<Vec<Vec<u8>>>> for GivenAuthorities {
    /// These certificates, which others have, too.
    fn from(certificates: Arc<Vec<Vec<u8>>>) -> Self {
        Self(certificates)
    }
}

impl Hash for GivenAuthorities {
    /// A bundle may have hundreds of certificates, and is part of what each endpoint is found by.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.len(), self.0.first()).hash(state);
    }
}

impl Serialize for GivenAuthorities {
    /// How many there are: nobody reads DER.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut shown = serializer.serialize_struct("GivenAuthorities", 1)?;
        shown.serialize_field("certificates", &self.0.len())?;
        shown.end()
    }
}

/// A certificate that a gateway shows to servers outside the mesh. Of it only the name is shown to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown(pub Arc<ServerCertificate>);

impl Hash for Shown {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.0.name, self.0.chain.first()).hash(state);
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.name.serialize(serializer)
    }
}

/// The files of a certificate that proves who the client is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct ClientCertificate {
    /// The certificate, then its issuers', in PEM form.
    pub certificate: String,
    /// Its private key, in PEM form.
    pub private_key: String,
}
