//! Passes through what no configuration knows: out in plaintext, to wherever it was going, if the outbound traffic
//! policy allows it (Istio `outboundTrafficPolicy` ALLOW_ANY).
//!
//! This happens only if the control plane says that it knows nothing by that name, never because the control plane is
//! slow or away, nor because DNS does not say where a workload's name leads.

use std::{net::SocketAddr, sync::Arc};

use super::{ask, unknown};
use crate::{
    bind::{Bound, Destination},
    error::{Failure, Reason},
    settings::OutboundTrafficPolicy,
    worker::Worker,
};

/// The port of an authority that names none.
const DEFAULT_PORT: u16 = 80;

/// What is at the address of `destination`, if that is a name that is in no document. A workload keeps its mutual TLS
/// by whatever name it is called; everything else goes out by what is known of its address. A known `destination` is
/// returned as it is.
///
/// # Errors
/// [`Reason::RegistryOnly`] if the outbound traffic policy does not let it out, [`Reason::ConnectFailure`] if the name has
/// no address, [`Reason::Discovery`] if the control plane has not said in time what is there.
pub async fn at_its_address(
    worker: &Worker,
    destination: Arc<Destination>,
) -> Result<Arc<Destination>, Failure> {
    if destination.bound.is_some() || destination.through.is_some() {
        return Ok(destination);
    }
    permit(worker, &destination.authority)?;
    let address = resolve(worker, &destination.authority).await?;
    let found = ask(worker, &address.to_string()).await.map_err(|error| error.failure)?;
    found.touch();
    Ok(found)
}

/// The rules of `destination`, which the mesh does not know: each has one, which leads to the very address that it is.
///
/// # Errors
/// [`Reason::RegistryOnly`] if the outbound traffic policy does not let it out, [`Reason::Discovery`] if it may be a
/// workload's address.
pub fn through(worker: &Worker, destination: &Destination) -> Result<Arc<Bound>, Failure> {
    permit(worker, &destination.authority)?;
    refuse_doubt(destination)?;
    // Only an address can pass through: of a name it is not known what is there.
    destination.through.clone().ok_or_else(|| unknown(&destination.authority))
}

/// The rules of `destination`, whether the mesh knows it or not.
///
/// # Errors
/// As [`through`].
pub fn rules(worker: &Worker, destination: &Destination) -> Result<Arc<Bound>, Failure> {
    match &destination.bound {
        Some(bound) => Ok(Arc::clone(bound)),
        None => through(worker, destination),
    }
}

fn permit(worker: &Worker, authority: &str) -> Result<(), Failure> {
    match worker.settings.outbound_traffic_policy {
        OutboundTrafficPolicy::AllowAny => Ok(()),
        OutboundTrafficPolicy::RegistryOnly => Err(unknown(authority)),
    }
}

/// Refuses an address that may be a workload's: it would be called in plaintext instead of over mutual TLS.
fn refuse_doubt(destination: &Destination) -> Result<(), Failure> {
    let Some(doubt) = &destination.doubt else { return Ok(()) };
    let address = &destination.authority;
    let what = format!(
        "{address} may belong to a workload: {doubt}; repair DNS, or declare the address with a ServiceEntry"
    );
    Err(Failure::new(Reason::Discovery, what))
}

async fn resolve(worker: &Worker, authority: &str) -> Result<SocketAddr, Failure> {
    if let Ok(address) = authority.parse() {
        return Ok(address);
    }
    let (host, port) = match authority.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
        Some((host, Ok(port))) => (host, port),
        _ => (authority, DEFAULT_PORT),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let failed = |why: String| {
        let what = format!("{authority} is not a service of the mesh, and {host} {why}");
        Failure::new(Reason::ConnectFailure, what)
    };
    let addresses = worker.names.addresses(host).await.map_err(|error| failed(error.to_string()))?;
    let first = addresses.first().ok_or_else(|| failed("has no address".to_owned()))?;
    Ok(SocketAddr::new(*first, port))
}
