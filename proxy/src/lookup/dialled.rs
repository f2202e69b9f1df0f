//! What a redirected connection is for, in the configuration that the worker holds: the model decides
//! ([`selvedge_model::destination`]) by what was dialled and what the authority names, each looked up only if it counts.

use std::sync::Arc;

use selvedge_model::{Called, destination::name};

use super::{ask as ask_by_name, by_name};
use crate::{arrival::OriginalDestination, bind::Destination, step::Error, worker::Worker};

/// What is at `original`: a service, a workload, or (if its `bound` is `None`) nothing that the mesh knows. Asks the
/// control plane if need be. `None`: it has not answered within
/// [`LOOKUP_TIMEOUT`](crate::discovery::store::LOOKUP_TIMEOUT).
///
/// Once for each connection, before it is known what it carries.
pub async fn dialled(worker: &Worker, original: OriginalDestination) -> Option<Arc<Destination>> {
    worker.view.refresh();
    if let Some(known) = known(worker, original) {
        return Some(known);
    }
    let found = worker.view.store().destination(&original.address.to_string()).await?;
    found.touch();
    Some(found)
}

/// What a connection to `original` is for if its TLS asks for `server_name`: the same as for HTTP with that authority.
/// `None`: the control plane has not answered in time.
pub async fn named(
    worker: &Worker,
    original: OriginalDestination,
    server_name: &str,
) -> Option<Arc<Destination>> {
    let found = ask(worker, original, server_name).await.ok()?;
    found.touch();
    Some(found)
}

/// What a request for `authority` on a connection to `original` is for, and the authority that this holds
/// for (`None`: for any). Only if it is known without asking the control plane.
pub(crate) fn meant(
    worker: &Worker,
    original: OriginalDestination,
    authority: &str,
) -> Option<(Option<Arc<str>>, Arc<Destination>)> {
    let ingress = worker.settings.ingress;
    let Some(dialled) = known(worker, original) else {
        let named = by_name(worker, &name(authority, original.address.port())?)?;
        let enough = is_an_endpoint_of(original, &named) || (ingress && named.bound.is_some());
        return enough.then(|| (Some(Arc::from(authority)), named));
    };
    if !Called::authority_matters(called(&dialled), ingress) {
        return Some((None, dialled));
    }
    let destination = match name(authority, original.address.port()) {
        None => dialled,
        Some(name) => by_name_or(by_name(worker, &name)?, dialled, ingress),
    };
    Some((Some(Arc::from(authority)), destination))
}

/// What a request for `authority` on a connection to `original` is for, as the control plane says.
pub(crate) async fn ask(
    worker: &Worker,
    original: OriginalDestination,
    authority: &str,
) -> Result<Arc<Destination>, Error> {
    let dialled = match known(worker, original) {
        Some(known) => known,
        None => ask_by_name(worker, &original.address.to_string()).await?,
    };
    let ingress = worker.settings.ingress;
    let counts = Called::authority_matters(called(&dialled), ingress);
    match name(authority, original.address.port()).filter(|_| counts) {
        None => Ok(dialled),
        Some(name) => Ok(by_name_or(ask_by_name(worker, &name).await?, dialled, ingress)),
    }
}

fn known(worker: &Worker, original: OriginalDestination) -> Option<Arc<Destination>> {
    let found = worker.view.with(|table| table.addresses.get(&original.address).cloned())?;
    found.touch();
    Some(found)
}

/// Whether `original` is an endpoint of a service that is called by name: then it is no service's own
/// address, and nothing more needs to be known of it. So a service that is known can be called at each of
/// its endpoints, with a control plane or without.
fn is_an_endpoint_of(original: OriginalDestination, named: &Destination) -> bool {
    let Some(bound) = named.bound.as_ref().filter(|bound| bound.called == Called::ByName) else {
        return false;
    };
    let mut endpoints = bound.backends.iter().flat_map(|backend| &backend.endpoints);
    endpoints.any(|endpoint| endpoint.address == original.address)
}

fn called(destination: &Destination) -> Option<Called> {
    destination.bound.as_ref().map(|bound| bound.called)
}

fn by_name_or(named: Arc<Destination>, dialled: Arc<Destination>, ingress: bool) -> Arc<Destination> {
    if Called::name_wins(called(&named), ingress) { named } else { dialled }
}
