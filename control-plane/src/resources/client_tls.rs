//! `tls` of a `DestinationRule`: the TLS that is begun to servers.
//!
//! What is refused is what Istio's validation refuses.

use std::sync::Arc;

use selvedge_model::{
    ClientCertificate, Credential, Host, TlsOrigination, Trusted, UpstreamTls, WorkloadName,
};
use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    typed::FieldError,
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TlsYaml {
    mode: TlsMode,
    sni: Option<String>,
    subject_alt_names: Vec<String>,
    ca_certificates: Option<String>,
    client_certificate: Option<String>,
    private_key: Option<String>,
    credential_name: Option<String>,
    insecure_skip_verify: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum TlsMode {
    #[default]
    Disable,
    Simple,
    Mutual,
    IstioMutual,
}

impl TlsYaml {
    /// Takes empty texts for ones that are not there, as Istio does: templates write them.
    fn leave_out_empty(&mut self) {
        for text in [
            &mut self.sni,
            &mut self.ca_certificates,
            &mut self.client_certificate,
            &mut self.private_key,
            &mut self.credential_name,
        ] {
            *text = text.take().filter(|text| !text.is_empty());
        }
    }

    /// What of the block is only for SIMPLE and MUTUAL, as far as it is given.
    fn for_servers_outside(&self) -> Option<&'static str> {
        let given = [
            (self.sni.is_some(), "sni"),
            (!self.subject_alt_names.is_empty(), "subjectAltNames"),
            (self.ca_certificates.is_some(), "caCertificates"),
            (self.client_certificate.is_some(), "clientCertificate"),
            (self.private_key.is_some(), "privateKey"),
            (self.credential_name.is_some(), "credentialName"),
            (self.insecure_skip_verify, "insecureSkipVerify"),
        ];
        given.into_iter().find_map(|(given, name)| given.then_some(name))
    }

    /// Refuses what says two things of one question: by what a server is verified, and where certificates come from.
    fn agrees(&self, field: &str) -> Result<(), FieldError> {
        let first =
            |named: &[(bool, &'static str)]| named.iter().find_map(|(given, name)| given.then_some(*name));
        let verified_by = first(&[
            (self.ca_certificates.is_some(), "caCertificates"),
            (!self.subject_alt_names.is_empty(), "subjectAltNames"),
            (self.credential_name.is_some() && self.mode == TlsMode::Simple, "credentialName"),
        ]);
        if let Some(name) = verified_by.filter(|_| self.insecure_skip_verify) {
            let message = "says how the server is verified, and insecureSkipVerify says that it is not; remove one of them";
            return Err(wrong(format!("{field}.{name}"), message));
        }
        let file = first(&[
            (self.client_certificate.is_some(), "clientCertificate"),
            (self.private_key.is_some(), "privateKey"),
            (self.ca_certificates.is_some(), "caCertificates"),
        ]);
        if let Some(name) = file.filter(|_| self.credential_name.is_some()) {
            let message = "names a file, and credentialName a Secret that has the same; remove one of them";
            return Err(wrong(format!("{field}.{name}"), message));
        }
        Ok(())
    }

    /// The block at `field`.
    pub(super) fn read(mut self, field: &str, reading: &mut Reading<'_>) -> Result<UpstreamTls, FieldError> {
        self.leave_out_empty();
        let plain = match self.mode {
            TlsMode::Disable => Some(UpstreamTls::Disable),
            TlsMode::IstioMutual => Some(UpstreamTls::IstioMutual),
            TlsMode::Simple | TlsMode::Mutual => None,
        };
        if let Some(plain) = plain {
            if let Some(name) = self.for_servers_outside() {
                let message = "has no effect with this mode; it is for SIMPLE and MUTUAL";
                reading.warning(format!("{field}.{name}"), message);
            }
            return Ok(plain);
        }
        self.agrees(field)?;
        if let Some(sni) = &self.sni
            && !matches!(sni.parse(), Ok(Host::Name(_)))
        {
            return Err(wrong(
                format!("{field}.sni"),
                format!("{sni:?} is not a DNS name; write one, or leave it out for the host that is called"),
            ));
        }
        let mutual = matches!(self.mode, TlsMode::Mutual);
        let credential = self.credential_name.map(|secret| Credential {
            named_by: Arc::from(reading.namespace),
            secret,
            mutual,
        });
        if let Some(Credential { secret, .. }) = &credential {
            if WorkloadName::new("a", secret).is_err() {
                let message = format!(
                    "{secret:?} is not the name of a Secret, which is in the namespace of the gateways that call; write the name alone"
                );
                return Err(wrong(format!("{field}.credentialName"), message));
            }
            let message = "is acted on at gateways. Sidecars have no such Secret: they believe the operating system's authorities, \
                           and show no certificate; write a rule for them that names files, and has an exportTo of its own";
            reading.not_acted_on(format!("{field}.credentialName"), message);
        }
        if self.insecure_skip_verify {
            let message = "the server's certificate is not verified: anybody on the network path can read and change \
                           what is sent; set caCertificates instead";
            reading.warning(format!("{field}.insecureSkipVerify"), message);
        }
        let client = match (self.mode, self.client_certificate, self.private_key) {
            (TlsMode::Mutual, Some(certificate), Some(private_key)) => {
                Some(ClientCertificate { certificate, private_key })
            }
            (TlsMode::Mutual, None, None) if credential.is_some() => None,
            (TlsMode::Mutual, ..) => {
                let message = "MUTUAL needs clientCertificate and privateKey, paths in the sidecar's file system; \
                               add what is missing";
                return Err(wrong(field, message));
            }
            (_, None, None) => None,
            _ => {
                let message = "has no effect with SIMPLE; write MUTUAL to show a client certificate";
                reading.warning(format!("{field}.clientCertificate"), message);
                None
            }
        };
        // Istio's word for what is the default here.
        let trusted =
            self.ca_certificates.filter(|path| path != "system").map_or(Trusted::System, Trusted::File);
        // Whom to believe lends nobody anything.
        let names_files = client.is_some();
        Ok(UpstreamTls::Originate(TlsOrigination {
            sni: self.sni,
            subject_alt_names: self.subject_alt_names,
            trusted,
            files_named_by: names_files.then(|| Arc::from(reading.namespace)),
            client,
            insecure_skip_verify: self.insecure_skip_verify,
            credential,
            ..TlsOrigination::default()
        }))
    }
}
