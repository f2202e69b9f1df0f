//! Which hosts a `VirtualService` has in common with a server of a `Gateway`.

use std::collections::{BTreeSet, HashSet};

use selvedge_model::gateway::Hostname;

use super::{
    super::super::{Problems, routes::Routing},
    Gateway, Server, VirtualService,
};

/// A host that a `VirtualService` serves at a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Served {
    /// Its place in the `VirtualService`.
    pub(super) index: usize,
    /// The names that both have.
    pub(super) hostname: Hostname,
}

/// The hosts of `document` that a server is for, each once.
pub(super) fn served(document: &VirtualService, server: Server<'_>, routing: &Routing<'_>) -> Vec<Served> {
    served_where(document, server, |_| true, routing)
}

/// The hosts of `document` that the entries `only` of a server's hosts are for.
pub(super) fn served_at(
    document: &VirtualService,
    server: Server<'_>,
    only: &Hostname,
    routing: &Routing<'_>,
) -> Vec<Served> {
    served_where(document, server, |hostname| hostname == only, routing)
}

fn served_where(
    document: &VirtualService,
    (gateway, server): Server<'_>,
    counts: impl Fn(&Hostname) -> bool,
    routing: &Routing<'_>,
) -> Vec<Served> {
    let own = &*document.name.namespace;
    let mut found: Vec<Served> = Vec::new();
    let mut names: HashSet<Hostname> = HashSet::new();
    for (index, host) in document.spec.hosts.iter().enumerate() {
        let Ok(written) = routing.full_name(host, own).parse::<Hostname>() else { continue };
        for host in server.hosts.iter().filter(|host| counts(&host.hostname)) {
            if !host.is_for(own, &gateway.name.namespace) {
                continue;
            }
            let both = written.intersection(&host.hostname);
            let both = both.filter(|both| names.insert(both.clone()));
            found.extend(both.map(|hostname| Served { index, hostname }));
        }
    }
    found
}

/// Reports the hosts of `document` that no server of `gateway` is for. Returns at how many host names of its servers it is served.
pub(super) fn report(
    document: &VirtualService,
    gateway: &Gateway,
    routing: &Routing<'_>,
    problems: &mut Problems,
) -> usize {
    let servers = &gateway.spec.servers;
    let found: Vec<Served> =
        servers.iter().flat_map(|server| served(document, (gateway, server), routing)).collect();
    let known: BTreeSet<usize> = found.iter().map(|one| one.index).collect();
    for (index, host) in document.spec.hosts.iter().enumerate().filter(|(index, _)| !known.contains(index)) {
        // Another host has the same names in common with it.
        let own = &*document.name.namespace;
        let Ok(written) = routing.full_name(host, own).parse::<Hostname>() else {
            let message =
                "is an address, which no listener is for; write a name, or * for requests to addresses";
            problems.warning(document, &format!("spec.hosts[{index}]"), message);
            continue;
        };
        let hosts = servers.iter().flat_map(|server| &server.hosts);
        let (for_us, for_others): (Vec<_>, Vec<_>) =
            hosts.partition(|host| host.is_for(own, &gateway.name.namespace));
        if for_us.iter().any(|host| host.hostname.intersection(&written).is_some()) {
            continue;
        }
        let is_others = for_others.iter().any(|host| host.hostname.intersection(&written).is_some());
        let why = if is_others { format!("for the namespace {own}") } else { format!("for {host}") };
        let message = format!(
            "no server of {} ({}) is {why}, so requests to it are answered 404 there; add the host to a server, or correct it",
            gateway.name, gateway.location
        );
        problems.warning(document, &format!("spec.hosts[{index}]"), message);
    }
    found.len()
}
