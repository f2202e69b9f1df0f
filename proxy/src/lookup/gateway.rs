//! Which virtual host of a gateway a request or a connection is for, as the model
//! [chooses](selvedge_model::gateway::GatewayPort::choose).

use std::sync::Arc;

use selvedge_model::gateway::{Chosen, NotServed, host_of};

use crate::{
    bind::{Bound, BoundPort, Destination},
    error::{Failure, Reason},
    step::{AtGateway, LastHost},
    worker::Worker,
};

/// The rules for `authority` on a connection to a gateway.
///
/// # Errors
/// [`Reason::NoRoute`] if there are none, [`Reason::Misdirected`] if its TLS connection was made to another listener.
pub(crate) fn virtual_host(
    worker: &Worker,
    gateway: &AtGateway,
    authority: &str,
) -> Result<Arc<Bound>, Failure> {
    let generation = worker.view.refresh();
    let mut last = gateway.last.borrow_mut();
    if let Some(bound) = last.as_ref().and_then(|last| last.again(generation, authority)) {
        return Ok(Arc::clone(bound));
    }
    let found = worker.view.with(|table| {
        let port = table.gateway.get(&gateway.entry.port).filter(|port| port.life.is(&gateway.port.life));
        let port = port.ok_or_else(|| Failure::new(Reason::NoRoute, "this port is no longer served"))?;
        let name = host_of(authority);
        let chosen = match &gateway.listener {
            None => port.served.choose(Some(&name)),
            Some(listener) => {
                let own = port.listeners.iter().position(|bound| bound.life.is(listener));
                port.served.choose_on(own, &name)
            }
        };
        host(port, chosen).cloned()
    })?;
    let Some(bound) = &found.bound else { return Err(refusal(NotServed::NoListener)) };
    *last = Some(LastHost { generation, authority: authority.into(), bound: Arc::clone(bound) });
    Ok(Arc::clone(bound))
}

/// The rules for connections to `port` that are opaque. `server_name`: for whom their TLS asks, if it does.
///
/// # Errors
/// As [`virtual_host`].
pub(crate) fn opaque_host(port: &BoundPort, server_name: Option<&str>) -> Result<Arc<Destination>, Failure> {
    host(port, port.served.choose(server_name)).cloned()
}

fn host(port: &BoundPort, chosen: Result<Chosen, NotServed>) -> Result<&Arc<Destination>, Failure> {
    let Chosen { listener, virtual_host } = chosen.map_err(refusal)?;
    port.listeners[listener].hosts[virtual_host].as_ref().ok_or_else(|| {
        Failure::new(Reason::Discovery, "DNS has not answered yet where the backends of this host are")
    })
}

/// What a client gets whom a gateway does not serve for this reason.
pub fn refusal(why: NotServed) -> Failure {
    let reason = match why {
        NotServed::NoListener | NotServed::NoVirtualHost(_) => Reason::NoRoute,
        NotServed::Misdirected(_) => Reason::Misdirected,
    };
    Failure::new(reason, why.words())
}
