//! TLS that a client's sidecar begins, where it is not what the endpoint itself asks for.

use serde::Serialize;

use crate::SpiffeId;

/// What `DestinationRule` `trafficPolicy.tls` says. Without it each endpoint decides: mutual TLS if it is
/// meshed, plaintext if it is not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub enum UpstreamTls {
    /// `DISABLE`: plaintext, also to meshed endpoints.
    Disable,
    /// `ISTIO_MUTUAL`: the mesh's mutual TLS; an endpoint that is not meshed is not called.
    IstioMutual,
    /// `SIMPLE` and `MUTUAL`: TLS as servers outside of a mesh speak it.
    Originate(TlsOrigination),
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

/// How TLS to a server outside the mesh is done. Paths are those of the sidecar's own file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct TlsOrigination {
    /// `sni`: what is sent as server name. `None`: the host that the request is for.
    pub sni: Option<String>,
    /// `subjectAltNames`: one of these must be in the server's certificate; empty = the server name.
    pub subject_alt_names: Vec<String>,
    /// `caCertificates`: the file of the authorities that are trusted; `None` = the operating system's.
    pub ca_certificates: Option<String>,
    /// `clientCertificate` and `privateKey` (`MUTUAL`).
    pub client: Option<ClientCertificate>,
    /// `insecureSkipVerify`: whoever answers is trusted.
    pub insecure_skip_verify: bool,
}

/// The files of a certificate that proves who the client is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct ClientCertificate {
    /// The certificate, then its issuers', in PEM form.
    pub certificate: String,
    /// Its private key, in PEM form.
    pub private_key: String,
}
