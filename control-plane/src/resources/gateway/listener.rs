//! One listener of a `Gateway`.

use std::collections::BTreeMap;

use selvedge_model::gateway::Hostname;
use serde::Deserialize;

use super::{
    super::{
        LabelSelector,
        document::{Reading, wrong},
        label_selector::LabelSelectorYaml,
        typed::{FieldError, Present},
        values::port_number,
    },
    clients::{ClientsSpec, ObjectRef, ObjectRefYaml, ValidationYaml, read_objects},
};

/// The group of Gateway API's own kinds.
pub(crate) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// One of `listeners`.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerSpec {
    /// Its place in the document.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// The port that clients call.
    pub port: u16,
    /// What is spoken there.
    pub protocol: ListenerProtocol,
    /// The host names that it is for.
    pub hostname: Hostname,
    /// What it does with TLS.
    pub tls: TlsSpec,
    /// Which routes may be attached.
    pub allowed: AllowedRoutes,
}

/// What a listener does with TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSpec {
    /// Whether it goes on to the backend as it is.
    pub passthrough: bool,
    /// The certificates that it shows.
    pub certificates: Vec<ObjectRef>,
    /// Whom it asks for a certificate. `None`: as the gateway says.
    pub clients: Option<ClientsSpec>,
}

/// What is spoken at a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// HTTP in plaintext.
    Http,
    /// HTTP in TLS.
    Https,
    /// TLS.
    Tls,
    /// Opaque TCP.
    Tcp,
    /// One that is not served, such as `UDP`.
    Other(String),
}

/// Which routes may be attached to a listener.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AllowedRoutes {
    /// From which namespaces.
    pub namespaces: FromNamespaces,
    /// Of which kinds; `None`: of every kind that fits its protocol.
    pub kinds: Option<Vec<RouteKind>>,
}

/// The namespaces whose routes may be attached to a listener.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum FromNamespaces {
    /// The gateway's own.
    #[default]
    Same,
    /// All.
    All,
    /// Those with these labels.
    Selected(LabelSelector),
    /// None.
    None,
}

/// A kind of routes that a listener names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteKind {
    /// Its group.
    pub group: String,
    /// Its kind, such as `HTTPRoute`.
    pub kind: String,
}

impl ListenerSpec {
    /// Whether TLS ends here.
    pub fn ends_tls(&self) -> bool {
        match self.protocol {
            ListenerProtocol::Https => true,
            ListenerProtocol::Tls => !self.tls.passthrough,
            _ => false,
        }
    }
}

impl RouteKind {
    /// Whether it is the kind `kind` of the Gateway API.
    pub fn is(&self, kind: &str) -> bool {
        self.group == GATEWAY_GROUP && self.kind == kind
    }
}

impl ListenerProtocol {
    /// The kinds of routes that fit it.
    pub fn route_kinds(&self) -> &'static [&'static str] {
        match self {
            Self::Http | Self::Https => &["HTTPRoute", "GRPCRoute"],
            Self::Tls => &["TLSRoute", "TCPRoute"],
            Self::Tcp => &["TCPRoute"],
            Self::Other(_) => &[],
        }
    }

    fn read(word: String) -> Self {
        // The Gateway API asks for them in any case.
        match word.to_ascii_uppercase().as_str() {
            "HTTP" => Self::Http,
            "HTTPS" => Self::Https,
            "TLS" => Self::Tls,
            "TCP" => Self::Tcp,
            _ => Self::Other(word),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct ListenerYaml {
    name: String,
    hostname: Option<String>,
    port: u32,
    protocol: String,
    #[serde(default)]
    tls: TlsYaml,
    #[serde(default)]
    allowed_routes: AllowedYaml,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TlsYaml {
    mode: Option<ModeWord>,
    certificate_refs: Vec<ObjectRefYaml>,
    frontend_validation: Option<ValidationYaml>,
    options: BTreeMap<String, Present>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum ModeWord {
    Terminate,
    Passthrough,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AllowedYaml {
    namespaces: NamespacesYaml,
    kinds: Vec<KindYaml>,
}

/// `allowedListeners`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AllowedListenersYaml {
    namespaces: NamespacesYaml,
}

/// Without `from` it is as the field says that it is in.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamespacesYaml {
    from: Option<FromWord>,
    selector: Option<LabelSelectorYaml>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum FromWord {
    Same,
    All,
    Selector,
    None,
}

#[derive(Debug, Deserialize)]
struct KindYaml {
    group: Option<String>,
    kind: String,
}

impl ListenerYaml {
    /// The listener, which stands at `field` and is the `index`th.
    pub(super) fn read(
        self,
        index: usize,
        field: &str,
        reading: &mut Reading<'_>,
    ) -> Result<ListenerSpec, FieldError> {
        let port = port_number(self.port, &format!("{field}.port"))?;
        let hostname = self.hostname.unwrap_or_default();
        let hostname: Hostname = hostname
            .parse()
            .map_err(|error| wrong(format!("{field}.hostname"), format!("{hostname:?} is {error}")))?;
        let allowed = self.allowed_routes.read(&format!("{field}.allowedRoutes"))?;
        let protocol = ListenerProtocol::read(self.protocol);
        let hostname = match protocol {
            ListenerProtocol::Tcp if hostname != Hostname::Any => {
                reading.warning(format!("{field}.hostname"), "has no effect: TCP names no host; remove it");
                Hostname::Any
            }
            _ => hostname,
        };
        let tls = self.tls.read(&protocol, &format!("{field}.tls"), reading)?;
        Ok(ListenerSpec { index, name: self.name, port, protocol, hostname, tls, allowed })
    }
}

impl TlsYaml {
    fn read(
        self,
        protocol: &ListenerProtocol,
        field: &str,
        reading: &mut Reading<'_>,
    ) -> Result<TlsSpec, FieldError> {
        for option in self.options.keys() {
            reading.not_acted_on(format!("{field}.options[{option}]"), "not acted on");
        }
        let passthrough = self.mode == Some(ModeWord::Passthrough);
        if passthrough && *protocol == ListenerProtocol::Https {
            let message = "Passthrough is for the protocol TLS: HTTPS ends here; use Terminate, or TLS";
            return Err(wrong(format!("{field}.mode"), message));
        }
        if passthrough && !self.certificate_refs.is_empty() {
            reading.warning(format!("{field}.certificateRefs"), "has no effect with Passthrough; remove it");
        }
        let list = format!("{field}.certificateRefs");
        let clients = self.frontend_validation;
        let clients = clients.map(|yaml| yaml.read(&format!("{field}.frontendValidation"), reading));
        Ok(TlsSpec {
            passthrough,
            certificates: read_objects(self.certificate_refs, &list, "Secret"),
            clients,
        })
    }
}

impl AllowedListenersYaml {
    /// Without it, no `ListenerSet` is allowed.
    pub(super) fn read(self) -> Result<FromNamespaces, FieldError> {
        self.namespaces.read(FromWord::None, "spec.allowedListeners")
    }
}

impl NamespacesYaml {
    /// The namespaces of the list at `field`; `usual` are meant if it does not say.
    fn read(self, usual: FromWord, field: &str) -> Result<FromNamespaces, FieldError> {
        let at = format!("{field}.namespaces.selector");
        Ok(match (self.from.unwrap_or(usual), self.selector) {
            (FromWord::Selector, Some(selector)) => FromNamespaces::Selected(selector.read(&at)?),
            (FromWord::Selector, None) => {
                return Err(wrong(at, "is missing; say which labels the namespaces have"));
            }
            (FromWord::Same, _) => FromNamespaces::Same,
            (FromWord::All, _) => FromNamespaces::All,
            (FromWord::None, _) => FromNamespaces::None,
        })
    }
}

impl AllowedYaml {
    fn read(self, field: &str) -> Result<AllowedRoutes, FieldError> {
        let namespaces = self.namespaces.read(FromWord::Same, field)?;
        let kinds = self.kinds.into_iter();
        let kinds: Vec<_> = kinds
            .map(|yaml| RouteKind {
                group: yaml.group.unwrap_or_else(|| GATEWAY_GROUP.to_owned()),
                kind: yaml.kind,
            })
            .collect();
        Ok(AllowedRoutes { namespaces, kinds: (!kinds.is_empty()).then_some(kinds) })
    }
}
