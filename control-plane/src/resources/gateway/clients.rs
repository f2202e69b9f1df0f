//! Whom a gateway asks for a certificate, which one it shows itself, and the objects that hold certificates.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::{
    document::{Reading, wrong},
    typed::FieldError,
    values::port_number,
};

/// An object that holds certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRef {
    /// Its field.
    pub field: String,
    /// The group of its kind; empty for `Secret` and `ConfigMap`.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace; `None` = the gateway's own.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// Whom a gateway asks for a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientsSpec {
    /// Where it is written.
    pub field: String,
    /// What holds the certificates of the authorities.
    pub authorities: Vec<ObjectRef>,
    /// Whether a client without a certificate is served.
    pub optional: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ValidationYaml {
    ca_certificate_refs: Vec<ObjectRefYaml>,
    mode: ModeWord,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum ModeWord {
    #[default]
    AllowValidOnly,
    AllowInsecureFallback,
}

#[derive(Debug, Deserialize)]
pub(super) struct ObjectRefYaml {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
}

/// `spec.tls`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct GatewayTlsYaml {
    frontend: FrontendYaml,
    backend: BackendYaml,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BackendYaml {
    client_certificate_ref: Option<ObjectRefYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FrontendYaml {
    default: ConfigYaml,
    per_port: Vec<PerPortYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigYaml {
    validation: Option<ValidationYaml>,
}

#[derive(Debug, Deserialize)]
struct PerPortYaml {
    port: u32,
    #[serde(default)]
    tls: ConfigYaml,
}

/// Whom the listeners of a gateway ask for a certificate, where they do not say it themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrontendClients {
    default: Option<ClientsSpec>,
    ports: BTreeMap<u16, Option<ClientsSpec>>,
}

impl FrontendClients {
    /// Whether clients without a certificate are served on some port although they are asked for one.
    pub fn is_any_optional(&self) -> bool {
        let all = self.default.iter().chain(self.ports.values().flatten());
        all.into_iter().any(|clients| clients.optional)
    }

    /// For listeners of `port`.
    pub fn at(&self, port: u16) -> Option<&ClientsSpec> {
        self.ports.get(&port).unwrap_or(&self.default).as_ref()
    }
}

impl GatewayTlsYaml {
    /// Whom it asks for a certificate, and the object with its own.
    pub(super) fn read(
        self,
        reading: &mut Reading<'_>,
    ) -> Result<(FrontendClients, Option<ObjectRef>), FieldError> {
        let to_backends = self.backend.client_certificate_ref;
        let to_backends =
            to_backends.map(|yaml| yaml.read("spec.tls.backend.clientCertificateRef".to_owned(), "Secret"));
        let FrontendYaml { default, per_port } = self.frontend;
        let field = "spec.tls.frontend";
        let default =
            default.validation.map(|yaml| yaml.read(&format!("{field}.default.validation"), reading));
        let mut ports = BTreeMap::new();
        for (index, PerPortYaml { port, tls }) in per_port.into_iter().enumerate() {
            let at = format!("{field}.perPort[{index}]");
            let port = port_number(port, &format!("{at}.port"))?;
            let clients = tls.validation.map(|yaml| yaml.read(&format!("{at}.tls.validation"), reading));
            if ports.insert(port, clients).is_some() {
                return Err(wrong(format!("{at}.port"), format!("{port} is given twice; keep one")));
            }
        }
        Ok((FrontendClients { default, ports }, to_backends))
    }
}

impl ValidationYaml {
    /// What stands at `field`.
    pub(super) fn read(self, field: &str, reading: &mut Reading<'_>) -> ClientsSpec {
        let optional = self.mode == ModeWord::AllowInsecureFallback;
        if optional {
            let message = "AllowInsecureFallback serves clients without a certificate; one with a certificate that is \
                           not valid is refused all the same";
            reading.warning(format!("{field}.mode"), message);
        }
        let list = format!("{field}.caCertificateRefs");
        let authorities = read_objects(self.ca_certificate_refs, &list, "ConfigMap");
        ClientsSpec { field: field.to_owned(), authorities, optional }
    }
}

/// The objects of the list at `list`; `kind` is what they are if they do not say it.
pub(super) fn read_objects(yaml: Vec<ObjectRefYaml>, list: &str, kind: &str) -> Vec<ObjectRef> {
    let read = |(index, yaml): (usize, ObjectRefYaml)| yaml.read(format!("{list}[{index}]"), kind);
    yaml.into_iter().enumerate().map(read).collect()
}

impl ObjectRefYaml {
    /// What stands at `field`; `kind` is what it is if it does not say it.
    fn read(self, field: String, kind: &str) -> ObjectRef {
        ObjectRef {
            field,
            group: self.group.unwrap_or_default(),
            kind: self.kind.unwrap_or_else(|| kind.to_owned()),
            namespace: self.namespace,
            name: self.name,
        }
    }
}
