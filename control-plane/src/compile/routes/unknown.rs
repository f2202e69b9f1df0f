//! What matches of a `VirtualService` ask for that is not there: ports of its hosts, and gateways.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use selvedge_model::Protocol;

use super::{
    super::{Problems, hosts::resolve, services::Below, some_of},
    Routing, VirtualService, may_be_opaque,
};
use crate::resources::{
    Resources,
    virtual_service::{FollowedBy, Follower, GatewayRef, PortMatch},
};

/// The ports of every Istio `Gateway`'s servers, by its namespace and name.
#[derive(Debug)]
pub(super) struct GatewayPorts<'a>(BTreeMap<(&'a str, &'a str), BTreeSet<u16>>);

/// A match, wherever it stands in a document.
struct Asked<'d> {
    /// Where it stands, such as `spec.http[0].match[0]`.
    field: String,
    port: Option<u16>,
    followed_by: Option<&'d FollowedBy>,
    /// Whether it asks for requests, or else for opaque connections.
    is_http: bool,
}

impl<'a> GatewayPorts<'a> {
    pub(super) fn new(resources: &'a Resources) -> Self {
        let ports = resources.istio_gateways.iter().map(|gateway| {
            let ports = gateway.spec.servers.iter().map(|server| server.port).collect();
            ((&*gateway.name.namespace, &*gateway.name.name), ports)
        });
        Self(ports.collect())
    }

    fn of<'s>(&'s self, gateway: &'s GatewayRef) -> Option<&'s BTreeSet<u16>> {
        self.0.get(&(&*gateway.namespace, &*gateway.name))
    }

    /// Reports the gateways that matches of `document` name and that do not follow it there.
    pub(super) fn report(&self, document: &VirtualService, problems: &mut Problems) {
        let of_document = &document.spec.followed_by;
        // Those to which others delegate are followed by whoever follows these.
        let is_delegate = document.spec.hosts.is_empty();
        for Asked { field, followed_by, .. } in matches(document) {
            let Some(named) = followed_by else { continue };
            if named.sidecars && !of_document.sidecars && !is_delegate {
                let message = "names mesh, and spec.gateways does not, so no sidecar follows this; add mesh there, or remove it";
                problems.warning(document, &format!("{field}.gateways"), message);
            }
            for gateway in &named.gateways {
                // One that the document names, too, is told there.
                if of_document.includes(Follower::Gateway(&gateway.namespace, &gateway.name)) {
                    continue;
                }
                let called = format!("{}/{}", gateway.namespace, gateway.name);
                let message = match self.of(gateway) {
                    None => format!(
                        "there is no Gateway {called} of networking.istio.io, so nobody follows this match there; add it or \
                         correct the name"
                    ),
                    Some(_) if is_delegate => continue,
                    Some(_) => format!(
                        "spec.gateways does not name {called}, so it does not follow this match; add it there, or remove it"
                    ),
                };
                problems.warning(document, &format!("{field}.gateways[{}]", gateway.index), message);
            }
        }
    }

    /// The ports at which the gateways that follow `asked` serve; `None`: one of them is unknown.
    fn of_all(&self, document: &VirtualService, asked: &Asked<'_>) -> Option<BTreeSet<u16>> {
        let mut ports = BTreeSet::new();
        for gateway in &document.spec.followed_by.gateways {
            let follower = Follower::Gateway(&gateway.namespace, &gateway.name);
            if asked.followed_by.is_none_or(|followed_by| followed_by.includes(follower)) {
                ports.extend(self.of(gateway)?);
            }
        }
        Some(ports)
    }
}

impl Routing<'_> {
    /// Reports the ports for which matches of `document` ask, where none of its hosts, and none of the gateways that follow it, has
    /// them, or speaks there what is asked for.
    pub(super) fn report_ports(
        &self,
        document: &VirtualService,
        gateways: &GatewayPorts<'_>,
        problems: &mut Problems,
    ) {
        let mut hosts: Option<Vec<(String, Rc<Below>)>> = None;
        for asked in matches(document) {
            let Some(port) = asked.port else { continue };
            let Some(of_gateways) = gateways.of_all(document, &asked) else { continue };
            if of_gateways.contains(&port) {
                continue;
            }
            let by_sidecars = document.spec.followed_by.sidecars
                && asked.followed_by.is_none_or(|followed_by| followed_by.sidecars);
            let why = match by_sidecars {
                true => {
                    let hosts = hosts.get_or_insert_with(|| self.hosts_of(document));
                    lacking(hosts, port, asked.is_http)
                }
                false => some_of(&of_gateways).map(|ports| {
                    format!("no gateway that follows this match has a server at port {port}, so it never holds; use one of {ports}")
                }),
            };
            if let Some(why) = why {
                problems.warning(document, &format!("{}.port", asked.field), why);
            }
        }
    }

    /// The hosts of `document`, each with what is below it.
    fn hosts_of(&self, document: &VirtualService) -> Vec<(String, Rc<Below>)> {
        let hosts = document.spec.hosts.iter();
        let hosts = hosts.map(|host| resolve(host, &document.name.namespace, &self.settings.cluster_domain));
        hosts.map(|host| (host.clone(), self.catalog.below(&host))).collect()
    }
}

/// Why a match for `port` of `hosts` never holds, if that is so, and what to do.
fn lacking(hosts: &[(String, Rc<Below>)], port: u16, is_http: bool) -> Option<String> {
    // Of a host that is not known it is told that it is not.
    let (first, below) = hosts.iter().find(|(_, below)| !below.is_empty())?;
    let may_be_asked =
        |spoken: Protocol| if is_http { spoken != Protocol::Tcp } else { may_be_opaque(spoken) };
    let lacks = |(_, below): &(String, Rc<Below>)| below.lacks(port);
    let speaks_other = |(_, below): &(String, Rc<Below>)| below.speaks_none_at(port, may_be_asked);
    if hosts.iter().all(lacks) {
        return Some(format!(
            "{first} has no port {port}, so this match never holds; {}",
            below.port_remedy()
        ));
    }
    let (speaks, remedy) = match is_http {
        true => ("does not speak HTTP", "name the port http, or write a tcp route"),
        false => ("speaks HTTP", "name the port tcp, or write an http route"),
    };
    let message = || format!("{first} {speaks} at port {port}, so this match never holds; {remedy}");
    hosts.iter().all(|host| lacks(host) || speaks_other(host)).then(message)
}

/// Every match of `document`.
fn matches(document: &VirtualService) -> impl Iterator<Item = Asked<'_>> {
    fn asked<'d, C>(field: &str, one: &'d PortMatch<C>, is_http: bool) -> Asked<'d> {
        let field = format!("{field}.match[{}]", one.index);
        Asked { field, port: one.port, followed_by: one.followed_by.as_ref(), is_http }
    }
    let of_requests = document.spec.http.iter().flat_map(|route| {
        let list = route.matches.iter().flatten();
        list.map(move |one| asked(&format!("spec.http[{}]", route.index), one, true))
    });
    let of_connections = document.spec.tcp.iter().flat_map(|route| {
        let list = route.matches.iter().flatten();
        list.map(move |one| asked(&route.field(), one, false))
    });
    of_requests.chain(of_connections)
}
