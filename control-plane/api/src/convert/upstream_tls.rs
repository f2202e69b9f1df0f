//! TLS that a client's sidecar begins.

use selvedge_model::{ClientCertificate, GivenAuthorities, TlsOrigination, Trusted, UpstreamTls};

use super::{ConvertError, invalid, parse, required};
use crate::wire::{self, upstream_tls::Mode};

impl From<&UpstreamTls> for wire::UpstreamTls {
    fn from(tls: &UpstreamTls) -> Self {
        let mode = match tls {
            UpstreamTls::Disable => Mode::Disable(true),
            UpstreamTls::IstioMutual => Mode::IstioMutual(true),
            UpstreamTls::Originate(origination) => Mode::Originate(origination.into()),
        };
        Self { mode: Some(mode) }
    }
}

impl TryFrom<wire::UpstreamTls> for UpstreamTls {
    type Error = ConvertError;

    fn try_from(tls: wire::UpstreamTls) -> Result<Self, ConvertError> {
        match required("upstream TLS mode", tls.mode)? {
            Mode::Disable(true) => Ok(Self::Disable),
            Mode::IstioMutual(true) => Ok(Self::IstioMutual),
            Mode::Originate(origination) => Ok(Self::Originate(origination.try_into()?)),
            Mode::Disable(false) | Mode::IstioMutual(false) => {
                Err(invalid("upstream TLS mode", "false", &"only true is known"))
            }
        }
    }
}

impl From<&TlsOrigination> for wire::TlsOrigination {
    fn from(origination: &TlsOrigination) -> Self {
        let client = origination.client.as_ref().map(|client| wire::ClientCertificate {
            certificate: client.certificate.clone(),
            private_key: client.private_key.clone(),
        });
        let (ca_certificates, authorities) = match &origination.trusted {
            Trusted::System => (None, Vec::new()),
            Trusted::File(file) => (Some(file.clone()), Vec::new()),
            Trusted::Given(given) => (None, given.certificates().to_vec()),
        };
        Self {
            sni: origination.sni.clone(),
            subject_alt_names: origination.subject_alt_names.clone(),
            ca_certificates,
            client,
            insecure_skip_verify: origination.insecure_skip_verify,
            authorities: authorities.into_iter().map(Into::into).collect(),
            policy: origination.policy.as_deref().map(str::to_owned),
            certificate: origination.certificate.as_ref().map(ToString::to_string),
        }
    }
}

impl TryFrom<wire::TlsOrigination> for TlsOrigination {
    type Error = ConvertError;

    fn try_from(origination: wire::TlsOrigination) -> Result<Self, ConvertError> {
        let client = origination.client.map(|client| ClientCertificate {
            certificate: client.certificate,
            private_key: client.private_key,
        });
        let trusted = match (origination.authorities, origination.ca_certificates) {
            (given, _) if !given.is_empty() => {
                Trusted::Given(GivenAuthorities::new(given.into_iter().map(Into::into).collect()))
            }
            (_, Some(file)) => Trusted::File(file),
            (_, None) => Trusted::System,
        };
        let certificate = origination.certificate;
        let certificate = certificate.map(|name| parse("certificate's name", &name)).transpose()?;
        Ok(Self {
            sni: origination.sni,
            subject_alt_names: origination.subject_alt_names,
            trusted,
            client,
            insecure_skip_verify: origination.insecure_skip_verify,
            credential: None,
            files_named_by: None,
            certificate,
            // Only the gateway itself knows what it shows.
            shown: None,
            policy: origination.policy.map(Into::into),
        })
    }
}
