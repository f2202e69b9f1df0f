//! What every route of the Gateway API refers to: its parents, and the backends that it sends to.

use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    linkerd_policy,
    listener_set::with_listeners,
    route_filters::FilterYaml,
    typed::FieldError,
    values::port_number,
};

/// The group of Gateway API's own kinds.
const GATEWAY: &str = "gateway.networking.k8s.io";

/// The largest weight that Gateway API allows.
const MAX_WEIGHT: u32 = 1_000_000;

/// One of `parentRefs` that is a `Service`, or that has listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Its place in the document.
    pub index: usize,
    /// `Service`, `Gateway`, `ListenerSet` or `XListenerSet`.
    pub kind: &'static str,
    /// Its namespace; `None` = the route's own.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its port; `None` = every one.
    pub port: Option<u16>,
    /// The name of the service's port, or of the gateway's listener; `None` = whatever it is called.
    pub section: Option<String>,
}

/// The parents of a route for requests, by what they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpParents {
    /// The services whose requests it is about.
    pub services: Vec<Parent>,
    /// The gateways that serve it, and the `ListenerSet`s whose gateways do.
    pub gateways: Vec<Parent>,
    /// The servers whose requests it tells apart.
    pub servers: Vec<ServerParent>,
}

/// One of `parentRefs` that is a `Server` of Linkerd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerParent {
    /// Its place in the document.
    pub index: usize,
    /// The server's name. It is in the route's own namespace.
    pub name: String,
}

/// One of `backendRefs`, of whatever kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRef {
    /// Its place in the rule.
    pub index: usize,
    /// The group of its kind; empty for `Service`.
    pub group: String,
    /// Its kind; `Service` unless it says another.
    pub kind: String,
    /// Its namespace; `None` = the route's own.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its port, which a `Service` needs.
    pub port: Option<u16>,
    /// Its share is this / the sum of all.
    pub weight: u32,
}

impl BackendRef {
    /// Whether it is a `Service` of Kubernetes.
    pub fn is_service(&self) -> bool {
        is_service(&self.group, &self.kind)
    }
}

fn is_service(group: &str, kind: &str) -> bool {
    matches!(group, "" | "core") && kind == "Service"
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ParentYaml {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    port: Option<u32>,
    section_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BackendYaml {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    port: Option<u32>,
    weight: Option<u32>,
}

/// A backend that has no share of its own.
#[derive(Debug, Deserialize)]
pub(super) struct MirrorBackendYaml {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    port: Option<u32>,
}

impl MirrorBackendYaml {
    /// The backend, which stands at `field`.
    pub(super) fn read(self, field: &str) -> Result<BackendRef, FieldError> {
        let Self { group, kind, namespace, name, port } = self;
        read_backend(BackendYaml { group, kind, namespace, name, port, weight: None }, field, 0)
    }
}

/// A backend that has filters of its own.
#[derive(Debug, Deserialize)]
pub(super) struct RoutedBackendYaml {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    port: Option<u32>,
    weight: Option<u32>,
    #[serde(default)]
    filters: Vec<FilterYaml>,
}

impl RoutedBackendYaml {
    /// The backend, which stands at `field` and is the `index`th in its rule; and its filters as YAML.
    pub(super) fn read(self, field: &str, index: usize) -> Result<(BackendRef, Vec<FilterYaml>), FieldError> {
        let Self { group, kind, namespace, name, port, weight, filters } = self;
        let yaml = BackendYaml { group, kind, namespace, name, port, weight };
        Ok((read_backend(yaml, field, index)?, filters))
    }
}

/// The parents of a route for requests. Those that are neither services, gateways nor servers are reported.
pub(super) fn read_http_parents(
    yaml: Vec<ParentYaml>,
    reading: &mut Reading<'_>,
) -> Result<HttpParents, FieldError> {
    let mut parents = HttpParents::default();
    for (index, parent) in yaml.into_iter().enumerate() {
        let field = format!("spec.parentRefs[{index}]");
        match parent.what() {
            ParentKind::Service => parents.services.push(parent.read(index, "Service", &field)?),
            ParentKind::WithListeners(kind) => parents.gateways.push(parent.read(index, kind, &field)?),
            ParentKind::Server => match parent.namespace {
                None => parents.servers.push(ServerParent { index, name: parent.name }),
                Some(namespace) => {
                    let message = format!(
                        "{namespace:?} is set, but a Server has routes of its own namespace only; remove it"
                    );
                    return Err(wrong(format!("{field}.namespace"), message));
                }
            },
            ParentKind::Other => parent.report(field, reading),
        }
    }
    Ok(parents)
}

/// The parents of a route for connections: services, gateways and `ListenerSet`s. All others are reported.
pub(super) fn read_tcp_parents(
    yaml: Vec<ParentYaml>,
    reading: &mut Reading<'_>,
) -> Result<HttpParents, FieldError> {
    let mut parents = HttpParents::default();
    for (index, parent) in yaml.into_iter().enumerate() {
        let field = format!("spec.parentRefs[{index}]");
        match parent.what() {
            ParentKind::Service => parents.services.push(parent.read(index, "Service", &field)?),
            ParentKind::WithListeners(kind) => parents.gateways.push(parent.read(index, kind, &field)?),
            ParentKind::Server | ParentKind::Other => parent.report(field, reading),
        }
    }
    Ok(parents)
}

/// What a parent is.
enum ParentKind {
    Service,
    /// This kind.
    WithListeners(&'static str),
    /// Linkerd's.
    Server,
    Other,
}

impl ParentYaml {
    fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(GATEWAY)
    }

    fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Gateway")
    }

    fn what(&self) -> ParentKind {
        match (self.group(), self.kind()) {
            (group, kind) if is_service(group, kind) => ParentKind::Service,
            (linkerd_policy::GROUP, "Server") => ParentKind::Server,
            (group, kind) => with_listeners(group, kind).map_or(ParentKind::Other, ParentKind::WithListeners),
        }
    }

    fn read(self, index: usize, kind: &'static str, field: &str) -> Result<Parent, FieldError> {
        let port = self.port.map(|port| port_number(port, &format!("{field}.port"))).transpose()?;
        let Self { namespace, name, section_name: section, .. } = self;
        Ok(Parent { index, kind, namespace, name, port, section })
    }

    fn report(&self, field: String, reading: &mut Reading<'_>) {
        let message = format!("{} is not acted on; name a Service (group: \"\", kind: Service)", self.kind());
        reading.not_acted_on(field, message);
    }
}

/// The backends of a rule; `field` is their list.
pub(super) fn read_backends(yaml: Vec<BackendYaml>, field: &str) -> Result<Vec<BackendRef>, FieldError> {
    let read = |(index, yaml)| read_backend(yaml, &format!("{field}[{index}]"), index);
    yaml.into_iter().enumerate().map(read).collect()
}

/// The backend at `field`, the `index`th of its rule.
fn read_backend(yaml: BackendYaml, field: &str, index: usize) -> Result<BackendRef, FieldError> {
    let weight = yaml.weight.unwrap_or(1);
    if weight > MAX_WEIGHT {
        return Err(wrong(
            format!("{field}.weight"),
            format!("{weight} is more than {MAX_WEIGHT}; use 0 to {MAX_WEIGHT}"),
        ));
    }
    let port = yaml.port.map(|port| port_number(port, &format!("{field}.port"))).transpose()?;
    Ok(BackendRef {
        index,
        group: yaml.group.unwrap_or_default(),
        kind: yaml.kind.unwrap_or_else(|| "Service".to_owned()),
        namespace: yaml.namespace,
        name: yaml.name,
        port,
        weight,
    })
}
