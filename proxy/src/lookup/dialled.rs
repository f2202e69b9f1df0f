//! What a redirected connection is for: the address that its client dialled, and where that is not enough,
//! the authority of each request.
//!
//! An address that is a service's own says it all. At any other address, HTTP is for the service that its
//! authority names, if that service is called by name; otherwise it is for whoever was dialled: a workload
//! (which keeps its mutual TLS, and has no routes), or an address that the mesh does not know.
//!
//! An ingress controller dials pods, whatever service they are of, and says by the authority what it means:
//! beside one (`--ingress`) the authority of any service beats any address.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use super::{ask as ask_by_name, by_name};
use crate::{
    arrival::Original,
    bind::{Called, Destination},
    step::Error,
    worker::Worker,
};

/// What `original` is the address of: a service, a workload, or (if its `bound` is `None`) nothing that
/// the mesh knows. Asked of the control plane if need be; `None`: it has not said within
/// [`LOOKUP_TIMEOUT`](crate::discovery::store::LOOKUP_TIMEOUT).
///
/// Once for each connection, before it is known what it carries.
pub async fn dialled(worker: &Worker, original: Original) -> Option<Arc<Destination>> {
    worker.view.refresh();
    if let Some(known) = known(worker, original) {
        return Some(known);
    }
    let found = worker.view.store().destination(&original.address.to_string()).await?;
    found.touch();
    Some(found)
}

/// What a connection to `original` is for whose TLS asks for `server_name`: as for HTTP, whose authority says the
/// same. `None`: the control plane has not said it in time.
pub async fn named(worker: &Worker, original: Original, server_name: &str) -> Option<Arc<Destination>> {
    let found = ask(worker, original, server_name).await.ok()?;
    found.touch();
    Some(found)
}

/// What a request for `authority` on a connection to `original` is for, and the authority that this holds
/// for (`None`: for any). Only if it is known without asking the control plane.
pub(crate) fn meant(
    worker: &Worker,
    original: Original,
    authority: &str,
) -> Option<(Option<Arc<str>>, Arc<Destination>)> {
    let ingress = worker.settings.ingress;
    let Some(dialled) = known(worker, original) else {
        let named = by_name(worker, &name(authority, original)?)?;
        let enough = is_an_endpoint_of(original, &named) || (ingress && named.bound.is_some());
        return enough.then(|| (Some(Arc::from(authority)), named));
    };
    if is_called(&dialled, Called::ByAddress) && !ingress {
        return Some((None, dialled));
    }
    let destination = match name(authority, original) {
        None => dialled,
        Some(name) => by_name_or(by_name(worker, &name)?, dialled, ingress),
    };
    Some((Some(Arc::from(authority)), destination))
}

/// What a request for `authority` on a connection to `original` is for, as the control plane says.
pub(crate) async fn ask(
    worker: &Worker,
    original: Original,
    authority: &str,
) -> Result<Arc<Destination>, Error> {
    let dialled = match known(worker, original) {
        Some(known) => known,
        None => ask_by_name(worker, &original.address.to_string()).await?,
    };
    let ingress = worker.settings.ingress;
    match name(authority, original).filter(|_| ingress || !is_called(&dialled, Called::ByAddress)) {
        None => Ok(dialled),
        Some(name) => Ok(by_name_or(ask_by_name(worker, &name).await?, dialled, ingress)),
    }
}

fn known(worker: &Worker, original: Original) -> Option<Arc<Destination>> {
    let found = worker.view.with(|table| table.addresses.get(&original.address).cloned())?;
    found.touch();
    Some(found)
}

/// Whether `original` is an endpoint of a service that is called by name: then it is no service's own
/// address, and nothing more needs to be known of it. So a service that is known can be called at each of
/// its endpoints, with a control plane or without.
fn is_an_endpoint_of(original: Original, named: &Destination) -> bool {
    let Some(bound) = named.bound.as_ref().filter(|bound| bound.called == Called::ByName) else {
        return false;
    };
    let mut endpoints = bound.backends.iter().flat_map(|backend| &backend.endpoints);
    endpoints.any(|endpoint| endpoint.address == original.address)
}

fn is_called(destination: &Destination, called: Called) -> bool {
    destination.bound.as_ref().is_some_and(|bound| bound.called == called)
}

/// A service that has an address of its own is called by that alone, and not by its name here, except by an
/// ingress controller.
fn by_name_or(named: Arc<Destination>, dialled: Arc<Destination>, ingress: bool) -> Arc<Destination> {
    if is_called(&named, Called::ByName) || (ingress && named.bound.is_some()) { named } else { dialled }
}

/// The name that `authority` is, with its port: the one that was dialled if it says none. `None`: it is an
/// IP address, which says nothing more than the one that was dialled.
fn name(authority: &str, original: Original) -> Option<Cow<'_, str>> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare.parse::<IpAddr>().is_ok() {
        return None;
    }
    match (port, original.address.port()) {
        (Some(_), _) | (None, 80) => Some(Cow::Borrowed(authority)),
        (None, dialled) => Some(Cow::Owned(format!("{authority}:{dialled}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original(address: &str) -> Original {
        let address: std::net::SocketAddr = address.parse().unwrap();
        Original { address, local: std::net::Ipv4Addr::LOCALHOST.into(), is_ours: false }
    }

    #[test]
    fn an_authority_without_a_port_has_the_one_that_was_dialled() {
        assert_eq!(name("reviews", original("10.0.0.5:80")).unwrap(), "reviews");
        assert_eq!(name("reviews", original("10.0.0.5:9080")).unwrap(), "reviews:9080");
        assert_eq!(name("reviews:81", original("10.0.0.5:9080")).unwrap(), "reviews:81");
    }

    #[test]
    fn an_address_names_nothing() {
        for authority in ["10.0.0.5", "10.0.0.5:80", "[fd00::5]", "[fd00::5]:80", "[::1]:8080"] {
            assert_eq!(name(authority, original("10.0.0.5:80")), None, "{authority}");
        }
    }
}
