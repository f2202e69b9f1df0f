//! `BackendTLSPolicy` (Gateway API): that the servers behind a `Service` speak TLS, and whose certificates they must show.

use std::collections::BTreeMap;

use selvedge_model::{Host, gateway::Hostname};
use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    gateway::ObjectRef,
    kinds::{Feedback, ResourceKind},
    policy_target::{PolicyTarget, each_once},
    typed::{FieldError, Present},
};

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("BackendTLSPolicy", VERSIONS, "backendtlspolicies", Feedback::Ancestors)
        .read_as_spec::<Yaml>(|document| document.with_spec(read));

/// The versions whose fields mean the same. `v1alpha2` had others.
const VERSIONS: &[&str] = &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha3"];
/// So many objects with authorities.
const MOST_AUTHORITIES: usize = 8;
/// So many names of which the server must have one.
const MOST_NAMES: usize = 5;

/// What a `BackendTLSPolicy` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTlsPolicySpec {
    /// What it is for. Of one that cannot be used, empty: every `Service` of its namespace, because nobody knows.
    pub targets: Vec<PolicyTarget>,
    /// Who issues the servers' certificates.
    pub authorities: AuthoritiesSpec,
    /// What is sent as server name (SNI).
    pub hostname: String,
    /// The names of which a server's certificate must have one: DNS names, and URIs.
    pub names: Vec<String>,
}

/// Who issues the servers' certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthoritiesSpec {
    /// The authorities that the operating system trusts.
    System,
    /// Those in these objects.
    Objects(Vec<ObjectRef>),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    #[serde(default)]
    target_refs: Vec<TargetYaml>,
    #[serde(default)]
    validation: ValidationYaml,
    #[serde(default)]
    options: BTreeMap<String, Present>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TargetYaml {
    #[serde(default)]
    group: String,
    kind: String,
    name: String,
    section_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ValidationYaml {
    hostname: String,
    ca_certificate_refs: Vec<AuthorityYaml>,
    #[serde(rename = "wellKnownCACertificates")]
    well_known_ca_certificates: String,
    subject_alt_names: Vec<NameYaml>,
}

#[derive(Debug, Deserialize)]
struct AuthorityYaml {
    #[serde(default)]
    group: String,
    kind: String,
    name: String,
}

#[derive(Debug, Deserialize)]
struct NameYaml {
    #[serde(rename = "type")]
    kind: NameKind,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    uri: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum NameKind {
    Hostname,
    #[serde(rename = "URI")]
    Uri,
}

fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<BackendTlsPolicySpec, FieldError> {
    let Yaml { target_refs, validation, options } = yaml;
    for name in options.keys() {
        let message = "is not acted on; TLS 1.2 and 1.3 are used, whichever the server prefers";
        reading.not_acted_on(format!("spec.options.{name}"), message);
    }
    let targets = target_refs.into_iter().enumerate().map(|(index, target)| target.read(index));
    let targets = each_once(targets)?;
    let hostname = match validation.hostname.parse() {
        Ok(Host::Name(name)) => name.to_string(),
        _ => {
            let message = format!(
                "{:?} is not a DNS name; write the one that the server's certificate is for",
                validation.hostname
            );
            return Err(wrong("spec.validation.hostname", message));
        }
    };
    let authorities =
        read_authorities(validation.ca_certificate_refs, &validation.well_known_ca_certificates)?;
    let names = read_names(validation.subject_alt_names)?;
    Ok(BackendTlsPolicySpec { targets, authorities, hostname, names })
}

impl TargetYaml {
    pub(super) fn read(self, index: usize) -> PolicyTarget {
        let Self { group, kind, name, section_name } = self;
        let section = section_name.filter(|name| !name.is_empty());
        PolicyTarget { index, group, kind, name, section }
    }
}

fn read_authorities(list: Vec<AuthorityYaml>, well_known: &str) -> Result<AuthoritiesSpec, FieldError> {
    let refs = "spec.validation.caCertificateRefs";
    at_most(refs, list.len(), MOST_AUTHORITIES)?;
    match (list.is_empty(), well_known) {
        (true, "System") => Ok(AuthoritiesSpec::System),
        (true, "") => Err(wrong(
            refs,
            "is empty; name a ConfigMap with ca.crt, or write wellKnownCACertificates: System",
        )),
        (true, other) => {
            let message = format!("{other:?} is not known; write System");
            Err(wrong("spec.validation.wellKnownCACertificates", message))
        }
        (false, "") => {
            let objects = list.into_iter().enumerate().map(|(index, AuthorityYaml { group, kind, name })| {
                ObjectRef { field: format!("{refs}[{index}]"), group, kind, namespace: None, name }
            });
            Ok(AuthoritiesSpec::Objects(objects.collect()))
        }
        (false, _) => Err(wrong(refs, "and wellKnownCACertificates exclude each other; keep one")),
    }
}

fn read_names(list: Vec<NameYaml>) -> Result<Vec<String>, FieldError> {
    at_most("spec.validation.subjectAltNames", list.len(), MOST_NAMES)?;
    let names = list.into_iter().enumerate().map(|(index, name)| {
        let field = |part| format!("spec.validation.subjectAltNames[{index}].{part}");
        let NameYaml { kind, hostname, uri } = name;
        match kind {
            NameKind::Hostname => match hostname.parse::<Hostname>() {
                Ok(Hostname::Any) | Err(_) => {
                    Err(wrong(field("hostname"), format!("{hostname:?} is not a DNS name")))
                }
                Ok(name) => Ok(name.to_string()),
            },
            NameKind::Uri if !uri.contains(':') => {
                Err(wrong(field("uri"), format!("{uri:?} is not a URI with a scheme")))
            }
            NameKind::Uri => Ok(uri),
        }
    });
    names.collect()
}

fn at_most(field: &str, count: usize, most: usize) -> Result<(), FieldError> {
    if count <= most {
        return Ok(());
    }
    Err(wrong(field, format!("has more than {most} entries; make it two policies")))
}
