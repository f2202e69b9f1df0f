//! Backends that a gateway finds on its own host.
//!
//! An address of loopback, and the name `localhost`, are another host for each proxy. Where a document of another namespace says
//! that its servers are there, it leads strangers to what listens on the gateway's own host.

use std::collections::BTreeSet;

use selvedge_model::{ServiceKey, gateway::Gateway};

use super::{
    super::{Problems, routes::Routing},
    seats::Seat,
};

/// Reports the documents of namespaces other than those of the gateway in `seat` and the root namespace that lead it there.
pub(super) fn report(seat: &Seat<'_>, gateway: &Gateway, routing: &Routing<'_>, problems: &mut Problems) {
    let trusted = [seat.namespace, seat.workload_namespace, routing.root_namespace()];
    let backends = gateway.virtual_hosts.values().flat_map(|host| &host.backends);
    let services: BTreeSet<&ServiceKey> = backends.map(|backend| &backend.name.service).collect();
    for service in services {
        let Some(known) = routing.known(&service.host).filter(|known| !trusted.contains(&known.namespace))
        else {
            continue;
        };
        if let Some(address) = known.own_host_of_callers(service.port) {
            let message = format!(
                "{address} is on the host of whoever calls it: the gateway {}/{} leads its clients to what listens there on its \
                 own host; give the address of a server",
                seat.namespace, seat.name
            );
            known.report_endpoints(service.port, message, problems);
        }
    }
}
