//! `Ingress` (networking.k8s.io/v1): which requests from outside go to which `Service`.
//!
//! As Kubernetes has it (<https://kubernetes.io/docs/concepts/services-networking/ingress/>), with the
//! [annotations of nginx's controller](nginx) that most of them carry. An `Ingress` in a cluster may be another
//! controller's. So what is wrong with its annotations is noted here and told by `compile`, which knows whose it is.

pub mod nginx;
mod paths;

use selvedge_model::{StringMatch, gateway::Hostname};
use serde::Deserialize;

use self::{
    nginx::{Nginx, Notes},
    paths::{PathType, read_path},
};
use super::{
    document::{Reading, wrong},
    kinds::{CLUSTER_NETWORKING, Feedback, ResourceKind},
    typed::{FieldError, Present},
    values::{NumberOrName, port_number},
};

/// How an `Ingress` named its class before there were any.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("Ingress", CLUSTER_NETWORKING, "ingresses", Feedback::Events)
        .with_any_annotations()
        .read_as_spec::<Yaml>(|document| {
        let in_file = document.location.path.is_some();
        document.with_spec(move |yaml, reading| read(yaml, reading, in_file))
    });

/// What an `Ingress` says.
#[derive(Debug, Clone, PartialEq)]
pub struct IngressSpec {
    /// The class that it names, and the field that names it.
    pub class: Option<(String, &'static str)>,
    /// Who gets what no rule is for.
    pub default_backend: Option<IngressBackend>,
    /// Which requests go where.
    pub rules: Vec<IngressRule>,
    /// Which hosts are served over TLS.
    pub tls: Vec<IngressTls>,
    /// What its annotations ask for.
    pub nginx: Nginx,
}

/// One of `rules`.
#[derive(Debug, Clone, PartialEq)]
pub struct IngressRule {
    /// The hosts that it is for.
    pub host: Hostname,
    /// Its field, such as `spec.rules[0]`.
    pub field: String,
    /// Its paths. Empty: the default backend gets all requests to the host.
    pub paths: Vec<IngressPath>,
}

/// One of `http.paths`.
#[derive(Debug, Clone, PartialEq)]
pub struct IngressPath {
    /// Its field, such as `spec.rules[0].http.paths[1]`.
    pub field: String,
    /// The path as it is written.
    pub written: String,
    /// Which paths it is for.
    pub asks: StringMatch,
    /// What `rewrite-target` makes of the path.
    pub rewrite: Option<selvedge_model::filter::PathRewrite>,
    /// Where they go.
    pub backend: IngressBackend,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressBackend {
    /// Its field, such as `spec.defaultBackend`.
    pub field: String,
    /// Who it is.
    pub to: BackendObject,
}

/// What a backend is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendObject {
    /// A `Service` of the `Ingress`'s namespace, and its port.
    Service(String, ServicePort),
    /// An object of this kind, which nothing is sent to.
    Other(String),
}

/// A port of a `Service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServicePort {
    /// By its number.
    Number(u16),
    /// By its name.
    Name(String),
}

/// One of `tls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressTls {
    /// Its field, such as `spec.tls[0]`.
    pub field: String,
    /// The hosts; empty = those of the rules.
    pub hosts: Vec<Hostname>,
    /// The `Secret` with the certificate, in the `Ingress`'s namespace.
    pub secret: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    ingress_class_name: Option<String>,
    default_backend: Option<BackendYaml>,
    #[serde(default)]
    rules: Vec<RuleYaml>,
    #[serde(default)]
    tls: Vec<TlsYaml>,
}

#[derive(Debug, Deserialize)]
struct RuleYaml {
    host: Option<String>,
    http: Option<HttpYaml>,
}

#[derive(Debug, Deserialize)]
struct HttpYaml {
    #[serde(default)]
    paths: Vec<PathYaml>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PathYaml {
    path: Option<String>,
    path_type: Option<PathType>,
    backend: Option<BackendYaml>,
}

#[derive(Debug, Deserialize)]
struct BackendYaml {
    service: Option<ServiceYaml>,
    resource: Option<ResourceYaml>,
}

#[derive(Debug, Deserialize)]
struct ServiceYaml {
    name: Option<String>,
    #[serde(default)]
    port: PortYaml,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PortYaml {
    number: Option<u32>,
    name: Option<NumberOrName>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceYaml {
    #[serde(rename = "apiGroup")]
    _api_group: Option<Present>,
    kind: Option<String>,
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TlsYaml {
    #[serde(default)]
    hosts: Vec<String>,
    secret_name: Option<String>,
}

/// In a file, what is wrong with an annotation is wrong with the document, so that its last good version stays.
fn read(yaml: Yaml, reading: &mut Reading<'_>, in_file: bool) -> Result<IngressSpec, FieldError> {
    if yaml.rules.is_empty() && yaml.default_backend.is_none() {
        return Err(wrong("spec", "has neither rules nor a defaultBackend; give one of them"));
    }
    let mut notes = Notes::default();
    let mut nginx = nginx::read(reading.metadata, &mut notes);
    let class = read_class(yaml.ingress_class_name, reading)?;
    let default = yaml.default_backend.map(|backend| read_backend(Some(backend), "spec.defaultBackend"));
    let rules = yaml.rules.into_iter().enumerate();
    let rules =
        rules.map(|(index, rule)| read_rule(rule, index, &nginx, &mut notes)).collect::<Result<_, _>>()?;
    let tls = yaml.tls.into_iter().enumerate().map(|(index, tls)| read_tls(tls, index));
    let (default_backend, tls) = (default.transpose()?, tls.collect::<Result<_, _>>()?);
    if let Some((field, message)) = notes.first_error().filter(|_| in_file) {
        return Err(wrong(field, message));
    }
    nginx.notes = notes;
    Ok(IngressSpec { class, default_backend, rules, tls, nginx })
}

fn read_class(
    class: Option<String>,
    reading: &Reading<'_>,
) -> Result<Option<(String, &'static str)>, FieldError> {
    const ANNOTATION: &str = "metadata.annotations[kubernetes.io/ingress.class]";
    let annotated = reading.metadata.annotations.get(CLASS_ANNOTATION);
    match (class, annotated) {
        (Some(_), Some(_)) => {
            Err(wrong(ANNOTATION, "cannot be given beside spec.ingressClassName; remove the annotation"))
        }
        (Some(class), None) if class.is_empty() => {
            Err(wrong("spec.ingressClassName", "is empty; name a class, or remove it"))
        }
        (Some(class), None) => Ok(Some((class, "spec.ingressClassName"))),
        (None, annotated) => Ok(annotated.map(|class| (class.clone(), ANNOTATION))),
    }
}

fn read_rule(
    yaml: RuleYaml,
    index: usize,
    nginx: &Nginx,
    notes: &mut Notes,
) -> Result<IngressRule, FieldError> {
    let field = format!("spec.rules[{index}]");
    let host = match yaml.host.as_deref() {
        None | Some("") => Hostname::Any,
        Some(host) => read_host(host, &format!("{field}.host"))?,
    };
    let Some(http) = yaml.http else { return Ok(IngressRule { host, field, paths: Vec::new() }) };
    if http.paths.is_empty() {
        return Err(wrong(format!("{field}.http.paths"), "is empty; give a path"));
    }
    let mut paths = Vec::new();
    for (place, yaml) in http.paths.into_iter().enumerate() {
        let field = format!("{field}.http.paths[{place}]");
        let backend = read_backend(yaml.backend, &format!("{field}.backend"))?;
        paths.push(read_path(yaml.path, yaml.path_type, field, backend, nginx, notes)?);
    }
    Ok(IngressRule { host, field, paths })
}

/// As the API server takes it: lower case, no address, and a wildcard only as the whole first label.
fn read_host(host: &str, field: &str) -> Result<Hostname, FieldError> {
    let as_written = host == host.to_ascii_lowercase() && !host.ends_with('.') && host != "*";
    let read = Hostname::of_ingress(host).ok().filter(|_| as_written);
    read.ok_or_else(|| {
        let message = format!(
            "{host:?} is not a host; write a DNS name in lower case such as shop.example.com, or *.example.com for \
             names with one label more"
        );
        wrong(field, message)
    })
}

fn read_backend(yaml: Option<BackendYaml>, field: &str) -> Result<IngressBackend, FieldError> {
    let (service, resource) = yaml.map_or((None, None), |yaml| (yaml.service, yaml.resource));
    let to = match (service, resource) {
        (Some(_), Some(_)) => {
            return Err(wrong(field, "has a service and a resource; keep one of them"));
        }
        (None, None) => return Err(wrong(field, "names no service; write service: with name and port")),
        (Some(service), None) => read_service(service, &format!("{field}.service"))?,
        (None, Some(ResourceYaml { kind, name, .. })) => {
            let (Some(kind), Some(name)) = (kind, name) else {
                return Err(wrong(format!("{field}.resource"), "needs a kind and a name"));
            };
            BackendObject::Other(format!("{kind} {name}"))
        }
    };
    Ok(IngressBackend { field: field.to_owned(), to })
}

fn read_service(yaml: ServiceYaml, field: &str) -> Result<BackendObject, FieldError> {
    let Some(name) = yaml.name.filter(|name| !name.is_empty()) else {
        return Err(wrong(format!("{field}.name"), "is missing; name a Service of this namespace"));
    };
    let port = match (yaml.port.number, yaml.port.name) {
        (Some(number), None) => ServicePort::Number(port_number(number, &format!("{field}.port.number"))?),
        (None, Some(NumberOrName::Name(name))) if !name.is_empty() => ServicePort::Name(name),
        (None, Some(NumberOrName::Number(_))) => {
            return Err(wrong(format!("{field}.port.name"), "is a number; write number: instead of name:"));
        }
        (Some(_), Some(_)) => {
            return Err(wrong(format!("{field}.port"), "has a number and a name; keep one of them"));
        }
        (None, _) => return Err(wrong(format!("{field}.port"), "is missing; write its number or its name")),
    };
    Ok(BackendObject::Service(name, port))
}

fn read_tls(yaml: TlsYaml, index: usize) -> Result<IngressTls, FieldError> {
    let field = format!("spec.tls[{index}]");
    let hosts = yaml.hosts.iter().enumerate();
    let hosts = hosts.map(|(place, host)| read_host(host, &format!("{field}.hosts[{place}]")));
    let hosts = hosts.collect::<Result<_, _>>()?;
    Ok(IngressTls { hosts, secret: yaml.secret_name.filter(|name| !name.is_empty()), field })
}

#[cfg(test)]
mod tests;
