//! `tls` of a server.
//!
//! What is asked of clients and cannot be checked shuts the server: it would let in more than the document says.

use serde::Deserialize;

use crate::resources::{
    document::{Reading, wrong},
    typed::{FieldError, Present},
};

/// The most Secrets of one server, each of which is looked at for each of its hosts.
const MOST_SECRETS: usize = 16;

/// What a server does with TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerTls {
    /// It goes on to the backend as it is (`PASSTHROUGH`).
    Passthrough,
    /// It ends here.
    Terminate {
        /// The names of the Secrets with its certificates; none: no client is served.
        secrets: Vec<String>,
        /// Who is asked for a certificate.
        clients: Option<AskedClients>,
        /// Whether TLS 1.2 is accepted beside 1.3.
        tls12: bool,
    },
}

/// Who is asked for a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AskedClients {
    /// Whether a client without one is served (`OPTIONAL_MUTUAL`).
    pub optional: bool,
    /// The name of the Secret with the authorities, if that is another one than those of the certificates.
    pub authorities: Option<String>,
    /// The names of which a certificate must have one; none: any will do.
    pub subject_alt_names: Vec<String>,
}

impl ServerTls {
    /// What nobody is served by.
    const SHUT: Self = Self::Terminate { secrets: Vec::new(), clients: None, tls12: false };
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Yaml {
    mode: Option<ModeWord>,
    pub(super) https_redirect: bool,
    credential_name: Option<String>,
    credential_names: Vec<String>,
    ca_cert_credential_name: Option<String>,
    subject_alt_names: Vec<String>,
    min_protocol_version: Version,
    max_protocol_version: Version,
    cipher_suites: Vec<String>,
    server_certificate: Option<String>,
    private_key: Option<String>,
    ca_certificates: Option<String>,
    ca_crl: Option<String>,
    tls_certificates: Option<Present>,
    verify_certificate_spki: Vec<String>,
    verify_certificate_hash: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ModeWord {
    Passthrough,
    Simple,
    Mutual,
    OptionalMutual,
    AutoPassthrough,
    IstioMutual,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
enum Version {
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    #[serde(rename = "TLSV1_0")]
    V10,
    #[serde(rename = "TLSV1_1")]
    V11,
    #[serde(rename = "TLSV1_2")]
    V12,
    #[serde(rename = "TLSV1_3")]
    V13,
}

impl Yaml {
    /// Whether it says anything that plaintext cannot have.
    pub(super) fn is_for_tls(&self) -> bool {
        let modes = self.mode.is_some_and(|mode| mode != ModeWord::Passthrough);
        modes
            || self.credential_name.is_some()
            || !self.credential_names.is_empty()
            || self.files().next().is_some()
    }

    /// The fields that name files.
    fn files(&self) -> impl Iterator<Item = &'static str> {
        [
            ("serverCertificate", self.server_certificate.is_some()),
            ("privateKey", self.private_key.is_some()),
            ("caCertificates", self.ca_certificates.is_some()),
            ("caCrl", self.ca_crl.is_some()),
            ("tlsCertificates", self.tls_certificates.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
    }

    /// What it means; `field` is where it stands.
    pub(super) fn read(self, field: &str, reading: &mut Reading<'_>) -> Result<ServerTls, FieldError> {
        let mode = self.mode.unwrap_or(ModeWord::Passthrough);
        match mode {
            ModeWord::Passthrough => self.passthrough(field, reading),
            ModeWord::AutoPassthrough | ModeWord::IstioMutual => {
                let word = if mode == ModeWord::IstioMutual { "ISTIO_MUTUAL" } else { "AUTO_PASSTHROUGH" };
                let message =
                    format!("{word} is not acted on, so the server serves nobody; use SIMPLE or MUTUAL");
                reading.error(format!("{field}.mode"), message);
                Ok(ServerTls::SHUT)
            }
            ModeWord::Simple | ModeWord::Mutual | ModeWord::OptionalMutual => {
                self.terminate(mode, field, reading)
            }
        }
    }

    fn passthrough(self, field: &str, reading: &mut Reading<'_>) -> Result<ServerTls, FieldError> {
        if self.is_for_tls() {
            let message = match self.mode {
                Some(_) => {
                    "is PASSTHROUGH, so the gateway shows no certificate; remove the certificate, or use SIMPLE"
                }
                None => {
                    "is missing, which means PASSTHROUGH, so the gateway shows no certificate; write SIMPLE"
                }
            };
            return Err(wrong(format!("{field}.mode"), message));
        }
        self.report_what_is_asked_of_tls(field, reading);
        Ok(ServerTls::Passthrough)
    }

    fn terminate(
        self,
        mode: ModeWord,
        field: &str,
        reading: &mut Reading<'_>,
    ) -> Result<ServerTls, FieldError> {
        let secrets: Vec<String> = match (&self.credential_name, self.credential_names.is_empty()) {
            (Some(_), false) => {
                return Err(wrong(field, "has both credentialName and credentialNames; keep one"));
            }
            (Some(name), true) => vec![name.clone()],
            (None, _) => self.credential_names.clone(),
        };
        if secrets.len() > MOST_SECRETS {
            let message =
                format!("has more than {MOST_SECRETS} names; a server has one for each kind of key");
            return Err(wrong(format!("{field}.credentialNames"), message));
        }
        let is_shut = self.shuts(field, mode, reading);
        if secrets.is_empty() && !is_shut {
            let message = "is missing; name a Secret of type kubernetes.io/tls with the server's certificate";
            return Err(wrong(format!("{field}.credentialName"), message));
        }
        if let Some(name) = secrets.iter().chain(&self.ca_cert_credential_name).find(|name| !is_secret(name))
        {
            let message = format!("{name:?} is not the name of a Secret; write the name alone");
            return Err(wrong(format!("{field}.credentialName"), message));
        }
        if is_shut {
            return Ok(ServerTls::SHUT);
        }
        self.report_what_is_asked_of_tls(field, reading);
        let asked = || AskedClients {
            optional: mode == ModeWord::OptionalMutual,
            authorities: self.ca_cert_credential_name.clone(),
            subject_alt_names: self.subject_alt_names.clone(),
        };
        let clients = (mode != ModeWord::Simple).then(asked);
        if clients.is_none() && !self.subject_alt_names.is_empty() {
            let message = "has no effect with SIMPLE, which asks clients for no certificate; use MUTUAL";
            reading.warning(format!("{field}.subjectAltNames"), message);
        }
        Ok(ServerTls::Terminate { secrets, clients, tls12: self.min_protocol_version < Version::V13 })
    }

    /// Whether it says what is not acted on, so that nobody may be served.
    fn shuts(&self, field: &str, mode: ModeWord, reading: &mut Reading<'_>) -> bool {
        let mut is_shut = false;
        if let Some(name) = self.files().next() {
            let message = "names a file, which is not acted on, so the server serves nobody; put it into a Secret and name \
                           that in credentialName";
            reading.error(format!("{field}.{name}"), message);
            is_shut = true;
        }
        let checks = [
            ("verifyCertificateSpki", &self.verify_certificate_spki),
            ("verifyCertificateHash", &self.verify_certificate_hash),
        ];
        for (name, _) in checks.into_iter().filter(|(_, list)| mode != ModeWord::Simple && !list.is_empty()) {
            let message = "is not acted on, so the server serves nobody; use subjectAltNames instead";
            reading.error(format!("{field}.{name}"), message);
            is_shut = true;
        }
        is_shut
    }

    fn report_what_is_asked_of_tls(&self, field: &str, reading: &mut Reading<'_>) {
        if !self.cipher_suites.is_empty() {
            let message = "is not acted on: only suites with forward secrecy and AEAD are used; remove it";
            reading.not_acted_on(format!("{field}.cipherSuites"), message);
        }
        if matches!(self.min_protocol_version, Version::V10 | Version::V11) {
            let message = "is not acted on: TLS 1.2 is the oldest version that is served; write TLSV1_2";
            reading.not_acted_on(format!("{field}.minProtocolVersion"), message);
        }
        if !matches!(self.max_protocol_version, Version::Auto | Version::V13) {
            let message = "is not acted on: TLS 1.3 is always served; remove it";
            reading.not_acted_on(format!("{field}.maxProtocolVersion"), message);
        }
    }
}

fn is_secret(name: &str) -> bool {
    selvedge_model::WorkloadName::new("a", name).is_ok()
}
