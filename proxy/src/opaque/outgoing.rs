//! An opaque connection of the app: what is known of it before it goes anywhere, and which routes it follows.

use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use selvedge_model::Layer;

use crate::{
    bind::{Bound, Destination, Life},
    telemetry::Passed,
};

/// What is known of a connection before it goes anywhere.
pub(crate) struct Outgoing {
    /// Where it comes from.
    pub(crate) peer: SocketAddr,
    /// The address that it was going to. `None`: the client named a host.
    pub(crate) dialled: Option<SocketAddr>,
    /// What is there.
    pub(crate) destination: Arc<Destination>,
    /// Whether it begins with TLS.
    pub(crate) layer: Layer,
    /// The server name in that TLS.
    pub(crate) server_name: Option<String>,
    /// What it came to, if that is a gateway. `None`: it is our app's.
    pub(crate) gateway: Option<ThroughGateway>,
    /// Where what has passed is left for who writes it down. `None`: it is a line of its own.
    pub(super) told: Option<Rc<Cell<Option<Passed>>>>,
}

/// What an opaque connection came to.
#[derive(Clone)]
pub(crate) struct ThroughGateway {
    /// The gateway's port.
    pub(super) port: u16,
    /// The load balancer that has named the client.
    pub(super) via: Option<IpAddr>,
    /// How long that is served.
    pub(super) life: Life,
}

impl Outgoing {
    /// From `peer` to `destination`; nothing is known yet of what it carries.
    pub(crate) fn to(peer: SocketAddr, dialled: Option<SocketAddr>, destination: Arc<Destination>) -> Self {
        Self { peer, dialled, destination, layer: Layer::Tcp, server_name: None, gateway: None, told: None }
    }

    /// Whether the name that its TLS asks for decides where it goes.
    pub(crate) fn needs_name(&self) -> bool {
        self.follows().is_some_and(|(bound, _)| bound.tcp.has_names)
    }

    /// It begins with TLS, which asks for `server_name`.
    pub(crate) fn with_tls(self, server_name: Option<String>) -> Self {
        Self { layer: Layer::Tls, server_name, ..self }
    }

    /// It came from outside, to a gateway's `port`, which is served during `life`; through a load balancer (`via`) that has
    /// named its client.
    pub(crate) fn through_gateway(self, port: u16, via: Option<IpAddr>, life: Life) -> Self {
        Self { gateway: Some(ThroughGateway { port, via, life }), ..self }
    }

    /// What it is for, in words.
    pub(super) fn called(&self) -> &dyn std::fmt::Display {
        match self.follows() {
            Some((bound, _)) => &bound.key,
            None => &self.destination.authority,
        }
    }

    /// The service whose routes and policy it follows, and the only address that it may go to, if there is only one.
    /// `None`: the mesh does not know its destination.
    ///
    /// A client that dials an endpoint of a service without an address of its own may mean that endpoint (a replica of
    /// a database) or the service. It means the service only if a document says where such connections go.
    pub(super) fn follows(&self) -> Option<(&Arc<Bound>, Option<SocketAddr>)> {
        let bound = self.destination.service.as_ref().or(self.destination.bound.as_ref())?;
        let is_service_of_endpoint = self.destination.service.is_some();
        let only = bound.requested || is_service_of_endpoint && !bound.tcp.is_written;
        Some((bound, only.then_some(self.dialled).flatten()))
    }
}
