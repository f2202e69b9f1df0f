//! What tells one series from another, and how it is written in the text of `/metrics`.

use std::{fmt, sync::Arc};

use prometheus_client::encoding::{EncodeLabel, EncodeLabelValue, LabelSetEncoder};
use selvedge_model::{BackendName, ServiceKey, SpiffeId, WorkloadName};

use super::own::Peer;
use crate::arrival::Direction;

/// The labels of a series. An empty label is left out, and so is port 0.
///
/// Every value must come from configuration or from a proven identity, or be bounded otherwise: a client must not be
/// able to create any number of series.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels {
    /// Which way.
    pub direction: Direction,
    /// Outbound: the service's host. Inbound: this workload, as `<namespace>/<name>`.
    pub server_address: Arc<str>,
    /// The service's port; inbound, the workload's.
    pub server_port: u16,
    /// The route's name.
    pub route: Arc<str>,
    /// The `DestinationRule` subset that the route names.
    pub destination_subset: Arc<str>,
    /// The service that the route leads to, with its port, if it is another than the one that was called.
    pub destination_service: Arc<str>,
    /// Whether mutual TLS carries the requests.
    pub mtls: bool,
    /// The calling workload.
    pub source_workload: Arc<str>,
    /// The calling workload's namespace; inbound from its proven identity.
    pub source_namespace: Arc<str>,
    /// The caller's proven identity.
    pub source_principal: Arc<str>,
    /// The controller of our own workload, such as its Deployment.
    pub owner: Arc<str>,
    /// The workload at the other end. `None`: it is not known, or not told apart, as without `--metrics-compat`.
    pub peer: Option<Arc<Peer>>,
}

impl Labels {
    /// Requests of our app to a service. The caller fills in the route, the subset and `mtls`.
    pub fn outbound(own: &WorkloadName, service: &ServiceKey) -> Self {
        Self {
            server_address: Arc::clone(&service.host),
            server_port: service.port,
            source_workload: Arc::from(own.name()),
            source_namespace: Arc::from(own.namespace()),
            ..Self::empty(Direction::Outbound)
        }
    }

    /// Requests of our app to what is in no configuration. Its authority is not a label: the app could ask for any
    /// number of them.
    pub fn unknown_destination(own: &WorkloadName) -> Self {
        Self::outbound(own, &ServiceKey::new("unknown", 0))
    }

    /// Requests to our own port. `source` is who the client has proven to be; `None`: plaintext.
    pub fn inbound(own: &WorkloadName, port: u16, source: Option<&SpiffeId>) -> Self {
        Self {
            server_address: Arc::from(own.to_string()),
            server_port: port,
            mtls: source.is_some(),
            source_namespace: source.map(|source| Arc::from(source.namespace())).unwrap_or_default(),
            source_principal: source.map(|source| Arc::from(source.as_str())).unwrap_or_default(),
            ..Self::empty(Direction::Inbound)
        }
    }

    fn empty(direction: Direction) -> Self {
        Self {
            direction,
            server_address: Arc::default(),
            server_port: 0,
            route: Arc::default(),
            destination_subset: Arc::default(),
            destination_service: Arc::default(),
            mtls: false,
            source_workload: Arc::default(),
            source_namespace: Arc::default(),
            source_principal: Arc::default(),
            owner: Arc::default(),
            peer: None,
        }
    }

    /// The labels of the histograms: without those of the caller, because a histogram has many numbers for each set of
    /// labels.
    pub(super) fn few(&self) -> Self {
        Self {
            source_workload: Arc::default(),
            source_namespace: Arc::default(),
            source_principal: Arc::default(),
            peer: None,
            ..self.clone()
        }
    }

    /// Every label that is not empty, in the order in which they are written.
    pub(super) fn each(&self, mut write: impl FnMut(&'static str, &str) -> fmt::Result) -> fmt::Result {
        let mut text = |name, value: &str| if value.is_empty() { Ok(()) } else { write(name, value) };
        text("server_address", &self.server_address)?;
        if self.server_port > 0 {
            text("server_port", &self.server_port.to_string())?;
        }
        text("route", &self.route)?;
        text("destination_subset", &self.destination_subset)?;
        text("destination_service", &self.destination_service)?;
        text("mtls", if self.mtls { "true" } else { "false" })?;
        text("source_workload", &self.source_workload)?;
        text("source_namespace", &self.source_namespace)?;
        text("source_principal", &self.source_principal)?;
        let peer = self.peer.as_ref().map_or("", |peer| &peer.naming.owner);
        let (source, destination) = match self.direction {
            Direction::Outbound => (&*self.owner, peer),
            Direction::Inbound => (peer, &*self.owner),
        };
        text("source_owner", source)?;
        text("destination_owner", destination)
    }
}

/// Writes labels; leaves out those that are empty.
pub(super) struct LabelWriter<'a, 'b>(pub(super) &'a mut LabelSetEncoder<'b>);

impl LabelWriter<'_, '_> {
    pub(super) fn label(&mut self, name: &str, value: impl EncodeLabelValue) -> fmt::Result {
        (name, value).encode(self.0.encode_label())
    }

    pub(super) fn text(&mut self, name: &str, value: &str) -> fmt::Result {
        if value.is_empty() { Ok(()) } else { self.label(name, value) }
    }

    /// What tells one series from another.
    pub(super) fn labels(&mut self, labels: Option<&Labels>) -> fmt::Result {
        let Some(labels) = labels else { return self.label("overflow", true) };
        labels.each(|name, value| self.label(name, value))
    }

    pub(super) fn backend(&mut self, backend: &BackendName) -> fmt::Result {
        self.server(&backend.service.host, backend.service.port)?;
        self.text("destination_subset", backend.subset.as_deref().unwrap_or_default())
    }

    pub(super) fn server(&mut self, address: &str, port: u16) -> fmt::Result {
        self.text("server_address", address)?;
        if port == 0 { Ok(()) } else { self.label("server_port", port) }
    }
}
